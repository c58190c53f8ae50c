// Rotary positions, which torch computes in ten passes over queries and keys.

#pragma once

#include "common.h"

namespace drsow {

// One token of one head: the first half of x times cos, less the second times sin; the second half times cos, plus the
// first times sin. Each of three operations is rounded, as torch rounds them.
inline void rotate(const BFloat16* x, const BFloat16* cos, const BFloat16* sin, int64_t half, BFloat16* to) {
  for (int64_t j = 0; j < half; j += LANES) {
    const __m512 a = widen(x + j), b = widen(x + half + j);
    const __m512 a_cos = rounded(_mm512_mul_ps(a, widen(cos + j)));
    const __m512 b_cos = rounded(_mm512_mul_ps(b, widen(cos + half + j)));
    const __m512 b_sin = rounded(_mm512_mul_ps(b, widen(sin + j)));
    const __m512 a_sin = rounded(_mm512_mul_ps(a, widen(sin + half + j)));
    narrow(to + j, _mm512_sub_ps(a_cos, b_sin));
    narrow(to + half + j, _mm512_add_ps(b_cos, a_sin));
  }
}

// x (heads, n, depth), any strides but the last; cos and sin (n, depth), depth a multiple of 2 * LANES -> (heads, n,
// depth), the numbers of a token side by side.
Tensor rotary(const Tensor& x, const Tensor& cos, const Tensor& sin) {
  TORCH_CHECK_VALUE(x.scalar_type() == at::kBFloat16 && x.dim() == 3 && x.stride(2) == 1, "not bfloat16 heads");
  const int64_t heads = x.size(0), n = x.size(1), depth = x.size(2);
  for (const Tensor& each : {cos, sin}) {
    TORCH_CHECK_VALUE(each.scalar_type() == at::kBFloat16 && each.is_contiguous() && each.dim() == 2, "not bfloat16 rows");
    TORCH_CHECK_VALUE(each.size(0) == n && each.size(1) == depth && depth % (2 * LANES) == 0, "positions of another shape");
  }
  Tensor out = at::empty({n, heads, depth}, x.options());
  const BFloat16 *from = x.const_data_ptr<BFloat16>(), *c = cos.const_data_ptr<BFloat16>();
  const BFloat16* s = sin.const_data_ptr<BFloat16>();
  BFloat16* to = out.mutable_data_ptr<BFloat16>();
  at::parallel_for(0, n, WIDTH, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      for (int64_t h = 0; h < heads; h++) {
        const BFloat16* row = from + h * x.stride(0) + i * x.stride(1);
        rotate(row, c + i * depth, s + i * depth, depth / 2, to + (i * heads + h) * depth);
      }
    }
  });
  return out.transpose(0, 1);
}

}  // namespace drsow
