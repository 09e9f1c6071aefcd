// One decode step of one row: every layer of a Llama-like model and its head in a single launch, one block on every
// multiprocessor. Weights stream through a ring in shared memory, which one warp keeps full without ever waiting for
// another block: while blocks wait for each other between two products, the weights of the next ones arrive.
//
// A product's rows are dealt out to blocks, and a row's columns to threads, 16 bytes at a time: a thread keeps its part
// of the vector in registers. Tensor cores multiply: of two rows' words with the vector's, the products that belong
// together lie on the diagonal of the result, one sum for every four lanes.
//
// Blocks meet at no barrier: a fence would wait for the copies that are under way. Each number that one block tells
// the others carries a tag, which says of which product of which step it is; readers look until they see it.
//
// The same code serves all products of one width: what is unrolled for each by itself no longer fits the cache of
// instructions, and then fetching those takes longer than executing them.
//
// Given by whoever compiles this: BLOCKS, WARPS, SHARED_LIMIT, HIDDEN, HEADS, KV_HEADS, DIM, INNER, VOCAB, LAYERS, KIND,
// HEAD_KIND, BF16, QKV_BIAS, HEAD_NORMS, KV_BLOCK.

enum { PLAIN, INT8, FP8, INT4 };
enum { QKV, OUTPUT, GATE_UP, DOWN, HEAD };

constexpr int THREADS = WARPS * 32;
// Bytes that all threads read at once, and how often they do before they say that a stage is free.
constexpr int CHUNK = THREADS * 16;
constexpr int READS = KIND == INT4 ? 8 : 4;
// Whether registers are left to have more under way at once.
constexpr bool ROOMY = KIND != INT4;
// Columns that share a scale in INT4.
constexpr int GROUP = 128;
constexpr int ATTENDED = HEADS * DIM;
constexpr int QKV_ROWS = (HEADS + 2 * KV_HEADS) * DIM;

// Query heads of one KV head, and how many of them a block attends for.
constexpr int SHARERS = HEADS / KV_HEADS;
constexpr int BUNCH = SHARERS < 4 ? SHARERS : 4;
constexpr int BUNCHES = (SHARERS + BUNCH - 1) / BUNCH;
// A warp attends for one head: of the tokens some at once, and so often before it sums up.
constexpr int TOKEN_LANES = DIM / 8;
constexpr int WARP_TOKENS = 32 / TOKEN_LANES;
constexpr int TOKEN_GROUPS = WARPS / BUNCH;
constexpr int TURN_TOKENS = TOKEN_GROUPS * WARP_TOKENS;
constexpr int TURNS = 4;
constexpr int MOST_PARTS = BLOCKS / (KV_HEADS * BUNCHES) > 1 ? BLOCKS / (KV_HEADS * BUNCHES) : 1;

struct Layer {
    const u8* weights[4];
    const u8* scales[4];
    const u16* input_norm;
    const u16* output_norm;
    const u16* query_norm;
    const u16* key_norm;
    const u16* bias;
    u16* keys;
    u16* values;
    long long window;
};

struct Step {
    const Layer* layers;
    const u8* head;
    const u8* head_scales;
    const u16* norm;
    const u16* embedding;
    const int* ids;
    const int* slots;
    const int* lengths;
    const int* table;
    const int* table_starts;
    const u16* cos;
    const u16* sin;
    // A 16-bit float each, and a tag above it.
    u32* x;
    u32* qkv;
    u32* attended;
    u32* gated;
    u16* logits;
    // Attention of parts: floats below tags of 32 bits.
    u64* sums;
    u64* weights;
    // The last tag of the step before, and how many blocks have finished.
    u32* counters;
    float eps;
    float scale;
};

DEVICE constexpr int round_16(int n) { return (n + 15) / 16 * 16; }
DEVICE constexpr int larger(int a, int b) { return a > b ? a : b; }

// How the columns of one row are dealt out to threads, and rows to stages.
template <int KIND_, int COLUMNS_>
struct Layout {
    static constexpr int TYPE = KIND_, COLUMNS = COLUMNS_;
    static constexpr int BYTES = KIND_ == PLAIN ? COLUMNS_ * 2 : KIND_ == INT4 ? COLUMNS_ / 2 : COLUMNS_;
    DEVICE static constexpr int threads() {
        int n = 32;
        while (n < THREADS && n * 16 < BYTES) n *= 2;
        return n;
    }
    static constexpr int ROW_THREADS = threads();
    // Rows side by side, and passes over a row that is longer than all threads read at once.
    static constexpr int SIDE = THREADS / ROW_THREADS;
    static constexpr int PASSES = (BYTES + ROW_THREADS * 16 - 1) / (ROW_THREADS * 16);
    static constexpr bool WHOLE = BYTES == PASSES * ROW_THREADS * 16;
    // Rows side by side lie in a stage as they lie in memory.
    static constexpr bool JOINED = SIDE == 1 || WHOLE;
    static constexpr int VALUES = KIND_ == PLAIN ? 8 : KIND_ == INT4 ? 32 : 16;
    static constexpr int WORDS = VALUES / 2;
    static constexpr int GROUPS = KIND_ == INT4 ? COLUMNS_ / GROUP : 0;
    static constexpr int PASS_GROUPS = ROW_THREADS / 4;
    // Scales of the rows side by side, from the multiple of 16 bytes before them to the one behind.
    static constexpr int SCALE_BYTES =
        KIND_ == INT4 ? round_16(SIDE > 1 ? SIDE * GROUPS * 2 : (GROUPS < PASS_GROUPS ? GROUPS : PASS_GROUPS) * 2) + 16 : 0;
};

constexpr int SCALE_SLOT =
    larger(larger(Layout<KIND, HIDDEN>::SCALE_BYTES, Layout<KIND, ATTENDED>::SCALE_BYTES), Layout<KIND, INNER>::SCALE_BYTES);
constexpr int STAGE_BYTES = READS * (CHUNK + SCALE_SLOT);

// Sums of some units of rows, from every warp, in two buffers.
constexpr int SUM_STRIDE = WARPS + 1;
constexpr int MOST_UNITS = 16;
constexpr int SUMS_BYTES = round_16(MOST_UNITS * READS * SUM_STRIDE * 4);

constexpr int ATTENTION_STRIDE = DIM + 2;
constexpr int ATTENTION_BYTES = round_16(WARPS * ATTENTION_STRIDE * 4);
constexpr int REDUCED_BYTES = round_16(2 * WARPS * 4);
constexpr int FIXED_BYTES = 2 * SUMS_BYTES + ATTENTION_BYTES + REDUCED_BYTES + LAYERS * (int)sizeof(Layer);
// As many stages as there is room for, with two barriers each.
constexpr int STAGES = (SHARED_LIMIT - FIXED_BYTES) / (STAGE_BYTES + 16);
static_assert(STAGES >= 2, "a stage of the ring takes more than half of the shared memory");

