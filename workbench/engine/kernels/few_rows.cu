// Products of up to 16 rows with weights of 16, 8 or 4 bits, at the speed of reading the weights.
//
// One block a multiprocessor goes through tiles of 16 weight rows. One warp of it has the copy engine bring CHUNK bytes
// of each row at a time, STAGES of them ahead of the others, and never stops at a tile's end; the other eight multiply
// on tensor cores, each a line of 128 bytes of each row, and add up at a tile's end. Within a line the order of the
// columns is the one in which a thread's 16 bytes lie, for the weights and for the rows that meet them alike.
//
// Compiled for KIND (0: 16 bits, 1: fp8, 2: int8, 3: int4), BF16, TILES (of 8 rows), GATED (the activation of a gate's
// and an up row, paired, is stored), CHUNK, STAGES and PDL (it may start while the kernel before it ends).

typedef unsigned int u32;
typedef unsigned short u16;
typedef unsigned long long u64;

struct Four {
    u32 x, y, z, w;
};

#define INTEGER (KIND >= 2)

__device__ __forceinline__ Four load_shared(u32 at) {
    Four v;
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "r"(at)
                 : "memory");
    return v;
}

__device__ __forceinline__ Four load_row(const unsigned char *at) {
    Four v;
    asm volatile("ld.global.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(at));
    return v;
}

#if KIND == 0 || KIND == 1
typedef float Sum;
#else
typedef int Sum;
#endif

// 16 weight rows times 8 rows over the columns of a pair of words.
__device__ __forceinline__ void multiply(Sum *c, u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
#if KIND == 0 && BF16
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
#elif KIND == 0
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
#elif KIND == 1
    asm("mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
#else
    asm("mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
#endif
}

__device__ __forceinline__ void multiply_all(Sum *c, const Four &a, const Four &b, const Four &x) {
    multiply(c, a.x, b.x, a.y, b.y, x.x, x.y);
    multiply(c, a.z, b.z, a.w, b.w, x.z, x.w);
}

__device__ __forceinline__ float from_half(u16 v) {
    float f;
    asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(v));
    return f;
}

__device__ __forceinline__ u16 rounded(float f) {
    u16 v;
#if BF16
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(v) : "f"(f));
#else
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(v) : "f"(f));
#endif
    return v;
}

__device__ __forceinline__ float widened(u16 v) {
#if BF16
    return __uint_as_float((u32)v << 16);
#else
    return from_half(v);
#endif
}

// The low nibbles of four bytes, less 8, times 16; and the high ones.
__device__ __forceinline__ Four low_nibbles(const Four &v) {
    const u32 m = 0xF0F0F0F0u, s = 0x80808080u;
    return {((v.x << 4) & m) ^ s, ((v.y << 4) & m) ^ s, ((v.z << 4) & m) ^ s, ((v.w << 4) & m) ^ s};
}

__device__ __forceinline__ Four high_nibbles(const Four &v) {
    const u32 m = 0xF0F0F0F0u, s = 0x80808080u;
    return {(v.x & m) ^ s, (v.y & m) ^ s, (v.z & m) ^ s, (v.w & m) ^ s};
}


#define WARPS 8
#define LINES (CHUNK / 1024)
// Rows in shared memory lie a quarter of the banks' cycle further each, so that two of them are read at once.
#define ROW_STRIDE (CHUNK + 64)
#define STAGE_BYTES (16 * ROW_STRIDE)
#if KIND == 3
#define READS 8
#elif KIND == 2
#define READS 4
#else
#define READS 2
#endif

__device__ __forceinline__ void set_up(u32 barrier, int count) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(count) : "memory");
}

