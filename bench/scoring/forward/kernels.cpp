// Kernels for bfloat16 on a processor that multiplies it without tiles (AVX512_BF16, no AMX).
//
// Their products are oneDNN's brgemm, the one way in torch to products of bfloat16 whose sums stay float32. It wants the
// second factor in panels: WIDTH columns, the two numbers of a pair of rows side by side. Compiled by kernels.py.

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/native/CPUBlas.h>
#include <immintrin.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <vector>

namespace {

using at::BFloat16;
using at::Tensor;

constexpr int64_t WIDTH = 64;   // columns of a panel, rows of a product: one shape of oneDNN's code a depth
constexpr int64_t CHUNK = 256;  // keys between two looks at the highest score
constexpr int64_t LANES = 16;

void product(int64_t depth, int64_t ld_a, int64_t ld_c, bool add, const BFloat16* a, const BFloat16* panel, float* c) {
  at::native::cpublas::brgemm(WIDTH, WIDTH, depth, ld_a, WIDTH, ld_c, add, a, panel, c, true);
}

// exp(x), a relative 2e-7 off at most: its power series around the nearest power of 2. 0 for -inf, inf over 88.8.
inline __m512 exp_of(__m512 x) {
  // In this order what is no number stays so.
  x = _mm512_min_ps(_mm512_set1_ps(200.0f), _mm512_max_ps(_mm512_set1_ps(-200.0f), x));
  const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), 0);
  // log 2 in two parts, so that n times the first is exact.
  __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693145752f), x);
  r = _mm512_fnmadd_ps(n, _mm512_set1_ps(1.42860677e-6f), r);
  __m512 p = _mm512_set1_ps(1.0f / 720);
  for (const float term : {1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f}) {
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(term));
  }
  return _mm512_scalef_ps(p, n);
}

inline void narrow(BFloat16* to, __m512 x) { _mm256_storeu_si256((__m256i*)to, (__m256i)_mm512_cvtneps_pbh(x)); }

void check_rows(const Tensor& x, int64_t depth) {
  TORCH_CHECK_VALUE(x.scalar_type() == at::kBFloat16 && x.dim() == 2 && x.is_contiguous(), "not bfloat16 rows");
  TORCH_CHECK_VALUE(x.size(0) % WIDTH == 0 && x.size(1) == depth, "rows of another shape");
}

void check_panels(const Tensor& panels) {
  TORCH_CHECK_VALUE(panels.scalar_type() == at::kBFloat16 && panels.dim() == 4 && panels.is_contiguous(), "no panels");
  TORCH_CHECK_VALUE(panels.size(2) == WIDTH && panels.size(3) == 2, "panels of another shape");
}

// x (m, k), panels (n / WIDTH, k / 2, WIDTH, 2), bias (n,) -> x @ weight.T + bias, (m, n).
Tensor linear(const Tensor& x, const Tensor& panels, const std::optional<Tensor>& bias) {
  check_panels(panels);
  const int64_t k = 2 * panels.size(1), n = WIDTH * panels.size(0), m = x.size(0), n_rows = m / WIDTH;
  check_rows(x, k);
  Tensor added = bias ? bias->to(at::kFloat).contiguous() : Tensor();
  TORCH_CHECK_VALUE(!bias || added.numel() == n, "a bias of another length");
  Tensor out = at::empty({m, n}, x.options());
  const float* b = bias ? added.const_data_ptr<float>() : nullptr;
  const BFloat16 *from = x.const_data_ptr<BFloat16>(), *weight = panels.const_data_ptr<BFloat16>();
  BFloat16* to = out.mutable_data_ptr<BFloat16>();
  at::parallel_for(0, n / WIDTH * n_rows, 1, [&](int64_t begin, int64_t end) {
    alignas(64) float c[WIDTH * WIDTH];
    for (int64_t task = begin; task < end; task++) {
      const int64_t p = task / n_rows, row = task % n_rows * WIDTH;
      product(k, k, WIDTH, false, from + row * k, weight + p * WIDTH * k, c);
      for (int64_t i = 0; i < WIDTH; i++) {
        for (int64_t j = 0; j < WIDTH; j += LANES) {
          __m512 y = _mm512_load_ps(c + i * WIDTH + j);
          if (b != nullptr) y = _mm512_add_ps(y, _mm512_loadu_ps(b + p * WIDTH + j));
          narrow(to + (row + i) * n + p * WIDTH + j, y);
        }
      }
    }
  });
  at::native::cpublas::brgemm_release();
  return out;
}

