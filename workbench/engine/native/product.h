// Rows of activations times one block of 16 weight rows. A row's result has the same bits whatever rows are beside it
// and whichever kernel computes it: integer sums are exact, and floats are added in one order everywhere.
#pragma once

#include <cstdint>

#include <immintrin.h>

#include "activations.h"
#include "packed_matrix.h"
#include "tiles.h"

// Rows that one pass over a block's weights serves.
constexpr int kRowsAtOnce = 8;

// How far ahead of the multiplications weights are asked for: further than memory's answer takes.
constexpr int kPrefetchBytes = 8192;

template <int num_bytes> inline void prefetch(const uint8_t* at) {
    for (int i = 0; i < num_bytes; i += 64)
        _mm_prefetch(reinterpret_cast<const char*>(at + kPrefetchBytes + i), _MM_HINT_T0);
}

template <WeightKind kind, int num_rows>
inline void integer_rows(
    const uint8_t* block, const Activations& x, int64_t first_row, float* out, int64_t out_stride
) {
    using L = Layout<kind>;
    const int groups = x.groups();
    const uint8_t* scales = block + int64_t(groups) * L::level_bytes;
    const int8_t* levels = x.levels + first_row * x.columns;
    const int64_t first_group = first_row * groups;
    __m512 sums[num_rows];
    for (int r = 0; r < num_rows; ++r) sums[r] = _mm512_setzero_ps();
    for (int group = 0; group < groups; ++group) {
        prefetch<L::level_bytes>(block + int64_t(group) * L::level_bytes);
        __m512i weights[8];
        load_levels<kind>(block + int64_t(group) * L::level_bytes, weights);
        const __m512 scale = load_scales<kind>(scales + group * L::scale_stride);
        const __m512 minimum =
            L::is_int4 ? load_scales<kind>(scales + group * L::scale_stride + L::vector_bytes) : _mm512_setzero_ps();
        for (int r = 0; r < num_rows; ++r) {
            const int64_t at = first_group + int64_t(r) * groups + group;
            const int32_t* columns = reinterpret_cast<const int32_t*>(levels + int64_t(r) * x.columns + group * kGroup);
            __m512i dot = L::is_int4 ? _mm512_setzero_si512() : _mm512_set1_epi32(x.offsets[at]);
            for (int j = 0; j < 8; ++j) dot = _mm512_dpbusd_epi32(dot, weights[j], _mm512_set1_epi32(columns[j]));
            const __m512 factor = _mm512_mul_ps(scale, _mm512_set1_ps(x.scales[at]));
            sums[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), factor, sums[r]);
            if (L::is_int4) sums[r] = _mm512_fmadd_ps(minimum, _mm512_set1_ps(x.scaled_sums[at]), sums[r]);
        }
    }
    for (int r = 0; r < num_rows; ++r) _mm512_storeu_ps(out + r * out_stride, sums[r]);
}

// Even and odd columns are summed apart over 32 columns and then added to the rest: the order of AMX's TDPBF16PS.
template <int num_rows>
inline void bf16_rows(const uint8_t* block, const Activations& x, int64_t first_row, float* out, int64_t out_stride) {
    const float* numbers = x.numbers + first_row * x.columns;
    const __m512i high_half = _mm512_set1_epi32(int(0xffff0000));
    __m512 sums[num_rows];
    for (int r = 0; r < num_rows; ++r) sums[r] = _mm512_setzero_ps();
    for (int column = 0; column < x.columns; column += kGroup) {
        __m512 even[num_rows], odd[num_rows];
        for (int r = 0; r < num_rows; ++r) even[r] = odd[r] = _mm512_setzero_ps();
        for (int pair = 0; pair < kGroup / 2; ++pair) {
            const uint8_t* at = block + int64_t(column / 2 + pair) * 64;
            prefetch<64>(at);
            const __m512i both = _mm512_load_si512(at);
            const __m512 first = _mm512_castsi512_ps(_mm512_slli_epi32(both, 16));
            const __m512 second = _mm512_castsi512_ps(_mm512_and_si512(both, high_half));
            for (int r = 0; r < num_rows; ++r) {
                const float* two = numbers + int64_t(r) * x.columns + column + 2 * pair;
                even[r] = _mm512_fmadd_ps(first, _mm512_set1_ps(two[0]), even[r]);
                odd[r] = _mm512_fmadd_ps(second, _mm512_set1_ps(two[1]), odd[r]);
            }
        }
        for (int r = 0; r < num_rows; ++r) sums[r] = _mm512_add_ps(sums[r], _mm512_add_ps(even[r], odd[r]));
    }
    for (int r = 0; r < num_rows; ++r) _mm512_storeu_ps(out + r * out_stride, sums[r]);
}

