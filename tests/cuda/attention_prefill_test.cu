// Attention of many rows of a sequence against the plain form, then its speed.
// Arguments: "check", "time", "check-latents" or "time-latents" for one of them; then the first
// letters of forms to pick those, then anything to see passed cases too.
#include "kernels/attention_prefill_sm90.cuh"
#include "kernels/mla_attention.hpp"
#include "kernels/product.hpp"
#include "kernels/product_many.cuh"

#include "kernel_test.cuh"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

using namespace sluice::cuda;

namespace {

// ---- Data ----

// Numbers from -reach to reach; where `written` is given, rows of `width` where it is -1 are NaN.
__global__ void fill_kernel(void* data, uint32_t type, int64_t count, uint64_t seed, float reach,
                            const int32_t* written, int64_t width) {
    for (int64_t i = blockIdx.x * static_cast<int64_t>(blockDim.x) + threadIdx.x; i < count;
         i += static_cast<int64_t>(gridDim.x) * blockDim.x) {
        const float unit =
            static_cast<float>(hash(seed * 0x9E3779B97F4A7C15ull + i) >> 8) / 16777216.0f;
        const bool is_there = written == nullptr || written[i / width] >= 0;
        store_from_float(data, type, i, is_there ? reach * (2.0f * unit - 1.0f) : NAN);
    }
}

// Value d of a place is whether the place is d, so that o are the weights.
__global__ void fill_unit_values_kernel(void* data, uint32_t type, const int32_t* place_of_slot,
                                        int64_t slots, int kv_heads, int width) {
    for (int64_t i = threadIdx.x; i < slots * kv_heads * width; i += blockDim.x)
        store_from_float(data, type, i,
                         place_of_slot[i / (kv_heads * width)] == i % width ? 1.0f : 0.0f);
}

struct pool : device_pool {
    void* filled(uint32_t type, int64_t count, float reach, const int32_t* written = nullptr,
                 int64_t width = 1) {
        void* block = allocate(count * (type == SLUICE_F32 ? 4 : 2));
        fill_kernel<<<1024, 256>>>(block, type, count, ++seed, reach, written, width);
        CHECK_CUDA(cudaGetLastError());
        return block;
    }
};

struct part {
    int prefix; // places that are in the cache already
    int rows;
};

struct test_case {
    const char* name;
    std::vector<part> sequences;
    int heads = 8, kv_heads = 2, width = 128;
    int tokens_per_block = 16;
    int window = 0;
    bool has_sinks = false;
    int padding = 0;
    bool has_absent_blocks = false;
    bool has_decoding = false; // sequences of one row in front are left alone
    uint32_t type = SLUICE_BF16, o_type = SLUICE_BF16;
    float reach = 1.0f; // of queries
    bool unit_values = false;
    float softcap = 0;
};

// The rows of a case, and of each slot of its cache the place it holds, or -1.
attended_rows make_rows(pool& memory, const test_case& c, std::vector<int32_t>& place_of_slot) {
    std::mt19937 random(5);
    std::vector<int32_t> position, sequence_of_row, kv_length, query_start(1, 0), table;
    int columns = 1, blocks = 3;
    for (const part& p : c.sequences) {
        const int places = p.prefix + p.rows;
        columns = std::max(columns, (places + c.tokens_per_block - 1) / c.tokens_per_block + 1);
        blocks += (places + c.tokens_per_block - 1) / c.tokens_per_block;
    }
    std::vector<int32_t> order(blocks);
    for (int b = 0; b < blocks; ++b) order[b] = b;
    std::shuffle(order.begin(), order.end(), random);
    place_of_slot.assign(static_cast<size_t>(blocks) * c.tokens_per_block, -1);
    int next = 0;
    for (size_t s = 0; s < c.sequences.size(); ++s) {
        const part& p = c.sequences[s];
        const int places = p.prefix + p.rows;
        for (int column = 0; column < columns; ++column) {
            int32_t block = -1;
            if (column * c.tokens_per_block < places) {
                block = order[next++];
                for (int i = 0; i < c.tokens_per_block; ++i) {
                    const int place = column * c.tokens_per_block + i;
                    if (place < places) place_of_slot[block * c.tokens_per_block + i] = place;
                }
                if (c.has_absent_blocks && random() % 4 == 0) block = -1;
            }
            table.push_back(block);
        }
        for (int r = 0; r < p.rows; ++r) {
            position.push_back(p.prefix + r);
            sequence_of_row.push_back(static_cast<int32_t>(s));
        }
        kv_length.push_back(places);
        query_start.push_back(query_start.back() + p.rows);
    }
    for (int r = 0; r < c.padding; ++r) {
        position.push_back(0);
        sequence_of_row.push_back(-1);
    }
    attended_rows rows;
    rows.position = memory.copied(position);
    rows.sequence_of_row = memory.copied(sequence_of_row);
    rows.kv_length = memory.copied(kv_length);
    rows.block_table = memory.copied(table);
    rows.query_start = memory.copied(query_start);
    rows.rows = static_cast<int32_t>(position.size());
    rows.sequences = static_cast<int32_t>(c.sequences.size());
    rows.block_columns = columns;
    rows.tokens_per_block = c.tokens_per_block;
    for (int shift = 0; shift < 12; ++shift)
        if (1 << shift == c.tokens_per_block) rows.block_shift = shift;
    rows.window = c.window;
    return rows;
}

attention_call make_call(pool& memory, const test_case& c) {
    attention_call call;
    std::vector<int32_t> place_of_slot;
    call.rows = make_rows(memory, c, place_of_slot);
    const attended_rows& rows = call.rows;
    const auto slots = static_cast<int64_t>(place_of_slot.size());
    const int32_t* there = memory.copied(place_of_slot);
    const int64_t slot_width = static_cast<int64_t>(c.kv_heads) * c.width;
    call.q = memory.filled(c.type, static_cast<int64_t>(rows.rows) * c.heads * c.width, c.reach);
    void* keys = memory.filled(c.type, slots * slot_width, 1.0f, there, slot_width);
    void* values = memory.filled(c.type, slots * slot_width, 1.0f, there, slot_width);
    if (c.unit_values)
        fill_unit_values_kernel<<<1, 256>>>(values, c.type, there, slots, c.kv_heads, c.width);
    call.keys = keys;
    call.values = values;
    call.q_type = call.key_type = call.value_type = c.type;
    if (c.has_sinks) {
        call.sinks = memory.filled(SLUICE_F32, c.heads, 3.0f);
        call.sinks_type = SLUICE_F32;
    }
    call.o_type = c.o_type;
    call.heads = c.heads;
    call.kv_heads = c.kv_heads;
    call.key_width = call.value_width = c.width;
    call.scale = 1.0f / std::sqrt(static_cast<float>(c.width));
    call.softcap = c.softcap;
    return call;
}

// ---- Forms ----

int multiprocessors = 1;
int failures = 0;

// Scratch memory of a launch.
struct launch_room {
    float* partial = nullptr;
    int32_t* counters = nullptr;
    launch_room(pool& memory, const attention_prefill_plan& plan)
        : partial(
            static_cast<float*>(memory.allocate(static_cast<int64_t>(plan.partial_floats) * 4))),
          counters(memory.copied(std::vector<int32_t>(plan.counters, 0))) {}
};

int64_t context_of(const attention_call& call) {
    return call.rows.block_columns * int64_t{call.rows.tokens_per_block};
}

struct named_form {
    const char* name;
    int width;
    bool has_f16;
    // What launches it with so many rows left to decoding.
    std::function<std::function<void()>(pool&, const attention_call&, int32_t)> prepare;
};

template <typename Form>
named_form made(const char* name) {
    return {name, Form::key_width, false,
            [](pool& memory, const attention_call& call, int32_t decoded) {
                const attention_prefill_plan plan;
                const launch_room room(memory, plan);
                return [=] {
                    prefill::launch_form<Form, __nv_bfloat16>(
                        call, decoded, plan, room.partial, room.counters, multiprocessors, nullptr);
                };
            }};
}

std::vector<named_form> forms(const std::string& only) {
    using prefill::form;
    std::vector<named_form> all;
    all.push_back({"old", 0, true, [](pool&, const attention_call& call, int32_t decoded) {
                       return [=] { launch_attention_prefill(call, decoded, nullptr); };
                   }});
    all.push_back({"new", 0, true, [](pool& memory, const attention_call& call, int32_t decoded) {
                       const auto plan =
                           plan_attention_prefill_sm90(call, context_of(call), multiprocessors);
                       const launch_room room(memory, plan);
                       return [=] {
                           launch_attention_prefill_sm90(call, decoded, plan, room.partial,
                                                         room.counters, multiprocessors, nullptr);
                       };
                   }});
    // Key and value width, warpgroups, places, stages.
    all.push_back(made<form<128, 128, 3, 128, 2>>("large"));
    all.push_back(made<form<128, 128, 2, 128, 3>>("small"));
    all.push_back(made<form<64, 64, 3, 192, 3>>("large"));
    all.push_back(made<form<64, 64, 2, 128, 4>>("small"));
    std::vector<named_form> chosen;
    for (const named_form& own : all)
        if (only.empty() || only.find(own.name[0]) != std::string::npos) chosen.push_back(own);
    return chosen;
}

// ---- Correctness ----

bool is_verbose = false;

// Rows before value `from` must be as they were; the others are compared.
void report(const char* form, const test_case& c, int width, int64_t from,
            const std::vector<uint8_t>& wanted, const std::vector<uint8_t>& got,
            const std::vector<uint8_t>& again) {
    const int64_t element = c.o_type == SLUICE_F32 ? 4 : 2;
    const int64_t count = static_cast<int64_t>(got.size()) / element;
    double error = 0, total = 0, worst = 0;
    bool is_finite = true, is_untouched = true;
    int64_t worst_at = 0;
    for (int64_t i = from; i < count; ++i) {
        const double want = value_of(wanted, c.o_type, i);
        total += want * want;
    }
    const double usual = // but for means of many values, which are small
        std::max(std::sqrt(total / static_cast<double>(std::max<int64_t>(count, 1))), 0.02);
    for (int64_t i = 0; i < from * element; ++i) is_untouched = is_untouched && got[i] == 0xFF;
    for (int64_t i = from; i < count; ++i) {
        const double value = value_of(got, c.o_type, i), want = value_of(wanted, c.o_type, i);
        if (!std::isfinite(value)) is_finite = false;
        error += (value - want) * (value - want);
        const double share = std::fabs(value - want) / (std::fabs(want) + usual);
        if (!(share <= worst)) {
            worst = share;
            worst_at = i;
        }
    }
    const double allowed = c.type == SLUICE_BF16 ? 1e-2 : 2e-3;
    error = std::sqrt(error / std::max(total, 1e-30));
    const bool repeats = got == again;
    const bool passed =
        is_finite && is_untouched && repeats && error < allowed && worst < 12 * allowed;
    if (!passed) ++failures;
    if (passed && !is_verbose) return;
    std::printf("%s %-9s %-28s error %.2e worst %.2e at row %lld head %lld column %lld: %g for "
                "%g%s%s%s\n",
                passed ? "PASS" : "FAIL", form, c.name, error, worst,
                static_cast<long long>(worst_at / width / c.heads),
                static_cast<long long>(worst_at / width % c.heads),
                static_cast<long long>(worst_at % width), value_of(got, c.o_type, worst_at),
                value_of(wanted, c.o_type, worst_at), is_finite ? "" : " NOT FINITE",
                is_untouched ? "" : " WROTE TOO MUCH", repeats ? "" : " DIFFERS FROM RUN TO RUN");
    std::fflush(stdout);
}

void check_case(const test_case& c, const std::string& only) {
    pool memory;
    memory.seed = 100;
    attention_call call = make_call(memory, c);
    const int64_t count = static_cast<int64_t>(call.rows.rows) * c.heads * c.width;
    const int64_t bytes = count * (c.o_type == SLUICE_F32 ? 4 : 2);
    call.o = memory.allocate(bytes);
    std::vector<uint8_t> wanted(bytes), got(bytes), again(bytes);
    launch_attention_plain(call, nullptr);
    CHECK_CUDA(cudaMemcpy(wanted.data(), call.o, bytes, cudaMemcpyDefault));
    int64_t left_alone = 0; // rows
    if (c.has_decoding)
        while (left_alone < static_cast<int64_t>(c.sequences.size())
               && c.sequences[left_alone].rows == 1)
            ++left_alone;
    const int64_t from = left_alone * c.heads * c.width;
    for (const named_form& own : forms(only)) {
        if (own.width != 0 && (own.width != c.width || c.softcap > 0)) continue;
        if (c.type == SLUICE_F16 && !own.has_f16) continue;
        const auto launch = own.prepare(memory, call, c.has_decoding ? call.rows.sequences : 0);
        for (auto* out : {&got, &again}) {
            CHECK_CUDA(cudaMemset(call.o, 0xFF, bytes)); // NaN in every type
            launch();
            CHECK_CUDA(cudaDeviceSynchronize());
            CHECK_CUDA(cudaMemcpy(out->data(), call.o, bytes, cudaMemcpyDefault));
        }
        report(own.name, c, c.width, from, wanted, got, again);
    }
}

void check_all(const std::string& only) {
    std::vector<test_case> cases;
    const auto add = [&](const char* name, std::vector<part> sequences, auto&& change) {
        for (const int width : {128, 64}) {
            test_case c;
            c.name = name;
            c.sequences = sequences;
            c.width = width;
            change(c);
            cases.push_back(c);
        }
    };
    // These tell the parts apart: equal weights; weights themselves; one turn; several.
    add("equal weights, one turn", {{0, 40}}, [](test_case& c) { c.reach = 0; });
    add("weights themselves", {{0, 40}}, [](test_case& c) { c.unit_values = true; });
    add("one turn", {{0, 40}}, [](test_case&) {});
    add("equal weights, turns", {{0, 700}}, [](test_case& c) { c.reach = 0; });
    add("turns", {{0, 700}}, [](test_case&) {});
    add("large scores", {{0, 700}}, [](test_case& c) { c.reach = 60; });
    for (const int group : {1, 2, 3, 4, 5, 6, 7, 8, 16, 64})
        add("group", {{0, 333}, {77, 5}, {0, 129}}, [&](test_case& c) {
            c.kv_heads = group < 16 ? 3 : 1;
            c.heads = group * c.kv_heads;
        });
    add("window", {{0, 700}, {300, 90}}, [](test_case& c) { c.window = 100; });
    add("window of one", {{0, 70}, {300, 90}}, [](test_case& c) { c.window = 1; });
    add("window, sinks, f32", {{500, 200}, {0, 10}}, [](test_case& c) {
        c.window = 128;
        c.has_sinks = true;
        c.o_type = SLUICE_F32;
    });
    add("softcap", {{50, 200}}, [](test_case& c) { c.softcap = 5; });
    add("f16, sinks", {{0, 200}, {1000, 64}}, [](test_case& c) {
        c.has_sinks = true;
        c.type = c.o_type = SLUICE_F16;
    });
    add("many", {{0, 1}, {5, 17}, {0, 100}, {900, 3}, {0, 0}, {31, 33}, {16, 16}, {0, 1}},
        [](test_case& c) { c.padding = 13; });
    add("decoding rows", {{9, 1}, {800, 1}, {0, 65}, {70, 1}, {0, 200}}, [](test_case& c) {
        c.has_decoding = true;
        c.padding = 3;
    });
    add("absent blocks", {{100, 300}, {0, 64}}, [](test_case& c) { c.has_absent_blocks = true; });
    for (const int tokens : {8, 24, 32, 64, 256})
        add("blocks", {{100, 300}, {0, 61}, {20, 64}},
            [&](test_case& c) { c.tokens_per_block = tokens; });
    add("long prefixes", {{4000, 40}, {2900, 7}, {0, 30}},
        [](test_case& c) { c.has_sinks = true; });
    add("one row after many", {{5000, 1}}, [](test_case&) {});
    add("40 sequences", std::vector<part>(40, part{30, 20}), [](test_case& c) { c.padding = 224; });
    for (const test_case& c : cases) check_case(c, only);
    std::printf("%zu cases\n", cases.size());
}

// ---- Latents ----

constexpr int nope = 128, rope = 64, latent = 512, latent_value_width = 128;

mla_attention_call make_mla_call(pool& memory, const test_case& c) {
    mla_attention_call call;
    std::vector<int32_t> place_of_slot;
    call.rows = make_rows(memory, c, place_of_slot);
    const auto slots = static_cast<int64_t>(place_of_slot.size());
    const int32_t* there = memory.copied(place_of_slot);
    const int64_t head_rows = static_cast<int64_t>(call.rows.rows) * c.heads;
    call.q_nope = memory.filled(c.type, head_rows * nope, c.reach);
    call.q_pe = memory.filled(c.type, head_rows * rope, c.reach);
    call.latents = memory.filled(c.type, slots * latent, 1.0f, there, latent);
    call.rope_keys = memory.filled(c.type, slots * rope, 1.0f, there, rope);
    call.q_nope_type = call.q_pe_type = call.latent_type = call.rope_key_type = c.type;
    for (weight_view* up : {&call.key_up, &call.value_up}) {
        up->storage = c.type == SLUICE_BF16 ? weight_storage::bfloat16 : weight_storage::float16;
        up->matrices = c.heads;
        up->rows = up == &call.key_up ? nope : latent_value_width;
        up->columns = latent;
        // So that keys and values are about as large as latents.
        up->data = memory.filled(c.type, c.heads * up->rows * latent, 0.0765f);
    }
    call.o_type = c.o_type;
    call.heads = c.heads;
    call.nope = nope;
    call.rope = rope;
    call.latent = latent;
    call.value_width = latent_value_width;
    call.scale = 1.0f / std::sqrt(static_cast<float>(nope + rope));
    return call;
}

// All launches of a step.
struct mla_step {
    mla_attention_call call;
    mla_attention_plan plan;
    mla_expanded_plan expanded;
    std::byte *latent_rows, *scratch;
    float* partial;
    int32_t* counters;

