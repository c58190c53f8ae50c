// Used by all kernels: bfloat16 products with float32 sums, the exponential, checks of arguments.
//
// The products are oneDNN's brgemm, the only way in torch to get float32 sums of bfloat16 products. It needs the second
// factor in panels: WIDTH columns, the two numbers of a pair of rows side by side.

#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/native/CPUBlas.h>
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <vector>

namespace drsow {

using at::BFloat16;
using at::Tensor;

constexpr int64_t WIDTH = 64;  // columns of a panel, rows of a layer's product: one shape of oneDNN's code a depth
constexpr int64_t LANES = 16;  // float32 numbers of a vector
constexpr int64_t GROUP_BYTES = 1 << 19;  // of one factor that meets all of the other: it stays in a cache of the core

// Gives a thread's tiles back when its share of a kernel ends.
//
// On a processor with AMX a product loads the thread's tile configuration, and torch notes for the thread which one is
// there. Whatever comes next on the thread may load another one (oneDNN's own products) or none (they release it): with
// the note still set, the next product of the same shape would run on tiles of another shape, or die of tiles that are
// not configured. So every thread of a parallel region releases them, not the one that began the region alone.
struct Tiles {
  Tiles() = default;
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;
  ~Tiles() { at::native::cpublas::brgemm_release(); }
};

// Runs task(begin, end) on shares of 0..n; each thread gives its tiles back.
template <typename Task>
void in_parallel(int64_t n, const Task& task) {
  at::parallel_for(0, n, 1, [&](int64_t begin, int64_t end) {
    const Tiles tiles;
    task(begin, end);
  });
}

// c (WIDTH, WIDTH), rows of ld_c numbers, = a (WIDTH, depth), rows of ld_a numbers, @ a panel (depth / 2, WIDTH, 2).
inline void product(int64_t depth, int64_t ld_a, int64_t ld_c, const BFloat16* a, const BFloat16* panel, float* c) {
  at::native::cpublas::brgemm(WIDTH, WIDTH, depth, ld_a, WIDTH, ld_c, false, a, panel, c, true);
}

// exp(x), a relative 2e-7 off at most: its power series around the nearest power of 2. 0 under -87, inf over 88.8.
//
// Under -87.3 float32 has fewer digits, and Intel's processors take a hundred times as long for such a number.
inline __m512 exp_of(__m512 x) {
  const __m512 least = _mm512_set1_ps(-87.0f);
  const __mmask16 above = _mm512_cmp_ps_mask(x, least, _CMP_NLT_UQ);  // NaN too
  // The operands have this order so that NaN stays NaN.
  x = _mm512_min_ps(_mm512_set1_ps(200.0f), _mm512_max_ps(least, x));
  const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), 0);
  // log 2 in two parts, so that n times the first is exact.
  __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693145752f), x);
  r = _mm512_fnmadd_ps(n, _mm512_set1_ps(1.42860677e-6f), r);
  __m512 p = _mm512_set1_ps(1.0f / 720);
  for (const float term : {1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f}) {
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(term));
  }
  return _mm512_maskz_scalef_ps(above, p, n);
}

// 2^x where `wanted`, else 0; a relative 3e-7 off at most: its power series around the nearest whole number. 0 under
// -126, for the same reason: attention spent half of its time on such weights. x is at most 127, or NaN.
inline __m512 exp2_of(__mmask16 wanted, __m512 x) {
  const __mmask16 above = _mm512_mask_cmp_ps_mask(wanted, x, _mm512_set1_ps(-126.0f), _CMP_NLT_UQ);
  const __m512 n = _mm512_roundscale_ps(x, 0), r = _mm512_sub_ps(x, n);
  __m512 p = _mm512_set1_ps(1.54035304e-4f);  // (log 2)^6 / 6!, and so on
  for (const float term : {1.33335581e-3f, 9.61812911e-3f, 5.55041087e-2f, 2.40226507e-1f, 6.93147181e-1f, 1.0f}) {
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(term));
  }
  return _mm512_maskz_scalef_ps(above, p, n);
}

// LANES bfloat16 numbers as float32.
inline __m512 widen(const BFloat16* from) {
  const __m256i bits = _mm256_loadu_si256((const __m256i*)from);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}