// Shared memory: the ring first, as its copies want the largest multiples.
constexpr int AT_SUMS = STAGES * STAGE_BYTES;
constexpr int AT_ATTENTION = AT_SUMS + 2 * SUMS_BYTES;
constexpr int AT_REDUCED = AT_ATTENTION + ATTENTION_BYTES;
constexpr int AT_BARRIERS = AT_REDUCED + REDUCED_BYTES;
constexpr int AT_LAYERS = AT_BARRIERS + STAGES * 16;

DEVICE float low(u32 pair) { return BF16 ? as_float(pair << 16) : f16_float((u16)pair); }
DEVICE float high(u32 pair) { return BF16 ? as_float(pair & 0xffff0000u) : f16_float((u16)(pair >> 16)); }
DEVICE u32 pack(float a, float b) { return BF16 ? pack_bf16(a, b) : pack_f16(a, b); }
// Products of pairs, rounded once.
DEVICE u32 scale_pair(u32 a, u32 b) {
    return BF16 ? scale_bf16(a, b) : pack_f16(f16_float((u16)a) * f16_float((u16)b), high(a) * high(b));
}
DEVICE u32 pair_of(u32 a, u32 b) { return (a & 0xffffu) | b << 16; }
DEVICE float rounded(float v) { return low(pack(v, v)); }
DEVICE u16 narrow(float v) { return (u16)pack(v, v); }
DEVICE float wide(u16 v) { return low(v); }

struct Stages {
    u32 base;
    int slot = 0;
    u32 parity = 0;
    DEVICE u32 data() const { return base + slot * STAGE_BYTES; }
    DEVICE u32 full() const { return base + AT_BARRIERS + slot * 8; }
    DEVICE u32 free() const { return base + AT_BARRIERS + (STAGES + slot) * 8; }
    DEVICE void next() {
        if (++slot == STAGES) slot = 0, parity ^= 1;
    }
};

struct Block {
    int index, thread, lane, warp;
    u32 shared;
    Stages stages;

    DEVICE u64 layer_field(int layer, int field) const {
        return load_shared_8(shared + AT_LAYERS + layer * (int)sizeof(Layer) + field * 8);
    }
};

DEVICE int first_row(int rows, int block) { return (int)((long long)rows * block / BLOCKS); }

// One matrix times a vector. `rows` of a gated one are those of its gates, and as many follow.
struct Product {
    const u8* weights;
    const u8* scales;
    int rows;
    bool gated;
};

DEVICE Product product_of(const Block& b, const Step& step, int layer, int op) {
    Product p;
    p.weights = op == HEAD ? step.head : (const u8*)b.layer_field(layer, op);
    p.scales = op == HEAD ? step.head_scales : (const u8*)b.layer_field(layer, 4 + op);
    p.rows = op == HEAD ? VOCAB : op == QKV ? QKV_ROWS : op == GATE_UP ? INNER : HIDDEN;
    p.gated = op == GATE_UP;
    return p;
}

// Goes through the products of a step. `prepare_for` gives of a layer and an operation what `run` gets, together with a
// value of the type of the layout.
template <class Prepare, class Run>
DEVICE void for_each_product(Prepare prepare_for, Run run) {
#pragma unroll 1
    for (int n = 0; n <= 4 * LAYERS; ++n) {
        const int op = n == 4 * LAYERS ? HEAD : n % 4;
        const auto given = prepare_for(n / 4, op);
        if (op == DOWN)
            run(given, Layout<KIND, INNER>());
        else if (ATTENDED != HIDDEN && op == OUTPUT)
            run(given, Layout<KIND, ATTENDED>());
        else if (HEAD_KIND != KIND && op == HEAD)
            run(given, Layout<HEAD_KIND, HIDDEN>());
        else
            run(given, Layout<KIND, HIDDEN>());
    }
}

// ---- Streaming: one warp, the weights of all products in the order in which they are multiplied.

template <class L>
DEVICE void stream(Block& b, const Product& p, u64 policy) {
    Stages& stages = b.stages;
    const int unit_rows = (p.gated ? READS / 2 : READS) * L::SIDE;
    const int end = first_row(p.rows, b.index + 1), lane = b.lane;
    for (int unit = first_row(p.rows, b.index); unit < end; unit += unit_rows) {
        for (int pass = 0; pass < L::PASSES; ++pass) {
            const int at = pass * CHUNK;
            const int row_bytes = L::SIDE > 1 || L::BYTES - at < CHUNK ? L::BYTES - at : CHUNK;
            const int left = L::GROUPS - pass * L::PASS_GROUPS;
            const int groups = L::SIDE > 1 || left < L::PASS_GROUPS ? left : L::PASS_GROUPS;
            u32 expected = 0, scale_bytes = 0;
            int count = 0, row = 0;
            u64 scales_at = 0;
#pragma unroll
            for (int read = 0; read < READS; ++read) {
                // So many rows from this one on, side by side.
                const int first = unit + (p.gated ? read / 2 : read) * L::SIDE;
                const int rows = end - first < 0 ? 0 : end - first < L::SIDE ? end - first : L::SIDE;
                const int place = first + (p.gated ? read % 2 * p.rows : 0);
                expected += rows * row_bytes;
                u64 begin = 0;
                u32 bytes = 0;
                if (L::TYPE == INT4 && rows > 0) {
                    begin = (u64)p.scales + ((u64)place * L::GROUPS + pass * L::PASS_GROUPS) * 2;
                    const u64 stop = begin + rows * groups * 2;
                    begin &= ~15ull;
                    bytes = (u32)(((stop + 15) & ~15ull) - begin);
                    expected += bytes;
                }
                if (lane == read) count = rows, row = place, scales_at = begin, scale_bytes = bytes;
            }
            wait_parity(stages.free(), stages.parity ^ 1);
            if (lane == 0) arrive_expecting(stages.full(), expected);
            meet_warp();
            if (L::JOINED) {
                if (count > 0)
                    copy_to_shared(stages.data() + lane * CHUNK, p.weights + (u64)row * L::BYTES + at, count * row_bytes,
                                   stages.full(), policy);
            } else {
                for (int n = lane; n < READS * L::SIDE; n += 32) {
                    const int read = n / L::SIDE, side = n % L::SIDE;
                    const int own = unit + (p.gated ? read / 2 : read) * L::SIDE + side;
                    if (own < end)
                        copy_to_shared(stages.data() + read * CHUNK + side * L::ROW_THREADS * 16,
                                       p.weights + (u64)(own + (p.gated ? read % 2 * p.rows : 0)) * L::BYTES, L::BYTES,
                                       stages.full(), policy);
                }
            }
            if (L::TYPE == INT4 && scale_bytes > 0)
                copy_to_shared(stages.data() + READS * CHUNK + lane * SCALE_SLOT, (const void*)scales_at, scale_bytes,
                               stages.full(), policy);
            stages.next();
        }
    }
}