inline __m512 sigmoid_of(__m512 x) {
  const __m512 one = _mm512_set1_ps(1.0f);
  return _mm512_div_ps(one, _mm512_add_ps(one, exp_of(_mm512_sub_ps(_mm512_setzero_ps(), x))));
}

// SiLU, or GELU by its tanh: x times a sigmoid, both.
inline __m512 activated(__m512 x, bool gelu) {
  __m512 inner = x;
  if (gelu) {
    const __m512 cube = _mm512_mul_ps(_mm512_mul_ps(x, x), x);
    inner = _mm512_mul_ps(_mm512_fmadd_ps(cube, _mm512_set1_ps(0.044715f), x), _mm512_set1_ps(1.59576912f));
  }
  return _mm512_mul_ps(x, sigmoid_of(inner));
}

// x (m, k), two weights' panels -> act(x @ gate.T) * (x @ up.T), (m, n), rounded once.
Tensor gated(const Tensor& x, const Tensor& gate, const Tensor& up, bool gelu) {
  check_panels(gate);
  check_panels(up);
  TORCH_CHECK_VALUE(gate.sizes() == up.sizes(), "gate and up of two shapes");
  const int64_t k = 2 * gate.size(1), n = WIDTH * gate.size(0), m = x.size(0), n_rows = m / WIDTH;
  check_rows(x, k);
  Tensor out = at::empty({m, n}, x.options());
  const BFloat16 *from = x.const_data_ptr<BFloat16>();
  const BFloat16 *first = gate.const_data_ptr<BFloat16>(), *second = up.const_data_ptr<BFloat16>();
  BFloat16* to = out.mutable_data_ptr<BFloat16>();
  at::parallel_for(0, n / WIDTH * n_rows, 1, [&](int64_t begin, int64_t end) {
    alignas(64) float g[WIDTH * WIDTH], u[WIDTH * WIDTH];
    for (int64_t task = begin; task < end; task++) {
      const int64_t p = task / n_rows, row = task % n_rows * WIDTH;
      product(k, k, WIDTH, false, from + row * k, first + p * WIDTH * k, g);
      product(k, k, WIDTH, false, from + row * k, second + p * WIDTH * k, u);
      for (int64_t i = 0; i < WIDTH; i++) {
        for (int64_t j = 0; j < WIDTH; j += LANES) {
          const __m512 y = activated(_mm512_load_ps(g + i * WIDTH + j), gelu);
          narrow(to + (row + i) * n + p * WIDTH + j, _mm512_mul_ps(y, _mm512_load_ps(u + i * WIDTH + j)));
        }
      }
    }
  });
  at::native::cpublas::brgemm_release();
  return out;
}

// A panel of rows low.. of a weight (n, pairs) of pairs of numbers; zeros behind the last.
void fill_panel(const int32_t* weight, int64_t low, int64_t n, int64_t pairs, int32_t* panel) {
  for (int64_t at = 0; at < pairs; at += LANES) {
    const int64_t stop = std::min(at + LANES, pairs);
    for (int64_t row = 0; row < WIDTH; row++) {
      const int32_t* from = weight + (low + row) * pairs;
      for (int64_t i = at; i < stop; i++) panel[i * WIDTH + row] = low + row < n ? from[i] : 0;
    }
  }
}

