// Root-mean-square norms, which torch computes in seven passes over the tokens.

#pragma once

#include "common.h"

namespace drsow {

// x (m, k), weight (k,), k a multiple of LANES -> each row over the root of its mean square plus eps, times the weight.
//
// With `shift` the factor is 1 + weight and the product is rounded once, as in Gemma. Without, the row is rounded before
// it meets its weight, as in Llama.
Tensor rms_norm(const Tensor& x, const Tensor& weight, double eps, bool shift) {
  TORCH_CHECK_VALUE(x.scalar_type() == at::kBFloat16 && x.dim() == 2 && x.is_contiguous(), "not bfloat16 rows");
  const int64_t m = x.size(0), k = x.size(1);
  TORCH_CHECK_VALUE(weight.scalar_type() == at::kBFloat16 && weight.is_contiguous() && weight.numel() == k && k % LANES == 0,
                    "a weight of another shape");
  Tensor out = at::empty_like(x);
  const BFloat16 *from = x.const_data_ptr<BFloat16>(), *by = weight.const_data_ptr<BFloat16>();
  BFloat16* to = out.mutable_data_ptr<BFloat16>();
  at::parallel_for(0, m, WIDTH, [&](int64_t begin, int64_t end) {
    const __m512 one = _mm512_set1_ps(1.0f);
    for (int64_t i = begin; i < end; i++) {
      const BFloat16* row = from + i * k;
      __m512 squares = _mm512_setzero_ps();
      for (int64_t j = 0; j < k; j += LANES) {
        const __m512 v = widen(row + j);
        squares = _mm512_fmadd_ps(v, v, squares);
      }
      const __m512 scale = _mm512_set1_ps(1.0f / std::sqrt(_mm512_reduce_add_ps(squares) / k + (float)eps));
      for (int64_t j = 0; j < k; j += LANES) {
        const __m512 y = _mm512_mul_ps(widen(row + j), scale);
        if (shift) {
          narrow(to + i * k + j, _mm512_mul_ps(y, _mm512_add_ps(one, widen(by + j))));
        } else {
          narrow(to + i * k + j, _mm512_mul_ps(rounded(y), widen(by + j)));
        }
      }
    }
  });
  return out;
}

}  // namespace drsow