DEVICE void stream_all(Block& b, const Step& step) {
    const u64 policy = read_once_policy();
    for_each_product([&](int layer, int op) { return product_of(b, step, layer, op); },
                     [&](const Product& p, auto layout) { stream<decltype(layout)>(b, p, policy); });
}

// ---- What blocks tell each other

DEVICE u32 tagged(float v, u32 tag) { return (u32)narrow(v) | tag << 16; }

// Eight neighbouring values, as they were told and as pairs.
struct Eight {
    Words first, last;
    DEVICE void look(const u32* source) { first = load_told_16(source), last = load_told_16(source + 4); }
    // Bits above the lower 16 where one does not carry the tag.
    DEVICE u32 wrong(u32 tag) const {
        u32 bits = 0;
#pragma unroll
        for (int n = 0; n < 4; ++n) bits |= (first.at[n] ^ tag << 16) | (last.at[n] ^ tag << 16);
        return bits;
    }
    // Looks until all carry the tag.
    DEVICE void wait(const u32* source, u32 tag) {
        for (;;) {
            look(source);
            if (wrong(tag) >> 16 == 0) return;
            again();
        }
    }
    DEVICE Words pairs() const {
        return {{pair_of(first.at[0], first.at[1]), pair_of(first.at[2], first.at[3]), pair_of(last.at[0], last.at[1]),
                 pair_of(last.at[2], last.at[3])}};
    }
};

// ---- The vector: a thread's own columns, normalised, as the tensor cores take them.

// Column of a thread's n-th value; values come in fours of neighbours.
template <class L>
DEVICE int column_of(int pass, int thread, int n) {
    const int byte = pass * CHUNK + thread * 16;
    if (L::TYPE == PLAIN) return byte / 2 + n;
    if (L::TYPE != INT4) return byte + n;
    // A group is 16 words of 4 bytes: nibble k of word i is column 16 * k + i.
    return byte / 64 * GROUP + n / 4 * 16 + byte % 64 / 4 + n % 4;
}

template <class L>
DEVICE void load_own(u32 (&pairs)[L::PASSES][L::VALUES / 2], const u16* source, int thread) {
#pragma unroll
    for (int pass = 0; pass < L::PASSES; ++pass) {
        const bool inside = pass * CHUNK + thread * 16 < L::BYTES;
#pragma unroll
        for (int n = 0; n < L::VALUES; n += 4) {
            const u64 four = inside ? load_8(source + column_of<L>(pass, thread, n)) : 0;
            pairs[pass][n / 2] = (u32)four;
            pairs[pass][n / 2 + 1] = (u32)(four >> 32);
        }
    }
}

// The same of what other blocks tell.
template <class L>
DEVICE void load_own_tagged(u32 (&pairs)[L::PASSES][L::VALUES / 2], const u32* source, u32 tag, int thread) {
    // One word first, so that waiting costs little.
    if (thread * 16 < L::BYTES)
        while ((load_told_4(source + column_of<L>(0, thread, L::VALUES - 1)) ^ tag << 16) >> 16 != 0) again();
    for (u32 wrong = ~0u; wrong >> 16 != 0;) {
        if (wrong != ~0u) again();
        wrong = 0;
#pragma unroll
        for (int pass = 0; pass < L::PASSES; ++pass) {
            const bool inside = pass * CHUNK + thread * 16 < L::BYTES;
#pragma unroll
            for (int n = 0; n < L::VALUES; n += 4) {
                Words four = {{tag << 16, tag << 16, tag << 16, tag << 16}};
                if (inside) four = load_told_16(source + column_of<L>(pass, thread, n));
#pragma unroll
                for (int i = 0; i < 4; ++i) wrong |= four.at[i] ^ tag << 16;
                pairs[pass][n / 2] = pair_of(four.at[0], four.at[1]);
                pairs[pass][n / 2 + 1] = pair_of(four.at[2], four.at[3]);
            }
        }
    }
}

// 1.5 * 2^23: added to a float it leaves the nearest integer in the lowest bits.
constexpr float MAGIC = 12582912.0f;
// Integer weights meet a vector of 16 bits, a signed byte and an unsigned one.
constexpr float LARGEST = 32767.0f;

template <class L>
struct Vector {
    u32 words[L::PASSES][L::WORDS];
    // INT4: what four lanes' sums begin with, so that numbers from 0 to 15 count as -8 to 7.
    int zero[L::PASSES];
    float scale;  // of what is multiplied with it
};

// The sum and the largest over the threads of a row.
template <int ROW_THREADS>
DEVICE void reduce(const Block& b, float& sum, float& most) {
#pragma unroll
    for (int mask = 16; mask > 0; mask /= 2) {
        sum += from_partner(sum, mask);
        const float other = from_partner(most, mask);
        most = fmaxf(most, other);
    }
    const u32 at = b.shared + AT_REDUCED;
    if (b.lane == 0) {
        store_shared_float(at + b.warp * 8, sum);
        store_shared_float(at + b.warp * 8 + 4, most);
    }
    meet(THREADS);
    constexpr int COUNT = ROW_THREADS / 32;
    const int first = b.warp / COUNT * COUNT;
    sum = most = 0;
#pragma unroll
    for (int n = 0; n < COUNT; ++n) {
        sum += load_shared_float(at + (first + n) * 8);
        most = fmaxf(most, load_shared_float(at + (first + n) * 8 + 4));
    }
}

