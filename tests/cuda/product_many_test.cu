// The products for many rows against a plain product by load_weight, then their speed, and that of
// all of moe_ffn against the same with plain products.
// Arguments: any of "check", "time" and "chain", or none for all three; "time-all" for more shapes.
// The environment's COPIES=mma,copies,mixed,tensor picks the forms, the last three being ways of
// copying for wgmma, STORAGE=int4,bf16 the weights that are timed.
#include "errors.hpp"
#include "kernels/elements.cuh"
#include "kernels/expert_sort.hpp"
#include "kernels/product.hpp"
#include "kernels/rows.hpp"

#include "kernel_test.cuh"

#include <sluice/abi/operations.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

using namespace sluice::cuda;

namespace {

// ---- Data ----

enum class content { numbers, scales, small_scales, bytes, small_codes };

// numbers: from -1 to 1; scales: from 0.005 to 0.015, small ones a tenth; small_codes: bytes below
// 16.
__global__ void fill_kernel(void* data, uint32_t type, int64_t count, uint64_t seed, content kind) {
    for (int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; i < count;
         i += static_cast<int64_t>(gridDim.x) * blockDim.x) {
        const uint32_t bits = hash(seed * 0x9E3779B97F4A7C15ull + i);
        const float unit = static_cast<float>(bits >> 8) / 16777216.0f;
        if (kind == content::bytes)
            static_cast<uint8_t*>(data)[i] = static_cast<uint8_t>(bits);
        else if (kind == content::small_codes)
            static_cast<uint8_t*>(data)[i] = static_cast<uint8_t>(bits & 15);
        else if (kind == content::scales)
            store_from_float(data, type, i, 0.005f + 0.01f * unit);
        else if (kind == content::small_scales)
            store_from_float(data, type, i, 0.0005f + 0.001f * unit);
        else
            store_from_float(data, type, i, 2.0f * unit - 1.0f);
    }
}

int64_t bytes_of(uint32_t type) {
    return type == SLUICE_F32 || type == SLUICE_I32 ? 4 : type == SLUICE_BOOL ? 1 : 2;
}

struct pool : device_pool {
    void* filled(uint32_t type, int64_t count, content kind) {
        const bool is_byte = kind == content::bytes || kind == content::small_codes;
        void* block = allocate(count * (is_byte ? 1 : bytes_of(type)));
        fill_kernel<<<1024, 256>>>(block, type, count, ++seed, kind);
        CHECK_CUDA(cudaGetLastError());
        return block;
    }
};

weight_view make_weight(pool& memory, weight_storage storage, int matrices, int64_t rows,
                        int64_t columns, uint32_t scale_type, int group_columns, bool zeros) {
    weight_view weight;
    weight.storage = storage;
    weight.matrices = matrices;
    weight.rows = rows;
    weight.columns = columns;
    const int64_t count = matrices * rows * columns;
    if (storage == weight_storage::bfloat16) {
        weight.data = memory.filled(SLUICE_BF16, count, content::numbers);
    } else if (storage == weight_storage::float16) {
        weight.data = memory.filled(SLUICE_F16, count, content::numbers);
    } else {
        const bool is_int4 = storage == weight_storage::int4;
        weight.data = memory.filled(0, is_int4 ? count / 2 : count, content::bytes);
        weight.scale_type = scale_type;
        weight.group_columns = group_columns;
        const int64_t scales = matrices * rows * (columns / group_columns);
        weight.scales =
            memory.filled(scale_type, scales, is_int4 ? content::scales : content::small_scales);
        if (zeros)
            weight.zeros = static_cast<const uint8_t*>(
                memory.filled(0, scales, is_int4 ? content::small_codes : content::bytes));
    }
    return weight;
}

// ---- The plain product ----

__device__ float activate(const gating& gate, float g, float u) {
    switch (gate.activation) {
    case SLUICE_ACTIVATION_GELU_ERF:
        return 0.5f * g * (1.0f + erff(g * 0.70710678f)) * u;
    case SLUICE_ACTIVATION_GELU_TANH:
        return 0.5f * g * (1.0f + tanhf(0.79788456f * (g + 0.044715f * g * g * g))) * u;
    case SLUICE_ACTIVATION_RELU:
        return fmaxf(g, 0.0f) * u;
    case SLUICE_ACTIVATION_RELU_SQUARED:
        return fmaxf(g, 0.0f) * fmaxf(g, 0.0f) * u;
    case SLUICE_ACTIVATION_SWIGLU_OAI:
        if (gate.clamp > 0.0f) {
            g = fminf(g, gate.clamp);
            u = fminf(fmaxf(u, -gate.clamp), gate.clamp);
        }
        return g / (1.0f + expf(-gate.alpha * g)) * (u + 1.0f);
    default:
        return g / (1.0f + expf(-g)) * u;
    }
}

__device__ float dot(const product_call& call, const weight_view& weight, const float* bias,
                     int64_t m, int64_t n, int64_t row) {
    double sum = 0.0;
    if (row >= 0) {
        for (int64_t k = 0; k < weight.columns; ++k)
            sum += static_cast<double>(load_weight(weight, m, n, k))
                   * load_as_float(call.x, call.x_type, row * weight.columns + k);
    }
    if (bias != nullptr) sum += bias[m * weight.rows + n];
    return static_cast<float>(sum);
}

// One thread for each of `count` values: value i is that of place and feature of index i * step.
__global__ void reference_kernel(product_call call, int64_t width, int64_t count, int64_t step,
                                 float* out) {
    const int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x;
    if (i >= count) return;
    const int64_t place = i * step / width, n = i * step % width;
    int64_t m = 0;
    if (call.offset != nullptr) {
        while (m < call.weight.matrices && place >= call.offset[m + 1]) ++m;
        if (m == call.weight.matrices) {
            out[i] = 0.0f;
            return;
        }
    }
    const int64_t row = call.row != nullptr ? call.row[place] : place;
    if (!call.gate.gates) {
        out[i] = dot(call, call.weight, call.bias, m, n, row);
        return;
    }
    float gate, up;
    if (call.gate.gate_layout == SLUICE_GATE_SPLIT) {
        gate = dot(call, call.weight, call.bias, m, n, row);
        up = dot(call, call.up, call.up_bias, m, n, row);
    } else if (call.gate.gate_layout == SLUICE_GATE_CONCAT) {
        gate = dot(call, call.weight, call.bias, m, n, row);
        up = dot(call, call.weight, call.bias, m, width + n, row);
    } else {
        gate = dot(call, call.weight, call.bias, m, 2 * n, row);
        up = dot(call, call.weight, call.bias, m, 2 * n + 1, row);
    }
    out[i] = activate(call.gate, gate, up);
}

int multiprocessors = 1;
bool has_hopper = false;
int failures = 0;

int64_t width_of(const product_call& call) {
    return call.gate.gates && call.gate.gate_layout != SLUICE_GATE_SPLIT ? call.weight.rows / 2
                                                                         : call.weight.rows;
}

struct difference {
    double norm = 0.0;  // |out - reference| / |reference|
    double worst = 0.0; // largest |out - wanted| / (|wanted| + root mean square of the wanted)
    bool is_finite = true;
};

difference compare(const std::vector<uint8_t>& out, uint32_t type, const std::vector<float>& wanted,
                   int64_t step, int64_t count) {
    difference result;
    double error = 0.0, total = 0.0;
    for (int64_t i = 0; i < count; ++i) total += static_cast<double>(wanted[i]) * wanted[i];
    const double usual = std::sqrt(std::max(total / static_cast<double>(count), 1e-30));
    for (int64_t i = 0; i < count; ++i) {
        const double value = value_of(out, type, i * step), want = wanted[i];
        if (!std::isfinite(value)) {
            result.is_finite = false;
            continue;
        }
        error += (value - want) * (value - want);
        result.worst = std::max(result.worst, std::fabs(value - want) / (std::fabs(want) + usual));
    }
    result.norm = std::sqrt(error / std::max(total, 1e-30));
    return result;
}

bool is_chosen(const char* variable, const char* name) {
    const char* chosen = std::getenv(variable);
    return chosen == nullptr || std::strstr(chosen, name) != nullptr;
}

// A form of the product: mma.sync, or wgmma with one way of copying.
struct form {
    const char* name;
    bool hopper;
    operand_copies copies;
};

std::vector<form> forms() {
    std::vector<form> all;
#if !defined(SLUICE_TEST_HOPPER)
    if (is_chosen("COPIES", "mma")) all.push_back({"mma", false, operand_copies::automatic});
#endif
    if (!has_hopper) return all;
    for (const form& own :
         {form{"copies", true, operand_copies::copies}, form{"mixed", true, operand_copies::mixed},
          form{"tensor", true, operand_copies::tensor}})
        if (is_chosen("COPIES", own.name)) all.push_back(own);
    return all;
}

// Runs the call in every form, twice, and compares; `owned` places belong to a matrix, `step` picks
// the values compared.
void check(product_call call, int64_t owned, int64_t step, const std::string& name) {
    if (!fits_product_many(call)) {
        std::printf("FAIL %s: does not fit\n", name.c_str());
        ++failures;
        return;
    }
    const int64_t width = width_of(call), all = call.places * width, used = owned * width;
    const int64_t bytes = all * bytes_of(call.y_type);
    const int64_t compared = (used + step - 1) / step;
    pool memory;
    float* wanted_device = static_cast<float*>(memory.allocate(compared * 4));
    if (compared > 0)
        reference_kernel<<<static_cast<unsigned>((compared + 127) / 128), 128>>>(
            call, width, compared, step, wanted_device);
    CHECK_CUDA(cudaGetLastError());
    std::vector<float> wanted(compared);
    CHECK_CUDA(cudaMemcpy(wanted.data(), wanted_device, compared * 4, cudaMemcpyDefault));
    std::vector<uint8_t> first(bytes), second(bytes);
    call.y = memory.allocate(bytes);
    for (const form& own : forms()) {
        call.copies = own.copies;
        for (auto* out : {&first, &second}) {
            CHECK_CUDA(cudaMemset(call.y, 0xFF, bytes)); // NaN in every type
            launch_product_many(call, own.hopper, multiprocessors, nullptr);
            CHECK_CUDA(cudaGetLastError());
            CHECK_CUDA(cudaDeviceSynchronize());
            CHECK_CUDA(cudaMemcpy(out->data(), call.y, bytes, cudaMemcpyDefault));
        }
        const difference found = compare(first, call.y_type, wanted, step, compared);
        bool untouched = true;
        for (int64_t i = used * bytes_of(call.y_type); i < bytes; ++i)
            untouched = untouched && first[i] == 0xFF;
        const bool repeats = first == second;
        const double allowed = call.x_type == SLUICE_BF16 ? 8e-3 : 1.5e-3;
        const bool passed = found.is_finite && found.norm < allowed && found.worst < 12 * allowed
                            && untouched && repeats;
        if (!passed) ++failures;
        std::printf("%s %-6s %-62s error %.2e worst %.2e%s%s%s\n", passed ? "PASS" : "FAIL",
                    own.name, name.c_str(), found.norm, found.worst,
                    found.is_finite ? "" : " NOT WRITTEN", untouched ? "" : " WROTE TOO MUCH",
                    repeats ? "" : " DIFFERS FROM RUN TO RUN");
        std::fflush(stdout);
    }
}

// ---- Correctness ----

enum class layout { none, split, concat, interleaved };

struct shape {
    const char* name;
    std::vector<int> counts; // of the places of each matrix; empty: no offsets
    int places;
    int64_t columns;
};

void check_all() {
    std::vector<shape> shapes = {
        {"uneven", {0, 1, 300, 17, 0, 256, 257, 129, 31}, 1100, 320},
        {"single", {}, 333, 64},
        {"all rows in one", {}, 900, 128},
    };
    shapes[2].counts.assign(128, 0);
    shapes[2].counts[77] = 900;
    const char* storage_names[] = {"f32", "bf16", "f16", "int8", "int4"};
    const char* layout_names[] = {"plain", "split", "concat", "interleaved"};
    const uint32_t scale_types[] = {SLUICE_BF16, SLUICE_F16, SLUICE_F32};
    int number = 0;
    for (const uint32_t type : {SLUICE_BF16, SLUICE_F16}) {
        for (const auto storage :
             {type == SLUICE_BF16 ? weight_storage::bfloat16 : weight_storage::float16,
              weight_storage::int8, weight_storage::int4}) {
            for (const auto gate :
                 {layout::none, layout::split, layout::concat, layout::interleaved}) {
                for (const shape& sizes : shapes) {
                    for (int variant = 0; variant < 2; ++variant) {
                        ++number;
                        pool memory;
                        memory.seed = static_cast<uint64_t>(number) * 1000;
                        const int matrices =
                            sizes.counts.empty() ? 1 : static_cast<int>(sizes.counts.size());
                        const int64_t rows = 192;
                        const uint32_t scale_type = scale_types[number % 3];
                        const int group = variant == 0 ? 64 : static_cast<int>(sizes.columns);
                        product_call call;
                        call.x_type = type;
                        call.y_type = variant == 1 && number % 4 < 2 ? SLUICE_F32 : type;
                        call.places = sizes.places;
                        call.weight = make_weight(memory, storage, matrices, rows, sizes.columns,
                                                  scale_type, group, variant == 1);
                        if (gate != layout::none) {
                            call.gate.gates = true;
                            call.gate.activation = static_cast<uint32_t>(number % 6);
                            call.gate.gate_layout = gate == layout::split ? SLUICE_GATE_SPLIT
                                                    : gate == layout::concat
                                                        ? SLUICE_GATE_CONCAT
                                                        : SLUICE_GATE_INTERLEAVED;
                            call.gate.alpha = 1.702f;
                            call.gate.clamp = variant == 0 ? 7.0f : 0.0f;
                            if (gate == layout::split)
                                call.up =
                                    make_weight(memory, storage, matrices, rows, sizes.columns,
                                                scale_type, group, variant == 1);
                        }
                        if (variant == 1) {
                            call.bias = static_cast<float*>(
                                memory.filled(SLUICE_F32, matrices * rows, content::numbers));
                            if (gate == layout::split)
                                call.up_bias = static_cast<float*>(
                                    memory.filled(SLUICE_F32, matrices * rows, content::numbers));
                        }
                        int owned = sizes.places;
                        const int tokens = 500;
                        std::mt19937 random(static_cast<unsigned>(number));
                        if (!sizes.counts.empty()) {
                            std::vector<int32_t> offset(1, 0);
                            for (const int count : sizes.counts)
                                offset.push_back(offset.back() + count);
                            owned = offset.back();
                            call.offset = memory.copied(offset);
                            std::vector<int32_t> row(sizes.places, -1);
                            for (int p = 0; p < owned; ++p)
                                row[p] = p % 61 == 60 ? -1 : static_cast<int>(random() % tokens);
                            call.row = memory.copied(row);
                        }
                        call.x = memory.filled(type, std::max(tokens, sizes.places) * sizes.columns,
                                               content::numbers);
                        const std::string name =
                            std::string(type == SLUICE_BF16 ? "bf16" : "f16") + " x "
                            + storage_names[static_cast<int>(storage)] + " "
                            + layout_names[static_cast<int>(gate)] + ", " + sizes.name + ", act "
                            + std::to_string(call.gate.activation) + ", scales "
                            + std::to_string(number % 3) + (variant == 1 ? ", zeros, bias" : "")
                            + (call.y_type == SLUICE_F32 ? ", f32" : "");
                        check(call, owned, 1, name);
                    }
                }
            }
        }
    }
}

// ---- Speed ----

constexpr int timed_runs = 20;

void time_call(product_call call, int64_t owned, const std::string& name) {
    const int64_t width = width_of(call);
    const double work = 2.0 * static_cast<double>(owned) * static_cast<double>(width)
                        * (call.gate.gates ? 2.0 : 1.0) * static_cast<double>(call.weight.columns);
    check(call, owned, owned * width / 20000 * 2 + 1, name);
    pool memory;
    call.y = memory.allocate(call.places * width * bytes_of(call.y_type));
    for (const form& own : forms()) {
        call.copies = own.copies;
        const double time =
            1e-3
            * median_microseconds(
                [&] { launch_product_many(call, own.hopper, multiprocessors, nullptr); },
                timed_runs);
        std::printf("TIME %-6s %-50s %8.3f ms %7.1f TFLOP/s\n", own.name, name.c_str(), time,
                    work / time * 1e-9);
        std::fflush(stdout);
    }
}

// The shapes of Qwen3-30B-A3B with 4096 tokens: 256 places an expert, more or less.
void time_even() {
    const int tokens = 4096, choices = 8, experts = 128;
    std::mt19937 random(11);
    std::vector<std::vector<int32_t>> rows(experts);
    std::vector<int> order(experts);
    for (int m = 0; m < experts; ++m) order[m] = m;
    for (int t = 0; t < tokens; ++t) {
        for (int j = 0; j < choices; ++j) {
            std::swap(order[j], order[j + static_cast<int>(random() % (experts - j))]);
            rows[order[j]].push_back(t);
        }
    }
    std::vector<int32_t> offset(1, 0), row;
    size_t most = 0, least = row.max_size();
    for (const auto& own : rows) {
        row.insert(row.end(), own.begin(), own.end());
        offset.push_back(static_cast<int32_t>(row.size()));
        most = std::max(most, own.size());
        least = std::min(least, own.size());
    }
    std::printf("places of an expert: %zu to %zu\n", least, most);
    for (const auto storage : {weight_storage::int4, weight_storage::bfloat16}) {
        const std::string kind = storage == weight_storage::int4 ? "int4" : "bf16";
        if (!is_chosen("STORAGE", kind.c_str())) continue;
        {
            pool memory;
            product_call call;
            call.x_type = call.y_type = SLUICE_BF16;
            call.places = tokens * choices;
            call.offset = memory.copied(offset);
            call.row = memory.copied(row);
            call.x = memory.filled(SLUICE_BF16, tokens * 2048, content::numbers);
            call.weight = make_weight(memory, storage, experts, 768, 2048, SLUICE_BF16, 64, false);
            call.up = make_weight(memory, storage, experts, 768, 2048, SLUICE_BF16, 64, false);
            call.gate.gates = true;
            time_call(call, row.size(), "gated 2048 -> 768, " + kind);
            // What bringing the rows together costs is the difference to this.
            call.row = nullptr;
            call.x = memory.filled(SLUICE_BF16, int64_t{tokens} * choices * 2048, content::numbers);
            time_call(call, row.size(), "gated 2048 -> 768, rows in order, " + kind);
        }
        {
            pool memory;
            product_call call;
            call.x_type = call.y_type = SLUICE_BF16;
            call.places = tokens * choices;
            call.offset = memory.copied(offset);
            call.x = memory.filled(SLUICE_BF16, tokens * choices * 768, content::numbers);
            call.weight = make_weight(memory, storage, experts, 2048, 768, SLUICE_BF16, 64, false);
            time_call(call, row.size(), "down 768 -> 2048, " + kind);
        }
        {
            pool memory;
            product_call call;
            call.x_type = call.y_type = SLUICE_BF16;
            call.places = tokens;
            call.x = memory.filled(SLUICE_BF16, tokens * 2048, content::numbers);
            call.weight = make_weight(memory, storage, 1, 4096, 2048, SLUICE_BF16, 64, false);
            time_call(call, tokens, "dense 2048 -> 4096, 4096 rows, " + kind);
        }
    }
}

void time_all() {
    const int tokens = 4096, choices = 8, experts = 128;
    // Uneven: an expert's share of the choices is the exponential of a normal number.
    std::mt19937 random(7);
    std::normal_distribution<double> normal(0.0, 0.5);
    std::vector<double> share(experts);
    for (double& value : share) value = std::exp(normal(random));
    std::vector<std::vector<int32_t>> rows(experts);
    for (int t = 0; t < tokens; ++t) {
        std::vector<double> left = share;
        for (int j = 0; j < choices; ++j) {
            std::discrete_distribution<int> pick(left.begin(), left.end());
            const int expert = pick(random);
            left[expert] = 0.0;
            rows[expert].push_back(t);
        }
    }
    std::vector<int32_t> offset(1, 0), row;
    size_t most = 0;
    for (const auto& own : rows) {
        row.insert(row.end(), own.begin(), own.end());
        offset.push_back(static_cast<int32_t>(row.size()));
        most = std::max(most, own.size());
    }
    std::printf("experts' rows: %d in all, %zu at most\n", offset.back(), most);
    struct kind {
        weight_storage storage;
        const char* name;
    };
    const kind kinds[] = {{weight_storage::bfloat16, "bf16"},
                          {weight_storage::int8, "int8"},
                          {weight_storage::int4, "int4"}};
    for (const kind& own : kinds) {
        {
            pool memory;
            product_call call;
            call.x_type = call.y_type = SLUICE_BF16;
            call.places = tokens * choices;
            call.offset = memory.copied(offset);
            call.row = memory.copied(row);
            call.x = memory.filled(SLUICE_BF16, tokens * 2048, content::numbers);
            call.weight =
                make_weight(memory, own.storage, experts, 768, 2048, SLUICE_BF16, 128, false);
            call.up = make_weight(memory, own.storage, experts, 768, 2048, SLUICE_BF16, 128, false);
            call.gate.gates = true;
            time_call(call, row.size(), std::string("experts, gate and up, ") + own.name);
        }
        {
            pool memory;
            product_call call;
            call.x_type = call.y_type = SLUICE_BF16;
            call.places = tokens * choices;
            call.offset = memory.copied(offset);
            call.x = memory.filled(SLUICE_BF16, tokens * choices * 768, content::numbers);
            call.weight =
                make_weight(memory, own.storage, experts, 2048, 768, SLUICE_BF16, 128, false);
            time_call(call, row.size(), std::string("experts, down, ") + own.name);
        }
        for (const int64_t size : {2048, 4096, 8192}) {
            pool memory;
            product_call call;
            call.x_type = call.y_type = SLUICE_BF16;
            call.places = tokens;
            call.x = memory.filled(SLUICE_BF16, tokens * size, content::numbers);
            call.weight = make_weight(memory, own.storage, 1, size, size, SLUICE_BF16, 128, false);
            time_call(call, tokens,
                      std::string("linear, 4096 rows, ") + std::to_string(size) + ", " + own.name);
        }
    }
}

// ---- All of moe_ffn ----

struct model_shape {
    const char* name;
    int experts, choices;
    int64_t hidden, width;
};

// Choices of tokens, [tokens, choices]: without order the best of Gumbel's numbers plus the
// experts' own, which are normal ones of that deviation.
std::vector<int32_t> choose(int tokens, const model_shape& shape, double deviation) {
    std::mt19937 random(5);
    std::normal_distribution<double> normal(0.0, 1.0);
    std::extreme_value_distribution<double> gumbel;
    std::vector<double> own(shape.experts);
    for (double& value : own) value = deviation * normal(random);
    std::vector<std::pair<double, int32_t>> scores(shape.experts);
    std::vector<int32_t> index;
    for (int t = 0; t < tokens; ++t) {
        for (int e = 0; e < shape.experts; ++e) scores[e] = {own[e] + gumbel(random), e};
        std::nth_element(scores.begin(), scores.begin() + shape.choices, scores.end(),
                         [](const auto& a, const auto& b) { return a.first > b.first; });
        for (int j = 0; j < shape.choices; ++j) index.push_back(scores[j].second);
    }
    return index;
}

// The steps of moe_ffn with its memory.
struct chain {
    expert_sort_call sort;
    product_call in, out;
    combine_rows_call sum;
    bool hopper = false;

