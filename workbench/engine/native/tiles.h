// Matrix units (AMX) for sixteen and more rows at once. They compute what product.h's loops compute, to the bit: integer
// sums are exact, and TDPBF16PS adds even and odd columns apart over 32 columns, as bf16_rows does.
#pragma once

#include <cstdint>
#include <vector>

#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "activations.h"
#include "packed_matrix.h"

#if defined(__AMX_INT8__) && defined(__AMX_BF16__)
#define WORKBENCH_HAS_TILES 1

constexpr int kTileHeight = 16;
constexpr int kTilesAtOnce = 4;

// Asks the system for the units, once for the process; false where it does not give them.
inline bool tiles_allowed() {
    constexpr int kRequestPermission = 0x1023, kTileData = 18;
    static const bool allowed = syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
    return allowed;
}

struct alignas(64) TileShapes {
    uint8_t palette = 1;
    uint8_t start_row = 0;
    uint8_t reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};

    void set(int tile, int num_rows, int num_bytes) {
        rows[tile] = uint8_t(num_rows);
        row_bytes[tile] = uint16_t(num_bytes);
    }
};

// Tiles 0 .. 3: sums of 16 rows each; 4: weights; 5: activations.
inline void shape_tiles(int weight_rows, int activation_bytes) {
    TileShapes shapes;
    for (int tile = 0; tile < kTilesAtOnce; ++tile) shapes.set(tile, kTileHeight, 64);
    shapes.set(4, weight_rows, 64);
    shapes.set(5, kTileHeight, activation_bytes);
    shapes.set(6, weight_rows, 64);
    shapes.set(7, kTileHeight, activation_bytes);
    // The intrinsic tells older compilers of the first eight bytes only, and the rest would not be stored.
    asm volatile("" : : "r"(&shapes) : "memory");
    _tile_loadconfig(&shapes);
}

// `num_tiles` x 16 rows of `x` times one block of bf16 weights.
template <int num_tiles>
inline void bf16_tiles(const uint8_t* block, const Activations& x, int64_t first_row, float* out, int64_t out_stride) {
    const uint16_t* numbers = x.numbers_bf16 + first_row * x.columns;
    const int64_t stride = int64_t(x.columns) * 2;
    _tile_zero(0);
    if constexpr (num_tiles > 1) _tile_zero(1);
    if constexpr (num_tiles > 2) _tile_zero(2);
    if constexpr (num_tiles > 3) _tile_zero(3);
    for (int column = 0; column < x.columns; column += kGroup) {
        const uint16_t* at = numbers + column;
        _tile_loadd(4, block + int64_t(column) * 32, 64);
        _tile_loadd(5, at, stride);
        _tile_dpbf16ps(0, 5, 4);
        if constexpr (num_tiles > 1) {
            _tile_loadd(7, at + int64_t(kTileHeight) * x.columns, stride);
            _tile_dpbf16ps(1, 7, 4);
        }
        if constexpr (num_tiles > 2) {
            _tile_loadd(5, at + 2 * int64_t(kTileHeight) * x.columns, stride);
            _tile_dpbf16ps(2, 5, 4);
        }
        if constexpr (num_tiles > 3) {
            _tile_loadd(7, at + 3 * int64_t(kTileHeight) * x.columns, stride);
            _tile_dpbf16ps(3, 7, 4);
        }
    }
    const int64_t out_bytes = out_stride * 4;
    _tile_stored(0, out, out_bytes);
    if constexpr (num_tiles > 1) _tile_stored(1, out + kTileHeight * out_stride, out_bytes);
    if constexpr (num_tiles > 2) _tile_stored(2, out + 2 * kTileHeight * out_stride, out_bytes);
    if constexpr (num_tiles > 3) _tile_stored(3, out + 3 * kTileHeight * out_stride, out_bytes);
}