// Writes LANES numbers, rounded to bfloat16.
inline void narrow(BFloat16* to, __m512 x) { _mm256_storeu_si256((__m256i*)to, (__m256i)_mm512_cvtneps_pbh(x)); }

// LANES numbers, rounded to bfloat16.
inline __m512 rounded(__m512 x) {
  const __m256i bits = (__m256i)_mm512_cvtneps_pbh(x);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}

// Transposes pairs of numbers in registers: to[c * ld_to + r] = pair c of row r, for r < rows and c < pairs, both at most
// LANES. Rows of `from` are ld_from numbers apart, rows of `to` ld_to pairs.
inline void transpose_block(const BFloat16* from, int64_t ld_from, int64_t rows, int64_t pairs, int32_t* to,
                            int64_t ld_to) {
  const __mmask16 there = (1u << pairs) - 1, own = (1u << rows) - 1;
  __m512i a[LANES], b[LANES];
  for (int64_t r = 0; r < LANES; r++) {
    a[r] = r < rows ? _mm512_maskz_loadu_epi32(there, from + r * ld_from) : _mm512_setzero_si512();
  }
  for (int64_t r = 0; r < LANES; r += 2) {
    b[r] = _mm512_unpacklo_epi32(a[r], a[r + 1]);
    b[r + 1] = _mm512_unpackhi_epi32(a[r], a[r + 1]);
  }
  // a[4 q + i] becomes the columns i, i + 4, i + 8 and i + 12 of the rows 4 q .. 4 q + 3.
  for (int64_t r = 0; r < LANES; r += 4) {
    for (int64_t i = 0; i < 2; i++) {
      a[r + 2 * i] = _mm512_unpacklo_epi64(b[r + i], b[r + i + 2]);
      a[r + 2 * i + 1] = _mm512_unpackhi_epi64(b[r + i], b[r + i + 2]);
    }
  }
  // b[8 h + i] becomes the columns i and i + 8 of the rows 8 h .. 8 h + 7, four numbers of each in turn.
  for (int64_t i = 0; i < 4; i++) {
    for (int64_t h = 0; h < LANES; h += 8) {
      b[h + i] = _mm512_shuffle_i32x4(a[h + i], a[h + 4 + i], 0x88);
      b[h + 4 + i] = _mm512_shuffle_i32x4(a[h + i], a[h + 4 + i], 0xdd);
    }
  }
  for (int64_t i = 0; i < 8; i++) {
    if (i < pairs) _mm512_mask_storeu_epi32(to + i * ld_to, own, _mm512_shuffle_i32x4(b[i], b[8 + i], 0x88));
    if (i + 8 < pairs) _mm512_mask_storeu_epi32(to + (i + 8) * ld_to, own, _mm512_shuffle_i32x4(b[i], b[8 + i], 0xdd));
  }
}

// The same for any numbers of rows and pairs.
inline void transpose(const BFloat16* from, int64_t ld_from, int64_t rows, int64_t pairs, int32_t* to, int64_t ld_to) {
  for (int64_t r = 0; r < rows; r += LANES) {
    for (int64_t c = 0; c < pairs; c += LANES) {
      transpose_block(from + r * ld_from + 2 * c, ld_from, std::min(LANES, rows - r), std::min(LANES, pairs - c),
                      to + c * ld_to + r, ld_to);
    }
  }
}

inline void check_rows(const Tensor& x, int64_t depth) {
  TORCH_CHECK_VALUE(x.scalar_type() == at::kBFloat16 && x.dim() == 2 && x.is_contiguous(), "not bfloat16 rows");
  TORCH_CHECK_VALUE(x.size(0) % WIDTH == 0 && x.size(1) == depth, "rows of another shape");
}

inline void check_panels(const Tensor& panels) {
  TORCH_CHECK_VALUE(panels.scalar_type() == at::kBFloat16 && panels.dim() == 4 && panels.is_contiguous(), "no panels");
  TORCH_CHECK_VALUE(panels.size(2) == WIDTH && panels.size(3) == 2, "panels of another shape");
}

}  // namespace drsow