// `norm` is null where the vector is taken as it is.
template <class L>
DEVICE void prepare(Block& b, Vector<L>& v, const u32* source, u32 tag, const u16* norm, float eps) {
    constexpr int KIND_ = L::TYPE;
    // Only vectors of the model's own width are ever normalised.
    if (L::COLUMNS != HIDDEN) norm = nullptr;
    const int thread = b.thread % L::ROW_THREADS;
    constexpr int PAIRS = L::VALUES / 2;
    u32 x[L::PASSES][PAIRS], w[L::PASSES][PAIRS];
    if (norm != nullptr) load_own<L>(w, norm, thread);
    load_own_tagged<L>(x, source, tag, thread);
    v.scale = 1;
    float squares = 0, most = 0;
    if (norm != nullptr || KIND_ != PLAIN) {
#pragma unroll
        for (int pass = 0; pass < L::PASSES; ++pass)
#pragma unroll
            for (int n = 0; n < PAIRS; ++n) {
                float first = low(x[pass][n]), second = high(x[pass][n]);
                squares += first * first + second * second;
                if (KIND_ != PLAIN) {
                    if (norm != nullptr) first *= low(w[pass][n]), second *= high(w[pass][n]);
                    most = fmaxf(most, fmaxf(fabsf(first), fabsf(second)));
                }
            }
        reduce<L::ROW_THREADS>(b, squares, most);
    }
    const float factor = norm != nullptr ? inverse_root(squares / L::COLUMNS + eps) : 1.0f;
    // Rounding after each of the two factors may add a little.
    most = most * factor * 1.01f;
    float up = 1;
    if (KIND_ == INT8 || KIND_ == INT4) {
        most = most > 1e-12f ? most : 1e-12f;
        up = LARGEST / most;
        v.scale = most / LARGEST;
    }
    if (KIND_ == FP8) {
        // A power of two that keeps halves from overflowing; fp8 numbers come 2^8 times smaller than they are.
        int exponent = 13 - ((int)(as_bits(most) >> 23 & 255) - 127);
        exponent = exponent > 100 ? 100 : exponent < -100 ? -100 : exponent;
        up = as_float((u32)(127 + exponent) << 23);
        v.scale = as_float((u32)(127 + 8 - exponent) << 23);
    }
#pragma unroll
    for (int pass = 0; pass < L::PASSES; ++pass) {
        u32 normal[PAIRS];
#pragma unroll
        for (int n = 0; n < PAIRS; ++n) {
            normal[n] = x[pass][n];
            if (norm != nullptr) normal[n] = scale_pair(pack(low(x[pass][n]) * factor, high(x[pass][n]) * factor), w[pass][n]);
        }
        if (KIND_ == PLAIN) {
#pragma unroll
            for (int n = 0; n < PAIRS; ++n) v.words[pass][n] = normal[n];
        } else if (KIND_ == FP8) {
            // As two pairs of halves come of a word of four bytes: its even ones, its odd ones.
#pragma unroll
            for (int n = 0; n < PAIRS; n += 2) {
                v.words[pass][n] = pack_f16(low(normal[n]) * up, low(normal[n + 1]) * up);
                v.words[pass][n + 1] = pack_f16(high(normal[n]) * up, high(normal[n + 1]) * up);
            }
        } else {
            u32 values[L::VALUES];
#pragma unroll
            for (int n = 0; n < PAIRS; ++n) {
                values[2 * n] = as_bits(low(normal[n]) * up + MAGIC);
                values[2 * n + 1] = as_bits(high(normal[n]) * up + MAGIC);
            }
            u32(&words)[L::WORDS] = v.words[pass];
            if (KIND_ == INT8) {
#pragma unroll
                for (int n = 0; n < L::VALUES; n += 4) {
                    words[n / 4] = second_bytes(values[n], values[n + 1], values[n + 2], values[n + 3]);
                    words[4 + n / 4] = first_bytes(values[n], values[n + 1], values[n + 2], values[n + 3]);
                }
            } else {
                // Word n of a lane: its bytes' low nibbles are values 0, 8, 16 and 24 on from n, the high ones 4 more.
                int upper = 0, lower = 0;
#pragma unroll
                for (int n = 0; n < 8; ++n) {
                    const int at = n / 4 * 4 + n;
                    const u32 *const own = values + n;
                    words[at] = second_bytes(own[0], own[8], own[16], own[24]);
                    words[4 + at] = first_bytes(own[0], own[8], own[16], own[24]);
                    upper = sum_signed(words[at], upper);
                    lower = sum_unsigned(words[4 + at], lower);
                }
                int zero = upper * 256 + lower;
                zero += from_partner(zero, 1);
                zero += from_partner(zero, 2);
                v.zero[pass] = -8 * zero;
            }
        }
    }
}

// ---- Products

// Four fp8 numbers as two pairs of halves, 2^8 times smaller: even bytes and odd ones.
DEVICE u32 even_halves(u32 w) { return (w << 8 & 0x80008000u) | (w << 7 & 0x3f803f80u); }
DEVICE u32 odd_halves(u32 w) { return (w & 0x80008000u) | (w >> 1 & 0x3f803f80u); }

DEVICE float diagonal(const Block& b, float even, float odd) { return b.lane & 4 ? odd : even; }
DEVICE int diagonal(const Block& b, int even, int odd) { return b.lane & 4 ? odd : even; }

