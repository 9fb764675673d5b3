#include "indexed_corpus.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <type_traits>

namespace {

constexpr char kMagic[9] = {'M', 'M', 'I', 'D', 'I', 'D', 'X', '\0', '\0'};
constexpr uint64_t kHeader = 9 + 8 + 1 + 8 + 8;

uint64_t size_of(int dtype_code) {
  switch (dtype_code) {
    case 1:  // uint8
    case 2:  // int8
      return 1;
    case 3:  // int16
    case 8:  // uint16
      return 2;
    case 4:  // int32
      return 4;
    case 5:  // int64
      return 8;
    default:
      return 0;
  }
}

template <typename T>
T load(const uint8_t* at) {
  T value;
  std::memcpy(&value, at, sizeof value);  // the tables are not aligned
  return value;
}

}  // namespace

IndexedCorpus::IndexedCorpus(const std::string& prefix)
    : prefix_(prefix), idx_(prefix + ".idx"), bin_(prefix + ".bin") {
  if (idx_.size() < kHeader) damaged("it is shorter than its header");
  if (std::memcmp(idx_.data(), kMagic, sizeof kMagic) != 0) damaged("it does not start as a Megatron index does");
  if (read_u64(9) != 1) damaged("it has version " + std::to_string(read_u64(9)) + ", only 1 is known");
  dtype_code_ = idx_.data()[17];
  item_size_ = size_of(dtype_code_);
  if (item_size_ == 0) damaged("its dtype code " + std::to_string(dtype_code_) + " is no kind of whole number");
  num_sequences_ = read_u64(18);
  const uint64_t marks = read_u64(26);
  // Bounded by the file's size before they are multiplied, so nothing overflows.
  if (num_sequences_ > idx_.size() / 12 || marks > idx_.size() / 8) damaged("it counts more sequences than it holds");
  lengths_at_ = kHeader;
  offsets_at_ = lengths_at_ + 4 * num_sequences_;
  documents_at_ = offsets_at_ + 8 * num_sequences_;
  const uint64_t end = documents_at_ + 8 * marks;
  if (idx_.size() != end && idx_.size() != end + num_sequences_) {
    damaged("it should have " + std::to_string(end) + " bytes, it has " + std::to_string(idx_.size()));
  }
  if (marks == 0) damaged("it marks no document");
  // What is read here and for the borders of the parts lies where the tables meet: asked for at once, since a disk that
  // is slow to answer answers several together.
  for (const uint64_t offset : {offsets_at_ - 4, offsets_at_, documents_at_ - 8, documents_at_, end - 8}) {
    idx_.prefetch(offset);
  }
  num_documents_ = marks - 1;
  uint64_t bytes = 0;
  if (num_sequences_ > 0) {
    const auto last = num_sequences_ - 1;
    const auto length = load<int32_t>(idx_.data() + lengths_at_ + 4 * last);
    const auto offset = load<int64_t>(idx_.data() + offsets_at_ + 8 * last);
    if (length < 0 || offset < 0) damaged("its last sequence has a negative length or offset");
    bytes = static_cast<uint64_t>(offset) + static_cast<uint64_t>(length) * item_size_;
  }
  if (bytes != bin_.size()) {
    throw std::invalid_argument(prefix_ + ".bin has " + std::to_string(bin_.size()) + " bytes, but " + prefix_ +
                                ".idx describes " + std::to_string(bytes) + "; one of them is cut off or from another " +
                                "corpus, make both again with tools/preprocess_data.py");
  }
  num_tokens_ = bin_.size() / item_size_;
  // A sample is a page or two; without this the system reads 32 around it, which is what a cold corpus then waits for.
  bin_.expect(MappedFile::Access::kRandom);
}

uint64_t IndexedCorpus::document_start(int64_t document) const {
  if (document < 0 || static_cast<uint64_t>(document) > num_documents_) {
    throw std::out_of_range("there is no document " + std::to_string(document) + ", only " +
                            std::to_string(num_documents_) + " of them");
  }
  const auto sequence = load<int64_t>(idx_.data() + documents_at_ + 8 * static_cast<uint64_t>(document));
  if (sequence < 0 || static_cast<uint64_t>(sequence) > num_sequences_) damaged("a document lies outside it");
  return sequence_start(sequence);
}

uint64_t IndexedCorpus::sequence_length(uint64_t sequence) const {
  const auto length = load<int32_t>(idx_.data() + lengths_at_ + 4 * sequence);
  if (length < 0) damaged("sequence " + std::to_string(sequence) + " has a negative length");
  return static_cast<uint64_t>(length);
}

