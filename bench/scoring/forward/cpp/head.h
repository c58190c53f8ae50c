// The head's sums of exponentials, without a row of logits.

#pragma once

#include "common.h"

namespace drsow {

// A panel (k / 2, WIDTH) of rows low..low + WIDTH of a weight (n, k), as pairs of numbers; zeros for rows from n on.
inline void fill_panel(const BFloat16* weight, int64_t low, int64_t n, int64_t k, int32_t* panel) {
  const int64_t rows = std::min(WIDTH, n - low);
  if (rows < WIDTH) std::fill_n(panel, k / 2 * WIDTH, 0);
  transpose(weight + low * k, k, rows, k / 2, panel, WIDTH);
}

// Adds to each of WIDTH totals the exponentials of the first `columns` logits of its row; c is (WIDTH, WIDTH). Raises each
// of WIDTH tops, if they are wanted, to the largest of these logits; a NaN stays out of it.
template <bool TOPS>
inline void add_exponentials(const float* c, int64_t columns, double* totals, float* tops) {
  for (int64_t i = 0; i < WIDTH; i++) {
    __m512 sum = _mm512_setzero_ps(), top = _mm512_set1_ps(TOPS ? tops[i] : 0.0f);
    for (int64_t j = 0; j < columns; j += LANES) {
      const __mmask16 there = columns - j >= LANES ? 0xffff : (1 << (columns - j)) - 1;
      const __m512 logits = _mm512_load_ps(c + i * WIDTH + j);
      sum = _mm512_mask_add_ps(sum, there, sum, exp_of(logits));
      if constexpr (TOPS) top = _mm512_mask_max_ps(top, there, logits, top);
    }
    totals[i] += _mm512_reduce_add_ps(sum);
    if constexpr (TOPS) tops[i] = _mm512_reduce_max_ps(top);
  }
}

// hidden (m, k), weight (n, k) -> sum_j exp(hidden @ weight_j), (m,), float64; inf where it does not fit float32.
// `top`, (m,), float32, gets the largest logit of each row.
Tensor exp_totals(const Tensor& hidden, const Tensor& weight, const std::optional<Tensor>& top) {
  const int64_t m = hidden.size(0), k = hidden.size(1), n = weight.size(0);
  check_rows(hidden, k);
  TORCH_CHECK_VALUE(weight.scalar_type() == at::kBFloat16 && weight.is_contiguous() && weight.size(1) == k && k % 2 == 0,
                    "a weight of another shape");
  const int64_t n_panels = (n + WIDTH - 1) / WIDTH, threads = at::get_num_threads();
  // Each thread adds up its own stretch of the vocabulary, and they are added in order: the same bits every time.
  Tensor sums = at::zeros({threads, m}, hidden.options().dtype(at::kDouble));
  Tensor tops = at::full({threads, top ? m : 0}, -INFINITY, hidden.options().dtype(at::kFloat));
  float* largest = tops.mutable_data_ptr<float>();
  const BFloat16* from = hidden.const_data_ptr<BFloat16>();
  const BFloat16* rows = weight.const_data_ptr<BFloat16>();
  double* totals = sums.mutable_data_ptr<double>();
  in_parallel(threads, [&](int64_t first, int64_t last) {
    alignas(64) float c[WIDTH * WIDTH];
    const auto add = top ? add_exponentials<true> : add_exponentials<false>;
    const int64_t size = WIDTH * k / 2, group = std::max<int64_t>(1, GROUP_BYTES / (4 * size));
    std::vector<int32_t> panels(group * size);
    for (int64_t share = first; share < last; share++) {
      const int64_t stop = n_panels * (share + 1) / threads;
      for (int64_t low = n_panels * share / threads; low < stop; low += group) {
        const int64_t high = std::min(low + group, stop);
        for (int64_t p = low; p < high; p++) fill_panel(rows, p * WIDTH, n, k, panels.data() + (p - low) * size);
        for (int64_t row = 0; row < m; row += WIDTH) {
          for (int64_t p = low; p < high; p++) {
            product(k, k, WIDTH, from + row * k, (const BFloat16*)(panels.data() + (p - low) * size), c);
            add(c, std::min(WIDTH, n - p * WIDTH), totals + share * m + row, top ? largest + share * m + row : nullptr);
          }
        }
      }
    }
  });
  if (top) top->copy_(tops.amax(0));
  return sums.sum(0);
}

}  // namespace drsow