// A unit of rows: a sum for each read, in the one lane of four that has it.
template <class L>
DEVICE void multiply_unit(Block& b, const Vector<L>& v, const Product& p, int unit, float (&sums)[READS]) {
    constexpr int KIND_ = L::TYPE;
    const int thread = b.thread % L::ROW_THREADS;
    float floats[READS / 2][4] = {};
    int highs[READS / 2][4] = {}, lows[READS / 2][4] = {};
#pragma unroll
    for (int read = 0; read < READS; ++read) sums[read] = 0;
#pragma unroll
    for (int pass = 0; pass < L::PASSES; ++pass) {
        const bool inside = (L::WHOLE || pass < L::PASSES - 1) || pass * CHUNK + thread * 16 < L::BYTES;
        if (KIND_ == INT4)
#pragma unroll
            for (int pair = 0; pair < READS / 2; ++pair)
#pragma unroll
                for (int n = 0; n < 4; ++n) highs[pair][n] = 0, lows[pair][n] = v.zero[pass];
        wait_parity(b.stages.full(), b.stages.parity);
        const u32 data = b.stages.data() + b.thread * 16;
#pragma unroll
        for (int pair = 0; pair < READS / 2; ++pair) {
            Words w = {{0, 0, 0, 0}}, u = {{0, 0, 0, 0}};
            if (inside) w = load_shared_16(data + 2 * pair * CHUNK), u = load_shared_16(data + (2 * pair + 1) * CHUNK);
            const u32(&x)[L::WORDS] = v.words[pass];
            if constexpr (KIND_ == PLAIN) {
#pragma unroll
                for (int n = 0; n < 4; n += 2) {
                    if (BF16)
                        multiply_bf16(floats[pair], w.at[n], u.at[n], w.at[n + 1], u.at[n + 1], x[n], x[n + 1]);
                    else
                        multiply_f16(floats[pair], w.at[n], u.at[n], w.at[n + 1], u.at[n + 1], x[n], x[n + 1]);
                }
            } else if constexpr (KIND_ == FP8) {
#pragma unroll
                for (int n = 0; n < 4; ++n)
                    multiply_f16(floats[pair], even_halves(w.at[n]), even_halves(u.at[n]), odd_halves(w.at[n]),
                                 odd_halves(u.at[n]), x[2 * n], x[2 * n + 1]);
            } else if constexpr (KIND_ == INT8) {
#pragma unroll
                for (int n = 0; n < 4; n += 2) {
                    multiply_s8(highs[pair], w.at[n], u.at[n], w.at[n + 1], u.at[n + 1], x[n], x[n + 1]);
                    multiply_s8_u8(lows[pair], w.at[n], u.at[n], w.at[n + 1], u.at[n + 1], x[4 + n], x[4 + n + 1]);
                }
            } else {
                constexpr u32 NIBBLES = 0x0f0f0f0fu;
#pragma unroll
                for (int n = 0; n < 4; ++n) {
                    const u32 w_low = w.at[n] & NIBBLES, w_high = w.at[n] >> 4 & NIBBLES;
                    const u32 u_low = u.at[n] & NIBBLES, u_high = u.at[n] >> 4 & NIBBLES;
                    multiply_s8(highs[pair], w_low, u_low, w_high, u_high, x[n], x[8 + n]);
                    multiply_s8_u8(lows[pair], w_low, u_low, w_high, u_high, x[4 + n], x[12 + n]);
                }
            }
        }
        if constexpr (KIND_ == INT4) {
#pragma unroll
            for (int read = 0; read < READS; ++read) {
                const int row = unit + (p.gated ? read / 2 : read) * L::SIDE + (p.gated ? read % 2 * p.rows : 0);
                const u64 begin = (u64)p.scales + ((u64)row * L::GROUPS + pass * L::PASS_GROUPS) * 2;
                const int own = b.thread / L::ROW_THREADS * L::GROUPS + thread / 4;
                float scale = 0;
                if (inside) scale = f16_float(load_shared_2(b.stages.data() + READS * CHUNK + read * SCALE_SLOT + (u32)(begin & 15) + own * 2));
                const int(&h)[4] = highs[read / 2];
                const int(&l)[4] = lows[read / 2];
                const int whole = read % 2 == 0 ? diagonal(b, h[0], h[1]) * 256 + diagonal(b, l[0], l[1])
                                                : diagonal(b, h[2], h[3]) * 256 + diagonal(b, l[2], l[3]);
                sums[read] += scale * (float)whole;
            }
        }
        meet_warp();
        if (b.lane == 0) arrive(b.stages.free());
        b.stages.next();
    }
    if constexpr (KIND_ == INT8) {
#pragma unroll
        for (int read = 0; read < READS; ++read) {
            const int(&h)[4] = highs[read / 2];
            const int(&l)[4] = lows[read / 2];
            const int upper = read % 2 == 0 ? diagonal(b, h[0], h[1]) : diagonal(b, h[2], h[3]);
            const int lower = read % 2 == 0 ? diagonal(b, l[0], l[1]) : diagonal(b, l[2], l[3]);
            sums[read] = (float)upper * 256.0f + (float)lower;
        }
    }
    if constexpr (KIND_ == PLAIN || KIND_ == FP8) {
#pragma unroll
        for (int read = 0; read < READS; ++read) {
            const float(&f)[4] = floats[read / 2];
            sums[read] = read % 2 == 0 ? diagonal(b, f[0], f[1]) : diagonal(b, f[2], f[3]);
        }
    }
}

// A unit's sums over a warp's lanes, as sums of a warp.
DEVICE void join_lanes(const Block& b, const float (&sums)[READS], u32 buffer, int unit) {
    // Of four lanes each takes the sum of one read in four, and eight times four become one.
#pragma unroll
    for (int four = 0; four < READS; four += 4) {
        float sum = 0;
#pragma unroll
        for (int n = 0; n < 4; ++n) {
            const float one = from_lane(sums[four + n], (b.lane & ~3) | b.lane >> 3);
            if ((b.lane & 3) == n) sum = one;
        }
        sum += from_partner(sum, 4);
        sum += from_partner(sum, 8);
        sum += from_partner(sum, 16);
        if (b.lane < 4) store_shared_float(buffer + ((unit * READS + four + b.lane) * SUM_STRIDE + b.warp) * 4, sum);
    }
}

// A product, what it is of, and where a row's sum goes.
struct Use {
    Product product;
    const u32* source;
    u32 source_tag;
    const u16* norm;
    const u16* bias;
    u32* add;  // what was there
    u32* out;
    u32 out_tag;
    u16* logits;  // in the place of `out`
};

template <class L>
DEVICE void multiply(Block& b, const Use& use, float eps) {
    const Product& p = use.product;
    constexpr int KIND_ = L::TYPE;
    const int unit_rows = (p.gated ? READS / 2 : READS) * L::SIDE;
    // So many units that each thread has one row of theirs at most.
    constexpr int UNITS = THREADS / (READS * L::SIDE) < MOST_UNITS ? larger(THREADS / (READS * L::SIDE), 1) : MOST_UNITS;
    const int begin = first_row(p.rows, b.index), end = first_row(p.rows, b.index + 1);
    // Who has nothing to tell must not look either: nobody would wait until it has.
    if (begin == end) return;
    Vector<L> v;
    prepare<L>(b, v, use.source, use.source_tag, use.norm, eps);
    u32 buffer = b.shared + AT_SUMS;
    for (int window = begin; window < end; window += UNITS * unit_rows) {
        // A thread's own row of the window, and what it needs for it later.
        const int row = window + b.thread;
        const bool own = b.thread < UNITS * unit_rows && row < end;
        float scale = v.scale, up_scale = v.scale, add = 0;
        if (own) {
            if (KIND_ == INT8 || KIND_ == FP8) {
                scale *= ((const float*)p.scales)[row];
                if (p.gated) up_scale *= ((const float*)p.scales)[p.rows + row];
            }
            if (use.bias != nullptr) add = wide(use.bias[row]);
            if (use.add != nullptr) add = low(load_told_4(use.add + row));
        }
        int used = 0;
        float pending[READS] = {};
        for (int unit = window; unit < end && used < UNITS; unit += unit_rows, ++used) {
            float sums[READS];
            multiply_unit<L>(b, v, p, unit, sums);
            if (ROOMY) {
                // Of the unit before, while tensor cores are at work on this one; of the first there is none.
                join_lanes(b, pending, buffer, used > 0 ? used - 1 : 0);
#pragma unroll
                for (int n = 0; n < READS; ++n) pending[n] = sums[n];
            } else {
                join_lanes(b, sums, buffer, used);
            }
        }
        if (ROOMY) join_lanes(b, pending, buffer, used - 1);
        meet(THREADS);
        if (own) {
            constexpr int COUNT = L::ROW_THREADS / 32;
            const int side = b.thread % L::SIDE, place = b.thread / L::SIDE;
            float sum = 0, up = 0;
            const u32 at = buffer + ((p.gated ? 2 * place : place) * SUM_STRIDE + side * COUNT) * 4;
#pragma unroll
            for (int n = 0; n < COUNT; ++n) {
                sum += load_shared_float(at + n * 4);
                if (p.gated) up += load_shared_float(at + (SUM_STRIDE + n) * 4);
            }
            sum *= scale;
            if (p.gated) sum = sum / (1.0f + exponential(-sum)) * up * up_scale;
            if (use.add != nullptr) sum = rounded(sum);
            sum += add;
            if (use.logits != nullptr)
                use.logits[row] = narrow(sum);
            else
                tell_4(use.out + row, tagged(sum, use.out_tag));
        }
        buffer = buffer == b.shared + AT_SUMS ? buffer + SUMS_BYTES : b.shared + AT_SUMS;
    }
}

