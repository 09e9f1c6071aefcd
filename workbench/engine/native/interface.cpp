// The C interface that library.py loads.
#include <algorithm>

#include <sys/mman.h>

#include "decoder.h"

extern "C" {

// Bytes that a packed matrix takes.
int64_t workbench_packed_bytes(int32_t kind, int32_t rows, int32_t columns) {
    return (rows + kBlockRows - 1) / kBlockRows * block_bytes(WeightKind(kind), columns);
}

// Asks for large pages: a step reads all weights, which are too many small pages for the address cache.
void workbench_advise(void* memory, int64_t num_bytes) {
    constexpr uintptr_t kPage = 1 << 21;
    const uintptr_t begin = (reinterpret_cast<uintptr_t>(memory) + kPage - 1) / kPage * kPage;
    const uintptr_t end = (reinterpret_cast<uintptr_t>(memory) + num_bytes) / kPage * kPage;
    if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
}

// See pack_integers; for bf16 and float, `levels` are the weights themselves and the others are null.
void workbench_pack(
    int32_t kind, const void* levels, const float* scales, const float* minima, int32_t rows, int32_t columns,
    uint8_t* packed
) {
    const auto* bytes = static_cast<const uint8_t*>(levels);
    switch (WeightKind(kind)) {
    case WeightKind::kInt4Half: return pack_integers<WeightKind::kInt4Half>(bytes, scales, minima, rows, columns, packed);
    case WeightKind::kInt4Float: return pack_integers<WeightKind::kInt4Float>(bytes, scales, minima, rows, columns, packed);
    case WeightKind::kInt8Half: return pack_integers<WeightKind::kInt8Half>(bytes, scales, minima, rows, columns, packed);
    case WeightKind::kInt8Float: return pack_integers<WeightKind::kInt8Float>(bytes, scales, minima, rows, columns, packed);
    case WeightKind::kInt8Row: return pack_integers<WeightKind::kInt8Row>(bytes, scales, minima, rows, columns, packed);
    case WeightKind::kBf16: return pack_bf16(static_cast<const uint16_t*>(levels), rows, columns, packed);
    case WeightKind::kFloat: return pack_floats(static_cast<const float*>(levels), rows, columns, packed);
    }
}

// One product by itself: `x` [num_rows, columns] floats -> `out` [num_rows, rows padded to 16].
void workbench_multiply(const PackedMatrix* matrix, const float* x, int32_t num_rows, float* out) {
    const unsigned mode = _mm_getcsr();
    _mm_setcsr(mode | kFlushTiny);
    ActivationBuffers buffers;
    buffers.allocate(num_rows, matrix->columns);
    for (int row = 0; row < num_rows; ++row)
        for (int i = 0; i < matrix->columns; i += kGroup) {
            const float* at = x + int64_t(row) * matrix->columns + i;
            store_group(buffers.view(), matrix->rounding(), row, i / kGroup, _mm512_loadu_ps(at), _mm512_loadu_ps(at + 16));
        }
    for (int block = 0; block < matrix->blocks(); ++block)
        multiply_block(*matrix, block, buffers.view(), 0, num_rows, out + block * kBlockRows, matrix->blocks() * kBlockRows);
    _mm_setcsr(mode);
}

// One token's attention by itself, see attend(): `keys` and `values` in the pool's layout, out [num_heads, dim].
void workbench_attend(
    int32_t is_bf16, const void* keys, const void* values, const int32_t* table, int32_t block_size,
    int32_t num_kv_heads, int32_t dim, int32_t kv_head, int32_t first, int32_t last, int32_t num_heads, float scale,
    const float* queries, float* out
) {
    const int stride = last + 3 * kPositions;
    Buffer<float> scores, unpacked;
    scores.allocate(int64_t(num_heads) * stride);
    unpacked.allocate(kPositions * dim);
    std::fill_n(unpacked.get(), kPositions * dim, 0.0f);
    const KvLayout layout{block_size, num_kv_heads, dim};
    if (is_bf16) {
        const Span<uint16_t> span{
            static_cast<const uint16_t*>(keys), static_cast<const uint16_t*>(values), table, layout, kv_head, first, last};
        attend(span, queries, num_heads, scale, scores.get(), stride, unpacked.get(), out);
    } else {
        const Span<float> span{
            static_cast<const float*>(keys), static_cast<const float*>(values), table, layout, kv_head, first, last};
        attend(span, queries, num_heads, scale, scores.get(), stride, unpacked.get(), out);
    }
}

void* workbench_decoder_new(const ModelShape* shape) { return new Decoder(*shape); }
void workbench_decoder_delete(void* decoder) { delete static_cast<Decoder*>(decoder); }
void workbench_decoder_run(void* decoder, const Step* step) { static_cast<Decoder*>(decoder)->run(*step); }

}  // extern "C"
