// From samples to what a language model reads. Everything is row-major, one row a sample.
#pragma once

#include "sample_source.h"

// What the end of a document (token `eod`) does; megatron-core's --reset-position-ids and --eod-mask-loss.
struct DocumentRules {
  int64_t eod = -1;
  bool reset_positions = false;  // positions count from 0 again after it
  bool mask_loss = false;        // what is predicted from it does not count
};

// Where a batch goes: each [rows, seq_length]. `loss_mask` and `position_ids` may be null if no rule changes them.
struct BatchPointers {
  int64_t* tokens;
  int64_t* labels;
  float* loss_mask;
  int64_t* position_ids;
};

// Samples at `positions`, taken apart.
void assemble(const SampleSource& source, const int64_t* positions, int64_t rows, const DocumentRules& rules,
              BatchPointers out);

// Samples at `positions` as they are, [rows, seq_length + 1] of uint16_t or int32_t; the vocabulary has to fit.
template <typename Packed>
void pack(const SampleSource& source, const int64_t* positions, int64_t rows, Packed* block);
