// Weights as the kernels read them: blocks of 16 rows, so that one vector holds the same columns of 16 rows.
//
//   4 bits  a block = groups x 256 bytes of levels, then groups x (16 scales, 16 minima)
//           byte 4 * row + c of the j-th 64 bytes of a group: low half column 4j + c, high half column 16 + 4j + c
//   8 bits  a block = groups x 512 bytes of levels + 128, then groups x 16 scales, or 16 for whole rows
//           byte 4 * row + c of the j-th 64 bytes of a group: column 4j + c
//   bf16    a block = columns / 2 x 64 bytes: 16 rows of two columns each
//   float   a block = columns x 64 bytes: 16 rows of one column each
//
// A weight is scale * level + minimum; scales and minima are halves or floats, as exact as where they came from.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>

#include <immintrin.h>

#include "activations.h"
#include "vector_math.h"

constexpr int kBlockRows = 16;

enum class WeightKind : int32_t {
    kInt4Half = 0, kInt4Float = 1, kInt8Half = 2, kInt8Float = 3, kBf16 = 4, kFloat = 5, kInt8Row = 6
};

// What the C interface hands over: `data` packed as above (64-byte aligned), `bias` [rows] floats or null.
struct PackedMatrix {
    const uint8_t* data;
    const float* bias;
    int32_t rows;
    int32_t columns;
    WeightKind kind;
    int32_t unused;

    int blocks() const { return (rows + kBlockRows - 1) / kBlockRows; }
    int groups() const { return columns / kGroup; }
    __m512 bias_of(int block) const {
        return bias ? _mm512_loadu_ps(bias + block * kBlockRows) : _mm512_setzero_ps();
    }
    Rounding rounding() const {
        if (kind == WeightKind::kFloat) return Rounding::kNone;
        return kind == WeightKind::kBf16 ? Rounding::kBf16 : Rounding::kLevels;
    }
};

template <WeightKind kind> struct Layout {
    static constexpr bool is_int4 = kind == WeightKind::kInt4Half || kind == WeightKind::kInt4Float;
    static constexpr bool is_by_row = kind == WeightKind::kInt8Row;
    static constexpr bool has_floats =
        is_by_row || kind == WeightKind::kInt4Float || kind == WeightKind::kInt8Float;
    static constexpr int level_bytes = is_int4 ? 256 : 512;
    static constexpr int vector_bytes = has_floats ? 64 : 32;
    static constexpr int scale_bytes = vector_bytes * (is_int4 ? 2 : 1);
    // From one group's scales to the next one's.
    static constexpr int scale_stride = is_by_row ? 0 : scale_bytes;
};

inline int64_t block_bytes(WeightKind kind, int columns) {
    const int64_t groups = columns / kGroup;
    switch (kind) {
    case WeightKind::kInt4Half: return groups * 320;
    case WeightKind::kInt4Float: return groups * 384;
    case WeightKind::kInt8Half: return (groups * 544 + 63) / 64 * 64;
    case WeightKind::kInt8Float: return groups * 576;
    case WeightKind::kInt8Row: return groups * 512 + 64;
    case WeightKind::kBf16: return int64_t(columns) * 32;
    default: return int64_t(columns) * 64;
    }
}

// 16 scales or minima.
template <WeightKind kind> inline __m512 load_scales(const uint8_t* at) {
    if constexpr (Layout<kind>::has_floats) return _mm512_loadu_ps(at);
    else return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)));
}

// The 32 columns of a group as 8 vectors of unsigned levels.
template <WeightKind kind> inline void load_levels(const uint8_t* at, __m512i (&levels)[8]) {
    if constexpr (Layout<kind>::is_int4) {
        const __m512i low = _mm512_set1_epi8(15);
        for (int j = 0; j < 4; ++j) {
            const __m512i both = _mm512_load_si512(at + 64 * j);
            levels[j] = _mm512_and_si512(both, low);
            levels[j + 4] = _mm512_and_si512(_mm512_srli_epi16(both, 4), low);
        }
    } else {
        for (int j = 0; j < 8; ++j) levels[j] = _mm512_load_si512(at + 64 * j);
    }
}

// `levels` [rows, columns] (0..15, or for 8 bits -128..127 as signed bytes), `scales` and `minima` [rows, groups]
// (no minima for 8 bits; scales by row are the same in all groups) -> packed blocks. Rows that fill up the last block are zero.
template <WeightKind kind>
void pack_integers(
    const uint8_t* levels, const float* scales, const float* minima, int rows, int columns, uint8_t* packed
) {
    using L = Layout<kind>;
    const int groups = columns / kGroup, blocks = (rows + kBlockRows - 1) / kBlockRows;
    for (int block = 0; block < blocks; ++block) {
        uint8_t* out = packed + block * block_bytes(kind, columns);
        uint8_t* out_scales = out + int64_t(groups) * L::level_bytes;
        for (int group = 0; group < groups; ++group) {
            for (int r = 0; r < kBlockRows; ++r) {
                const int row = block * kBlockRows + r;
                const bool real = row < rows;
                const uint8_t* in = levels + int64_t(row) * columns + group * kGroup;
                for (int j = 0; j < L::level_bytes / 64; ++j) {
                    for (int c = 0; c < 4; ++c) {
                        uint8_t byte = 0;
                        if (real && L::is_int4) byte = uint8_t(in[4 * j + c] | in[16 + 4 * j + c] << 4);
                        else if (!L::is_int4) byte = uint8_t((real ? in[4 * j + c] : 0) + 128);
                        out[group * L::level_bytes + 64 * j + 4 * r + c] = byte;
                    }
                }
                const float values[2] = {
                    real ? scales[int64_t(row) * groups + group] : 0.0f,
                    real && L::is_int4 ? minima[int64_t(row) * groups + group] : 0.0f,
                };
                for (int i = 0; i < L::scale_bytes / L::vector_bytes; ++i) {
                    uint8_t* at = out_scales + group * L::scale_stride + i * L::vector_bytes;
                    if (L::has_floats) std::memcpy(at + 4 * r, &values[i], 4);
                    else {
                        const uint16_t half = uint16_t(_cvtss_sh(values[i], 0));
                        std::memcpy(at + 2 * r, &half, 2);
                    }
                }
            }
        }
    }
}

