// Softmax attention over blocks of keys, with a running maximum: no row of scores is longer than CHUNK.
//
// Heads come in groups: `group` query heads share the keys and values of one key head. The unit of work is one key head
// and one run of WIDTH queries, for all query heads of the group: what it gathers of the keys serves them all.

#pragma once

#include "common.h"

namespace drsow {

constexpr int64_t CHUNK = 256;  // keys between two looks at the highest score

// Lengths of one call.
struct Lengths {
  int64_t n_heads, n, depth, kv_heads, n_keys, width;
  int64_t group;     // query heads a key head
  int64_t n_runs;    // runs of WIDTH queries; the last one may be shorter
  int64_t reserved;  // keys with zeros behind them: a block may start at the last key and is WIDTH long
};

inline Lengths lengths_of(const Tensor& query, const Tensor& key, const Tensor& value) {
  for (const Tensor& x : {query, key, value}) {
    TORCH_CHECK_VALUE(x.scalar_type() == at::kBFloat16 && x.dim() == 3 && x.stride(2) == 1, "not bfloat16 heads");
  }
  Lengths l{query.size(0), query.size(1), query.size(2), key.size(0), key.size(1), value.size(2), 0, 0, 0};
  TORCH_CHECK_VALUE(l.depth % 2 == 0 && l.width % WIDTH == 0 && l.n_heads % l.kv_heads == 0, "heads of another shape");
  TORCH_CHECK_VALUE(key.size(2) == l.depth && value.size(0) == l.kv_heads && value.size(1) == l.n_keys,
                    "keys and values of two shapes");
  l.group = l.n_heads / l.kv_heads;
  l.n_runs = (l.n + WIDTH - 1) / WIDTH;
  // At least n_keys + WIDTH.
  l.reserved = (l.n_keys + WIDTH) / WIDTH * WIDTH + WIDTH;
  return l;
}

// Keys (kv_heads, n_keys, depth) -> pairs of their numbers, transposed: (kv_heads, depth / 2, reserved).
inline std::vector<int32_t> transposed_keys(const Tensor& key, const Lengths& l) {
  const int64_t pairs = l.depth / 2;
  std::vector<int32_t> out(l.kv_heads * pairs * l.reserved, 0);
  at::parallel_for(0, l.kv_heads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t h = begin; h < end; h++) {
      transpose(key.const_data_ptr<BFloat16>() + h * key.stride(0), key.stride(1), l.n_keys, pairs,
                out.data() + h * pairs * l.reserved, l.reserved);
    }
  });
  return out;
}

// Values (kv_heads, n_keys, width) -> pairs of their rows interleaved: (kv_heads, reserved / 2, width, 2).
inline std::vector<int32_t> paired_values(const Tensor& value, const Lengths& l) {
  std::vector<int32_t> out(l.kv_heads * l.reserved / 2 * l.width, 0);
  at::parallel_for(0, l.kv_heads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t h = begin; h < end; h++) {
      const BFloat16* from = value.const_data_ptr<BFloat16>() + h * value.stride(0);
      int32_t* to = out.data() + h * l.reserved / 2 * l.width;
      for (int64_t k = 0; k < l.n_keys; k += 2, to += l.width) {
        const BFloat16 *row = from + k * value.stride(1), *next = k + 1 < l.n_keys ? row + value.stride(1) : nullptr;
        for (int64_t i = 0; i < l.width; i += LANES) {
          const __m512i first = _mm512_srli_epi32(_mm512_castps_si512(widen(row + i)), 16);
          const __m512i second = next ? _mm512_castps_si512(widen(next + i)) : _mm512_setzero_si512();
          _mm512_storeu_si512(to + i, _mm512_or_si512(first, second));
        }
      }
    }
  });
  return out;
}

// What one thread works on: the queries of a run, and what is known of them so far.
struct Run {
  std::vector<BFloat16> queries;  // (group, WIDTH, depth); zeros behind the run's last query
  std::vector<int32_t> panels;    // (CHUNK / WIDTH, depth / 2, WIDTH): keys of a chunk, pairs of their numbers
  std::vector<float> scores;      // (CHUNK / WIDTH, group, WIDTH, WIDTH), before they are scaled
  std::vector<BFloat16> weights;  // (group, WIDTH, CHUNK)
  std::vector<float> highest;     // (group, WIDTH): the highest factor x score so far
  std::vector<float> sums;        // (group, WIDTH): the sum of 2^(factor x score - highest)
  std::vector<float> mixed;       // (group, WIDTH, width): the sum of these powers x value

  explicit Run(const Lengths& l)
      : queries(l.group * WIDTH * l.depth), panels(CHUNK * l.depth / 2),
        scores(l.group * WIDTH * CHUNK), weights(l.group * WIDTH * CHUNK), highest(l.group * WIDTH),
        sums(l.group * WIDTH), mixed(l.group * WIDTH * l.width) {}
};

