// Numbered samples of seq_length + 1 tokens, each a pure function of its position.
//
// A position counts the samples of a run. Whoever knows a source's arguments and a position knows the sample, so a
// checkpoint stores one integer and every rank finds its own samples.
#pragma once

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>

class SampleSource {
 public:
  explicit SampleSource(int64_t seq_length) : seq_length_(seq_length) {
    if (seq_length < 1) throw std::invalid_argument("a sample needs at least one token and its label");
  }
  virtual ~SampleSource() = default;

  int64_t seq_length() const { return seq_length_; }

  // Samples of one pass; what lies beyond is another pass, or std::out_of_range where there is none.
  virtual uint64_t num_samples() const = 0;

  // The seq_length + 1 tokens at `position`. Throws std::invalid_argument for tokens that the vocabulary does not have
  // and for an index that lies.
  virtual void read(uint64_t position, int32_t* out) const = 0;

 private:
  int64_t seq_length_;
};

using SampleSourcePtr = std::shared_ptr<const SampleSource>;
