// What Python sees as megatron_distill._csrc. Arrays are NumPy's; loops over tokens run without the GIL.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include "indexed_corpus.h"
#include "stream_order.h"

namespace py = pybind11;
using Int64Array = py::array_t<int64_t, py::array::c_style | py::array::forcecast>;

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

}  // namespace

PYBIND11_MODULE(_csrc, module) {
  module.doc() = "Memory-mapped corpora and the order of samples.";
  py::register_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const MissingFile& missing) {
      PyErr_SetString(PyExc_FileNotFoundError, ("there is no file " + missing.path).c_str());
    }
  });
  py::class_<IndexedCorpus>(module, "IndexedCorpus")
      .def(py::init<const std::string&>())
      .def_property_readonly("num_tokens", &IndexedCorpus::num_tokens)
      .def_property_readonly("num_documents", &IndexedCorpus::num_documents)
      .def_property_readonly("dtype_code", &IndexedCorpus::dtype_code)
      .def("document_start", &IndexedCorpus::document_start)
      .def("max_token", &IndexedCorpus::max_token, py::call_guard<py::gil_scoped_release>())
      .def("windows", &windows);
  py::class_<StreamOrder>(module, "StreamOrder")
      .def(py::init<uint64_t, uint64_t>())
      .def("at", &permuted);
}
