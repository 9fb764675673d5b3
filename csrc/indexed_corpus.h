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
  uint64_t num_sequences() const { return num_sequences_; }
  int dtype_code() const { return dtype_code_; }

  // Position of the first token of a document in the stream; of document `num_documents()`, the end.
  uint64_t document_start(int64_t document) const;

  // Position of the first token of a sequence in the stream; of sequence `num_sequences()`, the end.
  uint64_t sequence_start(int64_t sequence) const;

  // Tokens of a sequence, which must be below num_sequences().
  uint64_t sequence_length(uint64_t sequence) const;

  // Tokens of the sequences [first, end) together; never more than num_tokens(), so what is sized by it stays small.
  // Throws std::out_of_range if they are not all in the corpus, std::invalid_argument if lengths and offsets disagree.
  uint64_t tokens_of_sequences(uint64_t first, uint64_t end) const;

  // Tokens [start, start + length), each of which must be below `vocab_size`.
  void read(uint64_t start, uint64_t length, int64_t vocab_size, int32_t* out) const;

  // Tokens [start, start + length) for each of `count` starts, as int64, row after row.
  void windows(const int64_t* starts, int64_t count, int64_t length, int64_t* out) const;

  // The largest token of the whole corpus; reads all of it.
  int64_t max_token() const;

 private:
  // What `visit` makes of the tokens, given as a pointer to their dtype.
  template <typename Visitor>
  auto with_tokens(Visitor visit) const;
  void check_inside(int64_t start, int64_t length) const;
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
