// Kernels for bfloat16 on a processor with AVX512_BF16, as operations of torch. Compiled by kernels.py, as one unit:
// torch's headers take most of the compiler's time.

#include <torch/library.h>

#include "attention.h"
#include "decode.h"
#include "head.h"
#include "norms.h"
#include "products.h"
#include "rotary.h"

TORCH_LIBRARY(drsow, m) {
  m.def("panel_product(Tensor x, Tensor panels, Tensor? bias) -> Tensor", drsow::panel_product);
  m.def("gated_panel_product(Tensor x, Tensor gate, Tensor up, bool gelu) -> Tensor", drsow::gated_panel_product);
  m.def("rms_norm(Tensor x, Tensor weight, float eps, bool shift) -> Tensor", drsow::rms_norm);
  m.def("rotary(Tensor x, Tensor cos, Tensor sin) -> Tensor", drsow::rotary);
  m.def("exp_totals(Tensor hidden, Tensor weight, Tensor(a!)? top) -> Tensor", drsow::exp_totals);
  m.def(
      "attention(Tensor query, Tensor key, Tensor value, Tensor first, Tensor starts, Tensor seen, int rows, "
      "float scale) -> Tensor",
      drsow::attention);
  m.def(
      "decode_attention(Tensor query, Tensor key, Tensor value, Tensor[] prompt_keys, Tensor[] prompt_values, "
      "Tensor(a!)[] own_keys, Tensor(b!)[] own_values, Tensor lengths, float scale, int window) -> Tensor",
      drsow::decode_attention);
}
