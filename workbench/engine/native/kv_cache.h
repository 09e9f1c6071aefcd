// Keys and values of one layer in the engine's pool: [blocks, block_size, kv_heads, dim], bf16 or float.
#pragma once

#include <cstdint>

#include <immintrin.h>

#include "vector_math.h"

struct KvLayout {
    int block_size;
    int num_kv_heads;
    int dim;

    // Where the head of a position lies, in elements; `table` holds the sequence's blocks.
    int64_t at(const int32_t* table, int position, int kv_head) const {
        const int64_t slot = int64_t(table[position / block_size]) * block_size + position % block_size;
        return (slot * num_kv_heads + kv_head) * dim;
    }
};

inline __m512 load16(const float* at) { return _mm512_loadu_ps(at); }
inline __m512 load16(const uint16_t* at) {
    return widen_bf16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)));
}
inline void store16(float* at, __m512 values) { _mm512_storeu_ps(at, values); }
inline void store16(uint16_t* at, __m512 values) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(at), narrow_bf16(values));
}
