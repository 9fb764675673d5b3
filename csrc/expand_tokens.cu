// From a block of packed tokens on the device to what a language model reads: so a batch crosses PCIe as two or four
// bytes a token. Plain C interface, for ctypes; no torch headers.
//
// block [rows, seq + 1] -> tokens [rows, seq] = block[:, :-1], labels = block[:, 1:], loss mask 1, positions 0..seq-1.
#include <cstdint>
#include <cuda_runtime.h>

namespace {

template <typename Token>
__global__ void expand(const Token* __restrict__ block, int64_t rows, int64_t seq, int64_t* __restrict__ tokens,
                       int64_t* __restrict__ labels, float* __restrict__ loss_mask, int64_t* __restrict__ positions) {
  const int64_t total = rows * seq;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < total; i += stride) {
    const int64_t row = i / seq, column = i - row * seq;
    const Token* at = block + row * (seq + 1) + column;
    tokens[i] = static_cast<int64_t>(at[0]);
    labels[i] = static_cast<int64_t>(at[1]);
    loss_mask[i] = 1.0f;
    positions[i] = column;
  }
}

template <typename Token>
int launch(const void* block, int64_t rows, int64_t seq, int64_t* tokens, int64_t* labels, float* loss_mask,
           int64_t* positions, cudaStream_t stream) {
  constexpr int kThreads = 256;
  const int64_t needed = (rows * seq + kThreads - 1) / kThreads;
  if (needed == 0) return 0;
  const int grid = static_cast<int>(needed < 4096 ? needed : 4096);
  expand<Token><<<grid, kThreads, 0, stream>>>(static_cast<const Token*>(block), rows, seq, tokens, labels, loss_mask,
                                               positions);
  return static_cast<int>(cudaGetLastError());
}

}  // namespace

// `item_size` is 2 (uint16) or 4 (int32). Returns 0, or a cudaError_t; -1 for another size.
extern "C" int megatron_distill_expand_tokens(const void* block, int item_size, int64_t rows, int64_t seq,
                                              int64_t* tokens, int64_t* labels, float* loss_mask, int64_t* positions,
                                              void* stream) {
  auto on = static_cast<cudaStream_t>(stream);
  if (item_size == 2) return launch<uint16_t>(block, rows, seq, tokens, labels, loss_mask, positions, on);
  if (item_size == 4) return launch<int32_t>(block, rows, seq, tokens, labels, loss_mask, positions, on);
  return -1;
}