// ---- Attention: the query heads of one KV head over a part of its tokens, a block for each.

DEVICE void unpack(const u32 (&pairs)[4], float (&out)[8]) {
#pragma unroll
    for (int n = 0; n < 4; ++n) out[2 * n] = low(pairs[n]), out[2 * n + 1] = high(pairs[n]);
}

// Eight dims of a head, normalised and rotated to a position, rounded where the model's code does; `other` are those
// that they rotate with.
DEVICE void rotate(const Eight& own, const Eight& other, const u16* norm, const Words& cos, const Words& sin, float eps,
                   int dim, float (&out)[8]) {
    const int partner = dim ^ (DIM / 2);
    float x[8], y[8], c[8], s[8];
    unpack(own.pairs().at, x);
    unpack(other.pairs().at, y);
    unpack(cos.at, c);
    unpack(sin.at, s);
    if (HEAD_NORMS) {
        float squares = 0, n[8], m[8];
#pragma unroll
        for (int i = 0; i < 8; ++i) squares += x[i] * x[i];
#pragma unroll
        for (int mask = TOKEN_LANES / 2; mask > 0; mask /= 2) squares += from_partner(squares, mask);
        const float factor = inverse_root(squares / DIM + eps);
        unpack(load_16(norm + dim).at, n);
        unpack(load_16(norm + partner).at, m);
#pragma unroll
        for (int i = 0; i < 8; ++i) {
            x[i] = rounded(rounded(x[i] * factor) * n[i]);
            y[i] = rounded(rounded(y[i] * factor) * m[i]);
        }
    }
#pragma unroll
    for (int i = 0; i < 8; ++i) out[i] = rounded(x[i] * c[i] + (dim < DIM / 2 ? -y[i] : y[i]) * s[i]);
}

DEVICE float score(const float (&query)[8], const Words& key) {
    float k[8], sum = 0;
    unpack(key.at, k);
#pragma unroll
    for (int i = 0; i < 8; ++i) sum += query[i] * k[i];
#pragma unroll
    for (int mask = TOKEN_LANES / 2; mask > 0; mask /= 2) sum += from_partner(sum, mask);
    return sum;
}

// Which tokens a step attends to, and in how many parts.
struct Span {
    int begin, position, part_tokens, parts;
    const int* table;

    DEVICE Span(const Step& step, int window) {
        const int length = step.lengths[0];
        position = length > 0 ? length - 1 : 0;
        table = step.table + step.table_starts[0];
        begin = window > 0 && length > window ? length - window : 0;
        const int count = position > begin ? position - begin : 0;
        constexpr int LEAST = TURN_TOKENS * TURNS;
        const int even = ((count + MOST_PARTS - 1) / MOST_PARTS + LEAST - 1) / LEAST * LEAST;
        part_tokens = even > 0 ? even : LEAST;
        parts = count > part_tokens ? (count + part_tokens - 1) / part_tokens : 1;
    }
    DEVICE int jobs() const { return KV_HEADS * BUNCHES * parts; }
    DEVICE int part_end(int part) const {
        const int end = begin + (part + 1) * part_tokens;
        return end < position ? end : position;
    }
    DEVICE int first_token(const Block& b, int part) const {
        return begin + part * part_tokens + b.warp / BUNCH * WARP_TOKENS + b.lane / TOKEN_LANES;
    }
    DEVICE u32 slot(int token) const { return (u32)table[token / KV_BLOCK] * KV_BLOCK + token % KV_BLOCK; }
};