uint64_t IndexedCorpus::sequence_start(int64_t sequence) const {
  if (sequence < 0 || static_cast<uint64_t>(sequence) > num_sequences_) {
    throw std::out_of_range("there is no sequence " + std::to_string(sequence) + ", only " +
                            std::to_string(num_sequences_) + " of them");
  }
  if (static_cast<uint64_t>(sequence) == num_sequences_) return num_tokens_;
  const auto offset = load<int64_t>(idx_.data() + offsets_at_ + 8 * static_cast<uint64_t>(sequence));
  if (offset < 0 || static_cast<uint64_t>(offset) > bin_.size() || static_cast<uint64_t>(offset) % item_size_ != 0) {
    damaged("sequence " + std::to_string(sequence) + " lies outside " + prefix_ + ".bin");
  }
  return static_cast<uint64_t>(offset) / item_size_;
}

uint64_t IndexedCorpus::tokens_of_sequences(uint64_t first, uint64_t end) const {
  if (first > end || end > num_sequences_) {
    throw std::out_of_range("the sequences " + std::to_string(first) + " to " + std::to_string(end) +
                            " are not all inside the corpus of " + std::to_string(num_sequences_));
  }
  uint64_t tokens = 0;
  for (uint64_t i = first; i < end; ++i) tokens += sequence_length(i);
  // The sum is there at no cost; that each length is the distance of two offsets would double what is read.
  const uint64_t between = first == end ? 0 : sequence_start(static_cast<int64_t>(end)) -
                                                  sequence_start(static_cast<int64_t>(first));
  if (tokens != between) {
    damaged("the lengths of its sequences " + std::to_string(first) + " to " + std::to_string(end) + " add up to " +
            std::to_string(tokens) + " tokens, their offsets to " + std::to_string(between));
  }
  return tokens;
}

template <typename Visitor>
auto IndexedCorpus::with_tokens(Visitor visit) const {
  switch (dtype_code_) {
    case 1: return visit(bin_.data());
    case 2: return visit(reinterpret_cast<const int8_t*>(bin_.data()));
    case 3: return visit(reinterpret_cast<const int16_t*>(bin_.data()));
    case 4: return visit(reinterpret_cast<const int32_t*>(bin_.data()));
    case 5: return visit(reinterpret_cast<const int64_t*>(bin_.data()));
    default: return visit(reinterpret_cast<const uint16_t*>(bin_.data()));
  }
}

void IndexedCorpus::check_inside(int64_t start, int64_t length) const {
  if (start < 0 || length < 0 || static_cast<uint64_t>(length) > num_tokens_ ||
      static_cast<uint64_t>(start) > num_tokens_ - static_cast<uint64_t>(length)) {
    throw std::out_of_range("the " + std::to_string(length) + " tokens from " + std::to_string(start) +
                            " on are not all inside the corpus of " + std::to_string(num_tokens_));
  }
}

void IndexedCorpus::read(uint64_t start, uint64_t length, int64_t vocab_size, int32_t* out) const {
  if (start > num_tokens_ || length > num_tokens_ - start) damaged("a sequence reaches beyond " + prefix_ + ".bin");
  with_tokens([&](const auto* tokens) {
    tokens += start;
    using Token = std::remove_const_t<std::remove_pointer_t<decltype(tokens)>>;
    // Wide enough that negative tokens become larger than any vocabulary; the loop has no branch, so it is vectorised.
    using Wide = std::conditional_t<std::is_unsigned_v<Token>, Token,
                                    std::conditional_t<sizeof(Token) == 8, uint64_t, uint32_t>>;
    Wide largest = 0;
    for (uint64_t i = 0; i < length; ++i) {
      largest = std::max(largest, static_cast<Wide>(tokens[i]));
      out[i] = static_cast<int32_t>(tokens[i]);
    }
    if (static_cast<uint64_t>(largest) < static_cast<uint64_t>(vocab_size)) return;
    const auto* bad = std::find_if(tokens, tokens + length, [&](Token token) {
      return static_cast<Wide>(token) == largest;
    });
    throw std::invalid_argument(prefix_ + " has token " + std::to_string(*bad) + ", but the model knows only " +
                                std::to_string(vocab_size) + " tokens; give the tokenizer it was made with");
  });
}

void IndexedCorpus::windows(const int64_t* starts, int64_t count, int64_t length, int64_t* out) const {
  for (int64_t row = 0; row < count; ++row) check_inside(starts[row], length);
  with_tokens([&](const auto* tokens) {
    for (int64_t row = 0; row < count; ++row) std::copy_n(tokens + starts[row], length, out + row * length);
  });
}

int64_t IndexedCorpus::max_token() const {
  if (num_tokens_ == 0) return -1;
  bin_.expect(MappedFile::Access::kSequential);
  const auto largest = with_tokens([&](const auto* tokens) {
    return static_cast<int64_t>(*std::max_element(tokens, tokens + num_tokens_));
  });
  bin_.expect(MappedFile::Access::kRandom);
  return largest;
}

void IndexedCorpus::damaged(const std::string& what) const {
  throw std::invalid_argument(prefix_ + ".idx is damaged: " + what + "; make it again with tools/preprocess_data.py");
}

uint64_t IndexedCorpus::read_u64(uint64_t offset) const { return load<uint64_t>(idx_.data() + offset); }
