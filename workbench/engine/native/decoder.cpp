#include "decoder.h"

#include <algorithm>
#include <cmath>

// Rows whose gate and up values stay in the first-level cache until they are multiplied.
constexpr int kTileRows = 64;

// Tasks a thread finds in its share of a phase: enough to even out, few enough to stream through memory.
constexpr int kTasksPerThread = 6;

namespace {

// Splits `blocks` blocks into tasks and calls body(first block, end, thread) for each.
template <class Body> void over_blocks(ThreadTeam& team, int blocks, const Body& body) {
    const int tasks = std::min(blocks, team.num_threads() * kTasksPerThread);
    team.run(tasks, [&](int task, int thread) {
        body(int(int64_t(blocks) * task / tasks), int(int64_t(blocks) * (task + 1) / tasks), thread);
    });
}

}  // namespace

Decoder::Decoder(const ModelShape& shape)
    : shape_(shape), layers_(shape.layers, shape.layers + shape.num_layers), team_(shape.num_threads) {
    const int64_t rows = shape.max_rows;
    qkv_columns_ = (shape.num_heads + 2 * shape.num_kv_heads) * shape.dim;
    // An odd number of cache lines, so that the heads' rows do not fall onto each other in the cache.
    score_stride_ = (shape.max_context + 2 * kPositions) / kPositions * kPositions + kPositions;
    x_.allocate(rows * shape.hidden);
    qkv_.allocate(rows * qkv_columns_);
    normal_.allocate(rows, shape.hidden);
    attended_.allocate(rows, shape.num_heads * shape.dim);
    inner_.allocate(rows, shape.inter);
    const int group = shape.num_heads / shape.num_kv_heads;
    workspaces_.resize(shape.num_threads);
    for (auto& workspace : workspaces_) {
        workspace.scores.allocate(int64_t(group) * score_stride_);
        workspace.keys.allocate(kPositions * shape.dim);
        workspace.out.allocate(group * shape.dim);
        workspace.tile.allocate(4 * kTileRows * kBlockRows);
        std::fill_n(workspace.keys.get(), kPositions * shape.dim, 0.0f);
    }
}

void Decoder::run(const Step& step) {
    const unsigned mode = _mm_getcsr();
    _mm_setcsr(mode | kFlushTiny);
    team_.begin_step();
    embed(step);
    for (const auto& layer : layers_) {
        normalize(layer.input_norm, layer.query, step.num_rows);
        project_qkv(layer, step.num_rows);
        if (shape_.kv_is_bf16) attend_all<uint16_t>(layer, step);
        else attend_all<float>(layer, step);
        add_product(layer.output, attended_.view(), step.num_rows);
        normalize(layer.output_norm, layer.gate, step.num_rows);
        gated(layer, step.num_rows);
        add_product(layer.down, inner_.view(), step.num_rows);
    }
    logits(step);
    team_.end_step();
    _mm_setcsr(mode);
}

void Decoder::embed(const Step& step) {
    for (int row = 0; row < step.num_rows; ++row)
        unpack_row(shape_.embedding, step.ids[row], x_.get() + int64_t(row) * shape_.hidden);
}

void Decoder::normalize(const float* gain, const PackedMatrix& next, int num_rows) {
    const auto one = [&](int row, int) {
        normalize_row(
            x_.get() + int64_t(row) * shape_.hidden, gain, shape_.eps, normal_.view(), next.rounding(), row
        );
    };
    // A phase costs more than a few rows.
    if (num_rows <= 8) for (int row = 0; row < num_rows; ++row) one(row, 0);
    else team_.run(num_rows, one);
}

void Decoder::project_qkv(const LayerWeights& layer, int num_rows) {
    const PackedMatrix* parts[3] = {&layer.query, &layer.key, &layer.value};
    over_blocks(team_, qkv_columns_ / kBlockRows, [&](int begin, int end, int) {
        for (int block = begin; block < end; ++block) {
            int part = 0, own = block;
            while (own >= parts[part]->blocks()) own -= parts[part++]->blocks();
            float* out = qkv_.get() + int64_t(block) * kBlockRows;
            multiply_block(*parts[part], own, normal_.view(), 0, num_rows, out, qkv_columns_);
            if (parts[part]->bias == nullptr) continue;
            const __m512 bias = parts[part]->bias_of(own);
            for (int row = 0; row < num_rows; ++row)
                _mm512_storeu_ps(
                    out + int64_t(row) * qkv_columns_, _mm512_add_ps(_mm512_loadu_ps(out + int64_t(row) * qkv_columns_), bias)
                );
        }
    });
}