// hidden (m, k), weight (n, k) -> sum_j exp(hidden @ weight_j), (m,), float64; inf where it does not fit float32.
Tensor exp_totals(const Tensor& hidden, const Tensor& weight) {
  const int64_t m = hidden.size(0), k = hidden.size(1), n = weight.size(0);
  check_rows(hidden, k);
  TORCH_CHECK_VALUE(weight.scalar_type() == at::kBFloat16 && weight.is_contiguous() && weight.size(1) == k && k % 2 == 0,
                    "a weight of another shape");
  const int64_t n_panels = (n + WIDTH - 1) / WIDTH, threads = at::get_num_threads();
  // Each thread adds up its own stretch of the vocabulary, and they are added in order: the same bits every time.
  Tensor sums = at::zeros({threads, m}, hidden.options().dtype(at::kDouble));
  const BFloat16* from = hidden.const_data_ptr<BFloat16>();
  const int32_t* pairs = (const int32_t*)weight.const_data_ptr<BFloat16>();
  double* totals = sums.mutable_data_ptr<double>();
  at::parallel_for(0, threads, 1, [&](int64_t first, int64_t last) {
    alignas(64) float c[WIDTH * WIDTH];
    std::vector<int32_t> panel(WIDTH * k / 2);
    for (int64_t share = first; share < last; share++) {
      double* total = totals + share * m;
      for (int64_t p = n_panels * share / threads; p < n_panels * (share + 1) / threads; p++) {
        fill_panel(pairs, p * WIDTH, n, k / 2, panel.data());
        const int64_t columns = std::min(WIDTH, n - p * WIDTH);
        for (int64_t row = 0; row < m; row += WIDTH) {
          product(k, k, WIDTH, false, from + row * k, (const BFloat16*)panel.data(), c);
          for (int64_t i = 0; i < WIDTH; i++) {
            __m512 sum = _mm512_setzero_ps();
            for (int64_t j = 0; j < columns; j += LANES) {
              const __mmask16 there = columns - j >= LANES ? 0xffff : (1 << (columns - j)) - 1;
              sum = _mm512_mask_add_ps(sum, there, sum, exp_of(_mm512_load_ps(c + i * WIDTH + j)));
            }
            total[row + i] += _mm512_reduce_add_ps(sum);
          }
        }
      }
    }
  });
  at::native::cpublas::brgemm_release();
  return sums.sum(0);
}

// Keys (kv_heads, n_keys, depth) -> pairs of their numbers, transposed: (kv_heads, depth / 2, n_keys rounded up).
std::vector<int32_t> transposed_keys(const Tensor& key, int64_t padded) {
  const int64_t kv_heads = key.size(0), n = key.size(1), pairs = key.size(2) / 2;
  std::vector<int32_t> out(kv_heads * pairs * padded, 0);
  at::parallel_for(0, kv_heads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t h = begin; h < end; h++) {
      const BFloat16* from = key.const_data_ptr<BFloat16>() + h * key.stride(0);
      int32_t* to = out.data() + h * pairs * padded;
      for (int64_t low = 0; low < n; low += LANES) {
        const int64_t high = std::min(low + LANES, n);
        for (int64_t k = low; k < high; k++) {
          const int32_t* row = (const int32_t*)(from + k * key.stride(1));
          for (int64_t i = 0; i < pairs; i++) to[i * padded + k] = row[i];
        }
      }
    }
  });
  return out;
}

// Values (kv_heads, n_keys, width) -> pairs of their rows interleaved: (kv_heads, n_keys rounded up / 2, width, 2).
std::vector<uint16_t> paired_values(const Tensor& value, int64_t padded) {
  const int64_t kv_heads = value.size(0), n = value.size(1), width = value.size(2);
  std::vector<uint16_t> out(kv_heads * padded * width, 0);
  at::parallel_for(0, kv_heads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t h = begin; h < end; h++) {
      for (int64_t k = 0; k < n; k++) {
        const uint16_t* row = (const uint16_t*)(value.const_data_ptr<BFloat16>() + h * value.stride(0) + k * value.stride(1));
        uint16_t* to = out.data() + (h * padded + k / 2 * 2) * width + k % 2;
        for (int64_t i = 0; i < width; i++) to[2 * i] = row[i];
      }
    }
  });
  return out;
}

