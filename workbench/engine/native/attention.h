// One token's query heads that share a KV head, attending to all that came before in the paged cache.
//
// Every query is worked on alone and over positions in one order, so neither the batch nor the way a prompt was cut
// into chunks changes a bit of the result.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include <immintrin.h>

#include "kv_cache.h"
#include "vector_math.h"

// Positions that are scored together: one vector of scores.
constexpr int kPositions = 16;

// Rotates pairs (i, i + dim / 2) of one head by the position's angles; in place.
inline void rotate(float* head, const float* cosines, const float* sines, int dim) {
    const int half = dim / 2;
    for (int i = 0; i < half; i += 16) {
        const __m512 c = _mm512_loadu_ps(cosines + i), s = _mm512_loadu_ps(sines + i);
        const __m512 a = _mm512_loadu_ps(head + i), b = _mm512_loadu_ps(head + half + i);
        _mm512_storeu_ps(head + i, _mm512_fnmadd_ps(b, s, _mm512_mul_ps(a, c)));
        _mm512_storeu_ps(head + half + i, _mm512_fmadd_ps(a, s, _mm512_mul_ps(b, c)));
    }
}

// RMS normalisation of one head, as Qwen 3 does to queries and keys; in place.
inline void normalize_head(float* head, const float* gain, float eps, int dim) {
    __m512 squares = _mm512_setzero_ps();
    for (int i = 0; i < dim; i += 16) {
        const __m512 a = _mm512_loadu_ps(head + i);
        squares = _mm512_fmadd_ps(a, a, squares);
    }
    const __m512 factor = _mm512_set1_ps(1.0f / std::sqrt(_mm512_reduce_add_ps(squares) / float(dim) + eps));
    for (int i = 0; i < dim; i += 16)
        _mm512_storeu_ps(
            head + i, _mm512_mul_ps(_mm512_mul_ps(_mm512_loadu_ps(head + i), factor), _mm512_loadu_ps(gain + i))
        );
}

// Element i is the sum of rows[i].
inline __m512 sum_each(__m512 (&rows)[16]) {
    __m512 pairs[8], fours[4];
    for (int i = 0; i < 8; ++i)
        pairs[i] = _mm512_add_ps(
            _mm512_unpacklo_ps(rows[2 * i], rows[2 * i + 1]), _mm512_unpackhi_ps(rows[2 * i], rows[2 * i + 1])
        );
    for (int i = 0; i < 4; ++i) {
        const __m512d a = _mm512_castps_pd(pairs[2 * i]), b = _mm512_castps_pd(pairs[2 * i + 1]);
        fours[i] = _mm512_add_ps(
            _mm512_castpd_ps(_mm512_unpacklo_pd(a, b)), _mm512_castpd_ps(_mm512_unpackhi_pd(a, b))
        );
    }
    // Every 128-bit lane of fours[i] now holds sums over that lane of rows 4i .. 4i + 3.
    const __m512 a = _mm512_add_ps(
        _mm512_shuffle_f32x4(fours[0], fours[1], 0x88), _mm512_shuffle_f32x4(fours[0], fours[1], 0xdd)
    );
    const __m512 b = _mm512_add_ps(
        _mm512_shuffle_f32x4(fours[2], fours[3], 0x88), _mm512_shuffle_f32x4(fours[2], fours[3], 0xdd)
    );
    return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
}

// What one token's attention reads: `table` holds its sequence's blocks, and it sees positions first .. last.
template <class Element> struct Span {
    const Element* keys;
    const Element* values;
    const int32_t* table;
    KvLayout layout;
    int kv_head;
    int first;
    int last;
};

// scores[head][position - begin] for the positions of the span, `begin` being `first` rounded down to 16. Positions
// outside the span get -infinity. `keys` is room for 16 x dim floats.
template <class Element>
void score(const Span<Element>& span, const float* queries, int num_heads, float scale, float* scores, int stride,
           float* keys) {
    const int dim = span.layout.dim, begin = span.first / kPositions * kPositions;
    for (int base = begin; base <= span.last; base += kPositions) {
        const int low = std::max(base, span.first), high = std::min(base + kPositions - 1, span.last);
        for (int position = low; position <= high; ++position) {
            const Element* key = span.keys + span.layout.at(span.table, position, span.kv_head);
            for (int i = 0; i < dim; i += 16) _mm512_store_ps(keys + (position - base) * dim + i, load16(key + i));
        }
        const auto inside = __mmask16((0xffffu << (low - base)) & (0xffffu >> (base + kPositions - 1 - high)));
        for (int head = 0; head < num_heads; ++head) {
            __m512 sums[kPositions];
            for (int p = 0; p < kPositions; ++p) sums[p] = _mm512_setzero_ps();
            for (int i = 0; i < dim; i += 16) {
                const __m512 query = _mm512_loadu_ps(queries + head * dim + i);
                for (int p = 0; p < kPositions; ++p)
                    sums[p] = _mm512_fmadd_ps(query, _mm512_load_ps(keys + p * dim + i), sums[p]);
            }
            const __m512 values = _mm512_mul_ps(sum_each(sums), _mm512_set1_ps(scale));
            _mm512_storeu_ps(
                scores + int64_t(head) * stride + base - begin,
                _mm512_mask_mov_ps(_mm512_set1_ps(-INFINITY), inside, values)
            );
        }
    }
}

