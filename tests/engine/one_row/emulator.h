// device.cuh's names on a CPU: every thread of every block is a fiber of one process, which goes on to the next
// wherever it has to wait for others.
#include <ucontext.h>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <vector>

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
#define DEVICE inline
#define __global__
#define __launch_bounds__(...)

struct Words { u32 at[4]; };

struct Arrivals { int count = 0, pending = 0; long long bytes = 0; u32 phase = 0; };
struct WarpState { int arrived = 0; u32 turn = 0; alignas(16) u8 data[2][32][64]; int op[2]; };
struct BlockState {
    std::vector<u8> shared; std::map<u32, Arrivals> arrivals; std::vector<WarpState> warps;
    int met[2] = {0, 0}; u32 turn[2] = {0, 0};
};
struct Fiber { ucontext_t context; std::vector<u8> stack; int block, thread; bool done = false; };
inline std::vector<BlockState> blocks;
inline std::vector<std::unique_ptr<Fiber>> fibers;
inline ucontext_t main_context;
inline Fiber* now;
inline u64 progress;

inline void pause_here() { swapcontext(&now->context, &main_context); }
inline BlockState& here() { return blocks[now->block]; }
inline int thread_index() { return now->thread; }
inline int block_index() { return now->block; }
inline u32 shared_base() { return 1024; }
inline u8* shared_at(u32 a, u32 size) {
    if (a < 1024 || a - 1024 + size > here().shared.size() || a % size) { printf("bad shared access %u %u\n", a, size); abort(); }
    return here().shared.data() + a - 1024;
}
template <class T> T get(const void* p) { if ((uintptr_t)p % sizeof(T) ) { printf("bad alignment\n"); abort(); } T v; memcpy(&v, p, sizeof v); return v; }
inline Words load_shared_16(u32 a) { return get<Words>(shared_at(a, 16)); }
inline u64 load_shared_8(u32 a) { return get<u64>(shared_at(a, 8)); }
inline void store_shared_8(u32 a, u64 v) { memcpy(shared_at(a, 8), &v, 8); }
inline u16 load_shared_2(u32 a) { return get<u16>(shared_at(a, 2)); }
inline float load_shared_float(u32 a) { return get<float>(shared_at(a, 4)); }
inline void store_shared_float(u32 a, float v) { memcpy(shared_at(a, 4), &v, 4); }
inline void aligned(const void* p, int n) { if ((uintptr_t)p % n) { printf("bad alignment\n"); abort(); } }
inline Words load_told_16(const void* p) { aligned(p, 16); return get<Words>(p); }
inline u32 load_told_4(const u32* p) { return get<u32>(p); }
inline u64 load_told_8(const u64* p) { return get<u64>(p); }
inline void tell_4(u32* p, u32 v) { *p = v; ++progress; }
inline void tell_8(u64* p, u64 v) { *p = v; ++progress; }
inline void again() { pause_here(); }
inline u64 load_8(const void* p) { return get<u64>(p); }
inline Words load_16(const void* p) { aligned(p, 16); return get<Words>(p); }
inline void store_16(void* p, Words w) { aligned(p, 16); memcpy(p, &w, 16); }
inline void prefetch(const void*) {}

inline void meet_of(int which, int threads) {
    BlockState& b = here();
    const u32 turn = b.turn[which];
    if (++b.met[which] == threads) { b.met[which] = 0; ++b.turn[which]; ++progress; return; }
    while (b.turn[which] == turn) pause_here();
}
inline void meet(int threads) { meet_of(0, threads); }
inline void meet_block();
inline const u8 (&exchange(int op, const void* in, int size))[32][64] {
    WarpState& w = here().warps[now->thread / 32];
    const u32 turn = w.turn;
    if (w.arrived == 0) w.op[turn & 1] = op;
    if (w.op[turn & 1] != op) { printf("a warp's lanes went apart: %d and %d\n", w.op[turn & 1], op); abort(); }
    memcpy(w.data[turn & 1][now->thread % 32], in, size);
    if (++w.arrived == 32) { w.arrived = 0; ++w.turn; ++progress; }
    else while (w.turn == turn) pause_here();
    return w.data[turn & 1];
}
inline void meet_warp() { int nothing = 0; exchange(1, &nothing, 4); }

inline u32 count_block(u32* p) { ++progress; return (*p)++; }