template <class Element> void Decoder::attend_all(const LayerWeights& layer, const Step& step) {
    const int heads = shape_.num_kv_heads, tasks = step.num_rows * heads;
    // Rows of one sequence see each other's keys, so these are all stored first.
    if (!step.each_its_own_sequence)
        team_.run(tasks, [&](int task, int) { prepare_kv<Element>(layer, step, task / heads, task % heads); });
    team_.run(tasks, [&](int task, int thread) {
        if (step.each_its_own_sequence) prepare_kv<Element>(layer, step, task / heads, task % heads);
        attend_one<Element>(layer, step, task / heads, task % heads, workspaces_[thread]);
    });
}

template <class Element>
void Decoder::prepare_kv(const LayerWeights& layer, const Step& step, int row, int kv_head) {
    const int dim = shape_.dim, position = step.positions[row];
    float* key = query_of(row) + (shape_.num_heads + kv_head) * dim;
    const float* value = key + shape_.num_kv_heads * dim;
    if (layer.key_norm) normalize_head(key, layer.key_norm, shape_.eps, dim);
    rotate(key, shape_.cosines + int64_t(position) * (dim / 2), shape_.sines + int64_t(position) * (dim / 2), dim);
    const KvLayout layout{shape_.block_size, shape_.num_kv_heads, dim};
    const int64_t at = layout.at(step.tables + step.table_starts[row], position, kv_head);
    for (int i = 0; i < dim; i += 16) {
        store16(static_cast<Element*>(layer.keys) + at + i, _mm512_loadu_ps(key + i));
        store16(static_cast<Element*>(layer.values) + at + i, _mm512_loadu_ps(value + i));
    }
}

template <class Element>
void Decoder::attend_one(const LayerWeights& layer, const Step& step, int row, int kv_head, Workspace& workspace) {
    const int dim = shape_.dim, group = shape_.num_heads / shape_.num_kv_heads, position = step.positions[row];
    float* queries = query_of(row) + kv_head * group * dim;
    for (int head = 0; head < group; ++head) {
        if (layer.query_norm) normalize_head(queries + head * dim, layer.query_norm, shape_.eps, dim);
        rotate(queries + head * dim, shape_.cosines + int64_t(position) * (dim / 2),
               shape_.sines + int64_t(position) * (dim / 2), dim);
    }
    const int first = layer.window ? std::max(0, position - layer.window + 1) : 0;
    const Span<Element> span{
        static_cast<const Element*>(layer.keys), static_cast<const Element*>(layer.values),
        step.tables + step.table_starts[row], {shape_.block_size, shape_.num_kv_heads, dim}, kv_head, first, position,
    };
    float* out = workspace.out.get();
    attend(span, queries, group, shape_.attention_scale, workspace.scores.get(), score_stride_, workspace.keys.get(), out);
    for (int i = 0; i < group * dim; i += kGroup)
        store_group(attended_.view(), layer.output.rounding(), row, (kv_head * group * dim + i) / kGroup,
                    _mm512_loadu_ps(out + i), _mm512_loadu_ps(out + i + 16));
}

void Decoder::add_product(const PackedMatrix& matrix, const Activations& x, int num_rows) {
    over_blocks(team_, matrix.blocks(), [&](int begin, int end, int thread) {
        float* tile = workspaces_[thread].tile.get();
        for (int block = begin; block < end; ++block) {
            const __m512 bias = matrix.bias_of(block);
            for (int first = 0; first < num_rows; first += 4 * kTileRows) {
                const int rows = std::min(4 * kTileRows, num_rows - first);
                multiply_block(matrix, block, x, first, rows, tile, kBlockRows);
                for (int row = 0; row < rows; ++row) {
                    float* at = x_.get() + int64_t(first + row) * shape_.hidden + block * kBlockRows;
                    const __m512 added = _mm512_add_ps(_mm512_load_ps(tile + row * kBlockRows), bias);
                    _mm512_storeu_ps(at, _mm512_add_ps(_mm512_loadu_ps(at), added));
                }
            }
        }
    });
}

