// Softmax attention of the newest token of each of many responses to several prompts.
//
// Keys lie in blocks of LANES, transposed: pairs of their numbers, (blocks, depth / 2, LANES), 32 bits each. Values lie as
// pairs of rows interleaved: (keys / 2, width, 2). The responses to a prompt share its keys and values.

#pragma once

#include "common.h"

namespace drsow {

constexpr int64_t HEADS = 4;  // query heads that one pass over keys or values serves

// The keys and values that a token sees in one place: of the prompt, or of its response.
struct Segment {
  const int32_t* keys;
  const int32_t* values;
  int64_t first, n;  // it sees keys first..n, first <= n

  int64_t low() const { return first / LANES * LANES; }  // where its scores begin
  int64_t high() const { return (n + LANES - 1) / LANES * LANES; }
};

// What one thread works on.
struct Scratch {
  std::vector<float> scores;      // (HEADS, reserved)
  std::vector<BFloat16> weights;  // likewise
  std::vector<float> mixed;       // (HEADS, width)
  int64_t reserved = 0;

  explicit Scratch(int64_t width) : mixed(HEADS * width) {}

  void reserve(int64_t n) {
    if (n <= reserved) return;
    reserved = n;
    scores.resize(HEADS * n);
    weights.resize(HEADS * n);
  }
};

// The logarithms to the base 2 of the weights of a segment's keys for N queries, before they are divided by their sum;
// -inf for keys that are not seen. Gives each query's highest.
template <int N>
inline void score(const BFloat16* const* queries, const Segment& s, int64_t pairs, float factor, float* scores,
                  int64_t reserved, __m512* highest) {
  const __m512 by = _mm512_set1_ps(factor), none = _mm512_set1_ps(-std::numeric_limits<float>::infinity());
  for (int64_t k = s.low(); k < s.high(); k += LANES) {
    const int32_t* block = s.keys + k * pairs;
    __m512 sums[N];
    for (int q = 0; q < N; q++) sums[q] = _mm512_setzero_ps();
    for (int64_t i = 0; i < pairs; i++) {
      const __m512bh keys = (__m512bh)_mm512_loadu_si512(block + i * LANES);
      for (int q = 0; q < N; q++) {
        sums[q] = _mm512_dpbf16_ps(sums[q], (__m512bh)_mm512_set1_epi32(((const int32_t*)queries[q])[i]), keys);
      }
    }
    const uint32_t from = k < s.first ? 0xffffu << (s.first - k) : 0xffffu;
    const uint32_t to = s.n - k < LANES ? (1u << (s.n - k)) - 1 : 0xffffu;
    for (int q = 0; q < N; q++) {
      const __m512 x = _mm512_mask_mul_ps(none, (__mmask16)(from & to), sums[q], by);
      _mm512_storeu_ps(scores + q * reserved + k - s.low(), x);
      highest[q] = _mm512_max_ps(highest[q], x);
    }
  }
}

// Adds weights @ values of a segment to N rows of results.
template <int N>
inline void mix(const BFloat16* weights, int64_t reserved, const Segment& s, int64_t width, float* out) {
  for (int64_t j = 0; j < width; j += WIDTH) {
    __m512 sums[N][WIDTH / LANES];
    for (int q = 0; q < N; q++) {
      for (int64_t c = 0; c < WIDTH / LANES; c++) sums[q][c] = _mm512_loadu_ps(out + q * width + j + c * LANES);
    }
    for (int64_t k = s.low(); k < s.high(); k += 2) {
      const int32_t* pair = s.values + k / 2 * width + j;
      for (int64_t c = 0; c < WIDTH / LANES; c++) {
        const __m512bh values = (__m512bh)_mm512_loadu_si512(pair + c * LANES);
        for (int q = 0; q < N; q++) {
          const int32_t both = *(const int32_t*)(weights + q * reserved + k - s.low());
          sums[q][c] = _mm512_dpbf16_ps(sums[q][c], (__m512bh)_mm512_set1_epi32(both), values);
        }
      }
    }
    for (int q = 0; q < N; q++) {
      for (int64_t c = 0; c < WIDTH / LANES; c++) _mm512_storeu_ps(out + q * width + j + c * LANES, sums[q][c]);
    }
  }
}

// Attention of N query heads that share keys and values; to: N rows of `width` numbers, rounded.
template <int N>
inline void attend(const BFloat16* const* queries, const Segment* segments, int64_t pairs, int64_t width, float factor,
                   Scratch& scratch, BFloat16* to) {
  const int64_t own = segments[0].high() - segments[0].low(), n = own + segments[1].high() - segments[1].low();
  scratch.reserve(n);
  float* scores = scratch.scores.data();
  BFloat16* weights = scratch.weights.data();
  __m512 highest[N];
  for (int q = 0; q < N; q++) highest[q] = _mm512_set1_ps(-std::numeric_limits<float>::infinity());
  score<N>(queries, segments[0], pairs, factor, scores, scratch.reserved, highest);
  score<N>(queries, segments[1], pairs, factor, scores + own, scratch.reserved, highest);
  __m512 shares[N];
  for (int q = 0; q < N; q++) {
    const __m512 top = _mm512_set1_ps(_mm512_reduce_max_ps(highest[q]));
    __m512 sum = _mm512_setzero_ps();
    for (int64_t k = 0; k < n; k += LANES) {
      const __m512 x = _mm512_sub_ps(_mm512_loadu_ps(scores + q * scratch.reserved + k), top);
      const __m512 w = exp2_of(0xffff, x);
      sum = _mm512_add_ps(sum, w);
      narrow(weights + q * scratch.reserved + k, w);
    }
    shares[q] = _mm512_set1_ps(1.0f / _mm512_reduce_add_ps(sum));
  }
  float* mixed = scratch.mixed.data();
  std::fill(mixed, mixed + N * width, 0.0f);
  mix<N>(weights, scratch.reserved, segments[0], width, mixed);
  mix<N>(weights + own, scratch.reserved, segments[1], width, mixed);
  for (int q = 0; q < N; q++) {
    for (int64_t j = 0; j < width; j += LANES) {
      narrow(to + q * width + j, _mm512_mul_ps(_mm512_loadu_ps(mixed + q * width + j), shares[q]));
    }
  }
}

// Puts a token's key and value behind the n that a response has.
inline void append(const BFloat16* key, const BFloat16* value, int64_t pairs, int64_t width, int64_t n, int32_t* keys,
                   int32_t* values) {
  int32_t* block = keys + n / LANES * LANES * pairs + n % LANES;
  for (int64_t i = 0; i < pairs; i++) block[i * LANES] = ((const int32_t*)key)[i];
  BFloat16* row = (BFloat16*)(values + n / 2 * width) + n % 2;
  for (int64_t j = 0; j < width; j++) row[2 * j] = value[j];
}

// The responses to one prompt.
struct Responses {
  int64_t first, rows;                  // its responses are rows first..first + rows of the step
  int64_t n_prompt, n_own;              // tokens of the prompt, and of each response so far
  int64_t prompt_room, own_room;        // keys for which there is room, of a key head
  const int32_t *prompt_keys, *prompt_values;
  int32_t *own_keys, *own_values;
};

// lengths (groups, 3): responses, tokens of the prompt, tokens of each response so far. Checks every shape.
inline std::vector<Responses> responses_of(at::TensorList prompt_keys, at::TensorList prompt_values,
                                           at::TensorList own_keys, at::TensorList own_values, const Tensor& lengths,
                                           int64_t kv_heads, int64_t pairs, int64_t width) {
  const int64_t n_groups = lengths.size(0);
  const int64_t* told = lengths.const_data_ptr<int64_t>();
  std::vector<Responses> out;
  for (int64_t g = 0, first = 0; g < n_groups; g++) {
    const Tensor &pk = prompt_keys[g], &pv = prompt_values[g], &ok = own_keys[g], &ov = own_values[g];
    for (const Tensor& x : {pk, pv, ok, ov}) {
      TORCH_CHECK_VALUE(x.scalar_type() == at::kInt && x.is_contiguous(), "no blocks of keys");
    }
    const int64_t rows = told[3 * g], n_prompt = told[3 * g + 1], n_own = told[3 * g + 2];
    const int64_t prompt_room = pk.size(1) * LANES, own_room = ok.size(2) * LANES;
    TORCH_CHECK_VALUE(n_prompt <= prompt_room && n_own < own_room && ok.size(0) == rows, "more keys than room");
    TORCH_CHECK_VALUE(pk.numel() == kv_heads * prompt_room * pairs && pv.numel() == kv_heads * prompt_room / 2 * width &&
                          ok.numel() == rows * kv_heads * own_room * pairs &&
                          ov.numel() == rows * kv_heads * own_room / 2 * width,
                      "keys and values of two shapes");
    out.push_back({first, rows, n_prompt, n_own, prompt_room, own_room, pk.const_data_ptr<int32_t>(),
                   pv.const_data_ptr<int32_t>(), ok.mutable_data_ptr<int32_t>(), ov.mutable_data_ptr<int32_t>()});
    first += rows;
  }
  return out;
}

// Lengths and strides of one call.
struct Call {
  int64_t kv, group, pairs, width, window;
  float factor;
  const Tensor &query, &key, &value;