__device__ __forceinline__ void arrive(u32 barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

__device__ __forceinline__ void wait_for(u32 barrier, u32 parity) {
    asm volatile(
        "{ .reg .pred p; again: mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1; @!p bra again; }" ::"r"(barrier),
        "r"(parity)
        : "memory");
}

extern "C" __global__ void __launch_bounds__((WARPS + 1) * 32, 1)
few_rows(const unsigned char *weights, const void *scales, const unsigned char *high, const unsigned char *low,
         const float *row_scales, u16 *out, int num_rows, int num_weight_rows, int row_bytes, int x_stride) {
    extern __shared__ __align__(128) unsigned char ring[];
    __shared__ float parts[2][WARPS][TILES][4][32];
    __shared__ u64 barriers[2 * STAGES];
    const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
    const u32 ring_at = (u32)__cvta_generic_to_shared(ring), full = (u32)__cvta_generic_to_shared(barriers);
    const u32 empty = full + 8 * STAGES;
    const int half = num_weight_rows / 2, height = GATED ? 8 : 16;
    const int num_tiles = ((GATED ? half : num_weight_rows) + height - 1) / height;
    const int first_tile = (int)((long long)num_tiles * blockIdx.x / gridDim.x);
    const int last_tile = (int)((long long)num_tiles * (blockIdx.x + 1) / gridDim.x);
    const int chunks = row_bytes / CHUNK;
    if (threadIdx.x == 0) {
        for (int s = 0; s < STAGES; s++) {
            set_up(full + 8 * s, 1);
            set_up(empty + 8 * s, WARPS);
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncthreads();
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
    if (warp == WARPS) {
        // Weights depend on no other kernel: they are on their way before the rows are waited for.
        u64 policy;
        asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
        int stage = 0;
        u32 parity = 1;
        for (int tile = first_tile; tile < last_tile; tile++) {
            // What lies beyond the last weight row is computed along and not stored.
            int row = tile * height + (GATED ? lane & 7 : lane & 15);
            row = min(row, (GATED ? half : num_weight_rows) - 1);
            if (GATED && lane >= 8) row += half;
            const unsigned char *from = weights + (u64)row * row_bytes;
            for (int chunk = 0; chunk < chunks; chunk++) {
                wait_for(empty + 8 * stage, parity);
                if (lane == 0)
                    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(full + 8 * stage),
                                 "r"(16 * CHUNK)
                                 : "memory");
                __syncwarp();
                if (lane < 16)
                    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
                                 "[%0], [%1], %2, [%3], %4;" ::"r"(ring_at + stage * STAGE_BYTES + lane * ROW_STRIDE),
                                 "l"(from + (u64)chunk * CHUNK), "r"(CHUNK), "r"(full + 8 * stage), "l"(policy)
                                 : "memory");
                if (++stage == STAGES) {
                    stage = 0;
                    parity ^= 1;
                }
            }
        }
        return;
    }
    asm volatile("griddepcontrol.wait;" ::: "memory");
    const unsigned char *x_high[TILES], *x_low[TILES];
#pragma unroll
    for (int n = 0; n < TILES; n++) {
        const u64 offset = (u64)min(n * 8 + g, num_rows - 1) * x_stride + t * 16;
        x_high[n] = high + offset;
        x_low[n] = low + offset;
    }
    // Adds up what the warps have of a tile and stores it.
    const auto finish = [&](int tile, const float (&own)[TILES][4]) {
        // A tile's parts and the next one's do not share their place, so that one barrier is enough.
        float(*const sums)[TILES][4][32] = parts[tile & 1];
#pragma unroll
        for (int n = 0; n < TILES; n++)
#pragma unroll
            for (int c = 0; c < 4; c++) sums[warp][n][c][lane] = own[n][c];
        asm volatile("bar.sync 1, %0;" ::"n"(WARPS * 32) : "memory");
        if (threadIdx.x >= TILES * 8 * height) return;
        const int row = threadIdx.x % height, n = threadIdx.x / height, weight_row = tile * height + row;
        const int from = (row & 7) * 4 + ((n & 7) >> 1), c = (n & 1) + (row >= 8 ? 2 : 0);
        if (n >= num_rows || weight_row >= (GATED ? half : num_weight_rows)) return;
        float sum = 0.0f, up = 0.0f;
#pragma unroll
        for (int w = 0; w < WARPS; w++) {
            sum += sums[w][n >> 3][c][from];
            if (GATED) up += sums[w][n >> 3][c + 2][from];
        }
#if KIND == 1 || KIND == 2
        sum *= ((const float *)scales)[weight_row];
        if (GATED) up *= ((const float *)scales)[weight_row + half];
#endif
#if KIND != 0
        sum *= row_scales[n];
        up *= row_scales[n];
#endif
        u16 result = rounded(sum);
        if (GATED) {
            const float gate = widened(result);
            const float silu = widened(rounded(gate / (1.0f + __expf(-gate))));
            result = rounded(silu * widened(rounded(up)));
        }
        out[(u64)n * (GATED ? half : num_weight_rows) + weight_row] = result;
    };
    const int total = (last_tile - first_tile) * chunks;
    Four x[AHEAD][TILES][LINES][READS];
#if KIND == 3
    const int groups = row_bytes / 64;
    float by_a[AHEAD][LINES][2], by_b[AHEAD][LINES][2], sum[TILES][4] = {};
#else
    Sum upper[TILES][4] = {}, lower[TILES][4] = {};
#endif
    // What meets the chunk that is AHEAD of the one at hand, whose place in the registers it takes.
    int asked_tile = first_tile, asked_chunk = 0;
    const auto ask = [&](int u) {
        if (asked_tile == last_tile) return;
#pragma unroll
        for (int l = 0; l < LINES; l++) {
            const int at = asked_chunk * CHUNK + l * 1024 + warp * 128;
#if KIND == 3
            const int row_a = GATED ? min(asked_tile * 8 + g, half - 1) : min(asked_tile * 16 + g, num_weight_rows - 1);
            const int row_b = GATED ? row_a + half : min(asked_tile * 16 + g + 8, num_weight_rows - 1);
#pragma unroll
            for (int h = 0; h < 2; h++) {
                by_a[u][l][h] = from_half(((const u16 *)scales)[(u64)row_a * groups + at / 64 + h]);
                by_b[u][l][h] = from_half(((const u16 *)scales)[(u64)row_b * groups + at / 64 + h]);
            }
#endif
#pragma unroll
            for (int n = 0; n < TILES; n++) {
#if KIND == 3
#pragma unroll
                for (int r = 0; r < 4; r++) {
                    x[u][n][l][r] = load_row(x_high[n] + at * 2 + r * 64);
                    x[u][n][l][r + 4] = load_row(x_low[n] + at * 2 + r * 64);
                }
#else
#pragma unroll
                for (int h = 0; h < 2; h++) {
                    x[u][n][l][h] = load_row(x_high[n] + at + h * 64);
#if KIND == 2
                    x[u][n][l][h + 2] = load_row(x_low[n] + at + h * 64);
#endif
                }
#endif
            }
        }
        if (++asked_chunk == chunks) {
            asked_chunk = 0;
            asked_tile++;
        }
    };
#pragma unroll
    for (int u = 0; u < AHEAD; u++) ask(u);
    // 0, which the compiler does not know.
    const u32 nothing = (u32)num_rows >> 16;
    int stage = 0, tile = first_tile, chunk = 0;
    u32 parity = 0;
    for (int done = 0; done < total; done += AHEAD) {
#pragma unroll
        for (int u = 0; u < AHEAD; u++) {
            if (done + u >= total) break;
            wait_for(full + 8 * stage, parity);
            Four a[LINES][2], b[LINES][2];
            const u32 at = ring_at + stage * STAGE_BYTES + g * ROW_STRIDE + warp * 128 + t * 16;
            u32 seen = 0;
#pragma unroll
            for (int l = 0; l < LINES; l++)
#pragma unroll
                for (int h = 0; h < 2; h++) {
                    a[l][h] = load_shared(at + l * 1024 + h * 64);
                    b[l][h] = load_shared(at + 8 * ROW_STRIDE + l * 1024 + h * 64);
                    seen |= a[l][h].x | b[l][h].x;
                }
            // The copy engine may write there again once all this has arrived, not only been asked for.
            __syncwarp();
            if (lane == 0) arrive(empty + 8 * stage + (seen & nothing));
            if (++stage == STAGES) {
                stage = 0;
                parity ^= 1;
            }
#pragma unroll
            for (int l = 0; l < LINES; l++)
#pragma unroll
                for (int h = 0; h < 2; h++) {
#if KIND == 3
                    const Four even_a = low_nibbles(a[l][h]), odd_a = high_nibbles(a[l][h]);
                    const Four even_b = low_nibbles(b[l][h]), odd_b = high_nibbles(b[l][h]);
#pragma unroll
                    for (int n = 0; n < TILES; n++) {
                        Sum up[4] = {}, down[4] = {};
                        multiply_all(up, even_a, even_b, x[u][n][l][2 * h]);
                        multiply_all(up, odd_a, odd_b, x[u][n][l][2 * h + 1]);
                        multiply_all(down, even_a, even_b, x[u][n][l][2 * h + 4]);
                        multiply_all(down, odd_a, odd_b, x[u][n][l][2 * h + 5]);
#pragma unroll
                        for (int c = 0; c < 4; c++)
                            sum[n][c] += ((float)up[c] * 8.0f + (float)down[c] * 0.0625f) * (c < 2 ? by_a : by_b)[u][l][h];
                    }
#else
#pragma unroll
                    for (int n = 0; n < TILES; n++) {
                        multiply_all(upper[n], a[l][h], b[l][h], x[u][n][l][h]);
#if KIND == 2
                        multiply_all(lower[n], a[l][h], b[l][h], x[u][n][l][h + 2]);
#endif
                    }
#endif
                }
            ask(u);
            if (++chunk < chunks) continue;
#if KIND == 3
            finish(tile, sum);
#elif KIND == 2
            // In floats: the high part alone may need all 32 bits.
            float sum[TILES][4];
#pragma unroll
            for (int n = 0; n < TILES; n++)
#pragma unroll
                for (int c = 0; c < 4; c++) sum[n][c] = (float)upper[n][c] * 128.0f + (float)lower[n][c];
            finish(tile, sum);
#else
            finish(tile, upper);
#endif
            chunk = 0;
            tile++;
#pragma unroll
            for (int n = 0; n < TILES; n++)
#pragma unroll
                for (int c = 0; c < 4; c++) {
#if KIND == 3
                    sum[n][c] = 0;
#else
                    upper[n][c] = lower[n][c] = 0;
#endif
                }
        }
    }
}
