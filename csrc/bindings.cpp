// What Python sees as megatron_distill._csrc. Arrays are NumPy's; loops over tokens run without the GIL.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <optional>

#include "batch.h"
#include "blend.h"
#include "document_source.h"
#include "indexed_corpus.h"
#include "stream_source.h"

namespace py = pybind11;
using Int64Array = py::array_t<int64_t, py::array::c_style | py::array::forcecast>;
template <typename T>
using Out = py::array_t<T, py::array::c_style>;  // written in place, so never converted

namespace {

py::array_t<int64_t> windows(const IndexedCorpus& corpus, const Int64Array& starts, int64_t length) {
  if (starts.ndim() != 1) throw std::invalid_argument("starts must be a vector");
  if (length < 0 || static_cast<uint64_t>(length) > corpus.num_tokens()) {  // before memory is asked for
    throw std::out_of_range("no " + std::to_string(length) + " tokens are inside the corpus of " +
                            std::to_string(corpus.num_tokens()));
  }
  py::array_t<int64_t> out({static_cast<py::ssize_t>(starts.size()), static_cast<py::ssize_t>(length)});
  const int64_t* from = starts.data();
  int64_t* to = out.mutable_data();
  const int64_t count = starts.size();
  py::gil_scoped_release release;
  corpus.windows(from, count, length, to);
  return out;
}

py::array_t<int64_t> permuted(const StreamOrder& order, const Int64Array& positions) {
  py::array_t<int64_t> out(positions.size());
  int64_t* to = out.mutable_data();
  for (py::ssize_t i = 0; i < positions.size(); ++i) {
    const int64_t position = positions.data()[i];
    if (position < 0 || static_cast<uint64_t>(position) >= order.size()) {
      throw std::out_of_range("position " + std::to_string(position) + " is not below " + std::to_string(order.size()));
    }
    to[i] = static_cast<int64_t>(order.at(static_cast<uint64_t>(position)));
  }
  return out;
}

py::array_t<int64_t> numbers(const StreamSource& source, const std::vector<uint64_t>& positions) {
  py::array_t<int64_t> out(static_cast<py::ssize_t>(positions.size()));
  std::transform(positions.begin(), positions.end(), out.mutable_data(),
                 [&](uint64_t position) { return static_cast<int64_t>(source.number(position)); });
  return out;
}

py::array_t<int64_t> picks(const Blend& blend, const std::vector<uint64_t>& positions) {
  py::array_t<int64_t> out({static_cast<py::ssize_t>(positions.size()), py::ssize_t{2}});
  int64_t* to = out.mutable_data();
  for (const uint64_t position : positions) {
    const Pick pick = blend.pick(position);
    *to++ = static_cast<int64_t>(pick.source);
    *to++ = static_cast<int64_t>(pick.position);
  }
  return out;
}

template <typename T>
T* checked(Out<T>& out, int64_t rows, int64_t columns) {
  if (out.ndim() != 2 || out.shape(0) != rows || out.shape(1) != columns) {
    throw std::invalid_argument("an output must be [" + std::to_string(rows) + ", " + std::to_string(columns) + "]");
  }
  return out.mutable_data();
}

void assemble_into(const SampleSource& source, const std::vector<int64_t>& positions, Out<int64_t> tokens,
                   Out<int64_t> labels, std::optional<Out<float>> loss_mask, std::optional<Out<int64_t>> position_ids,
                   int64_t eod, bool reset_position_ids, bool eod_mask_loss) {
  const auto rows = static_cast<int64_t>(positions.size());
  const int64_t seq = source.seq_length();
  const BatchPointers out{checked(tokens, rows, seq), checked(labels, rows, seq), loss_mask ? checked(*loss_mask, rows, seq) : nullptr,
                          position_ids ? checked(*position_ids, rows, seq) : nullptr};
  py::gil_scoped_release release;
  assemble(source, positions.data(), rows, {eod, reset_position_ids, eod_mask_loss}, out);
}

template <typename T>
void pack_into(const SampleSource& source, const std::vector<int64_t>& positions, Out<T> block) {
  const auto rows = static_cast<int64_t>(positions.size());
  T* out = checked(block, rows, source.seq_length() + 1);
  py::gil_scoped_release release;
  pack(source, positions.data(), rows, out);
}

void bind_sources(py::module_& module) {
  using namespace py::literals;
  using Corpus = std::shared_ptr<const IndexedCorpus>;
  py::class_<SampleSource, std::shared_ptr<SampleSource>>(module, "SampleSource")
      .def_property_readonly("num_samples", &SampleSource::num_samples)
      .def_property_readonly("seq_length", &SampleSource::seq_length)
      .def("assemble", &assemble_into, "positions"_a, "tokens"_a.noconvert(), "labels"_a.noconvert(),
           "loss_mask"_a.noconvert(), "position_ids"_a.noconvert(), py::kw_only(), "eod"_a = -1,
           "reset_position_ids"_a = false, "eod_mask_loss"_a = false)
      .def("pack", &pack_into<uint16_t>, "positions"_a, "block"_a.noconvert())
      .def("pack", &pack_into<int32_t>, "positions"_a, "block"_a.noconvert());
  py::class_<StreamSource, SampleSource, std::shared_ptr<StreamSource>>(module, "StreamSource")
      .def(py::init([](std::shared_ptr<IndexedCorpus> corpus, uint64_t first, uint64_t num_tokens, int64_t seq_length,
                       int64_t vocab_size, uint64_t seed, bool shuffle, bool random_offset) {
             return std::make_shared<StreamSource>(Corpus(std::move(corpus)), first, num_tokens, seq_length, vocab_size,
                                                   seed, shuffle, random_offset);
           }),
           "corpus"_a, py::kw_only(), "first"_a, "num_tokens"_a, "seq_length"_a, "vocab_size"_a, "seed"_a, "shuffle"_a,
           "random_offset"_a)
      .def("numbers", &numbers, "positions"_a);
  py::class_<DocumentSource, SampleSource, std::shared_ptr<DocumentSource>>(module, "DocumentSource")
      .def(py::init([](std::shared_ptr<IndexedCorpus> corpus, uint64_t first, uint64_t end, int64_t seq_length,
                       int64_t vocab_size, uint64_t num_samples, uint32_t seed) {
             py::gil_scoped_release release;
             return std::make_shared<DocumentSource>(Corpus(std::move(corpus)), first, end, seq_length, vocab_size,
                                                     num_samples, seed);
           }),
           "corpus"_a, py::kw_only(), "first"_a, "end"_a, "seq_length"_a, "vocab_size"_a, "num_samples"_a, "seed"_a);
  py::class_<Blend, SampleSource, std::shared_ptr<Blend>>(module, "Blend").def("picks", &picks, "positions"_a);
  using Sources = std::vector<std::shared_ptr<SampleSource>>;
  py::class_<WeightedBlend, Blend, std::shared_ptr<WeightedBlend>>(module, "WeightedBlend")
      .def(py::init([](const Sources& sources, std::vector<uint64_t> weights) {
             return std::make_shared<WeightedBlend>(std::vector<SampleSourcePtr>(sources.begin(), sources.end()),
                                                    std::move(weights));
           }),
           "sources"_a, "weights"_a);
  py::class_<GreedyBlend, Blend, std::shared_ptr<GreedyBlend>>(module, "GreedyBlend")
      .def(py::init([](const Sources& sources, const std::vector<double>& weights, uint64_t size) {
             return std::make_shared<GreedyBlend>(std::vector<SampleSourcePtr>(sources.begin(), sources.end()), weights,
                                                  size);
           }),
           "sources"_a, "weights"_a, "size"_a);
}

}  // namespace

