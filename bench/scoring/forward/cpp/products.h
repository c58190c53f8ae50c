// A layer's product with its weight in panels, plain and gated.

#pragma once

#include "common.h"

namespace drsow {

// A task: WIDTH rows of x from `row` on, and one panel.
struct Task {
  int64_t panel, row;
};

// Tasks in groups of rows: neighbours share the panel, which stays in the cache for all rows of the group.
inline Task task_of(int64_t task, int64_t n_panels, int64_t n_rows, int64_t depth) {
  const int64_t group = std::max<int64_t>(2, GROUP_BYTES / (2 * depth * WIDTH));
  const int64_t first = task / (n_panels * group) * group, own = task - first * n_panels;
  const int64_t size = std::min(group, n_rows - first);
  return {own / size, (first + own % size) * WIDTH};
}

// One (WIDTH, WIDTH) block of a result, rounded: c, plus a bias of its WIDTH columns where there is one.
inline void store_block(const float* c, const float* bias, BFloat16* to, int64_t ld_to) {
  for (int64_t i = 0; i < WIDTH; i++) {
    for (int64_t j = 0; j < WIDTH; j += LANES) {
      __m512 y = _mm512_load_ps(c + i * WIDTH + j);
      if (bias != nullptr) y = _mm512_add_ps(y, _mm512_loadu_ps(bias + j));
      narrow(to + i * ld_to + j, y);
    }
  }
}

// x (m, k), panels (n / WIDTH, k / 2, WIDTH, 2), bias (n,) -> x @ weight.T + bias, (m, n).
Tensor panel_product(const Tensor& x, const Tensor& panels, const std::optional<Tensor>& bias) {
  check_panels(panels);
  const int64_t k = 2 * panels.size(1), n = WIDTH * panels.size(0), m = x.size(0), n_rows = m / WIDTH;
  check_rows(x, k);
  const Tensor added = bias ? bias->to(at::kFloat).contiguous() : Tensor();
  TORCH_CHECK_VALUE(!bias || added.numel() == n, "a bias of another length");
  Tensor out = at::empty({m, n}, x.options());
  const float* b = bias ? added.const_data_ptr<float>() : nullptr;
  const BFloat16 *from = x.const_data_ptr<BFloat16>(), *weight = panels.const_data_ptr<BFloat16>();
  BFloat16* to = out.mutable_data_ptr<BFloat16>();
  in_parallel(n / WIDTH * n_rows, [&](int64_t begin, int64_t end) {
    alignas(64) float c[WIDTH * WIDTH];
    for (int64_t task = begin; task < end; task++) {
      const auto [p, row] = task_of(task, n / WIDTH, n_rows, k);
      product(k, k, WIDTH, from + row * k, weight + p * WIDTH * k, c);
      store_block(c, b == nullptr ? nullptr : b + p * WIDTH, to + row * n + p * WIDTH, n);
    }
  });
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

// One (WIDTH, WIDTH) block of act(gate) * up, rounded once.
inline void store_gated_block(const float* gate, const float* up, bool gelu, BFloat16* to, int64_t ld_to) {
  for (int64_t i = 0; i < WIDTH; i++) {
    for (int64_t j = 0; j < WIDTH; j += LANES) {
      const __m512 y = activated(_mm512_load_ps(gate + i * WIDTH + j), gelu);
      narrow(to + i * ld_to + j, _mm512_mul_ps(y, _mm512_load_ps(up + i * WIDTH + j)));
    }
  }
}

// x (m, k), two weights' panels -> act(x @ gate.T) * (x @ up.T), (m, n), rounded once.
Tensor gated_panel_product(const Tensor& x, const Tensor& gate, const Tensor& up, bool gelu) {
  check_panels(gate);
  check_panels(up);
  TORCH_CHECK_VALUE(gate.sizes() == up.sizes(), "gate and up of two shapes");
  const int64_t k = 2 * gate.size(1), n = WIDTH * gate.size(0), m = x.size(0), n_rows = m / WIDTH;
  check_rows(x, k);
  Tensor out = at::empty({m, n}, x.options());
  const BFloat16* from = x.const_data_ptr<BFloat16>();
  const BFloat16 *first = gate.const_data_ptr<BFloat16>(), *second = up.const_data_ptr<BFloat16>();
  BFloat16* to = out.mutable_data_ptr<BFloat16>();
  in_parallel(n / WIDTH * n_rows, [&](int64_t begin, int64_t end) {
    alignas(64) float g[WIDTH * WIDTH], u[WIDTH * WIDTH];
    for (int64_t task = begin; task < end; task++) {
      const auto [p, row] = task_of(task, n / WIDTH, n_rows, k);
      product(k, k, WIDTH, from + row * k, first + p * WIDTH * k, g);
      product(k, k, WIDTH, from + row * k, second + p * WIDTH * k, u);
      store_gated_block(g, u, gelu, to + row * n + p * WIDTH, n);
    }
  });
  return out;
}

}  // namespace drsow