// Summed over 32 columns apart and then added to the rest, which keeps the rounding of long rows small.
template <int num_rows>
inline void float_rows(const uint8_t* block, const Activations& x, int64_t first_row, float* out, int64_t out_stride) {
    const float* numbers = x.numbers + first_row * x.columns;
    __m512 sums[num_rows];
    for (int r = 0; r < num_rows; ++r) sums[r] = _mm512_setzero_ps();
    for (int column = 0; column < x.columns; column += kGroup) {
        __m512 parts[num_rows];
        for (int r = 0; r < num_rows; ++r) parts[r] = _mm512_setzero_ps();
        for (int i = 0; i < kGroup; ++i) {
            const uint8_t* at = block + int64_t(column + i) * 64;
            prefetch<64>(at);
            const __m512 weights = _mm512_load_ps(at);
            for (int r = 0; r < num_rows; ++r)
                parts[r] = _mm512_fmadd_ps(weights, _mm512_set1_ps(numbers[int64_t(r) * x.columns + column + i]), parts[r]);
        }
        for (int r = 0; r < num_rows; ++r) sums[r] = _mm512_add_ps(sums[r], parts[r]);
    }
    for (int r = 0; r < num_rows; ++r) _mm512_storeu_ps(out + r * out_stride, sums[r]);
}

template <WeightKind kind, int num_rows>
inline void some_rows(const uint8_t* block, const Activations& x, int64_t first_row, float* out, int64_t out_stride) {
    if constexpr (kind == WeightKind::kBf16) bf16_rows<num_rows>(block, x, first_row, out, out_stride);
    else if constexpr (kind == WeightKind::kFloat) float_rows<num_rows>(block, x, first_row, out, out_stride);
    else integer_rows<kind, num_rows>(block, x, first_row, out, out_stride);
}

template <WeightKind kind>
void rows_times_block(
    const uint8_t* block, const Activations& x, int64_t first_row, int num_rows, float* out, int64_t out_stride
) {
#ifdef WORKBENCH_HAS_TILES
    if constexpr (kind != WeightKind::kFloat) {
        const int done = tiled_rows<kind>(block, x, first_row, num_rows, out, out_stride);
        first_row += done;
        num_rows -= done;
        out += done * out_stride;
    }
#endif
    for (; num_rows >= kRowsAtOnce; num_rows -= kRowsAtOnce) {
        some_rows<kind, kRowsAtOnce>(block, x, first_row, out, out_stride);
        first_row += kRowsAtOnce;
        out += kRowsAtOnce * out_stride;
    }
    switch (num_rows) {
    case 7: return some_rows<kind, 7>(block, x, first_row, out, out_stride);
    case 6: return some_rows<kind, 6>(block, x, first_row, out, out_stride);
    case 5: return some_rows<kind, 5>(block, x, first_row, out, out_stride);
    case 4: return some_rows<kind, 4>(block, x, first_row, out, out_stride);
    case 3: return some_rows<kind, 3>(block, x, first_row, out, out_stride);
    case 2: return some_rows<kind, 2>(block, x, first_row, out, out_stride);
    case 1: return some_rows<kind, 1>(block, x, first_row, out, out_stride);
    }
}

// out[r, 0..15] = rows `first_row` .. of `x` times the 16 weight rows of block `block`, without bias.
inline void multiply_block(
    const PackedMatrix& matrix, int block, const Activations& x, int64_t first_row, int num_rows, float* out,
    int64_t out_stride
) {
    const uint8_t* data = matrix.data + block * block_bytes(matrix.kind, matrix.columns);
    switch (matrix.kind) {
    case WeightKind::kInt4Half:
        return rows_times_block<WeightKind::kInt4Half>(data, x, first_row, num_rows, out, out_stride);
    case WeightKind::kInt4Float:
        return rows_times_block<WeightKind::kInt4Float>(data, x, first_row, num_rows, out, out_stride);
    case WeightKind::kInt8Half:
        return rows_times_block<WeightKind::kInt8Half>(data, x, first_row, num_rows, out, out_stride);
    case WeightKind::kInt8Float:
        return rows_times_block<WeightKind::kInt8Float>(data, x, first_row, num_rows, out, out_stride);
    case WeightKind::kInt8Row:
        return rows_times_block<WeightKind::kInt8Row>(data, x, first_row, num_rows, out, out_stride);
    case WeightKind::kBf16:
        return rows_times_block<WeightKind::kBf16>(data, x, first_row, num_rows, out, out_stride);
    case WeightKind::kFloat:
        return rows_times_block<WeightKind::kFloat>(data, x, first_row, num_rows, out, out_stride);
    }
}