    chain(pool& memory, int tokens, const model_shape& shape, double deviation,
          weight_storage storage) {
        const int total = tokens * shape.choices;
        sort.index = memory.copied(choose(tokens, shape, deviation));
        sort.total = total;
        sort.choice_count = shape.choices;
        sort.expert_count = shape.experts;
        sort.row = static_cast<int32_t*>(memory.allocate(total * 4));
        sort.place = static_cast<int32_t*>(memory.allocate(total * 4));
        sort.offset = static_cast<int32_t*>(memory.allocate((shape.experts + 1) * 4));
        in.x = memory.filled(SLUICE_BF16, tokens * shape.hidden, content::numbers);
        in.x_type = in.y_type = SLUICE_BF16;
        in.row = sort.row;
        in.offset = sort.offset;
        in.places = total;
        in.weight = make_weight(memory, storage, shape.experts, shape.width, shape.hidden,
                                SLUICE_BF16, 64, false);
        in.up = make_weight(memory, storage, shape.experts, shape.width, shape.hidden, SLUICE_BF16,
                            64, false);
        in.gate.gates = true;
        in.y = memory.allocate(total * shape.width * 2);
        out.x = in.y;
        out.x_type = out.y_type = SLUICE_BF16;
        out.offset = sort.offset;
        out.places = total;
        out.weight = make_weight(memory, storage, shape.experts, shape.hidden, shape.width,
                                 SLUICE_BF16, 64, false);
        out.y = memory.allocate(total * shape.hidden * 2);
        sum.y = out.y;
        sum.y_type = sum.o_type = SLUICE_BF16;
        sum.places = total;
        sum.place = sort.place;
        sum.weight = static_cast<float*>(memory.filled(SLUICE_F32, total, content::numbers));
        sum.o = memory.allocate(tokens * shape.hidden * 2);
        sum.rows = tokens;
        sum.choices = shape.choices;
        sum.width = shape.hidden;
    }

