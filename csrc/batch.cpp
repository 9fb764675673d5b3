#include "batch.h"

#include <algorithm>
#include <numeric>
#include <vector>

namespace {

uint64_t checked(int64_t position) {
  if (position < 0) throw std::out_of_range("position " + std::to_string(position) + " is below 0");
  return static_cast<uint64_t>(position);
}

// The loop that a batch's time goes into, for wider registers where the processor has them.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
__attribute__((target_clones("avx512f", "avx2", "default")))
#endif
void widen(const int32_t* tokens, int64_t count, int64_t* out) {
  for (int64_t i = 0; i < count; ++i) out[i] = tokens[i];
}

void apply(const DocumentRules& rules, int64_t seq, const int64_t* tokens, float* loss_mask, int64_t* position_ids) {
  for (int64_t i = 0, start = 0; i < seq; ++i) {
    if (position_ids != nullptr) position_ids[i] = i - start;
    if (loss_mask != nullptr) loss_mask[i] = rules.mask_loss && tokens[i] == rules.eod ? 0.0f : 1.0f;
    if (rules.reset_positions && tokens[i] == rules.eod) start = i + 1;
  }
}

}  // namespace

void assemble(const SampleSource& source, const int64_t* positions, int64_t rows, const DocumentRules& rules,
              BatchPointers out) {
  const int64_t seq = source.seq_length();
  std::vector<int32_t> sample(static_cast<uint64_t>(seq) + 1);  // stays in the first-level cache
  for (int64_t i = 0; i < rows; ++i) {
    source.read(checked(positions[i]), sample.data());
    int64_t* const tokens = out.tokens + i * seq;
    widen(sample.data(), seq, tokens);
    widen(sample.data() + 1, seq, out.labels + i * seq);
    float* const loss_mask = out.loss_mask == nullptr ? nullptr : out.loss_mask + i * seq;
    int64_t* const position_ids = out.position_ids == nullptr ? nullptr : out.position_ids + i * seq;
    if (rules.reset_positions || rules.mask_loss) {
      apply(rules, seq, tokens, loss_mask, position_ids);
      continue;
    }
    if (loss_mask != nullptr) std::fill_n(loss_mask, seq, 1.0f);
    if (position_ids != nullptr) std::iota(position_ids, position_ids + seq, int64_t{0});
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