// Softmax attention over blocks of keys.
//
// query (heads, n, depth), key (kv_heads, keys, depth), value (kv_heads, keys, width); any strides but the last.
// first (n / WIDTH rounded up + 1,): where the blocks of each WIDTH queries begin; starts: the first key of each block
// of WIDTH, even; seen (blocks, WIDTH): one bit a key for each of the queries. -> (n rounded up as `rows`, heads, width).
Tensor attend(const Tensor& query, const Tensor& key, const Tensor& value, const Tensor& first, const Tensor& starts,
              const Tensor& seen, int64_t rows, double scale) {
  const int64_t n_heads = query.size(0), n = query.size(1), depth = query.size(2);
  const int64_t kv_heads = key.size(0), n_keys = key.size(1), width = value.size(2), group = n_heads / kv_heads;
  for (const Tensor& x : {query, key, value}) {
    TORCH_CHECK_VALUE(x.scalar_type() == at::kBFloat16 && x.dim() == 3 && x.stride(2) == 1, "not bfloat16 heads");
  }
  TORCH_CHECK_VALUE(depth % 2 == 0 && width % WIDTH == 0 && n_heads % kv_heads == 0, "heads of another shape");
  const int64_t n_blocks = (n + WIDTH - 1) / WIDTH, padded = (n_keys + WIDTH) / WIDTH * WIDTH + WIDTH;
  const std::vector<int32_t> keys = transposed_keys(key, padded);
  const std::vector<uint16_t> values = paired_values(value, padded);
  const int64_t *begins = first.const_data_ptr<int64_t>(), *low = starts.const_data_ptr<int64_t>();
  const int64_t* bits = seen.const_data_ptr<int64_t>();
  Tensor out = at::zeros({rows, n_heads, width}, query.options());
  const BFloat16* queries = query.const_data_ptr<BFloat16>();
  BFloat16* to = out.mutable_data_ptr<BFloat16>();
  const __m512 factor = _mm512_set1_ps((float)scale), lowest = _mm512_set1_ps(-std::numeric_limits<float>::infinity());
  at::parallel_for(0, n_blocks * kv_heads, 1, [&](int64_t begin, int64_t end) {
    std::vector<BFloat16> q(group * WIDTH * depth), weights(WIDTH * CHUNK);
    std::vector<int32_t> panel(CHUNK * depth / 2);
    std::vector<float> scores(WIDTH * CHUNK), sums(group * WIDTH), highest(group * WIDTH), mixed(group * WIDTH * width);
    for (int64_t task = begin; task < end; task++) {
      const int64_t h = task / n_blocks, block = task % n_blocks, top = block * WIDTH;
      const int64_t n_own = std::min(WIDTH, n - top);
      std::fill(sums.begin(), sums.end(), 0.0f);
      std::fill(highest.begin(), highest.end(), -std::numeric_limits<float>::infinity());
      std::fill(mixed.begin(), mixed.end(), 0.0f);
      std::fill(q.begin(), q.end(), BFloat16(0.0f));
      for (int64_t g = 0; g < group; g++) {
        const BFloat16* from = queries + (h * group + g) * query.stride(0) + top * query.stride(1);
        for (int64_t i = 0; i < n_own; i++) {
          const BFloat16* row = from + i * query.stride(1);
          std::copy(row, row + depth, q.data() + (g * WIDTH + i) * depth);
        }
      }
      for (int64_t at = begins[block]; at < begins[block + 1]; at += CHUNK / WIDTH) {
        const int64_t n_panels = std::min(CHUNK / WIDTH, begins[block + 1] - at);
        for (int64_t p = 0; p < n_panels; p++) {
          for (int64_t i = 0; i < depth / 2; i++) {
            const int32_t* row = keys.data() + (h * depth / 2 + i) * padded + low[at + p];
            std::copy(row, row + WIDTH, panel.data() + (p * depth / 2 + i) * WIDTH);
          }
        }
        for (int64_t g = 0; g < group; g++) {
          for (int64_t p = 0; p < n_panels; p++) {
            const BFloat16* own = (const BFloat16*)(panel.data() + p * WIDTH * depth / 2);
            product(depth, depth, CHUNK, false, q.data() + g * WIDTH * depth, own, scores.data() + p * WIDTH);
          }
          float *row_sums = sums.data() + g * WIDTH, *row_highest = highest.data() + g * WIDTH;
          float* result = mixed.data() + g * WIDTH * width;
          for (int64_t i = 0; i < n_own; i++) {
            float* row = scores.data() + i * CHUNK;
            __m512 top_of = lowest;
            for (int64_t p = 0; p < n_panels; p++) {
              const uint64_t mask = (uint64_t)bits[(at + p) * WIDTH + i];
              for (int64_t j = 0; j < WIDTH; j += LANES) {
                const __m512 s = _mm512_loadu_ps(row + p * WIDTH + j);
                const __m512 y = _mm512_mask_mul_ps(lowest, (__mmask16)(mask >> j), s, factor);
                _mm512_storeu_ps(row + p * WIDTH + j, y);
                top_of = _mm512_max_ps(top_of, y);
              }
            }
            const float before = row_highest[i], now = std::max(before, _mm512_reduce_max_ps(top_of));
            row_highest[i] = now;
            // A query that has seen no key yet: all its weights are 0.
            const __m512 shift = _mm512_set1_ps(std::isinf(now) ? 0.0f : now);
            __m512 sum = _mm512_setzero_ps();
            for (int64_t j = 0; j < n_panels * WIDTH; j += LANES) {
              const __m512 w = exp_of(_mm512_sub_ps(_mm512_loadu_ps(row + j), shift));
              sum = _mm512_add_ps(sum, w);
              narrow(weights.data() + i * CHUNK + j, w);
            }
            float kept = 1.0f;
            if (now > before) {
              kept = std::exp(before - now);
              const __m512 shrink = _mm512_set1_ps(kept);
              for (int64_t j = 0; j < width; j += LANES) {
                _mm512_storeu_ps(result + i * width + j, _mm512_mul_ps(_mm512_loadu_ps(result + i * width + j), shrink));
              }
            }
            row_sums[i] = row_sums[i] * kept + _mm512_reduce_add_ps(sum);
          }
          for (int64_t p = 0; p < n_panels; p++) {
            const BFloat16* own = (const BFloat16*)(values.data() + (h * padded + low[at + p]) * width);
            at::native::cpublas::brgemm(WIDTH, width, WIDTH, CHUNK, width, width, true, weights.data() + p * WIDTH, own, result, true);
          }
        }
      }
      for (int64_t g = 0; g < group; g++) {
        for (int64_t i = 0; i < n_own; i++) {
          const __m512 total = _mm512_set1_ps(1.0f / sums[g * WIDTH + i]);
          BFloat16* row = to + ((top + i) * n_heads + h * group + g) * width;
          for (int64_t j = 0; j < width; j += LANES) {
            narrow(row + j, _mm512_mul_ps(_mm512_loadu_ps(mixed.data() + (g * WIDTH + i) * width + j), total));
          }
        }
      }
    }
  });
  at::native::cpublas::brgemm_release();
  return out;
}

}  // namespace

TORCH_LIBRARY(drsow, m) {
  m.def("linear(Tensor x, Tensor panels, Tensor? bias) -> Tensor", linear);
  m.def("gated(Tensor x, Tensor gate, Tensor up, bool gelu) -> Tensor", gated);
  m.def("exp_totals(Tensor hidden, Tensor weight) -> Tensor", exp_totals);
  m.def("attend(Tensor query, Tensor key, Tensor value, Tensor first, Tensor starts, Tensor seen, int rows, float scale) -> Tensor", attend);
}
