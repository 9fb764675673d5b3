// A file mapped read-only into memory for as long as the object lives.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

class MappedFile {
 public:
  // Throws MissingFile if there is no such file, std::invalid_argument if it cannot be mapped.
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const uint8_t* data() const { return data_; }
  uint64_t size() const { return size_; }

  // Whether what is read next lies anywhere or one after the other; the system then reads single pages or far ahead.
  enum class Access { kRandom, kSequential };
  void expect(Access access) const;

  // Has the page around `offset` read while other work goes on; several of these wait for the disk together.
  void prefetch(uint64_t offset) const;

 private:
  const uint8_t* data_ = nullptr;
  uint64_t size_ = 0;
};

struct MissingFile {
  std::string path;
};
