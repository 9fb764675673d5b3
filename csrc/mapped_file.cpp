#include "mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <stdexcept>

MappedFile::MappedFile(const std::string& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) {
    if (errno == ENOENT) throw MissingFile{path};
    throw std::invalid_argument(path + " cannot be opened: " + std::strerror(errno));
  }
  struct stat info {};
  if (::fstat(descriptor, &info) != 0 || !S_ISREG(info.st_mode)) {
    ::close(descriptor);
    throw std::invalid_argument(path + " is not a regular file");
  }
  size_ = static_cast<uint64_t>(info.st_size);
  if (size_ > 0) {  // an empty file cannot be mapped, and need not be
    void* mapped = ::mmap(nullptr, size_, PROT_READ, MAP_SHARED, descriptor, 0);
    if (mapped == MAP_FAILED) {
      const std::string reason = std::strerror(errno);
      ::close(descriptor);
      throw std::invalid_argument(path + " cannot be mapped into memory: " + reason);
    }
    data_ = static_cast<const uint8_t*>(mapped);
  }
  ::close(descriptor);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<uint8_t*>(data_), size_);
}

void MappedFile::expect(Access access) const {
  // Only advice: a system that does not take it still reads.
  if (data_ != nullptr) {
    ::madvise(const_cast<uint8_t*>(data_), size_, access == Access::kRandom ? MADV_RANDOM : MADV_SEQUENTIAL);
  }
}

void MappedFile::prefetch(uint64_t offset) const {
  if (offset >= size_) return;
  const auto page = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  const uint64_t begin = offset / page * page;
  ::madvise(const_cast<uint8_t*>(data_) + begin, std::min(page, size_ - begin), MADV_WILLNEED);
}
