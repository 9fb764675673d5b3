#include "batch.h"

#include <algorithm>
#include <numeric>
#include <vector>

namespace {

uint64_t checked(int64_t position) {
  if (position < 0) throw std::out_of_range("position " + std::to_string(position) + " is below 0");
  return static_cast<uint64_t>(position);
}

void apply(const DocumentRules& rules, int64_t seq, const BatchPointers& row) {
  for (int64_t i = 0, start = 0; i < seq; ++i) {
    if (rules.reset_positions) row.position_ids[i] = i - start;
    if (row.tokens[i] == rules.eod) {
      start = i + 1;
      if (rules.mask_loss) row.loss_mask[i] = 0.0f;
    }
  }
}

}  // namespace

void assemble(const SampleSource& source, const int64_t* positions, int64_t rows, const DocumentRules& rules,
              BatchPointers out) {
  const int64_t seq = source.seq_length();
  std::vector<int32_t> sample(static_cast<uint64_t>(seq) + 1);  // stays in the first-level cache
  for (int64_t i = 0; i < rows; ++i) {
    source.read(checked(positions[i]), sample.data());
    const int64_t at = i * seq;
    const BatchPointers row{out.tokens + at, out.labels + at, out.loss_mask + at, out.position_ids + at};
    std::copy_n(sample.data(), seq, row.tokens);
    std::copy_n(sample.data() + 1, seq, row.labels);
    std::fill_n(row.loss_mask, seq, 1.0f);
    std::iota(row.position_ids, row.position_ids + seq, int64_t{0});
    if (rules.reset_positions || rules.mask_loss) apply(rules, seq, row);
  }
}

template <typename Packed>
void pack(const SampleSource& source, const int64_t* positions, int64_t rows, Packed* block) {
  const int64_t length = source.seq_length() + 1;
  std::vector<int32_t> sample(static_cast<uint64_t>(length));
  for (int64_t i = 0; i < rows; ++i) {
    source.read(checked(positions[i]), sample.data());
    std::copy_n(sample.data(), length, block + i * length);
  }
}

template void pack<uint16_t>(const SampleSource&, const int64_t*, int64_t, uint16_t*);
template void pack<int32_t>(const SampleSource&, const int64_t*, int64_t, int32_t*);
