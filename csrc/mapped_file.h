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

 private:
  const uint8_t* data_ = nullptr;
  uint64_t size_ = 0;
};

struct MissingFile {
  std::string path;
};