// 16 rows of `x` times one block of integer weights, whose levels are given a byte each: a tile product a group, scaled
// and added as integer_rows does.
template <WeightKind kind>
inline void integer_tile(
    const uint8_t* levels, const uint8_t* scales, const Activations& x, int64_t first_row, float* out, int64_t out_stride
) {
    using L = Layout<kind>;
    const int groups = x.groups();
    const int8_t* rows = x.levels + first_row * x.columns;
    alignas(64) int32_t dots[2][kTileHeight][16];
    __m512 sums[kTileHeight];
    for (auto& sum : sums) sum = _mm512_setzero_ps();
    const auto multiply = [&](int group) {
        _tile_loadd(4, levels + int64_t(group) * 512, 64);
        _tile_loadd(5, rows + group * kGroup, x.columns);
        _tile_zero(0);
        _tile_dpbsud(0, 5, 4);
        _tile_stored(0, dots[group & 1], 64);
    };
    multiply(0);
    for (int group = 0; group < groups; ++group) {
        // The next group's product is under way while this one's is scaled.
        if (group + 1 < groups) multiply(group + 1);
        const __m512 scale = load_scales<kind>(scales + group * L::scale_stride);
        const __m512 minimum =
            L::is_int4 ? load_scales<kind>(scales + group * L::scale_stride + L::vector_bytes) : _mm512_setzero_ps();
        for (int r = 0; r < kTileHeight; ++r) {
            const int64_t place = (first_row + r) * groups + group;
            __m512i dot = _mm512_load_si512(dots[group & 1][r]);
            if (!L::is_int4) dot = _mm512_add_epi32(dot, _mm512_set1_epi32(x.offsets[place]));
            const __m512 factor = _mm512_mul_ps(scale, _mm512_set1_ps(x.scales[place]));
            sums[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), factor, sums[r]);
            if (L::is_int4) sums[r] = _mm512_fmadd_ps(minimum, _mm512_set1_ps(x.scaled_sums[place]), sums[r]);
        }
    }
    for (int r = 0; r < kTileHeight; ++r) _mm512_storeu_ps(out + r * out_stride, sums[r]);
}

// A block's 4-bit levels a byte each, in room of this thread's own.
template <WeightKind kind> inline const uint8_t* unpack_levels(const uint8_t* block, int groups) {
    if constexpr (!Layout<kind>::is_int4) return block;
    thread_local std::vector<__m512i> room;
    room.resize(int64_t(groups) * 8);
    for (int group = 0; group < groups; ++group) {
        __m512i levels[8];
        load_levels<kind>(block + int64_t(group) * Layout<kind>::level_bytes, levels);
        for (int j = 0; j < 8; ++j) room[group * 8 + j] = levels[j];
    }
    return reinterpret_cast<const uint8_t*>(room.data());
}

// Computes as many of the rows as fill whole tiles, and gives their number.
template <WeightKind kind>
inline int tiled_rows(
    const uint8_t* block, const Activations& x, int64_t first_row, int num_rows, float* out, int64_t out_stride
) {
    if (num_rows < kTileHeight || !tiles_allowed()) return 0;
    int done = 0;
    if constexpr (kind == WeightKind::kBf16) {
        shape_tiles(16, 64);
        for (; num_rows - done >= 64; done += 64)
            bf16_tiles<4>(block, x, first_row + done, out + done * out_stride, out_stride);
        if (num_rows - done >= 32) {
            bf16_tiles<2>(block, x, first_row + done, out + done * out_stride, out_stride);
            done += 32;
        }
        if (num_rows - done >= 16) {
            bf16_tiles<1>(block, x, first_row + done, out + done * out_stride, out_stride);
            done += 16;
        }
    } else {
        const uint8_t* levels = unpack_levels<kind>(block, x.groups());
        const uint8_t* scales = block + int64_t(x.groups()) * Layout<kind>::level_bytes;
        shape_tiles(8, 32);
        for (; num_rows - done >= kTileHeight; done += kTileHeight)
            integer_tile<kind>(levels, scales, x, first_row + done, out + done * out_stride, out_stride);
    }
    _tile_release();
    return done;
}
#endif