// One job of a block: what its warps have summed up lies in shared memory then, for each of them DIM sums, the largest
// score and the weight of all.
DEVICE void attend_part(Block& b, const Step& step, const Span& span, int layer, int job, u32 tag) {
    const int part = job % span.parts, bunch = job / span.parts % BUNCHES, kv_head = job / span.parts / BUNCHES;
    const int member = bunch * BUNCH + b.warp % BUNCH < SHARERS ? bunch * BUNCH + b.warp % BUNCH : SHARERS - 1;
    const int last = span.part_end(part), lane_dim = b.lane % TOKEN_LANES * 8, place = b.lane / TOKEN_LANES;
    u16* const keys = (u16*)b.layer_field(layer, 13);
    u16* const values = (u16*)b.layer_field(layer, 14);
    const Words cos = load_16(step.cos + (u64)span.position * DIM + lane_dim);
    const Words sin = load_16(step.sin + (u64)span.position * DIM + lane_dim);
    float query[8], sums[8] = {}, most = -infinity(), weight = 0;
    bool has_query = false;
    // The step's own token is no part of the pool yet.
    const bool has_own = part == 0 && b.warp < BUNCH;
    Words own_key = {}, own_value = {};
    // At least one turn, also where there are no tokens: the query is waited for in the first.
    int token = span.first_token(b, part);
    for (int round = span.begin + part * span.part_tokens; round < last || !has_query; round += TURNS * TURN_TOKENS) {
        Words key[TURNS], value[TURNS];
#pragma unroll
        for (int turn = 0; turn < TURNS; ++turn) {
            key[turn] = value[turn] = {{0, 0, 0, 0}};
            const int own = token + turn * TURN_TOKENS;
            if (own < last) {
                const u64 at = ((u64)span.slot(own) * KV_HEADS + kv_head) * DIM + lane_dim;
                key[turn] = load_16(keys + at);
                value[turn] = load_16(values + at);
            }
        }
        if (!ROOMY && !has_query) {
            Eight own, other;
            own.wait(step.qkv + (kv_head * SHARERS + member) * DIM + lane_dim, tag);
            other.wait(step.qkv + (kv_head * SHARERS + member) * DIM + (lane_dim ^ (DIM / 2)), tag);
            rotate(own, other, (const u16*)b.layer_field(layer, 10), cos, sin, step.eps, lane_dim, query);
            has_query = true;
        }
        if (ROOMY && !has_query) {
            // All that others tell is looked for at once: one look after the other would take as long as all of this.
            const u32* const query_head = step.qkv + (kv_head * SHARERS + member) * DIM;
            const u32* const key_head = step.qkv + (HEADS + kv_head) * DIM;
            Eight heads[2], own_heads[2], told_value;
            for (u32 wrong = ~0u; wrong >> 16 != 0;) {
                if (wrong != ~0u) again();
                heads[0].look(query_head + lane_dim), heads[1].look(query_head + (lane_dim ^ DIM / 2));
                if (has_own) {
                    own_heads[0].look(key_head + lane_dim), own_heads[1].look(key_head + (lane_dim ^ DIM / 2));
                    told_value.look(key_head + KV_HEADS * DIM + lane_dim);
                }
                wrong = heads[0].wrong(tag) | heads[1].wrong(tag);
                if (has_own) wrong |= own_heads[0].wrong(tag) | own_heads[1].wrong(tag) | told_value.wrong(tag);
            }
            if (has_own) {
                float rotated[8];
                rotate(own_heads[0], own_heads[1], (const u16*)b.layer_field(layer, 11), cos, sin, step.eps, lane_dim,
                       rotated);
#pragma unroll
                for (int n = 0; n < 4; ++n) own_key.at[n] = pack(rotated[2 * n], rotated[2 * n + 1]);
                own_value = told_value.pairs();
            }
            rotate(heads[0], heads[1], (const u16*)b.layer_field(layer, 10), cos, sin, step.eps, lane_dim, query);
            has_query = true;
        }
        float scores[TURNS], joint = most;
#pragma unroll
        for (int turn = 0; turn < TURNS; ++turn) {
            const float one = score(query, key[turn]) * step.scale;
            scores[turn] = token + turn * TURN_TOKENS < last ? one : -infinity();
            joint = fmaxf(joint, scores[turn]);
        }
        const float base = joint == -infinity() ? 0.0f : joint, shrink = exponential(most - base);
        most = joint;
        weight *= shrink;
#pragma unroll
        for (int i = 0; i < 8; ++i) sums[i] *= shrink;
#pragma unroll
        for (int turn = 0; turn < TURNS; ++turn) {
            const float share = exponential(scores[turn] - base);
            float v[8];
            unpack(value[turn].at, v);
            weight += share;
#pragma unroll
            for (int i = 0; i < 8; ++i) sums[i] += share * v[i];
        }
        token += TURNS * TURN_TOKENS;
    }
    if (has_own) {
        float v[8];
        if (!ROOMY) {
            float rotated[8];
            Eight own, other;
            own.wait(step.qkv + (HEADS + kv_head) * DIM + lane_dim, tag);
            other.wait(step.qkv + (HEADS + kv_head) * DIM + (lane_dim ^ (DIM / 2)), tag);
            rotate(own, other, (const u16*)b.layer_field(layer, 11), cos, sin, step.eps, lane_dim, rotated);
#pragma unroll
            for (int n = 0; n < 4; ++n) own_key.at[n] = pack(rotated[2 * n], rotated[2 * n + 1]);
            own.wait(step.qkv + (HEADS + KV_HEADS + kv_head) * DIM + lane_dim, tag);
            own_value = own.pairs();
        }
        if (bunch == 0 && b.warp == 0 && place == 0) {
            const u64 at = ((u64)step.slots[0] * KV_HEADS + kv_head) * DIM + lane_dim;
            store_16(keys + at, own_key);
            store_16(values + at, own_value);
        }
        const float one = score(query, own_key) * step.scale, joint = fmaxf(most, one);
        if (place == 0) {
            const float mine = exponential(most - joint), share = exponential(one - joint);
            unpack(own_value.at, v);
            most = joint;
            weight = weight * mine + share;
#pragma unroll
            for (int i = 0; i < 8; ++i) sums[i] = sums[i] * mine + share * v[i];
        }
    }
#pragma unroll
    for (int mask = TOKEN_LANES; mask < 32; mask *= 2) {
        const float other = from_partner(most, mask), joint = fmaxf(most, other);
        const float base = joint == -infinity() ? 0.0f : joint, mine = exponential(most - base), theirs = exponential(other - base);
        most = joint;
        weight = weight * mine + from_partner(weight, mask) * theirs;
#pragma unroll
        for (int i = 0; i < 8; ++i) sums[i] = sums[i] * mine + from_partner(sums[i], mask) * theirs;
    }
    const u32 at = b.shared + AT_ATTENTION + b.warp * ATTENTION_STRIDE * 4;
    if (place == 0) {
#pragma unroll
        for (int i = 0; i < 8; ++i) store_shared_float(at + (lane_dim + i) * 4, sums[i]);
        if (lane_dim == 0) {
            store_shared_float(at + DIM * 4, most);
            store_shared_float(at + (DIM + 1) * 4, weight);
        }
    }
}

// A part's result, divided by its weight, and the logarithm of that: what the other parts are to be weighed against.
struct Part {
    float sum, log_weight;
};

// What the warps of a head have, as one; `n` counts the heads' dims.
DEVICE Part join_warps(const Block& b, int n) {
    const u32 at = b.shared + AT_ATTENTION + n / DIM * ATTENTION_STRIDE * 4;
    float most = -infinity(), weight = 0, sum = 0;
#pragma unroll
    for (int group = 0; group < TOKEN_GROUPS; ++group)
        most = fmaxf(most, load_shared_float(at + (group * BUNCH * ATTENTION_STRIDE + DIM) * 4));
#pragma unroll
    for (int group = 0; group < TOKEN_GROUPS; ++group) {
        const u32 own = at + group * BUNCH * ATTENTION_STRIDE * 4;
        const float share = exponential(load_shared_float(own + DIM * 4) - most);
        weight += load_shared_float(own + (DIM + 1) * 4) * share;
        sum += load_shared_float(own + n % DIM * 4) * share;
    }
    return {sum / weight, most + logarithm(weight)};
}