// Begins a run: queries top..top + n_own of the group of key head h, n_own <= WIDTH, and nothing seen yet.
inline void begin_run(Run& run, const Lengths& l, const Tensor& query, int64_t h, int64_t top, int64_t n_own) {
  std::fill(run.sums.begin(), run.sums.end(), 0.0f);
  std::fill(run.highest.begin(), run.highest.end(), -std::numeric_limits<float>::infinity());
  std::fill(run.mixed.begin(), run.mixed.end(), 0.0f);
  std::fill(run.queries.begin(), run.queries.end(), BFloat16(0.0f));
  for (int64_t g = 0; g < l.group; g++) {
    const BFloat16* from = query.const_data_ptr<BFloat16>() + (h * l.group + g) * query.stride(0) + top * query.stride(1);
    for (int64_t i = 0; i < n_own; i++) {
      const BFloat16* row = from + i * query.stride(1);
      std::copy(row, row + l.depth, run.queries.data() + (g * WIDTH + i) * l.depth);
    }
  }
}

// Puts n_panels <= CHUNK / WIDTH blocks of one head's keys into panels; keys is (depth / 2, reserved), and
// starts[p] + WIDTH <= reserved.
inline void gather_panels(Run& run, const Lengths& l, const int32_t* keys, const int64_t* starts, int64_t n_panels) {
  for (int64_t p = 0; p < n_panels; p++) {
    for (int64_t i = 0; i < l.depth / 2; i++) {
      const int32_t* row = keys + i * l.reserved + starts[p];
      std::copy(row, row + WIDTH, run.panels.data() + (p * l.depth / 2 + i) * WIDTH);
    }
  }
}

// Calls look(wanted, block, key) for every LANES keys of n_panels blocks of which a query sees some; `wanted` has a bit a
// key that it sees. The first of two loops is for blocks that it sees whole: the compiler then leaves the masks out.
template <typename Look>
inline void each_seen(const int64_t* seen, int64_t n_panels, const Look& look) {
  for (int64_t p = 0; p < n_panels; p++) {
    const uint64_t mask = (uint64_t)seen[p * WIDTH];
    if (mask == ~(uint64_t)0) {
      for (int64_t j = 0; j < WIDTH; j += LANES) look((__mmask16)0xffff, p, j);
    } else {
      for (int64_t j = 0; j < WIDTH; j += LANES) {
        if (const __mmask16 wanted = mask >> j) look(wanted, p, j);
      }
    }
  }
}

// The highest of one query's scores of keys that it sees; -inf if it sees none. Its scores of block p are at row + p * ld,
// and seen[p * WIDTH] holds a bit a key of the block.
inline float highest_score(const float* row, int64_t ld, const int64_t* seen, int64_t n_panels) {
  __m512 highest = _mm512_set1_ps(-std::numeric_limits<float>::infinity());
  each_seen(seen, n_panels, [&](__mmask16 wanted, int64_t p, int64_t j) {
    highest = _mm512_mask_max_ps(highest, wanted, highest, _mm512_loadu_ps(row + p * ld + j));
  });
  return _mm512_reduce_max_ps(highest);
}

// Weights 2^(factor x score - shift) of one query, rounded, 0 for keys that it does not see; gives the sum of what they
// were before rounding.
inline float weigh(const float* row, int64_t ld, const int64_t* seen, int64_t n_panels, float factor, float shift,
                   BFloat16* weights) {
  const __m512 by = _mm512_set1_ps(factor), less = _mm512_set1_ps(shift);
  __m512 sum = _mm512_setzero_ps();
  std::fill_n(weights, n_panels * WIDTH, BFloat16(0.0f));
  each_seen(seen, n_panels, [&](__mmask16 wanted, int64_t p, int64_t j) {
    const __m512 w = exp2_of(wanted, _mm512_fmsub_ps(_mm512_loadu_ps(row + p * ld + j), by, less));
    sum = _mm512_add_ps(sum, w);
    narrow(weights + p * WIDTH + j, w);
  });
  return _mm512_reduce_add_ps(sum);
}

inline void shrink(float* row, float factor, int64_t n) {
  const __m512 by = _mm512_set1_ps(factor);
  for (int64_t j = 0; j < n; j += LANES) _mm512_storeu_ps(row + j, _mm512_mul_ps(_mm512_loadu_ps(row + j), by));
}

// Turns the scores of head g for a chunk of n_panels blocks into weights; what was summed before shrinks to the new
// highest score. Only the run's first n_own queries: what follows them is never read. `factor` times a score is the
// logarithm of its weight to the base 2.
inline void weigh_chunk(Run& run, const Lengths& l, int64_t g, int64_t n_own, const int64_t* seen, int64_t n_panels,
                        float factor) {
  float *sums = run.sums.data() + g * WIDTH, *highest = run.highest.data() + g * WIDTH;
  const int64_t ld = l.group * WIDTH * WIDTH;
  for (int64_t i = 0; i < n_own; i++) {
    const float* row = run.scores.data() + (g * WIDTH + i) * WIDTH;
    const float before = highest[i], now = std::max(before, factor * highest_score(row, ld, seen + i, n_panels));
    highest[i] = now;
    // A query that has seen no key yet: all its weights are 0.
    const float shift = std::isinf(now) ? 0.0f : now;
    const float sum = weigh(row, ld, seen + i, n_panels, factor, shift, run.weights.data() + (g * WIDTH + i) * CHUNK);
    if (now > before) {
      const float kept = std::exp2(before - now);
      shrink(run.mixed.data() + (g * WIDTH + i) * l.width, kept, l.width);
      sums[i] *= kept;
    }
    sums[i] += sum;
  }
}

