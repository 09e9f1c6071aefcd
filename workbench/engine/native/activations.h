// Rows of numbers on their way into a matrix product: normalised, and rounded as the product's kernel takes them.
#pragma once

#include <cmath>
#include <cstdint>

#include <immintrin.h>

#include "vector_math.h"

// Numbers of a row that share one scale: what GGUF's 4- and 8-bit types have, and so both sides scale together.
constexpr int kGroup = 32;

// Rows [rows, columns] in the form that a product reads. For packed integers: `levels` int8, per group a scale, the sum
// of its levels times the scale (for weights with a minimum) and times -128 (for 8-bit weights, kept with 128 added).
// For bf16 weights: the numbers rounded to bf16, as floats and as bf16. For float weights: the numbers as they are.
enum class Rounding { kLevels, kBf16, kNone };

struct Activations {
    int8_t* levels = nullptr;
    float* scales = nullptr;
    float* scaled_sums = nullptr;
    int32_t* offsets = nullptr;
    float* numbers = nullptr;
    uint16_t* numbers_bf16 = nullptr;
    int columns = 0;

    int groups() const { return columns / kGroup; }
};

// Rounds one group (two vectors) of row `row` for integer weights.
inline void quantize_group(const Activations& to, int64_t row, int group, __m512 low, __m512 high) {
    const __m512 largest = _mm512_max_ps(_mm512_abs_ps(low), _mm512_abs_ps(high));
    const float amax = _mm512_reduce_max_ps(largest);
    const float scale = amax / 127.0f;
    // Below that the inverse overflows, and nothing that small adds to anything.
    const __m512 inverse = _mm512_set1_ps(amax > 1e-30f ? 127.0f / amax : 0.0f);
    const __m512i a = _mm512_cvtps_epi32(_mm512_mul_ps(low, inverse));
    const __m512i b = _mm512_cvtps_epi32(_mm512_mul_ps(high, inverse));
    int8_t* levels = to.levels + row * to.columns + group * kGroup;
    _mm_storeu_si128(reinterpret_cast<__m128i*>(levels), _mm512_cvtsepi32_epi8(a));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(levels + 16), _mm512_cvtsepi32_epi8(b));
    // Not a number in, not a number out: the maximum drops it, the sum of the numbers themselves does not.
    const float poison = _mm512_reduce_add_ps(_mm512_add_ps(low, high)) * 0.0f;
    const int32_t sum = _mm512_reduce_add_epi32(_mm512_add_epi32(a, b));
    const int64_t at = row * to.groups() + group;
    to.scales[at] = scale + poison;
    to.scaled_sums[at] = scale * float(sum);
    to.offsets[at] = -128 * sum;
}

// Rounds one group of row `row` for whichever weights come next.
inline void store_group(const Activations& to, Rounding rounding, int64_t row, int group, __m512 low, __m512 high) {
    if (rounding == Rounding::kLevels) {
        quantize_group(to, row, group, low, high);
        return;
    }
    const int64_t at = row * to.columns + group * kGroup;
    if (rounding == Rounding::kBf16) {
        const __m256i a = narrow_bf16(low), b = narrow_bf16(high);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to.numbers_bf16 + at), a);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to.numbers_bf16 + at + 16), b);
        low = widen_bf16(a);
        high = widen_bf16(b);
    }
    _mm512_storeu_ps(to.numbers + at, low);
    _mm512_storeu_ps(to.numbers + at + 16, high);
}

// RMS normalisation of one row of `columns` floats, times `gain`, into `to`.
inline void normalize_row(
    const float* row, const float* gain, float eps, const Activations& to, Rounding rounding, int64_t index
) {
    const int columns = to.columns;
    __m512 even = _mm512_setzero_ps(), odd = _mm512_setzero_ps();
    for (int i = 0; i < columns; i += 32) {
        const __m512 a = _mm512_loadu_ps(row + i), b = _mm512_loadu_ps(row + i + 16);
        even = _mm512_fmadd_ps(a, a, even);
        odd = _mm512_fmadd_ps(b, b, odd);
    }
    const float mean = _mm512_reduce_add_ps(_mm512_add_ps(even, odd)) / float(columns);
    const __m512 factor = _mm512_set1_ps(1.0f / std::sqrt(mean + eps));
    for (int i = 0; i < columns; i += 32) {
        const __m512 a = _mm512_mul_ps(_mm512_mul_ps(_mm512_loadu_ps(row + i), factor), _mm512_loadu_ps(gain + i));
        const __m512 b =
            _mm512_mul_ps(_mm512_mul_ps(_mm512_loadu_ps(row + i + 16), factor), _mm512_loadu_ps(gain + i + 16));
        store_group(to, rounding, index, i / kGroup, a, b);
    }
}
