// A Llama-like decoder over the engine's paged cache: one call computes a step, whatever mix of rows it has.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <vector>

#include "activations.h"
#include "attention.h"
#include "kv_cache.h"
#include "packed_matrix.h"
#include "product.h"
#include "thread_team.h"

// The structs of the C interface; decoder.py has their twins.
struct LayerWeights {
    PackedMatrix query, key, value, output, gate, up, down;
    const float* input_norm;
    const float* output_norm;
    const float* query_norm;
    const float* key_norm;
    void* keys;
    void* values;
    int32_t window;  // positions a token sees, its own included; 0: all
    int32_t unused;
};

struct ModelShape {
    int32_t hidden, inter, num_heads, num_kv_heads, dim, vocab, num_layers;
    int32_t block_size, kv_is_bf16, max_rows, max_context, num_threads;
    float eps, attention_scale;
    const LayerWeights* layers;
    PackedMatrix head;
    PackedMatrix embedding;
    const float* norm;
    const float* cosines;  // [max_context, dim / 2]
    const float* sines;
};

struct Step {
    int32_t num_rows, num_kept, each_its_own_sequence, unused;
    const int32_t* ids;
    const int32_t* positions;
    const int32_t* table_starts;
    const int32_t* tables;
    const int32_t* kept;
    float* logits;  // [num_kept, vocab]
    // Of each kept row the likeliest token (the first of several), -1 where a logit is not a number or infinite.
    int32_t* likeliest;
};

template <class T> class Buffer {
public:
    void allocate(int64_t count) {
        data_.reset(static_cast<T*>(std::aligned_alloc(64, (count * int64_t(sizeof(T)) + 127) / 64 * 64)));
    }
    T* get() const { return data_.get(); }

private:
    struct Free {
        void operator()(T* data) const { std::free(data); }
    };
    std::unique_ptr<T, Free> data_;
};

// The memory behind one Activations.
class ActivationBuffers {
public:
    void allocate(int64_t rows, int columns) {
        const int64_t groups = rows * (columns / kGroup);
        levels_.allocate(rows * columns);
        scales_.allocate(groups);
        scaled_sums_.allocate(groups);
        offsets_.allocate(groups);
        numbers_.allocate(rows * columns);
        numbers_bf16_.allocate(rows * columns);
        view_ = {levels_.get(), scales_.get(), scaled_sums_.get(), offsets_.get(), numbers_.get(), numbers_bf16_.get(),
                 columns};
    }
    const Activations& view() const { return view_; }

private:
    Buffer<int8_t> levels_;
    Buffer<float> scales_, scaled_sums_, numbers_;
    Buffer<int32_t> offsets_;
    Buffer<uint16_t> numbers_bf16_;
    Activations view_;
};

class Decoder {
public:
    explicit Decoder(const ModelShape& shape);
    void run(const Step& step);

private:
    struct Likeliest {
        float value;
        int32_t token;
        bool is_finite;
    };
    struct Workspace {
        Buffer<float> scores, keys, out, tile;
        std::vector<Likeliest> likeliest;  // of what this thread has seen of each kept row
    };

    void embed(const Step& step);
    void normalize(const float* gain, const PackedMatrix& next, int num_rows);
    void project_qkv(const LayerWeights& layer, int num_rows);
    template <class Element> void attend_all(const LayerWeights& layer, const Step& step);
    template <class Element> void prepare_kv(const LayerWeights& layer, const Step& step, int row, int kv_head);
    template <class Element>
    void attend_one(const LayerWeights& layer, const Step& step, int row, int kv_head, Workspace& workspace);
    void add_product(const PackedMatrix& matrix, const Activations& x, int num_rows);
    void gated(const LayerWeights& layer, int num_rows);
    void logits(const Step& step);
    void find_likeliest(const Step& step, int block_begin, int block_end, int thread);
    void merge_likeliest(const Step& step);

    float* query_of(int row) const { return qkv_.get() + int64_t(row) * qkv_columns_; }

    const ModelShape shape_;
    const std::vector<LayerWeights> layers_;
    ThreadTeam team_;
    int qkv_columns_;
    int score_stride_;
    Buffer<float> x_, qkv_;
    ActivationBuffers normal_, attended_, inner_;
    std::vector<Workspace> workspaces_;
};