// The scores of all heads of the group for a chunk of n_panels blocks whose keys are in panels.
inline void score_chunk(Run& run, const Lengths& l, int64_t n_panels) {
  for (int64_t p = 0; p < n_panels; p++) {
    const BFloat16* own = (const BFloat16*)(run.panels.data() + p * WIDTH * l.depth / 2);
    at::native::cpublas::brgemm(l.group * WIDTH, WIDTH, l.depth, l.depth, WIDTH, WIDTH, false, run.queries.data(), own,
                                run.scores.data() + p * l.group * WIDTH * WIDTH, true);
  }
}

// Adds weights @ values of a chunk to the group's results, neighbouring blocks in one product; values is (reserved / 2,
// width, 2), starts[p] even.
inline void mix_chunk(Run& run, const Lengths& l, const int32_t* values, const int64_t* starts, int64_t n_panels) {
  for (int64_t p = 0, next = 0; p < n_panels; p = next) {
    for (next = p + 1; next < n_panels && starts[next] == starts[next - 1] + WIDTH;) next++;
    const BFloat16* own = (const BFloat16*)(values + starts[p] / 2 * l.width);
    const BFloat16* weights = run.weights.data() + p * WIDTH;
    at::native::cpublas::brgemm(l.group * WIDTH, l.width, (next - p) * WIDTH, CHUNK, l.width, l.width, true, weights,
                                own, run.mixed.data(), true);
  }
}

// Writes a run's results: (rows, n_heads, width) from row `top` on.
inline void end_run(const Run& run, const Lengths& l, int64_t h, int64_t top, int64_t n_own, BFloat16* out) {
  for (int64_t g = 0; g < l.group; g++) {
    for (int64_t i = 0; i < n_own; i++) {
      const __m512 share = _mm512_set1_ps(1.0f / run.sums[g * WIDTH + i]);
      const float* from = run.mixed.data() + (g * WIDTH + i) * l.width;
      BFloat16* row = out + ((top + i) * l.n_heads + h * l.group + g) * l.width;
      for (int64_t j = 0; j < l.width; j += LANES) narrow(row + j, _mm512_mul_ps(_mm512_loadu_ps(from + j), share));
    }
  }
}

// Softmax attention of a packed step.
//
// query (heads, n, depth), key (kv_heads, keys, depth), value (kv_heads, keys, width); any strides but the last.
// first (n / WIDTH rounded up + 1,): where the blocks of each WIDTH queries begin; starts: the first key of each block of
// WIDTH, even and less than `keys`; seen (blocks, WIDTH): one bit a key for each of the queries. -> (rows, heads, width),
// zeros from row n on.
Tensor attention(const Tensor& query, const Tensor& key, const Tensor& value, const Tensor& first, const Tensor& starts,
                 const Tensor& seen, int64_t rows, double scale) {
  const Lengths l = lengths_of(query, key, value);
  TORCH_CHECK_VALUE(rows >= l.n && first.numel() == l.n_runs + 1, "blocks of another step");
  const std::vector<int32_t> keys = transposed_keys(key, l);
  const std::vector<int32_t> values = paired_values(value, l);
  const int64_t *begins = first.const_data_ptr<int64_t>(), *low = starts.const_data_ptr<int64_t>();
  const int64_t* bits = seen.const_data_ptr<int64_t>();
  TORCH_CHECK_VALUE(scale > 0, "scores with a factor that is not positive");
  const float factor = (float)(scale * 1.44269504088896341);  // log2 e: the weights are powers of 2
  Tensor out = at::zeros({rows, l.n_heads, l.width}, query.options());
  BFloat16* to = out.mutable_data_ptr<BFloat16>();
  in_parallel(l.n_runs * l.kv_heads, [&](int64_t begin, int64_t end) {
    Run run(l);
    for (int64_t task = begin; task < end; task++) {
      const int64_t h = task / l.n_runs, block = task % l.n_runs, top = block * WIDTH;
      const int64_t n_own = std::min(WIDTH, l.n - top);
      begin_run(run, l, query, h, top, n_own);
      for (int64_t at = begins[block]; at < begins[block + 1]; at += CHUNK / WIDTH) {
        const int64_t n_panels = std::min(CHUNK / WIDTH, begins[block + 1] - at);
        gather_panels(run, l, keys.data() + h * l.depth / 2 * l.reserved, low + at, n_panels);
        score_chunk(run, l, n_panels);
        for (int64_t g = 0; g < l.group; g++) weigh_chunk(run, l, g, n_own, bits + at * WIDTH, n_panels, factor);
        mix_chunk(run, l, values.data() + h * l.reserved / 2 * l.width, low + at, n_panels);
      }
      end_run(run, l, h, top, n_own, to);
    }
  });
  return out;
}

}  // namespace drsow