inline void init_arrivals(u32 a, u32 count) { shared_at(a, 8); Arrivals& b = here().arrivals[a]; b.count = b.pending = count; }
inline void publish_arrivals() {}
inline void check_phase(Arrivals& b) {
    if (b.pending < 0) { printf("too many arrivals\n"); abort(); }
    if (b.pending == 0 && b.bytes == 0) { b.phase ^= 1; b.pending = b.count; ++progress; }
}
inline Arrivals& arrivals_at(u32 a) { auto it = here().arrivals.find(a); if (it == here().arrivals.end()) { printf("no barrier\n"); abort(); } return it->second; }
inline void arrive(u32 a) { Arrivals& b = arrivals_at(a); --b.pending; check_phase(b); }
inline void arrive_expecting(u32 a, u32 bytes) { Arrivals& b = arrivals_at(a); b.bytes += bytes; --b.pending; check_phase(b); }
inline void wait_parity(u32 a, u32 parity) { Arrivals& b = arrivals_at(a); while (b.phase == parity) pause_here(); }
inline u64 read_once_policy() { return 0; }
inline void copy_to_shared(u32 target, const void* source, u32 bytes, u32 barrier, u64) {
    if (bytes == 0 || bytes % 16 || target % 16 || (uintptr_t)source % 16) { printf("bad copy of %u\n", bytes); abort(); }
    shared_at(target, 16); shared_at(target + bytes - 16, 16);
    memcpy(here().shared.data() + target - 1024, source, bytes);
    Arrivals& b = arrivals_at(barrier); b.bytes -= bytes; check_phase(b);
}
inline float from_lane(float v, int lane) { float out; memcpy(&out, exchange(2, &v, 4)[lane], 4); return out; }
inline float from_partner(float v, int mask) { float out; memcpy(&out, exchange(3, &v, 4)[(now->thread % 32) ^ mask], 4); return out; }

inline float as_float(u32 v) { float f; memcpy(&f, &v, 4); return f; }
inline u32 as_bits(float v) { u32 u; memcpy(&u, &v, 4); return u; }
inline float half_of(u16 v) { _Float16 h; memcpy(&h, &v, 2); return (float)h; }
inline float bf16_of(u16 v) { return as_float((u32)v << 16); }
inline u16 bf16_bits(float v) { u32 u = as_bits(v); if ((u & 0x7fffffff) > 0x7f800000) return 0x7fff; return (u16)((u + 0x7fff + (u >> 16 & 1)) >> 16); }
inline u16 half_bits(float v) { _Float16 h = (_Float16)v; u16 u; memcpy(&u, &h, 2); return u; }
template <class C, class F, class G> void tile(int op, C (&c)[4], u32 (&w)[6], int per_word, F number, G other) {
    const auto& all = exchange(op, w, 24);
    const int lane = now->thread % 32, group = lane / 4, four = lane % 4;
    for (int i = 0; i < 4; ++i) {
        const int row = group + i / 2 * 8, column = four * 2 + i % 2;
        C sum = 0;
        for (int half = 0; half < 2; ++half) for (int t = 0; t < 4; ++t) for (int k = 0; k < per_word; ++k) {
            u32 a, b;
            memcpy(&a, all[row % 8 * 4 + t] + (half * 2 + row / 8) * 4, 4);
            memcpy(&b, all[column * 4 + t] + (4 + half) * 4, 4);
            sum += number(a, k) * other(b, k);
        }
        c[i] += sum;
    }
}
inline void multiply_bf16(float (&c)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) { u32 w[6] = {a0, a1, a2, a3, b0, b1}; auto f = [](u32 v, int k) { return bf16_of((u16)(v >> 16 * k)); }; tile(4, c, w, 2, f, f); }
inline void multiply_f16(float (&c)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) { u32 w[6] = {a0, a1, a2, a3, b0, b1}; auto f = [](u32 v, int k) { return half_of((u16)(v >> 16 * k)); }; tile(5, c, w, 2, f, f); }
inline int signed_of(u32 v, int k) { return (int)(signed char)(v >> 8 * k); }
inline int unsigned_of(u32 v, int k) { return (int)(v >> 8 * k & 255); }
inline void multiply_s8(int (&c)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) { u32 w[6] = {a0, a1, a2, a3, b0, b1}; tile(6, c, w, 4, signed_of, signed_of); }
inline void multiply_s8_u8(int (&c)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) { u32 w[6] = {a0, a1, a2, a3, b0, b1}; tile(8, c, w, 4, signed_of, unsigned_of); }
inline u32 pack_bf16(float a, float b) { return bf16_bits(a) | (u32)bf16_bits(b) << 16; }
inline u32 pack_f16(float a, float b) { return half_bits(a) | (u32)half_bits(b) << 16; }
inline float f16_float(u16 v) { return half_of(v); }
inline u32 scale_bf16(u32 a, u32 b) { return pack_bf16(bf16_of((u16)a) * bf16_of((u16)b), bf16_of((u16)(a >> 16)) * bf16_of((u16)(b >> 16))); }
inline u32 bytes_at(int n, u32 a, u32 b, u32 c, u32 d) { return (a >> n & 255) | (b >> n & 255) << 8 | (c >> n & 255) << 16 | (d >> n & 255) << 24; }
inline u32 first_bytes(u32 a, u32 b, u32 c, u32 d) { return bytes_at(0, a, b, c, d); }
inline u32 second_bytes(u32 a, u32 b, u32 c, u32 d) { return bytes_at(8, a, b, c, d); }
inline int sum_signed(u32 w, int more) { for (int i = 0; i < 4; ++i) more += (signed char)(w >> 8 * i); return more; }
inline int sum_unsigned(u32 w, int more) { for (int i = 0; i < 4; ++i) more += w >> 8 * i & 255; return more; }
inline int from_partner(int v, int mask) { int out; memcpy(&out, exchange(7, &v, 4)[(now->thread % 32) ^ mask], 4); return out; }
inline float exponential(float v) { return std::exp(v); }
inline float inverse_root(float v) { return 1.0f / std::sqrt(v); }
inline float infinity() { return INFINITY; }
inline float logarithm(float v) { return std::log(v); }