    void launch_sort() const { launch_expert_sort(sort, nullptr); }
    void launch_in() const { launch_product_many(in, hopper, multiprocessors, nullptr); }
    void launch_out() const { launch_product_many(out, hopper, multiprocessors, nullptr); }
    void launch_sum() const { launch_combine_rows(sum, nullptr); }
    void launch() const {
        launch_sort();
        launch_in();
        launch_out();
        launch_sum();
    }
    std::vector<uint8_t> result() const {
        std::vector<uint8_t> values(sum.rows * sum.width * 2);
        CHECK_CUDA(cudaDeviceSynchronize());
        CHECK_CUDA(cudaMemcpy(values.data(), sum.o, values.size(), cudaMemcpyDefault));
        return values;
    }
};

// Whether the sort is that of std::stable_sort.
bool is_sorted_right(const chain& own) {
    const int total = own.sort.total;
    std::vector<int32_t> index(total), row(total), place(total), order(total);
    CHECK_CUDA(cudaMemcpy(index.data(), own.sort.index, total * 4, cudaMemcpyDefault));
    CHECK_CUDA(cudaMemcpy(row.data(), own.sort.row, total * 4, cudaMemcpyDefault));
    CHECK_CUDA(cudaMemcpy(place.data(), own.sort.place, total * 4, cudaMemcpyDefault));
    for (int c = 0; c < total; ++c) order[c] = c;
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return index[a] < index[b]; });
    bool right = true;
    for (int p = 0; p < total; ++p)
        right = right && row[p] == order[p] / own.sort.choice_count && place[order[p]] == p;
    return right;
}