    mla_step(pool& memory, const mla_attention_call& owner, bool expands, int32_t places)
        : call(owner) {
        const int64_t context = call.rows.block_columns * int64_t{call.rows.tokens_per_block};
        plan = plan_mla_attention(call, context, multiprocessors);
        if (expands) expanded = plan_mla_expanded(call, context, multiprocessors);
        if (expands && places > 0) expanded.places = std::min(expanded.places, places);
        latent_rows =
            static_cast<std::byte*>(memory.allocate(static_cast<int64_t>(plan.latent_rows_bytes)));
        scratch =
            static_cast<std::byte*>(memory.allocate(static_cast<int64_t>(expanded.scratch_bytes)));
        // What was there before must not count.
        CHECK_CUDA(cudaMemset(scratch, 0xFF, expanded.scratch_bytes));
        CHECK_CUDA(cudaMemset(latent_rows, 0xFF, plan.latent_rows_bytes));
        partial = static_cast<float*>(
            memory.allocate(static_cast<int64_t>(plan.decode.partial_floats) * 4));
        counters = memory.copied(std::vector<int32_t>(expanded.attention.counters, 0));
        call.programmatic = plan.decode.takes_all_rows;
    }
    void launch(cudaStream_t stream = nullptr) const {
        mla_attention_call own = call;
        if (expanded.places > 0) {
            launch_mla_gather(call, expanded, scratch, multiprocessors, stream);
            own.expanded = expanded_rows_of(expanded, scratch);
        }
        launch_mla_attention_matrix(own, plan, latent_rows, partial, stream);
        if (expanded.places > 0)
            launch_mla_attention_expanded(call, expanded, scratch, counters, multiprocessors,
                                          stream);
    }
};

void check_mla_case(const test_case& c, int32_t places) {
    pool memory;
    memory.seed = 100;
    mla_attention_call call = make_mla_call(memory, c);
    const int64_t count = static_cast<int64_t>(call.rows.rows) * c.heads * latent_value_width;
    const int64_t bytes = count * (c.o_type == SLUICE_F32 ? 4 : 2);
    call.o = memory.allocate(bytes);
    std::vector<uint8_t> wanted(bytes), got(bytes), again(bytes);
    launch_mla_attention_plain(call, false, nullptr);
    CHECK_CUDA(cudaMemcpy(wanted.data(), call.o, bytes, cudaMemcpyDefault));
    for (const bool expands : {false, true}) {
        const mla_step step(memory, call, expands, places);
        if (expands && step.plan.decode.takes_all_rows) continue; // nothing is left to expand
        if (expands && step.expanded.places == 0) {
            std::printf("FAIL %s: is not expanded\n", c.name);
            ++failures;
            continue;
        }
        for (auto* out : {&got, &again}) {
            CHECK_CUDA(cudaMemset(call.o, 0xFF, bytes)); // NaN in every type
            step.launch();
            CHECK_CUDA(cudaDeviceSynchronize());
            CHECK_CUDA(cudaMemcpy(out->data(), call.o, bytes, cudaMemcpyDefault));
        }
        report(expands ? "expanded" : "absorbed", c, latent_value_width, 0, wanted, got, again);
    }
}

void check_mla() {
    int count = 0;
    const auto check = [&](const char* name, std::vector<part> sequences, auto&& change,
                           int32_t places = 0) {
        test_case c;
        c.name = name;
        c.sequences = std::move(sequences);
        c.heads = 16;
        change(c);
        check_mla_case(c, places);
        ++count;
    };
    check("equal weights", {{0, 150}}, [](test_case& c) { c.reach = 0; });
    check("turns", {{0, 700}}, [](test_case&) {});
    check("prefixes", {{300, 128}, {77, 65}, {0, 129}}, [](test_case&) {});
    check("4 heads, f32", {{300, 128}, {77, 65}}, [](test_case& c) {
        c.heads = 4;
        c.o_type = SLUICE_F32;
    });
    check("f16, blocks of 64", {{300, 128}, {77, 65}}, [](test_case& c) {
        c.type = c.o_type = SLUICE_F16;
        c.tokens_per_block = 64;
    });
    check("some absorbed", {{9, 1}, {800, 1}, {0, 165}, {70, 1}, {0, 20}, {40, 100}},
          [](test_case& c) { c.padding = 33; });
    check(
        "no room for the second", {{200, 100}, {400, 64}, {0, 64}}, [](test_case&) {}, 640);
    check(
        "no room", {{200, 100}, {400, 64}, {0, 64}}, [](test_case&) {}, 256);
    check("a long prefix", {{3000, 130}, {1000, 4}}, [](test_case&) {});
    check("absent blocks", {{100, 300}, {0, 64}}, [](test_case& c) { c.has_absent_blocks = true; });
    check("70 sequences", std::vector<part>(70, part{0, 64}), [](test_case& c) { c.padding = 7; });
    check("one row", {{4095, 1}}, [](test_case&) {});
    check("one row, f16, 64 heads", {{2900, 1}}, [](test_case& c) {
        c.heads = 64;
        c.type = c.o_type = SLUICE_F16;
    });
    check("five rows", {{900, 1}, {0, 1}, {63, 1}, {64, 1}, {3000, 1}}, [](test_case& c) {
        c.has_absent_blocks = true;
        c.o_type = SLUICE_F32;
    });
    check("40 rows, 128 heads", std::vector<part>(40, part{700, 1}),
          [](test_case& c) { c.heads = 128; });
    std::printf("%d cases of latents\n", count);
}

// ---- Speed ----

void time_case(const test_case& c, const std::string& only) {
    pool memory;
    attention_call call = make_call(memory, c);
    call.o = memory.allocate(static_cast<int64_t>(call.rows.rows) * c.heads * c.width * 2);
    double pairs = 0; // of row and place
    for (const part& p : c.sequences)
        for (int r = 0; r < p.rows; ++r)
            pairs += c.window > 0 ? std::min(c.window, p.prefix + r + 1) : p.prefix + r + 1;
    std::printf("%s:", c.name);
    for (const named_form& own : forms(only)) {
        if (own.width != 0 && own.width != c.width) continue;
        const double time = median_microseconds(own.prepare(memory, call, 0), 15);
        std::printf(" %s %.1f us %.0f;", own.name, time,
                    pairs * c.heads * c.width * 4 / time * 1e-6);
        std::fflush(stdout);
    }
    std::printf("\n");
}

void time_all(const std::string& only) {
    test_case c{"32/4 x 128, 4096", {{0, 4096}}};
    c.heads = 32;
    c.kv_heads = 4;
    c.reach = 4;
    time_case(c, only);
    c.tokens_per_block = 64;
    c.name = "blocks of 64";
    time_case(c, only);
    c.tokens_per_block = 16;
    c.name = "8 x 512";
    c.sequences.assign(8, part{0, 512});
    time_case(c, only);
    c.name = "512 after 7680";
    c.sequences = {{7680, 512}};
    time_case(c, only);
    c.name = "64 after 8128";
    c.sequences = {{8128, 64}};
    time_case(c, only);
    c.name = "16 after 4000";
    c.sequences = {{4000, 16}};
    time_case(c, only);
    c.name = "16384";
    c.sequences = {{0, 16384}};
    time_case(c, only);
    c.name = "16/16, 4096";
    c.sequences = {{0, 4096}};
    c.heads = c.kv_heads = 16;
    time_case(c, only);
    c.name = "64/8 x 64, 4096";
    c.heads = 64;
    c.kv_heads = 8;
    c.width = 64;
    time_case(c, only);
    c.name = "window of 128";
    c.window = 128;
    time_case(c, only);
}

void time_mla() {
    test_case c{"16 heads of latents, 4096", {{0, 4096}}};
    c.heads = 16;
    c.reach = 4;
    for (int i = 0; i < 3; ++i) {
        if (i == 1) {
            c.name = "8 x 512";
            c.sequences.assign(8, part{0, 512});
        } else if (i == 2) {
            c.name = "512 after 7680";
            c.sequences = {{7680, 512}};
        }
        pool memory;
        mla_attention_call call = make_mla_call(memory, c);
        call.o = memory.allocate(static_cast<int64_t>(call.rows.rows) * c.heads * latent_value_width
                                 * 2);
        const mla_step absorbed(memory, call, false, 0), expanded(memory, call, true, 0);
        std::printf("%s:", c.name);
        std::printf(" absorbed %.1f us,", median_microseconds([&] { absorbed.launch(); }, 9));
        std::printf(" expanded %.1f us;", median_microseconds([&] { expanded.launch(); }, 9));
        const auto part_of = [&](const char* name, const std::function<void()>& launch) {
            std::printf(" %s %.1f", name, median_microseconds(launch, 9));
        };
        part_of("gather", [&] {
            launch_mla_gather(call, expanded.expanded, expanded.scratch, multiprocessors, nullptr);
        });
        mla_attention_call own = call;
        own.expanded = expanded_rows_of(expanded.expanded, expanded.scratch);
        part_of("rest of absorbed", [&] {
            launch_mla_attention_matrix(own, expanded.plan, expanded.latent_rows, expanded.partial,
                                        nullptr);
        });
        part_of("products and attention", [&] {
            launch_mla_attention_expanded(call, expanded.expanded, expanded.scratch,
                                          expanded.counters, multiprocessors, nullptr);
        });
        std::printf("\n");
        std::fflush(stdout);
    }
}

// Launches that follow each other as in a step, from a graph.
double microseconds_in_graph(const std::function<void(cudaStream_t)>& launch) {
    constexpr int launches = 20;
    cudaStream_t stream;
    cudaGraph_t graph;
    cudaGraphExec_t ready;
    CHECK_CUDA(cudaStreamCreate(&stream));
    launch(stream);
    CHECK_CUDA(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    for (int i = 0; i < launches; ++i) launch(stream);
    CHECK_CUDA(cudaStreamEndCapture(stream, &graph));
    CHECK_CUDA(cudaGraphInstantiate(&ready, graph, 0));
    CHECK_CUDA(cudaDeviceSynchronize());
    const double time =
        median_microseconds([&] { CHECK_CUDA(cudaGraphLaunch(ready, nullptr)); }, 9);
    cudaGraphExecDestroy(ready);
    cudaGraphDestroy(graph);
    cudaStreamDestroy(stream);
    return time / launches;
}

void time_mla_decoding() {
    const auto time = [](int sequences, int context, int heads) {
        test_case c{"", std::vector<part>(sequences, part{context - 1, 1})};
        c.heads = heads;
        pool memory;
        mla_attention_call call = make_mla_call(memory, c);
        call.o = memory.allocate(static_cast<int64_t>(call.rows.rows) * c.heads * latent_value_width
                                 * 2);
        const mla_step step(memory, call, false, 0);
        std::printf("%d rows after %d, %d heads: %.1f us\n", sequences, context, heads,
                    microseconds_in_graph([&](cudaStream_t stream) { step.launch(stream); }));
    };
    for (const int context : {60, 500, 4096, 16384}) time(1, context, 16);
    for (const int sequences : {8, 64}) time(sequences, 4096, 16);
    time(1, 4096, 128);
}

} // namespace

int main(int argc, char** argv) {
    cudaDeviceProp properties;
    CHECK_CUDA(cudaGetDeviceProperties(&properties, 0));
    multiprocessors = properties.multiProcessorCount;
    const std::string what = argc > 1 ? argv[1] : "", only = argc > 2 ? argv[2] : "";
    is_verbose = argc > 3;
    if (what.empty() || what == "check") check_all(only);
    if (what.empty() || what == "time") time_all(only);
    if (what.empty() || what == "check-latents") check_mla();
    if (what.empty() || what == "time-latents") {
        time_mla();
        time_mla_decoding();
    }
    if (failures > 0) std::printf("FAIL: %d\n", failures);
    return failures == 0 ? 0 : 1;
}
