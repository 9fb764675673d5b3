// Several sources as one: which source a position of the blend belongs to, and which of its samples stands there.
#pragma once

#include <vector>

#include "sample_source.h"

struct Pick {
  uint64_t source;
  uint64_t position;
};

class Blend : public SampleSource {
 public:
  // Samples of all sources in one pass of each.
  uint64_t num_samples() const override;
  void read(uint64_t position, int32_t* out) const final;
  virtual Pick pick(uint64_t position) const = 0;

 protected:
  // Throws std::invalid_argument without sources or if they differ in length.
  explicit Blend(std::vector<SampleSourcePtr> sources);

  std::vector<SampleSourcePtr> sources_;
};

// In proportion to whole weights, by Webster's method (Balinski and Young, Fair Representation, 1982): sample j of
// source c is due at (j + 1/2) / weight(c), and samples come in the order in which they are due, on a tie from the
// earlier source. So each source is read in its own order, after sum(weights) samples each source has given its weight
// exactly, and any position is found in O(sources), without what came before it.
class WeightedBlend : public Blend {
 public:
  // Throws std::invalid_argument for a weight of 0 or weights that sum to 2^62 or more.
  WeightedBlend(std::vector<SampleSourcePtr> sources, std::vector<uint64_t> weights);
  Pick pick(uint64_t position) const override;

 private:
  // Whether sample `i` of source `a` is due before sample `j` of source `b`.
  bool before(uint64_t a, uint64_t i, uint64_t b, uint64_t j) const;

  std::vector<uint64_t> weights_;
  uint64_t sum_ = 0;
};

// In the order of megatron-core's BlendedDataset: each sample comes from the source that is furthest behind its weight,
// in floating point. Takes 10 bytes a sample.
class GreedyBlend : public Blend {
 public:
  // `weights` sum to 1; `size` is the number of samples. Throws std::invalid_argument if a source has too few for it.
  GreedyBlend(std::vector<SampleSourcePtr> sources, const std::vector<double>& weights, uint64_t size);
  uint64_t num_samples() const override { return source_.size(); }
  Pick pick(uint64_t position) const override;

 private:
  std::vector<uint16_t> source_;
  std::vector<uint64_t> position_;
};