// `weights` bf16 [rows, columns] -> packed blocks.
inline void pack_bf16(const uint16_t* weights, int rows, int columns, uint8_t* packed) {
    const int blocks = (rows + kBlockRows - 1) / kBlockRows;
    for (int block = 0; block < blocks; ++block) {
        uint32_t* out = reinterpret_cast<uint32_t*>(packed + block * block_bytes(WeightKind::kBf16, columns));
        for (int r = 0; r < kBlockRows; ++r) {
            const int row = block * kBlockRows + r;
            for (int pair = 0; pair < columns / 2; ++pair) {
                uint32_t two = 0;
                if (row < rows) std::memcpy(&two, weights + int64_t(row) * columns + 2 * pair, 4);
                out[pair * kBlockRows + r] = two;
            }
        }
    }
}

// `weights` [rows, columns] -> packed blocks.
inline void pack_floats(const float* weights, int rows, int columns, uint8_t* packed) {
    const int blocks = (rows + kBlockRows - 1) / kBlockRows;
    for (int block = 0; block < blocks; ++block) {
        float* out = reinterpret_cast<float*>(packed + block * block_bytes(WeightKind::kFloat, columns));
        const float* in = weights + int64_t(block) * kBlockRows * columns;
        const int real = std::min(kBlockRows, rows - block * kBlockRows);
        for (int column = 0; column < columns; ++column)
            for (int r = 0; r < kBlockRows; ++r)
                out[column * kBlockRows + r] = r < real ? in[int64_t(r) * columns + column] : 0.0f;
    }
}

template <WeightKind kind> void unpack_integer_row(const PackedMatrix& matrix, int row, float* out) {
    using L = Layout<kind>;
    const uint8_t* block = matrix.data + row / kBlockRows * block_bytes(kind, matrix.columns);
    const int r = row % kBlockRows;
    for (int group = 0; group < matrix.groups(); ++group) {
        const uint8_t* levels = block + int64_t(group) * L::level_bytes;
        const uint8_t* scales = block + int64_t(matrix.groups()) * L::level_bytes + group * L::scale_stride;
        alignas(64) float scale[16], minimum[16] = {};
        _mm512_store_ps(scale, load_scales<kind>(scales));
        if (L::is_int4) _mm512_store_ps(minimum, load_scales<kind>(scales + L::vector_bytes));
        for (int i = 0; i < kGroup; ++i) {
            const int place = L::is_int4 ? i % 16 : i;
            const uint8_t byte = levels[place / 4 * 64 + 4 * r + place % 4];
            const int level = L::is_int4 ? (i < 16 ? byte & 15 : byte >> 4) : byte - 128;
            out[group * kGroup + i] = scale[r] * float(level) + minimum[r];
        }
    }
}

inline void unpack_float_row(const PackedMatrix& matrix, int row, float* out) {
    const uint8_t* block = matrix.data + row / kBlockRows * block_bytes(WeightKind::kFloat, matrix.columns);
    const float* numbers = reinterpret_cast<const float*>(block) + row % kBlockRows;
    for (int column = 0; column < matrix.columns; ++column) out[column] = numbers[column * kBlockRows];
}

// One row as floats: how an embedding is looked up in a packed head.
inline void unpack_row(const PackedMatrix& matrix, int row, float* out) {
    switch (matrix.kind) {
    case WeightKind::kInt4Half: return unpack_integer_row<WeightKind::kInt4Half>(matrix, row, out);
    case WeightKind::kInt4Float: return unpack_integer_row<WeightKind::kInt4Float>(matrix, row, out);
    case WeightKind::kInt8Half: return unpack_integer_row<WeightKind::kInt8Half>(matrix, row, out);
    case WeightKind::kInt8Float: return unpack_integer_row<WeightKind::kInt8Float>(matrix, row, out);
    case WeightKind::kInt8Row: return unpack_integer_row<WeightKind::kInt8Row>(matrix, row, out);
    case WeightKind::kFloat: return unpack_float_row(matrix, row, out);
    case WeightKind::kBf16: break;
    }
    const uint8_t* block = matrix.data + row / kBlockRows * block_bytes(WeightKind::kBf16, matrix.columns);
    for (int pair = 0; pair < matrix.columns / 2; ++pair) {
        uint16_t two[2];
        std::memcpy(two, block + int64_t(pair) * 64 + row % kBlockRows * 4, 4);
        out[2 * pair] = widen_bf16(two[0]);
        out[2 * pair + 1] = widen_bf16(two[1]);
    }
}
