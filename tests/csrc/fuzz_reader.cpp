// Damages corpora at random and reads them; built with AddressSanitizer and UBSan by test_fuzz_reader.py.
//
// fuzz_reader FOLDER ROUNDS SEED: writes FOLDER/text.bin and .idx. Everything but the readers' own exceptions is a fault.
#include <cstdio>
#include <cstring>
#include <fstream>
#include <functional>
#include <iostream>
#include <random>
#include <vector>

#include "batch.h"
#include "blend.h"
#include "document_source.h"
#include "indexed_corpus.h"
#include "stream_source.h"

namespace {

using Bytes = std::vector<uint8_t>;
constexpr uint64_t kSequences = 9;
constexpr int64_t kVocabulary = 40'000;

template <typename T>
void append(Bytes& bytes, T value) {
  const auto* raw = reinterpret_cast<const uint8_t*>(&value);
  bytes.insert(bytes.end(), raw, raw + sizeof value);
}

// A sound index of kSequences sequences of 3, 4, 5 ... tokens, one each document.
Bytes sound_index(uint8_t dtype_code, uint64_t item_size) {
  Bytes bytes{'M', 'M', 'I', 'D', 'I', 'D', 'X', 0, 0};
  append<uint64_t>(bytes, 1);
  bytes.push_back(dtype_code);
  append<uint64_t>(bytes, kSequences);
  append<uint64_t>(bytes, kSequences + 1);
  for (uint64_t i = 0; i < kSequences; ++i) append<int32_t>(bytes, static_cast<int32_t>(3 + i));
  uint64_t offset = 0;
  for (uint64_t i = 0; i < kSequences; offset += (3 + i) * item_size, ++i) append<uint64_t>(bytes, offset);
  for (uint64_t i = 0; i <= kSequences; ++i) append<uint64_t>(bytes, i);
  return bytes;
}

void damage(Bytes& bytes, std::mt19937_64& random) {
  constexpr uint64_t kWords[] = {0, 1, 2, 0x7fffffff, 0x80000000, 0xffffffff, 1ull << 32, 1ull << 61, ~0ull >> 1,
                                 1ull << 63, ~0ull};
  for (uint64_t i = 1 + random() % 4; i > 0 && bytes.size() > 8; --i) {
    const uint64_t at = random() % bytes.size();
    switch (random() % 4) {
      case 0: bytes[at] = static_cast<uint8_t>(random()); break;
      case 1: bytes[at] ^= static_cast<uint8_t>(1u << random() % 8); break;
      case 2: std::memcpy(&bytes[at % (bytes.size() - 7)], &kWords[random() % std::size(kWords)], 8); break;
      default:
        if (random() % 16 == 0) bytes.resize(random() % (bytes.size() + 16));
    }
  }
}

void write(const std::string& path, const Bytes& bytes) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
}

// Whether `use` ended without one of the exceptions that say what is wrong with a corpus.
bool survives(const std::function<void()>& use) {
  try {
    use();
    return true;
  } catch (const std::invalid_argument&) {
  } catch (const std::out_of_range&) {
  } catch (const MissingFile&) {
  }
  return false;
}

void read_all(const SampleSource& source) {
  const int64_t seq = source.seq_length();
  std::vector<int64_t> tokens(seq), labels(seq), positions(seq);
  std::vector<float> mask(seq);
  std::vector<uint16_t> block(seq + 1);
  for (int64_t i = 0; i < 70; ++i) {
    const int64_t position = i < 64 ? i : int64_t{1} << (i - 12);
    survives([&] {
      assemble(source, &position, 1, {7, true, true}, {tokens.data(), labels.data(), mask.data(), positions.data()});
    });
    survives([&] { pack(source, &position, 1, block.data()); });
  }
}

void use(const std::string& prefix, std::mt19937_64& random) {
  const auto corpus = std::make_shared<const IndexedCorpus>(prefix);
  corpus->max_token();
  for (int64_t i = -1; i < 12; ++i) {
    survives([&] { corpus->document_start(i); });
    survives([&] { corpus->sequence_start(i); });
  }
  const uint64_t first = random() % 8, end = random() % 12;
  const auto seq = static_cast<int64_t>(1 + random() % 12);
  std::vector<SampleSourcePtr> sources;
  survives([&] {
    const uint64_t count = random() % 2 ? corpus->num_tokens() - std::min(first, corpus->num_tokens()) : random();
    sources.push_back(std::make_shared<StreamSource>(corpus, first, count, seq, kVocabulary, random(), random() % 2,
                                                     random() % 2));
  });
  survives([&] {
    sources.push_back(
        std::make_shared<DocumentSource>(corpus, first, end, seq, kVocabulary, random() % 50, random() % 100));
  });
  for (const auto& source : sources) read_all(*source);
  survives([&] { read_all(WeightedBlend(sources, std::vector<uint64_t>(sources.size(), 1 + random() % 9))); });
  survives([&] { read_all(GreedyBlend(sources, std::vector<double>(sources.size(), 0.5), random() % 40)); });
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 4) return 2;
  const std::string prefix = std::string(arguments[1]) + "/text";
  std::mt19937_64 random(std::stoull(arguments[3]));
  int opened = 0;
  const std::pair<uint8_t, uint64_t> dtypes[] = {{1, 1}, {2, 1}, {3, 2}, {4, 4}, {5, 8}, {8, 2}};
  for (int round = 0; round < std::stoi(arguments[2]); ++round) {
    const auto [code, item_size] = dtypes[random() % std::size(dtypes)];
    Bytes index = sound_index(code, item_size), tokens(item_size * 63);
    for (auto& byte : tokens) byte = static_cast<uint8_t>(random());
    if (round > 0) damage(index, random);
    if (random() % 16 == 0) tokens.resize(random() % (tokens.size() + 8));
    write(prefix + ".idx", index);
    write(prefix + ".bin", tokens);
    opened += survives([&] { use(prefix, random); });
  }
  std::cout << opened << " opened\n";
}
