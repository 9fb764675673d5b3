// Windows of a span of a corpus: window i reads tokens i T to (i + 1) T of the span, T = seq_length. Each epoch visits
// each window once, in an order of its own that a keyed bijection gives: no table, whatever the size of the corpus.
#pragma once

#include "indexed_corpus.h"
#include "sample_source.h"
#include "stream_order.h"

class StreamSource : public SampleSource {
 public:
  // `num_tokens` from token `first` on. `vocab_size`: tokens are below it. Without `shuffle` windows come in the order
  // of the text. With `random_offset` a window starts up to T - 1 tokens later, by a number drawn anew for each
  // position, and there is one window less (Timiryasov and Tastet 2023, arXiv:2308.02019).
  StreamSource(std::shared_ptr<const IndexedCorpus> corpus, uint64_t first, uint64_t num_tokens, int64_t seq_length,
               int64_t vocab_size, uint64_t seed, bool shuffle, bool random_offset)
      : SampleSource(seq_length),
        corpus_(std::move(corpus)),
        first_(first),
        vocab_size_(vocab_size),
        // An odd multiplier (2^64 over the golden ratio) keeps the epochs of neighbouring seeds apart.
        key_(seed * 0x9e3779b97f4a7c15),
        shuffle_(shuffle),
        random_offset_(random_offset) {
    const uint64_t spare = random_offset ? static_cast<uint64_t>(seq_length) : 1;
    num_samples_ = num_tokens < spare ? 0 : (num_tokens - spare) / static_cast<uint64_t>(seq_length);
    if (num_samples_ == 0) throw std::invalid_argument("a span needs the tokens of at least one sample");
    if (first > corpus_->num_tokens() || num_tokens > corpus_->num_tokens() - first) {
      throw std::invalid_argument("the span lies outside of the corpus");
    }
  }

  uint64_t num_samples() const override { return num_samples_; }

  // The window that stands at `position`.
  uint64_t number(uint64_t position) const {
    const uint64_t epoch = position / num_samples_, within = position % num_samples_;
    return shuffle_ ? StreamOrder(num_samples_, key_ + epoch).at(within) : within;
  }

  void read(uint64_t position, int32_t* out) const override {
    const auto length = static_cast<uint64_t>(seq_length());
    const uint64_t offset = random_offset_ ? StreamOrder::mix(~key_ ^ StreamOrder::mix(position)) % length : 0;
    corpus_->read(first_ + number(position) * length + offset, length + 1, vocab_size_, out);
  }

 private:
  std::shared_ptr<const IndexedCorpus> corpus_;
  uint64_t first_;
  uint64_t num_samples_;
  int64_t vocab_size_;
  uint64_t key_;
  bool shuffle_;
  bool random_offset_;
};
