// The input of multi-head latent attention in one launch against the separate kernels, which it
// must equal bit for bit, and slices and concats against the host; then their speed.
#include "kernels/elements.cuh"
#include "kernels/kv_cache.hpp"
#include "kernels/mla_input.hpp"
#include "kernels/movement.hpp"
#include "kernels/norms.hpp"

#include "errors.hpp"

#include "kernel_test.cuh"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

using namespace sluice::cuda;

namespace {

int failures = 0;

int64_t bytes_of(uint32_t type) { return type == SLUICE_F32 ? 4 : 2; }

__global__ void fill_kernel(void* data, uint32_t type, int64_t count, uint32_t seed) {
    for (int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; i < count;
         i += static_cast<int64_t>(gridDim.x) * blockDim.x) {
        uint32_t bits = (static_cast<uint32_t>(i) + 1) * 2654435761u ^ seed * 40503u;
        bits = (bits ^ bits >> 15) * 2246822519u;
        store_from_float(data, type, i, static_cast<float>(bits >> 9) / 4194304.0f - 1.0f);
    }
}

struct pool : device_pool {
    // What nothing writes is known by its bytes.
    void* allocate(int64_t bytes) {
        void* block = device_pool::allocate(bytes);
        check(cudaMemset(block, 0x55, static_cast<size_t>(bytes)), "filling");
        return block;
    }
    void* filled(uint32_t type, int64_t count) {
        void* block = allocate(count * bytes_of(type));
        fill_kernel<<<1024, 256>>>(block, type, count, static_cast<uint32_t>(seed++));
        check(cudaGetLastError(), "filling");
        return block;
    }
};

std::vector<uint8_t> bytes_at(const void* data, int64_t count) {
    std::vector<uint8_t> bytes(static_cast<size_t>(count));
    check(cudaMemcpy(bytes.data(), data, bytes.size(), cudaMemcpyDefault), "copying back");
    return bytes;
}

void expect(bool holds, const std::string& what) {
    if (holds) return;
    ++failures;
    std::printf("FAIL %s\n", what.c_str());
}

// ---- The input of attention ----

struct test_case {
    const char* name;
    int32_t rows = 7;
    int32_t heads = 16, nope = 128, rope = 64, latent = 512;
    bool interleaved = true;
    bool inverse = false;
    uint32_t type = SLUICE_BF16; // of activations
    uint32_t cache_type = SLUICE_BF16;
    bool is_padded = true; // rows without a slot, and one far beyond the table
};

// The separate operations' tensors between those of the call.
struct separate_values {
    void* q_pe;   // [rows, heads, rope]
    void* latent; // [rows, latent]
    void* normed; // likewise
    void* k_pe;   // [rows, rope]
    void* turned; // likewise
};

mla_input_call make_call(pool& memory, const test_case& c) {
    constexpr int64_t positions = 256;
    mla_input_call call;
    call.rows = c.rows;
    call.heads = c.heads;
    call.nope = c.nope;
    call.rope = c.rope;
    call.latent = c.latent;
    call.q_type = call.kv_type = call.q_pe_type = call.normed_type = call.turned_type = c.type;
    call.latent_type = call.rope_key_type = c.cache_type;
    call.q = memory.filled(c.type, int64_t{c.rows} * c.heads * (c.nope + c.rope));
    call.kv = memory.filled(c.type, int64_t{c.rows} * (c.latent + c.rope));
    call.norm = {memory.filled(SLUICE_F32, c.latent), SLUICE_F32, 1e-6f, 0.0f};
    std::vector<double> frequencies;
    for (int i = 0; i < c.rope / 2; ++i)
        frequencies.push_back(std::pow(10000.0, -2.0 * i / c.rope));
    call.turns.frequencies = memory.copied(frequencies);
    call.turns.dimension = c.rope;
    call.turns.interleaved = c.interleaved;
    call.turns.inverse = c.inverse;
    call.turns.magnitude = 1.25;
    call.turns.positions = positions;
    auto* table = static_cast<float*>(memory.allocate(positions * c.rope * 4));
    launch_rope_table(call.turns, table, nullptr);
    call.turns.table = table;
    std::vector<int32_t> position, slot;
    for (int32_t row = 0; row < c.rows; ++row) {
        position.push_back(row * 7 % positions);
        slot.push_back((row + 3) % c.rows + row / c.rows);
        if (!c.is_padded) continue;
        if (row % 5 == 1) position.back() = slot.back() = -1;
        if (row % 5 == 2) position.back() = 100000;
    }
    call.position = memory.copied(position);
    call.slot = memory.copied(slot);
    call.slots = c.rows;
    return call;
}

void add_outputs(pool& memory, const test_case& c, mla_input_call& call) {
    call.q_nope = memory.allocate(int64_t{c.rows} * c.heads * c.nope * bytes_of(c.type));
    call.q_pe = memory.allocate(int64_t{c.rows} * c.heads * c.rope * bytes_of(c.type));
    call.latents = memory.allocate(int64_t{c.rows} * c.latent * bytes_of(c.cache_type));
    call.rope_keys = memory.allocate(int64_t{c.rows} * c.rope * bytes_of(c.cache_type));
}

separate_values make_separate(pool& memory, const test_case& c) {
    const int64_t bytes = c.rows * bytes_of(c.type);
    return {memory.allocate(bytes * c.heads * c.rope), memory.allocate(bytes * c.latent),
            memory.allocate(bytes * c.latent), memory.allocate(bytes * c.rope),
            memory.allocate(bytes * c.rope)};
}

void launch_slice(const void* x, void* y, uint32_t type, std::vector<int64_t> shape, int64_t begin,
                  int64_t width) {
    rearrange_call call;
    call.x.data = const_cast<void*>(x);
    call.y.data = y;
    call.x.type = call.y.type = type;
    call.x.rank = call.y.rank = static_cast<int32_t>(shape.size());
    call.axis = call.x.rank - 1;
    call.begin = fixed_axis(begin);
    call.count_bound = 1;
    for (int32_t axis = 0; axis < call.x.rank; ++axis) {
        const int64_t size = axis == call.axis ? width : shape[axis];
        call.x.shape[axis] = fixed_axis(shape[axis]);
        call.y.shape[axis] = fixed_axis(size);
        call.count_bound *= size;
    }
    launch_rearrange(call, nullptr);
}

void launch_separate(const mla_input_call& call, const separate_values& values) {
    const std::vector<int64_t> heads{call.rows, call.heads, call.nope + call.rope};
    const std::vector<int64_t> joint{call.rows, call.latent + call.rope};
    launch_slice(call.q, call.q_nope, call.q_type, heads, 0, call.nope);
    launch_slice(call.q, values.q_pe, call.q_type, heads, call.nope, call.rope);
    rope_call turned;
    turned.x = values.q_pe;
    turned.y = call.q_pe;
    turned.x_type = turned.y_type = call.q_type;
    turned.position = call.position;
    turned.rope = call.turns;
    turned.rows = call.rows;
    turned.heads = call.heads;
    turned.width = call.rope;
    launch_rope(turned, nullptr);
    launch_slice(call.kv, values.latent, call.kv_type, joint, 0, call.latent);
    rms_norm_call norm;
    norm.x = values.latent;
    norm.y = values.normed;
    norm.x_type = norm.y_type = call.kv_type;
    norm.weight = call.norm.weight;
    norm.weight_type = call.norm.weight_type;
    norm.rows = call.rows;
    norm.width = norm.group = call.latent;
    norm.epsilon = call.norm.epsilon;
    launch_rms_norm(norm, nullptr);
    launch_slice(call.kv, values.k_pe, call.kv_type, joint, call.latent, call.rope);
    turned.x = values.k_pe;
    turned.y = values.turned;
    turned.heads = 1;
    launch_rope(turned, nullptr);
    kv_write_call write;
    write.part[0] = {values.normed, call.kv_type, call.latents, call.latent_type, call.latent};
    write.part[1] = {values.turned, call.kv_type, call.rope_keys, call.rope_key_type, call.rope};
    write.part_count = 2;
    write.slot = call.slot;
    write.slots = call.slots;
    write.rows = call.rows;
    launch_kv_write(write, nullptr);
}

void check_case(const test_case& c) {
    pool memory;
    mla_input_call call = make_call(memory, c), expected = call;
    add_outputs(memory, c, call);
    add_outputs(memory, c, expected);
    expect(fits_mla_input(call), std::string(c.name) + ": does not fit");
    launch_mla_input(call, nullptr);
    launch_separate(expected, make_separate(memory, c));
    check(cudaDeviceSynchronize(), c.name);
    const auto compare = [&](const char* what, const void* found, const void* wanted, int64_t width,
                             uint32_t type) {
        const int64_t bytes = c.rows * width * bytes_of(type);
        const auto own = bytes_at(found, bytes), other = bytes_at(wanted, bytes);
        int64_t differing = 0;
        for (size_t i = 0; i < own.size(); ++i) differing += own[i] != other[i];
        expect(differing == 0, std::string(c.name) + ", " + what + ": " + std::to_string(differing)
                                   + " of " + std::to_string(bytes) + " bytes differ");
    };
    compare("q_nope", call.q_nope, expected.q_nope, c.heads * c.nope, c.type);
    compare("q_pe", call.q_pe, expected.q_pe, c.heads * c.rope, c.type);
    compare("latents", call.latents, expected.latents, c.latent, c.cache_type);
    compare("keys", call.rope_keys, expected.rope_keys, c.rope, c.cache_type);
}

void check_inputs() {
    int count = 0;
    const auto check_with = [&](const char* name, auto&& change) {
        test_case c{name};
        change(c);
        check_case(c);
        ++count;
    };
    check_with("interleaved", [](test_case&) {});
    check_with("halves", [](test_case& c) { c.interleaved = false; });
    check_with("one row", [](test_case& c) {
        c.rows = 1;
        c.is_padded = false;
    });
    check_with("many rows", [](test_case& c) { c.rows = 300; });
    check_with("many rows, halves", [](test_case& c) {
        c.rows = 64;
        c.interleaved = false;
        c.inverse = true;
    });
    check_with("128 heads", [](test_case& c) {
        c.heads = 128;
        c.rows = 70;
    });
    check_with("small", [](test_case& c) {
        c.heads = 3;
        c.nope = 40;
        c.rope = 48;
        c.latent = 264;
        c.type = c.cache_type = SLUICE_F16;
    });
    check_with("small, f32", [](test_case& c) {
        c.heads = 4;
        c.nope = 32;
        c.rope = 16;
        c.latent = 64;
        c.type = c.cache_type = SLUICE_F32;
    });
    check_with("f32 in a cache of bf16", [](test_case& c) {
        c.type = SLUICE_F32;
        c.rows = 130;
    });
    check_with("bf16 in a cache of f32", [](test_case& c) {
        c.cache_type = SLUICE_F32;
        c.rows = 130;
    });
    std::printf("%d cases of inputs\n", count);
}

// ---- Slices and concats ----

// An axis cut out of [outer, whole, inner] halves, or put in there.
void check_runs(int64_t outer, int64_t whole, int64_t inner, int64_t begin, int64_t width,
                bool is_concat) {
    pool memory;
    const int64_t count = outer * whole * inner, part = outer * width * inner;
    const void* from = memory.filled(SLUICE_BF16, is_concat ? part : count);
    void* to = memory.allocate((is_concat ? count : part) * 2);
    rearrange_call call;
    sized_view &x = call.x, &y = call.y;
    x.data = const_cast<void*>(from);
    y.data = to;
    x.type = y.type = SLUICE_BF16;
    x.rank = y.rank = 3;
    (is_concat ? y : x).shape[1] = fixed_axis(whole);
    (is_concat ? x : y).shape[1] = fixed_axis(width);
    x.shape[0] = y.shape[0] = fixed_axis(outer);
    x.shape[2] = y.shape[2] = fixed_axis(inner);
    call.axis = 1;
    call.begin = fixed_axis(begin);
    call.over_x = is_concat;
    call.count_bound = part;
    const auto before = bytes_at(to, (is_concat ? count : part) * 2);
    launch_rearrange(call, nullptr);
    check(cudaDeviceSynchronize(), "moving runs");
    const auto given = bytes_at(from, (is_concat ? part : count) * 2);
    const auto found = bytes_at(to, (is_concat ? count : part) * 2);
    auto wanted = before;
    for (int64_t o = 0; o < outer; ++o)
        for (int64_t i = 0; i < width * inner * 2; ++i) {
            const int64_t in_part = o * width * inner * 2 + i;
            const int64_t in_whole = (o * whole + begin) * inner * 2 + i;
            if (is_concat)
                wanted[in_whole] = given[in_part];
            else
                wanted[in_part] = given[in_whole];
        }
    expect(found == wanted, (is_concat ? "concat of " : "slice of ") + std::to_string(outer) + " x "
                                + std::to_string(whole) + " x " + std::to_string(inner));
}

void check_all_runs() {
    for (const bool is_concat : {false, true}) {
        check_runs(500, 192, 1, 128, 64, is_concat);
        check_runs(3, 7, 5, 2, 3, is_concat);
        check_runs(1, 90, 64, 11, 70, is_concat);
        check_runs(33, 10, 2, 4, 6, is_concat);
        check_runs(2000, 3, 1, 1, 1, is_concat);
    }
}

// ---- Speed ----

double microseconds(int runs, const std::function<void()>& launch) {
    cudaEvent_t begin, end;
    check(cudaEventCreate(&begin), "timing");
    check(cudaEventCreate(&end), "timing");
    for (int i = 0; i < 3; ++i) launch();
    check(cudaEventRecord(begin), "timing");
    for (int i = 0; i < runs; ++i) launch();
    check(cudaEventRecord(end), "timing");
    check(cudaEventSynchronize(end), "timing");
    float milliseconds = 0;
    check(cudaEventElapsedTime(&milliseconds, begin, end), "timing");
    cudaEventDestroy(begin);
    cudaEventDestroy(end);
    return milliseconds * 1e3 / runs;
}

void time_inputs(int32_t heads, int32_t rows) {
    test_case c{"timed"};
    c.heads = heads;
    c.rows = rows;
    c.is_padded = false;
    pool memory;
    mla_input_call call = make_call(memory, c);
    add_outputs(memory, c, call);
    const separate_values values = make_separate(memory, c);
    const double bytes = 4.0 * rows * (heads * (c.nope + c.rope) + c.latent + c.rope);
    const double one = microseconds(200, [&] { launch_mla_input(call, nullptr); });
    call.programmatic = true;
    const double overlapping = microseconds(200, [&] { launch_mla_input(call, nullptr); });
    const double separate = microseconds(50, [&] { launch_separate(call, values); });
    const std::vector<int64_t> shape{rows, heads, c.nope + c.rope};
    const double nope =
        microseconds(100, [&] { launch_slice(call.q, call.q_nope, c.type, shape, 0, c.nope); });
    const double pe = microseconds(
        100, [&] { launch_slice(call.q, values.q_pe, c.type, shape, c.nope, c.rope); });
    std::printf(
        "%d heads, %d rows: one launch %.2f us (%.0f GB/s), overlapping %.2f, separate %.1f; "
        "slices %.2f (%.0f GB/s), %.2f\n",
        heads, rows, one, bytes / one * 1e-3, overlapping, separate, nope,
        4.0 * rows * heads * c.nope / nope * 1e-3, pe);
}

} // namespace

int main() {
    check_inputs();
    check_all_runs();
    for (const int32_t rows : {1, 8, 64, 512, 4096}) time_inputs(16, rows);
    for (const int32_t rows : {1, 4096}) time_inputs(128, rows);
    if (failures > 0) std::printf("FAIL: %d\n", failures);
    return failures == 0 ? 0 : 1;
}