void Decoder::gated(const LayerWeights& layer, int num_rows) {
    // Two blocks make one group of the next product's columns.
    over_blocks(team_, shape_.inter / kGroup, [&](int begin, int end, int thread) {
        float* tile = workspaces_[thread].tile.get();
        constexpr int kPart = kTileRows * kBlockRows;
        for (int group = begin; group < end; ++group) {
            const __m512 biases[4] = {
                layer.gate.bias_of(2 * group), layer.gate.bias_of(2 * group + 1),
                layer.up.bias_of(2 * group), layer.up.bias_of(2 * group + 1),
            };
            for (int first = 0; first < num_rows; first += kTileRows) {
                const int rows = std::min(kTileRows, num_rows - first);
                for (int half = 0; half < 2; ++half) {
                    multiply_block(layer.gate, 2 * group + half, normal_.view(), first, rows, tile + half * kPart, kBlockRows);
                    multiply_block(layer.up, 2 * group + half, normal_.view(), first, rows, tile + (2 + half) * kPart, kBlockRows);
                }
                for (int row = 0; row < rows; ++row) {
                    const float* at = tile + row * kBlockRows;
                    const auto number = [&](int part) { return _mm512_add_ps(_mm512_load_ps(at + part * kPart), biases[part]); };
                    const __m512 low = _mm512_mul_ps(silu16(number(0)), number(2));
                    const __m512 high = _mm512_mul_ps(silu16(number(1)), number(3));
                    store_group(inner_.view(), layer.down.rounding(), first + row, group, low, high);
                }
            }
        }
    });
}

void Decoder::logits(const Step& step) {
    if (step.num_kept == 0) return;
    for (int i = 0; i < step.num_kept; ++i)
        normalize_row(x_.get() + int64_t(step.kept[i]) * shape_.hidden, shape_.norm, shape_.eps, normal_.view(),
                      shape_.head.rounding(), i);
    const int whole = shape_.vocab / kBlockRows;
    for (auto& workspace : workspaces_) workspace.likeliest.assign(step.num_kept, {-INFINITY, INT32_MAX, true});
    over_blocks(team_, shape_.head.blocks(), [&](int begin, int end, int thread) {
        for (int block = begin; block < end; ++block) {
            float* out = step.logits + int64_t(block) * kBlockRows;
            if (block < whole) {
                multiply_block(shape_.head, block, normal_.view(), 0, step.num_kept, out, shape_.vocab);
                continue;
            }
            float* tile = workspaces_[thread].tile.get();
            for (int row = 0; row < step.num_kept; ++row) {
                multiply_block(shape_.head, block, normal_.view(), row, 1, tile, kBlockRows);
                std::copy_n(tile, shape_.vocab - whole * kBlockRows, out + int64_t(row) * shape_.vocab);
            }
        }
        find_likeliest(step, begin * kBlockRows, std::min(end * kBlockRows, shape_.vocab), thread);
    });
    merge_likeliest(step);
}

void Decoder::find_likeliest(const Step& step, int begin, int end, int thread) {
    for (int row = 0; row < step.num_kept; ++row) {
        const float* logits = step.logits + int64_t(row) * shape_.vocab;
        __m512 largest = _mm512_set1_ps(-INFINITY), zero = _mm512_setzero_ps();
        int token = begin;
        for (; token + 16 <= end; token += 16) {
            const __m512 values = _mm512_loadu_ps(logits + token);
            largest = _mm512_max_ps(largest, values);
            // Zero times anything that is no finite number is not a number, and stays so.
            zero = _mm512_fmadd_ps(values, _mm512_setzero_ps(), zero);
        }
        float value = _mm512_reduce_max_ps(largest), sum = _mm512_reduce_add_ps(zero);
        for (; token < end; ++token) {
            value = std::max(value, logits[token]);
            sum += logits[token] * 0.0f;
        }
        auto& mine = workspaces_[thread].likeliest[row];
        mine.is_finite = mine.is_finite && sum == 0.0f;
        if (value < mine.value) continue;
        const int32_t first = int32_t(std::find(logits + begin, logits + end, value) - logits);
        if (value > mine.value || first < mine.token) mine.token = first;
        mine.value = value;
    }
}

void Decoder::merge_likeliest(const Step& step) {
    for (int row = 0; row < step.num_kept; ++row) {
        Likeliest best = workspaces_[0].likeliest[row];
        for (const auto& workspace : workspaces_) {
            const auto& other = workspace.likeliest[row];
            const bool better = other.value > best.value || (other.value == best.value && other.token < best.token);
            best = {better ? other.value : best.value, better ? other.token : best.token, best.is_finite && other.is_finite};
        }
        step.likeliest[row] = best.is_finite ? best.token : -1;
    }
}
