#include "document_source.h"

#include <algorithm>
#include <limits>
#include <numeric>
#include <random>

namespace {

// RandomState.shuffle: Fisher-Yates from the end; a number up to i is the first of the generator's that is at most i
// after all bits above i's highest are cleared.
template <typename Iterator>
void numpy_shuffle(Iterator begin, Iterator end, std::mt19937& random) {
  for (auto i = static_cast<uint32_t>(std::max<std::ptrdiff_t>(end - begin, 1) - 1); i > 0; --i) {
    uint32_t mask = i;
    for (int shift = 1; shift < 32; shift *= 2) mask |= mask >> shift;
    uint32_t j;
    do {
      j = static_cast<uint32_t>(random()) & mask;
    } while (j > i);
    std::swap(begin[i], begin[j]);
  }
}

}  // namespace

DocumentSource::DocumentSource(std::shared_ptr<const IndexedCorpus> corpus, uint64_t first, uint64_t end,
                               int64_t seq_length, int64_t vocab_size, uint64_t num_samples, uint32_t seed)
    : SampleSource(seq_length), corpus_(std::move(corpus)), vocab_size_(vocab_size) {
  order_documents(first, end, num_samples, seed);
  count_tokens();
}

void DocumentSource::order_documents(uint64_t first, uint64_t end, uint64_t num_samples, uint32_t seed) {
  constexpr uint64_t kMost = std::numeric_limits<uint32_t>::max();
  const auto length = static_cast<uint64_t>(seq_length());
  const uint64_t epoch_tokens = corpus_->tokens_of_sequences(first, end);
  const uint64_t epoch_samples = epoch_tokens == 0 ? 0 : (epoch_tokens - 1) / length;
  if (epoch_samples == 0) throw std::invalid_argument("the documents need the tokens of at least one sample");
  if (num_samples > kMost) throw std::invalid_argument("the order of megatron-core ends at 2^32 samples");
  const uint64_t needed = num_samples * length + 1;
  const uint64_t epochs = std::max<uint64_t>(1, (needed + epoch_tokens - 1) / epoch_tokens);
  const uint64_t total = (epochs * epoch_tokens - 1) / length;
  if (total > kMost || (end - first) > kMost / epochs) {
    throw std::invalid_argument("the order of megatron-core ends at 2^32 samples and documents");
  }
  // A last epoch that is needed for less than 80 % is shuffled on its own, so that the epochs before it are whole.
  const uint64_t before_last = ((epochs - 1) * epoch_tokens - (epochs > 1)) / length;
  const bool separate = epochs > 1 && static_cast<int64_t>(num_samples - before_last) <
                                          static_cast<int64_t>(0.80 * static_cast<double>(epoch_samples));

  documents_.resize(epochs * (end - first));
  for (uint64_t i = 0; i < documents_.size(); ++i) documents_[i] = static_cast<uint32_t>(first + i % (end - first));
  sample_order_.resize(total);
  std::iota(sample_order_.begin(), sample_order_.end(), 0);
  std::mt19937 random(seed);
  const auto last_documents = separate ? documents_.end() - static_cast<std::ptrdiff_t>(end - first) : documents_.end();
  const auto last_samples =
      separate ? sample_order_.begin() + static_cast<std::ptrdiff_t>(before_last) : sample_order_.end();
  numpy_shuffle(documents_.begin(), last_documents, random);
  numpy_shuffle(last_documents, documents_.end(), random);
  numpy_shuffle(sample_order_.begin(), last_samples, random);
  numpy_shuffle(last_samples, sample_order_.end(), random);
}

void DocumentSource::count_tokens() {
  tokens_before_.reserve(documents_.size() / kStride + 1);
  uint64_t tokens = 0;
  for (uint64_t i = 0; i < documents_.size(); ++i) {
    if (i % kStride == 0) tokens_before_.push_back(tokens);
    tokens += corpus_->sequence_length(documents_[i]);
  }
}

void DocumentSource::read(uint64_t position, int32_t* out) const {
  if (position >= sample_order_.size()) {
    throw std::out_of_range("position " + std::to_string(position) + " is not below the " +
                            std::to_string(sample_order_.size()) + " samples of the run");
  }
  const uint64_t start = sample_order_[position] * static_cast<uint64_t>(seq_length());
  const auto mark = std::upper_bound(tokens_before_.begin(), tokens_before_.end(), start) - 1;
  uint64_t document = static_cast<uint64_t>(mark - tokens_before_.begin()) * kStride;
  uint64_t skip = start - *mark;
  for (auto left = static_cast<uint64_t>(seq_length()) + 1; left > 0; ++document) {
    if (document == documents_.size()) throw std::invalid_argument("the corpus was changed while it was read");
    const uint64_t length = corpus_->sequence_length(documents_[document]);
    if (skip < length) {
      const uint64_t count = std::min(length - skip, left);
      corpus_->read(corpus_->sequence_start(documents_[document]) + skip, count, vocab_size_, out);
      out += count;
      left -= count;
    }
    skip -= std::min(skip, length);
  }
}
