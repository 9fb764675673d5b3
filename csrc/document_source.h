// The samples of megatron-core's GPTDataset, index for index: documents are shuffled and joined, the joined text is cut
// into windows, and the windows are shuffled. Its random numbers are those of numpy.random.RandomState.
//
// "Document" is megatron-core's word for what an index calls a sequence. Memory grows with the corpus: 4.5 bytes for
// each document and epoch, 4 for each sample.
#pragma once

#include <vector>

#include "indexed_corpus.h"
#include "sample_source.h"

class DocumentSource : public SampleSource {
 public:
  // Documents [first, end) of the corpus, as often as `num_samples` samples need; one pass if that is 0. `seed` is the
  // one of GPTDataset. Throws std::invalid_argument if there is not even one sample, or too much for 32 bits.
  DocumentSource(std::shared_ptr<const IndexedCorpus> corpus, uint64_t first, uint64_t end, int64_t seq_length,
                 int64_t vocab_size, uint64_t num_samples, uint32_t seed);

  uint64_t num_samples() const override { return sample_order_.size(); }
  void read(uint64_t position, int32_t* out) const override;

 private:
  static constexpr uint64_t kStride = 16;

  void order_documents(uint64_t first, uint64_t end, uint64_t num_samples, uint32_t seed);
  void count_tokens();

  std::shared_ptr<const IndexedCorpus> corpus_;
  int64_t vocab_size_;
  std::vector<uint32_t> documents_;      // of all epochs, in the order they are read in
  std::vector<uint64_t> tokens_before_;  // tokens before every kStride-th of them
  std::vector<uint32_t> sample_order_;   // the window of the joined text that stands at each position
};