  const BFloat16* at(const Tensor& x, int64_t slot, int64_t head) const {
    return x.const_data_ptr<BFloat16>() + slot * x.stride(0) + head * x.stride(1);
  }
};

// The query heads of one key head, for the token of one response; to: (group, width).
inline void attend_group(const Call& c, const Responses& r, int64_t row, int64_t h, Scratch& scratch, BFloat16* to) {
  const int64_t slot = r.first + row;
  int32_t* keys = r.own_keys + (row * c.kv + h) * r.own_room * c.pairs;
  int32_t* values = r.own_values + (row * c.kv + h) * r.own_room / 2 * c.width;
  append(c.at(c.key, slot, h), c.at(c.value, slot, h), c.pairs, c.width, r.n_own, keys, values);
  const int64_t n = r.n_prompt + r.n_own + 1, first = c.window > 0 ? std::max<int64_t>(0, n - c.window) : 0;
  const Segment segments[2] = {{r.prompt_keys + h * r.prompt_room * c.pairs,
                                r.prompt_values + h * r.prompt_room / 2 * c.width, std::min(first, r.n_prompt), r.n_prompt},
                               {keys, values, std::max<int64_t>(0, first - r.n_prompt), r.n_own + 1}};
  for (int64_t g = 0; g < c.group; g += HEADS) {
    const int64_t n_heads = std::min(HEADS, c.group - g);
    const BFloat16* queries[HEADS];
    for (int64_t q = 0; q < n_heads; q++) queries[q] = c.at(c.query, slot, h * c.group + g + q);
    BFloat16* result = to + g * c.width;
    if (n_heads == 4) attend<4>(queries, segments, c.pairs, c.width, c.factor, scratch, result);
    if (n_heads == 3) attend<3>(queries, segments, c.pairs, c.width, c.factor, scratch, result);
    if (n_heads == 2) attend<2>(queries, segments, c.pairs, c.width, c.factor, scratch, result);
    if (n_heads == 1) attend<1>(queries, segments, c.pairs, c.width, c.factor, scratch, result);
  }
}

// Attention of one layer; puts the keys and values of the new tokens behind those of their responses.
//
// query (slots, heads, depth), key (slots, kv_heads, depth), value (slots, kv_heads, width), any strides but the last:
// the new tokens, of all responses of the first group, then of the second, and so on. prompt_keys (kv_heads, blocks,
// depth / 2, LANES), prompt_values (kv_heads, blocks * LANES / 2, width), own_keys (responses, kv_heads, blocks, depth / 2,
// LANES), own_values (responses, kv_heads, blocks * LANES / 2, width): int32 pairs. window: a token sees keys that are
// nearer than this; 0 for all. -> (slots, heads, width), zeros behind the last response.
Tensor decode_attention(const Tensor& query, const Tensor& key, const Tensor& value, at::TensorList prompt_keys,
                        at::TensorList prompt_values, at::TensorList own_keys, at::TensorList own_values,
                        const Tensor& lengths, double scale, int64_t window) {
  for (const Tensor& x : {query, key, value}) {
    TORCH_CHECK_VALUE(x.scalar_type() == at::kBFloat16 && x.dim() == 3 && x.stride(2) == 1, "not bfloat16 heads");
  }
  const int64_t heads = query.size(1), kv = key.size(1), width = value.size(2);
  TORCH_CHECK_VALUE(query.size(2) % 2 == 0 && key.size(2) == query.size(2) && width % WIDTH == 0 && heads % kv == 0,
                    "heads of another shape");
  TORCH_CHECK_VALUE(scale > 0, "scores with a factor that is not positive");
  const float factor = (float)(scale * 1.44269504088896341);  // log2 e: the weights are powers of 2
  const Call call{kv, heads / kv, query.size(2) / 2, width, window, factor, query, key, value};
  const auto all = responses_of(prompt_keys, prompt_values, own_keys, own_values, lengths, kv, call.pairs, width);
  const int64_t n_rows = all.empty() ? 0 : all.back().first + all.back().rows;
  TORCH_CHECK_VALUE(n_rows <= query.size(0), "more responses than rows");
  Tensor out = at::zeros({query.size(0), heads, width}, query.options());
  BFloat16* to = out.mutable_data_ptr<BFloat16>();
  at::parallel_for(0, n_rows * kv, 8, [&](int64_t begin, int64_t end) {
    Scratch scratch(width);
    auto r = all.begin();
    for (int64_t task = begin; task < end; task++) {
      while (task >= (r->first + r->rows) * kv) r++;
      // One head of all responses to a prompt, then the next head: what they share stays in the cache.
      const int64_t h = (task - r->first * kv) / r->rows, row = (task - r->first * kv) % r->rows;
      attend_group(call, *r, row, h, scratch, to + ((r->first + row) * heads + h * call.group) * width);
    }
  });
  return out;
}

}  // namespace drsow
