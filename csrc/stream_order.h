// A keyed bijection on [0, size): the order of samples, without a table.
//
// A Feistel network of six rounds permutes the smallest even power of two that holds the range; numbers that leave the
// range are permuted again until they are back (cycle walking, fewer than four turns on average).
#pragma once

#include <cstdint>
#include <stdexcept>

class StreamOrder {
 public:
  // Keys are mixed first, so that neighbouring ones share no round.
  StreamOrder(uint64_t size, uint64_t key) : size_(size), key_(mix(key)) {
    if (size == 0) throw std::invalid_argument("an order needs at least one sample");
    while (half_bits_ < 32 && (uint64_t{1} << (2 * half_bits_)) < size) ++half_bits_;
    mask_ = (uint64_t{1} << half_bits_) - 1;
  }

  uint64_t size() const { return size_; }

  // The sample at `position`, which must be below `size()`.
  uint64_t at(uint64_t position) const {
    do {
      position = permute(position);
    } while (position >= size_);
    return position;
  }

  // The finaliser of SplitMix64 (Steele, Lea, Flood 2014).
  static uint64_t mix(uint64_t x) {
    x += 0x9e3779b97f4a7c15;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
    return x ^ (x >> 31);
  }

 private:
  uint64_t permute(uint64_t value) const {
    uint64_t left = value >> half_bits_, right = value & mask_;
    for (uint64_t round = 0; round < 6; ++round) {
      const uint64_t next = left ^ (mix(right ^ mix(key_ + round)) & mask_);
      left = right;
      right = next;
    }
    return (left << half_bits_) | right;
  }

  uint64_t size_;
  uint64_t key_;
  int half_bits_ = 1;
  uint64_t mask_ = 0;
};
