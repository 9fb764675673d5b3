#include "blend.h"

#include <algorithm>
#include <limits>

// (j + 1/2) / weight is compared by cross-multiplying, which needs more than 64 bits.
using Wide = unsigned __int128;

Blend::Blend(std::vector<SampleSourcePtr> sources)
    : SampleSource(sources.empty() ? 0 : sources.front()->seq_length()), sources_(std::move(sources)) {
  for (const auto& source : sources_) {
    if (source->seq_length() != seq_length()) throw std::invalid_argument("the sources differ in sequence length");
  }
}

uint64_t Blend::num_samples() const {
  uint64_t sum = 0;
  for (const auto& source : sources_) sum += source->num_samples();
  return sum;
}

void Blend::read(uint64_t position, int32_t* out) const {
  const Pick picked = pick(position);
  sources_[picked.source]->read(picked.position, out);
}

WeightedBlend::WeightedBlend(std::vector<SampleSourcePtr> sources, std::vector<uint64_t> weights)
    : Blend(std::move(sources)), weights_(std::move(weights)) {
  if (weights_.size() != sources_.size()) throw std::invalid_argument("a blend needs one weight for each source");
  for (const uint64_t weight : weights_) {
    if (weight == 0) throw std::invalid_argument("a weight must be above 0");
    if (weight >= (uint64_t{1} << 62) - sum_) throw std::invalid_argument("the weights sum to 2^62 or more");
    sum_ += weight;
  }
}

bool WeightedBlend::before(uint64_t a, uint64_t i, uint64_t b, uint64_t j) const {
  const Wide left = Wide{2 * i + 1} * weights_[b], right = Wide{2 * j + 1} * weights_[a];
  return left < right || (left == right && a < b);
}

Pick WeightedBlend::pick(uint64_t position) const {
  // Around position / sum(weights) each source has given its share, rounded. All together that is at most half the
  // number of sources away from `position`; the difference is made up for one sample at a time.
  const uint64_t count = weights_.size();
  std::vector<uint64_t> given(count);
  uint64_t total = 0;
  for (uint64_t c = 0; c < count; ++c) {
    given[c] = static_cast<uint64_t>((2 * Wide{position} * weights_[c] + sum_) / (2 * Wide{sum_}));
    total += given[c];
  }
  for (; total > position; --total) {
    uint64_t last = count;
    for (uint64_t c = 0; c < count; ++c) {
      if (given[c] > 0 && (last == count || before(last, given[last] - 1, c, given[c] - 1))) last = c;
    }
    --given[last];
  }
  for (;; ++total) {
    uint64_t next = 0;
    for (uint64_t c = 1; c < count; ++c) {
      if (before(c, given[c], next, given[next])) next = c;
    }
    if (total == position) return {next, given[next]};
    ++given[next];
  }
}

GreedyBlend::GreedyBlend(std::vector<SampleSourcePtr> sources, const std::vector<double>& weights, uint64_t size)
    : Blend(std::move(sources)) {
  if (weights.size() != sources_.size() || weights.size() > std::numeric_limits<int16_t>::max()) {
    throw std::invalid_argument("a blend needs one weight for each source, of 32,767 at most");
  }
  source_.resize(size);
  position_.resize(size);
  std::vector<uint64_t> given(weights.size());
  for (uint64_t i = 0; i < size; ++i) {
    const double now = std::max(static_cast<double>(i), 1.0);
    uint64_t furthest = 0;
    double behind = weights[0] * now - static_cast<double>(given[0]);
    for (uint64_t c = 1; c < weights.size(); ++c) {
      const double error = weights[c] * now - static_cast<double>(given[c]);
      if (error > behind) {
        behind = error;
        furthest = c;
      }
    }
    source_[i] = static_cast<uint16_t>(furthest);
    position_[i] = given[furthest]++;
  }
  for (uint64_t c = 0; c < weights.size(); ++c) {
    if (given[c] > sources_[c]->num_samples()) {
      throw std::invalid_argument("the blend needs " + std::to_string(given[c]) + " samples of corpus " +
                                  std::to_string(c + 1) + ", which has " + std::to_string(sources_[c]->num_samples()));
    }
  }
}

Pick GreedyBlend::pick(uint64_t position) const {
  if (position >= source_.size()) {
    throw std::out_of_range("position " + std::to_string(position) + " is not below the " +
                            std::to_string(source_.size()) + " samples of the run");
  }
  return {source_[position], position_[position]};
}
