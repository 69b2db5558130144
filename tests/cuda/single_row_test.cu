// What is launched together for few rows against the separate kernels: attention with its input,
// which must equal them bit for bit, and the router's product with the routing.
#include "kernels/attention.hpp"
#include "kernels/elements.cuh"
#include "kernels/product_few.hpp"

#include "errors.hpp"

#include "kernel_test.cuh"

#include <cmath>
#include <numeric>
#include <string>

using namespace sluice::cuda;

namespace {

int failures = 0;

void expect(bool holds, const std::string& what) {
    if (holds) return;
    ++failures;
    std::printf("FAIL %s\n", what.c_str());
}

int64_t bytes_of(uint32_t type) { return type == SLUICE_F32 ? 4 : 2; }

__global__ void fill_kernel(void* data, uint32_t type, int64_t count, uint64_t seed, float scale) {
    for (int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; i < count;
         i += static_cast<int64_t>(gridDim.x) * blockDim.x) {
        const uint32_t bits = hash(seed * 0x9E3779B97F4A7C15ull + static_cast<uint64_t>(i));
        store_from_float(data, type, i,
                         (static_cast<float>(bits >> 8) / 8388608.0f - 1.0f) * scale);
    }
}

struct pool : device_pool {
    void* filled(uint32_t type, int64_t count, float scale = 1.0f) {
        void* block = allocate(count * bytes_of(type));
        fill_kernel<<<512, 256>>>(block, type, count, seed++, scale);
        check(cudaGetLastError(), "filling");
        return block;
    }
    template <typename Element>
    Element* zeroed(int64_t count) {
        auto* block =
            static_cast<Element*>(allocate(count * static_cast<int64_t>(sizeof(Element))));
        check(cudaMemset(block, 0, static_cast<size_t>(count) * sizeof(Element)), "clearing");
        return block;
    }
};

template <typename Element>
std::vector<Element> read(const void* data, int64_t count) {
    std::vector<Element> values(static_cast<size_t>(count));
    check(cudaMemcpy(values.data(), data, values.size() * sizeof(Element), cudaMemcpyDefault),
          "copying back");
    return values;
}

// ---- Attention with its input ----

struct attention_case {
    const char* name;
    int32_t heads = 32, kv_heads = 4, width = 128;
    int32_t position = 63;
    int32_t columns = 32; // of the block table, of 16 places each
    int32_t window = 0;
    uint32_t type = SLUICE_BF16;
    bool norms = true;
    bool has_slot = true;
    bool is_padding = false;
    bool inverse = false;
};

constexpr int32_t block_places = 16;

qk_norm_rope_write_call make_input(pool& memory, const attention_case& c) {
    qk_norm_rope_write_call input;
    const int64_t width = c.width;
    input.q = {memory.filled(c.type, c.heads * width), c.type, c.heads * width};
    input.k = {memory.filled(c.type, c.kv_heads * width), c.type, c.kv_heads * width};
    input.v = {memory.filled(c.type, c.kv_heads * width), c.type, c.kv_heads * width};
    if (c.norms) {
        input.q_norm = {memory.filled(SLUICE_F32, width), SLUICE_F32, 1e-6f, 0.0f};
        input.k_norm = {memory.filled(SLUICE_F32, width), SLUICE_F32, 1e-6f, 1.0f};
    }
    constexpr int64_t positions = 300; // others are computed
    std::vector<double> frequencies;
    for (int i = 0; i < width / 2; ++i) frequencies.push_back(std::pow(10000.0, -2.0 * i / width));
    input.rope.frequencies = memory.copied(frequencies);
    input.rope.dimension = c.width;
    input.rope.inverse = c.inverse;
    input.rope.positions = positions;
    auto* table = static_cast<float*>(memory.allocate(positions * width * 4));
    launch_rope_table(input.rope, table, nullptr);
    input.rope.table = table;
    input.rows = 1;
    input.query_heads = c.heads;
    input.kv_heads = c.kv_heads;
    input.width = input.value_width = c.width;
    input.q_out = memory.filled(c.type, c.heads * width);
    input.q_out_type = input.key_type = input.value_type = c.type;
    return input;
}

void check_attention(const attention_case& c) {
    pool memory;
    const int64_t slots = int64_t{c.columns} * block_places;
    const int64_t cached = slots * c.kv_heads * c.width;
    qk_norm_rope_write_call input = make_input(memory, c);
    std::vector<int32_t> table(static_cast<size_t>(c.columns)); // blocks in falling order
    std::iota(table.rbegin(), table.rend(), 0);
    const int32_t position = c.is_padding ? -1 : c.position;
    const int32_t slot = c.is_padding || !c.has_slot
                             ? -1
                             : table[static_cast<size_t>(position / block_places)] * block_places
                                   + position % block_places;
    attention_call call;
    call.rows.position = input.position = memory.copied(std::vector<int32_t>{position});
    input.slot = memory.copied(std::vector<int32_t>{slot});
    input.slots = slots;
    call.rows.sequence_of_row = memory.copied(std::vector<int32_t>{c.is_padding ? -1 : 0});
    call.rows.kv_length = memory.copied(std::vector<int32_t>{position + 1});
    call.rows.block_table = memory.copied(table);
    call.rows.query_start = memory.copied(std::vector<int32_t>{0, 1});
    call.rows.rows = call.rows.sequences = 1;
    call.rows.block_columns = c.columns;
    call.rows.tokens_per_block = block_places;
    call.rows.block_shift = 4;
    call.rows.window = c.window;
    call.q = input.q_out;
    call.q_type = call.key_type = call.value_type = call.o_type = c.type;
    call.heads = c.heads;
    call.kv_heads = c.kv_heads;
    call.key_width = call.value_width = c.width;
    call.scale = 0.09f;

    constexpr int multiprocessors = 132;
    const attention_decode_plan plan = plan_attention_decode(call, slots, multiprocessors);
    auto* partial = memory.zeroed<float>(static_cast<int64_t>(plan.partial_floats));
    auto* counters = memory.zeroed<int32_t>(static_cast<int64_t>(plan.counters));
    std::vector<uint16_t> o[2], keys[2], values[2];
    const uint64_t seed = memory.seed;
    for (const bool together : {false, true}) {
        memory.seed = seed;
        call.keys = input.key_cache = memory.filled(c.type, cached);
        call.values = input.value_cache = memory.filled(c.type, cached);
        call.o = memory.filled(c.type, int64_t{c.heads} * c.width);
        expect(fits_attention_input(call, input), std::string(c.name) + ": does not fit");
        if (together) {
            launch_attention_decode_input(call, plan, input, partial, counters, nullptr);
        } else {
            launch_qk_norm_rope_write(input, nullptr);
            launch_attention_decode(call, plan, partial, counters, nullptr);
        }
        check(cudaDeviceSynchronize(), c.name);
        o[together] = read<uint16_t>(call.o, int64_t{c.heads} * c.width);
        keys[together] = read<uint16_t>(input.key_cache, cached);
        values[together] = read<uint16_t>(input.value_cache, cached);
    }
    expect(o[0] == o[1], std::string(c.name) + ": results differ");
    expect(keys[0] == keys[1], std::string(c.name) + ": cached keys differ");
    expect(values[0] == values[1], std::string(c.name) + ": cached values differ");
}

void check_attentions() {
    int count = 0;
    const auto check_with = [&](const char* name, auto&& change) {
        attention_case c{name};
        change(c);
        check_attention(c);
        ++count;
    };
    check_with("usual", [](attention_case&) {});
    check_with("first place", [](attention_case& c) { c.position = 0; });
    check_with("several splits", [](attention_case& c) {
        c.position = 4000;
        c.columns = 256;
    });
    check_with("one place behind a split", [](attention_case& c) { c.position = 128; });
    check_with("the last place there is", [](attention_case& c) { c.position = 511; });
    check_with("window", [](attention_case& c) {
        c.position = 300;
        c.window = 40;
    });
    check_with("one head for all", [](attention_case& c) {
        c.heads = 40;
        c.kv_heads = 1;
        c.position = 200;
    });
    check_with("a head each, float16", [](attention_case& c) {
        c.heads = c.kv_heads = 12;
        c.type = SLUICE_F16;
    });
    check_with("heads of 64", [](attention_case& c) {
        c.width = 64;
        c.kv_heads = 8;
        c.norms = false;
    });
    check_with("heads of 256", [](attention_case& c) {
        c.heads = 8;
        c.width = 256;
        c.inverse = true;
    });
    check_with("nothing is cached", [](attention_case& c) { c.has_slot = false; });
    check_with("padding", [](attention_case& c) { c.is_padding = true; });
    std::printf("%d cases of attention with its input\n", count);
}

// ---- The router with the routing ----

struct router_case {
    const char* name;
    int32_t rows = 1, columns = 2048;
    uint32_t experts = 128, choices = 8;
    uint32_t score = SLUICE_SCORE_SOFTMAX;
    bool has_norm = true;
    bool has_bias = false;
    bool renormalizes = true;
    bool are_equal = false; // all logits
    int32_t padding = -1;   // the row that is
    bool clusters = true;
};

void check_router(const router_case& c) {
    pool memory;
    const int64_t elements = int64_t{c.rows} * c.columns;
    const int64_t experts = c.experts, choices = c.choices;
    few_call few;
    few.multiprocessor_count = 132;
    few.clusters = c.clusters;
    few.product.x_type = SLUICE_BF16;
    few.product.places = c.rows;
    few.product.weight.storage = weight_storage::bfloat16;
    few.product.weight.data =
        memory.filled(SLUICE_BF16, experts * c.columns, c.are_equal ? 0.0f : 0.1f);
    few.product.weight.rows = experts;
    few.product.weight.columns = c.columns;
    auto* logits = static_cast<float*>(memory.filled(SLUICE_F32, c.rows * experts));
    few.product.y = logits;
    few.product.y_type = SLUICE_F32;
    void* normed = memory.filled(SLUICE_BF16, elements);
    few.product.x = normed;
    if (c.has_norm) {
        few.norm.residual = memory.filled(SLUICE_F32, elements);
        few.norm.residual_type = SLUICE_F32;
        few.norm.weight = static_cast<const float*>(memory.filled(SLUICE_F32, c.columns));
        few.norm.epsilon = 1e-6f;
        few.norm.normed = normed;
    }
    route_call route;
    route.routing.expert_count = c.experts;
    route.routing.choice_count = c.choices;
    route.routing.score = c.score;
    route.routing.scale = 1.5f;
    route.routing.renormalize = c.renormalizes ? SLUICE_RENORMALIZE_ADD : SLUICE_RENORMALIZE_NONE;
    if (c.has_bias)
        route.choice_bias = static_cast<const float*>(memory.filled(SLUICE_F32, experts));
    std::vector<int32_t> position(static_cast<size_t>(c.rows));
    for (int32_t row = 0; row < c.rows; ++row) position[row] = row == c.padding ? -1 : row;
    route.position = memory.copied(position);
    route.rows = c.rows;
    route.logits = logits;
    route.index = memory.zeroed<int32_t>(c.rows * choices);
    route.weight = memory.zeroed<float>(c.rows * choices);
    auto* ticket = memory.zeroed<int32_t>(1);
    expect(fits_router_few(few, route), std::string(c.name) + ": does not fit");
    for (int run = 0; run < 2; ++run) launch_router_few(few, route, ticket, nullptr);
    check(cudaDeviceSynchronize(), c.name);
    const auto found = read<float>(logits, c.rows * experts);

    route_call apart = route;
    apart.index = memory.zeroed<int32_t>(c.rows * choices);
    apart.weight = memory.zeroed<float>(c.rows * choices);
    launch_route(apart, nullptr);
    few_call product = few;
    product.norm = {};
    product.product.y = memory.filled(SLUICE_F32, c.rows * experts);
    launch_product_few(product, nullptr);
    check(cudaDeviceSynchronize(), c.name);
    const auto index = read<int32_t>(route.index, c.rows * choices);
    expect(index == read<int32_t>(apart.index, c.rows * choices),
           std::string(c.name) + ": other experts than of the routing apart");
    expect(read<float>(route.weight, c.rows * choices)
               == read<float>(apart.weight, c.rows * choices),
           std::string(c.name) + ": other weights than of the routing apart");
    const auto wanted = read<float>(product.product.y, c.rows * experts);
    float distance = 0.0f;
    for (size_t i = 0; i < found.size(); ++i)
        distance = std::max(distance, std::abs(found[i] - wanted[i]));
    expect(distance < 1e-3f,
           std::string(c.name) + ": logits are off by " + std::to_string(distance));

    // Scores rise with the logits.
    for (int32_t row = 0; row < c.rows && !c.has_bias; ++row) {
        const float* own = found.data() + row * experts;
        std::vector<int32_t> order(static_cast<size_t>(experts));
        std::iota(order.begin(), order.end(), 0);
        std::stable_sort(order.begin(), order.end(),
                         [&](int32_t a, int32_t b) { return own[a] > own[b]; });
        bool holds = true;
        for (int64_t j = 0; j < choices; ++j)
            holds = holds && index[row * choices + j] == (row == c.padding ? -1 : order[j]);
        expect(holds, std::string(c.name) + ": not the best experts of row " + std::to_string(row));
    }
}

void check_routers() {
    int count = 0;
    const auto check_with = [&](const char* name, auto&& change) {
        for (const bool clusters : {true, false}) {
            router_case c{name};
            change(c);
            c.clusters = clusters;
            check_router(c);
            ++count;
        }
    };
    check_with("usual", [](router_case&) {});
    check_with("equal logits", [](router_case& c) { c.are_equal = true; });
    check_with("padding", [](router_case& c) { c.padding = 0; });
    check_with("sigmoid with a bias", [](router_case& c) {
        c.score = SLUICE_SCORE_SIGMOID;
        c.has_bias = true;
    });
    check_with("without a norm", [](router_case& c) { c.has_norm = false; });
    check_with("a wide row", [](router_case& c) {
        c.columns = 7168;
        c.experts = 32;
    });
    check_with("one of 16", [](router_case& c) {
        c.experts = 16;
        c.choices = 1;
        c.renormalizes = false;
    });
    check_with("all of 48", [](router_case& c) { c.experts = c.choices = 48; });
    check_with("32 of 64", [](router_case& c) {
        c.experts = 64;
        c.choices = 32;
    });
    check_with("256", [](router_case& c) { c.experts = 256; });
    check_with("512 and equal", [](router_case& c) {
        c.experts = 512;
        c.are_equal = true;
    });
    check_with("rows", [](router_case& c) {
        c.rows = 8;
        c.padding = 3;
    });
    check_with("two rows of 64 experts", [](router_case& c) {
        c.rows = 2;
        c.experts = 64;
        c.choices = 6;
    });
    std::printf("%d cases of the router\n", count);
}

} // namespace

int main() {
    check_attentions();
    check_routers();
    if (failures > 0) std::printf("FAIL: %d\n", failures);
    return failures == 0 ? 0 : 1;
}
