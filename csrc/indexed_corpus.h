// Megatron's .bin/.idx corpus, read as one stream of tokens.
//
// .idx, little endian: "MMIDIDX\0\0", uint64 version = 1, uint8 dtype code, uint64 sequences, uint64 document marks,
// int32 length[sequences], int64 byte offset[sequences], int64 document mark[document marks], optionally
// int8 mode[sequences]. .bin: the tokens, nothing else.
//
// Opening takes constant time: sizes, the ends of the tables and the last sequence are checked against the files.
// What lies between is checked where it is used; a window never touches the index, so no index can make it read
// outside the file.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "mapped_file.h"

class IndexedCorpus {
 public:
  // `prefix` without .bin and .idx. Throws MissingFile, or std::invalid_argument with one sentence on what is wrong.
  explicit IndexedCorpus(const std::string& prefix);

  uint64_t num_tokens() const { return num_tokens_; }
  uint64_t num_documents() const { return num_documents_; }
  int dtype_code() const { return dtype_code_; }
  const uint8_t* tokens() const { return bin_.data(); }
  uint64_t item_size() const { return item_size_; }

  // Position of the first token of a document in the stream; of document `num_documents()`, the end.
  uint64_t document_start(int64_t document) const;

  // Tokens [start, start + length) for each of `count` starts, as int64, row after row.
  void windows(const int64_t* starts, int64_t count, int64_t length, int64_t* out) const;

  // The largest token of the whole corpus; reads all of it.
  int64_t max_token() const;

 private:
  template <typename Token>
  void copy_windows(const int64_t* starts, int64_t count, int64_t length, int64_t* out) const;
  template <typename Token>
  int64_t largest() const;
  [[noreturn]] void damaged(const std::string& what) const;
  uint64_t read_u64(uint64_t offset) const;

  std::string prefix_;
  MappedFile idx_;
  MappedFile bin_;
  int dtype_code_ = 0;
  uint64_t item_size_ = 0;
  uint64_t num_tokens_ = 0;
  uint64_t num_sequences_ = 0;
  uint64_t num_documents_ = 0;
  uint64_t lengths_at_ = 0;
  uint64_t offsets_at_ = 0;
  uint64_t documents_at_ = 0;
};