void time_chain() {
    const int tokens = 4096;
    for (const auto storage : {weight_storage::int4, weight_storage::bfloat16}) {
        const char* kind = storage == weight_storage::int4 ? "int4" : "bf16";
        if (!is_chosen("STORAGE", kind)) continue;
        for (const model_shape& shape : {model_shape{"qwen3-30b-a3b", 128, 8, 2048, 768},
                                         model_shape{"deepseek-v2-lite", 64, 6, 2048, 1408}}) {
            for (const double deviation : {0.0, 0.5}) {
                pool memory;
                chain own(memory, tokens, shape, deviation, storage);
                own.launch_sort();
                launch_product_plain(own.in, nullptr);
                launch_product_plain(own.out, nullptr);
                own.launch_sum();
                const auto bytes = own.result();
                std::vector<float> wanted(bytes.size() / 2);
                for (size_t i = 0; i < wanted.size(); ++i)
                    wanted[i] = value_of(bytes, SLUICE_BF16, static_cast<int64_t>(i));
                for (const form& one : forms()) {
                    own.in.copies = one.copies;
                    own.hopper = one.hopper;
                    CHECK_CUDA(cudaMemset(own.sum.o, 0xFF, bytes.size()));
                    own.launch();
                    const difference found = compare(own.result(), SLUICE_BF16, wanted, 1,
                                                     static_cast<int64_t>(wanted.size()));
                    const bool passed = found.is_finite && found.norm < 8e-3 && found.worst < 0.1
                                        && is_sorted_right(own);
                    if (!passed) ++failures;
                    const auto microseconds = [&](auto step) {
                        return median_microseconds([&] { (own.*step)(); }, timed_runs);
                    };
                    std::printf("%s %-6s %-16s %s, deviation %.1f: error %.1e, sort %.1f, in %.1f, "
                                "out %.1f, sum %.1f, all %.1f us\n",
                                passed ? "PASS" : "FAIL", one.name, shape.name, kind, deviation,
                                found.norm, microseconds(&chain::launch_sort),
                                microseconds(&chain::launch_in), microseconds(&chain::launch_out),
                                microseconds(&chain::launch_sum), microseconds(&chain::launch));
                    std::fflush(stdout);
                }
            }
        }
    }
}

} // namespace

int main(int argc, char** argv) {
    cudaDeviceProp properties;
    CHECK_CUDA(cudaGetDeviceProperties(&properties, 0));
    multiprocessors = properties.multiProcessorCount;
    has_hopper = properties.major == 9;
    std::printf("%s, %d multiprocessors\n", properties.name, multiprocessors);
    const auto wants = [&](const char* name) {
        for (int i = 1; i < argc; ++i)
            if (std::string(argv[i]) == name) return true;
        return argc == 1;
    };
    if (wants("check")) check_all();
    if (wants("time")) time_even();
    if (wants("chain")) time_chain();
    if (argc > 1 && wants("time-all")) time_all();
    std::printf(failures == 0 ? "PASS\n" : "FAIL: %d cases\n", failures);
    return failures == 0 ? 0 : 1;
}