PYBIND11_MODULE(_csrc, module) {
  module.doc() = "Memory-mapped corpora, the order of samples, and batches of them.";
  py::register_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const MissingFile& missing) {
      PyErr_SetString(PyExc_FileNotFoundError, ("there is no file " + missing.path).c_str());
    }
  });
  py::class_<IndexedCorpus, std::shared_ptr<IndexedCorpus>>(module, "IndexedCorpus")
      .def(py::init<const std::string&>())
      .def_property_readonly("num_tokens", &IndexedCorpus::num_tokens)
      .def_property_readonly("num_documents", &IndexedCorpus::num_documents)
      .def_property_readonly("num_sequences", &IndexedCorpus::num_sequences)
      .def_property_readonly("dtype_code", &IndexedCorpus::dtype_code)
      .def("document_start", &IndexedCorpus::document_start)
      .def("sequence_start", &IndexedCorpus::sequence_start)
      .def("tokens_of_sequences", &IndexedCorpus::tokens_of_sequences, py::call_guard<py::gil_scoped_release>())
      .def("max_token", &IndexedCorpus::max_token, py::call_guard<py::gil_scoped_release>())
      .def("windows", &windows);
  py::class_<StreamOrder>(module, "StreamOrder")
      .def(py::init<uint64_t, uint64_t>())
      .def("at", &permuted);
  bind_sources(module);
}