// Turns scores [count, a multiple of 16] into e^(score - largest), and gives one over their sum.
inline float exponentiate(float* scores, int count) {
    __m512 largest = _mm512_set1_ps(-INFINITY);
    for (int i = 0; i < count; i += 16) largest = _mm512_max_ps(largest, _mm512_loadu_ps(scores + i));
    const __m512 shift = _mm512_set1_ps(_mm512_reduce_max_ps(largest));
    __m512 sum = _mm512_setzero_ps();
    for (int i = 0; i < count; i += 16) {
        const __m512 value = exp16(_mm512_sub_ps(_mm512_loadu_ps(scores + i), shift));
        _mm512_storeu_ps(scores + i, value);
        sum = _mm512_add_ps(sum, value);
    }
    return 1.0f / _mm512_reduce_add_ps(sum);
}

// out[head][from .. from + 16 * vectors) = weighted sum of values, for `num_heads` heads at once.
template <class Element, int num_heads, int vectors>
void mix_values(const Span<Element>& span, const float* weights, int stride, const float* factors, int from,
                float* out) {
    const int dim = span.layout.dim, begin = span.first / kPositions * kPositions;
    __m512 sums[num_heads][vectors];
    for (auto& row : sums)
        for (auto& sum : row) sum = _mm512_setzero_ps();
    for (int position = span.first; position <= span.last; ++position) {
        const Element* value = span.values + span.layout.at(span.table, position, span.kv_head) + from;
        __m512 parts[vectors];
        for (int i = 0; i < vectors; ++i) parts[i] = load16(value + 16 * i);
        for (int head = 0; head < num_heads; ++head) {
            const __m512 weight = _mm512_set1_ps(weights[int64_t(head) * stride + position - begin]);
            for (int i = 0; i < vectors; ++i) sums[head][i] = _mm512_fmadd_ps(weight, parts[i], sums[head][i]);
        }
    }
    for (int head = 0; head < num_heads; ++head)
        for (int i = 0; i < vectors; ++i)
            _mm512_storeu_ps(out + head * dim + from + 16 * i, _mm512_mul_ps(sums[head][i], _mm512_set1_ps(factors[head])));
}

template <class Element, int vectors>
void mix_part(const Span<Element>& span, const float* weights, int stride, const float* factors, int num_heads,
              int from, float* out) {
    const int dim = span.layout.dim;
    for (int head = 0; head < num_heads; head += 4) {
        const float* w = weights + int64_t(head) * stride;
        float* o = out + head * dim;
        switch (std::min(4, num_heads - head)) {
        case 4: mix_values<Element, 4, vectors>(span, w, stride, factors + head, from, o); break;
        case 3: mix_values<Element, 3, vectors>(span, w, stride, factors + head, from, o); break;
        case 2: mix_values<Element, 2, vectors>(span, w, stride, factors + head, from, o); break;
        default: mix_values<Element, 1, vectors>(span, w, stride, factors + head, from, o);
        }
    }
}

// out [num_heads, dim] for `queries` [num_heads, dim]. `scores` is room for num_heads rows of `stride` floats, at least
// the span and 16 more; `keys` for 16 x dim floats.
template <class Element>
void attend(const Span<Element>& span, const float* queries, int num_heads, float scale, float* scores, int stride,
            float* keys, float* out) {
    score(span, queries, num_heads, scale, scores, stride, keys);
    const int begin = span.first / kPositions * kPositions;
    const int count = (span.last - begin) / kPositions * kPositions + kPositions;
    float factors[64];
    for (int head = 0; head < num_heads; ++head) factors[head] = exponentiate(scores + int64_t(head) * stride, count);
    const int dim = span.layout.dim;
    for (int from = 0; from < dim; from += 64) {
        if (dim - from >= 64) mix_part<Element, 4>(span, scores, stride, factors, num_heads, from, out);
        else mix_part<Element, 2>(span, scores, stride, factors, num_heads, from, out);
    }
}