// What parts have told, as one.
DEVICE float join_parts(const Step& step, int bundle, int n, int parts, u32 tag) {
    const u64 from = (u64)bundle * MOST_PARTS * BUNCH + n / DIM;
    float most = -infinity(), weight = 0, sum = 0;
    // Some at a time, so that their reads are under way together.
    constexpr int TOGETHER = MOST_PARTS < 8 ? MOST_PARTS : 8;
    for (int others = 0; others < parts; others += TOGETHER) {
        u64 weights[TOGETHER], sums[TOGETHER];
        for (;;) {
            u32 wrong = 0;
#pragma unroll
            for (int i = 0; i < TOGETHER; ++i) {
                weights[i] = (u64)as_bits(-infinity()) | (u64)tag << 32;
                sums[i] = (u64)tag << 32;
                if (others + i < parts) {
                    const u64 at = from + (others + i) * BUNCH;
                    weights[i] = load_told_8(step.weights + at);
                    sums[i] = load_told_8(step.sums + at * DIM + n % DIM);
                }
                wrong |= ((u32)(weights[i] >> 32) ^ tag) | ((u32)(sums[i] >> 32) ^ tag);
            }
            if (wrong == 0) break;
            again();
        }
        float joint = most;
#pragma unroll
        for (int i = 0; i < TOGETHER; ++i) joint = fmaxf(joint, as_float((u32)weights[i]));
        const float mine = exponential(most - joint);
        weight *= mine;
        sum *= mine;
#pragma unroll
        for (int i = 0; i < TOGETHER; ++i) {
            const float share = exponential(as_float((u32)weights[i]) - joint);
            weight += share;
            sum += as_float((u32)sums[i]) * share;
        }
        most = joint;
    }
    return sum / weight;
}

// The query heads' values come with `tag`; what the parts tell each other gets the next one, the result that after it.
DEVICE void attend(Block& b, const Step& step, int layer, u32 tag) {
    const Span span(step, (int)b.layer_field(layer, 15));
    const int parts = span.parts;
    for (int job = b.index; job < span.jobs(); job += BLOCKS) {
        if (b.warp < TOKEN_GROUPS * BUNCH) attend_part(b, step, span, layer, job, tag);
        meet(THREADS);
        const int part = job % parts, bundle = job / parts, first = bundle / BUNCHES * SHARERS + bundle % BUNCHES * BUNCH;
        for (int n = b.thread; n < BUNCH * DIM; n += THREADS) {
            const Part own = join_warps(b, n);
            if (parts > 1) {
                const u64 to = (u64)(bundle * MOST_PARTS + part) * BUNCH + n / DIM;
                tell_8(step.sums + to * DIM + n % DIM, (u64)as_bits(own.sum) | (u64)(tag + 1) << 32);
                if (n % DIM == 0) tell_8(step.weights + to, (u64)as_bits(own.log_weight) | (u64)(tag + 1) << 32);
            } else if (bundle % BUNCHES * BUNCH + n / DIM < SHARERS) {
                tell_4(step.attended + first * DIM + n, tagged(own.sum, tag + 2));
            }
        }
        // Before the next job's warps write over it.
        meet(THREADS);
    }
    // Every part's block joins a share of the dims, once all parts have been told of.
    for (int job = b.index; parts > 1 && job < span.jobs(); job += BLOCKS) {
        const int part = job % parts, bundle = job / parts, first = bundle / BUNCHES * SHARERS + bundle % BUNCHES * BUNCH;
        const int share = (BUNCH * DIM + parts - 1) / parts;
        const int end = (part + 1) * share < BUNCH * DIM ? (part + 1) * share : BUNCH * DIM;
        for (int n = part * share + b.thread; n < end; n += THREADS) {
            const float joined = join_parts(step, bundle, n, parts, tag + 1);
            if (bundle % BUNCHES * BUNCH + n / DIM < SHARERS) tell_4(step.attended + first * DIM + n, tagged(joined, tag + 2));
        }
    }
}

// ---- The step

constexpr int LAYER_TAGS = 6;

DEVICE void compute_all(Block& b, const Step& step) {
    const u32 before = load_told_4(step.counters);
    const u16* const embedded = step.embedding + (u64)step.ids[0] * HIDDEN;
    for (int row = first_row(HIDDEN, b.index) + b.thread; row < first_row(HIDDEN, b.index + 1); row += THREADS)
        tell_4(step.x + row, (u32)embedded[row] | (before + 1) << 16);
    auto use_of = [&](int layer, int op) {
        const u32 tag = before + 1 + layer * LAYER_TAGS;
        Use use = {product_of(b, step, layer, op)};
        if (op == QKV) {
            use.source = step.x, use.source_tag = tag;
            use.norm = (const u16*)b.layer_field(layer, 8);
            if (QKV_BIAS) use.bias = (const u16*)b.layer_field(layer, 12);
            use.out = step.qkv, use.out_tag = tag + 1;
        } else if (op == OUTPUT) {
            attend(b, step, layer, tag + 1);
            use.source = step.attended, use.source_tag = tag + 3;
            use.add = use.out = step.x, use.out_tag = tag + 4;
        } else if (op == GATE_UP) {
            use.source = step.x, use.source_tag = tag + 4;
            use.norm = (const u16*)b.layer_field(layer, 9);
            use.out = step.gated, use.out_tag = tag + 5;
        } else if (op == DOWN) {
            use.source = step.gated, use.source_tag = tag + 5;
            use.add = use.out = step.x, use.out_tag = tag + 6;
        } else {
            use.source = step.x, use.source_tag = tag;
            use.norm = step.norm;
            use.logits = step.logits;
        }
        return use;
    };
    for_each_product(use_of, [&](const Use& use, auto layout) { multiply<decltype(layout)>(b, use, step.eps); });
    meet(THREADS);
    // All blocks have read the counter when the last one is done.
    if (b.thread == 0 && count_block(step.counters + 1) == BLOCKS - 1) {
        step.counters[0] = before + 1 + LAYERS * LAYER_TAGS;
        step.counters[1] = 0;
    }
}

extern "C" __global__ void __launch_bounds__(THREADS + 32, 1) one_row_step(const Step step) {
    Block b;
    b.index = block_index();
    b.thread = thread_index();
    b.lane = b.thread % 32;
    b.warp = b.thread / 32;
    b.shared = b.stages.base = shared_base();
    for (int n = b.thread; n < LAYERS * (int)sizeof(Layer) / 8; n += THREADS + 32)
        store_shared_8(b.shared + AT_LAYERS + n * 8, ((const u64*)step.layers)[n]);
    if (b.thread == 0) {
        for (int n = 0; n < STAGES; ++n) {
            init_arrivals(b.shared + AT_BARRIERS + n * 8, 1);
            init_arrivals(b.shared + AT_BARRIERS + (STAGES + n) * 8, WARPS);
        }
        publish_arrivals();
    }
    meet_block();
    if (b.warp == WARPS)
        stream_all(b, step);
    else
        compute_all(b, step);
}
