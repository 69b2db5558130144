// Attention and experts in primitives against loops that follow the formulas of abi/operations.h.
#include "plain_runner.hpp"
#include "program/builder.hpp"
#include "program/decompose.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <random>

namespace sluice {

namespace {

using test::floats;
using test::integers;

floats random_floats(std::mt19937& random, size_t count, float scale = 1) {
    std::normal_distribution<float> normal(0, scale);
    floats values(count);
    for (float& value : values) value = normal(random);
    return values;
}

void compare(const floats& found, const std::vector<double>& expected, double tolerance) {
    REQUIRE(found.size() == expected.size());
    double worst = 0;
    for (size_t i = 0; i < found.size(); ++i) {
        worst = std::max(worst, std::abs(double(found[i]) - expected[i]));
    }
    CHECK(worst <= tolerance);
}

sluice_weight_format f32_format() {
    auto format = SLUICE_INIT(sluice_weight_format);
    format.element_type = SLUICE_F32;
    return format;
}

// ---- Attention ----

// Two sequences in blocks of 4 that lie about the cache: one of 9 tokens whose last 3 are rows of
// the step, one of 6 whose last 2 are; and a row of padding.
struct attended_batch {
    static constexpr uint32_t rows = 6, sequences = 2, columns = 3, tokens_per_block = 4;
    integers position = {6, 7, 8, 4, 5, -1};
    integers sequence_of_row = {0, 0, 0, 1, 1, -1};
    integers kv_length = {9, 6};
    integers block_table = {4, 0, 2, 1, 3, -1};
    extent_sizes extents = {0, rows, sequences, 1, columns};

    int32_t slot(size_t sequence, int32_t place) const {
        const int32_t block =
            block_table[sequence * columns + static_cast<size_t>(place) / tokens_per_block];
        return block * int32_t(tokens_per_block) + place % int32_t(tokens_per_block);
    }
    // The slots that hold the cached tokens, sequence by sequence.
    integers all_slots() const {
        integers slots;
        for (size_t sequence = 0; sequence < sequences; ++sequence) {
            for (int32_t place = 0; place < kv_length[sequence]; ++place) {
                slots.push_back(slot(sequence, place));
            }
        }
        return slots;
    }
    void set(test::plain_runner& runner) const {
        runner.set("position", position);
        runner.set("sequence_of_row", sequence_of_row);
        runner.set("kv_length", kv_length);
        runner.set("block_table", block_table);
    }
};

// Adds a state whose 15 cached tokens are written by the program itself, from inputs "part0" and
// "part1" [15, width].
value_number written_state(program_builder& build, uint32_t width0, uint32_t width1) {
    program_state state;
    state.tokens_per_block = attended_batch::tokens_per_block;
    state.part_width = {width0, width1};
    state.part_type = {SLUICE_F32, SLUICE_F32};
    state.name = "cache";
    const value_number before = build.state(state);
    const dimension cached = size::fixed(15);
    const value_number part0 =
        build.custom_input("part0", SLUICE_F32, {cached, size::fixed(width0)});
    const value_number part1 =
        build.custom_input("part1", SLUICE_F32, {cached, size::fixed(width1)});
    const value_number slots = build.custom_input("slots", SLUICE_I32, {cached});
    // The builder's kv_write takes the batch's slots; here all cached tokens are written.
    program_operation write;
    write.kind = SLUICE_OP_KV_WRITE;
    write.name = "cache_written";
    write.inputs = {before, slots, part0, part1};
    write.outputs = {build.state_after(before, "cache_written")};
    const value_number after = write.outputs[0];
    build.append(std::move(write));
    return after;
}

struct attention_case {
    sluice_attention_attributes attributes = SLUICE_INIT(sluice_attention_attributes);
    bool sinks = false;
    static constexpr size_t heads = 4, key_width = 5, value_width = 3;
};

// The formula at SLUICE_OP_ATTENTION for one row and head.
void attend_literally(const attention_case& given, const attended_batch& batch, const floats& q,
                      const floats& keys, const floats& values, const floats& sinks, size_t row,
                      size_t head, double* o) {
    const int32_t sequence = batch.sequence_of_row[row];
    if (sequence < 0) return;
    const size_t first = sequence == 0 ? 0 : static_cast<size_t>(batch.kv_length[0]);
    const size_t kv_heads = given.attributes.kv_heads;
    const size_t kv_head = head / (given.heads / kv_heads);
    double divisor = given.sinks ? std::exp(double(sinks[head])) : 0;
    std::vector<double> mixed(given.value_width, 0);
    for (int32_t j = 0; j < batch.kv_length[static_cast<size_t>(sequence)]; ++j) {
        if (j > batch.position[row]) continue;
        const auto window = static_cast<int32_t>(given.attributes.window);
        if (window != 0 && j <= batch.position[row] - window) continue;
        const size_t token = first + static_cast<size_t>(j);
        double z = 0;
        for (size_t d = 0; d < given.key_width; ++d) {
            z += double(q[(row * given.heads + head) * given.key_width + d])
                 * keys[(token * kv_heads + kv_head) * given.key_width + d];
        }
        z *= given.attributes.scale;
        const double cap = given.attributes.softcap;
        if (cap > 0) z = cap * std::tanh(z / cap);
        divisor += std::exp(z);
        for (size_t d = 0; d < given.value_width; ++d) {
            mixed[d] += std::exp(z) * values[(token * kv_heads + kv_head) * given.value_width + d];
        }
    }
    for (size_t d = 0; d < given.value_width; ++d) o[d] = divisor == 0 ? 0 : mixed[d] / divisor;
}

void check_attention_case(const attention_case& given) {
    std::mt19937 random(7);
    const attended_batch batch;
    const uint32_t kv_heads = given.attributes.kv_heads;
    const size_t heads = given.heads;
    const floats q = random_floats(random, batch.rows * heads * given.key_width);
    const floats keys = random_floats(random, 15 * kv_heads * given.key_width);
    const floats values = random_floats(random, 15 * kv_heads * given.value_width);
    const floats sinks = random_floats(random, heads);

    program_builder build("attention");
    const value_number state = written_state(build, kv_heads * uint32_t(given.key_width),
                                             kv_heads * uint32_t(given.value_width));
    const value_number q_value = build.custom_input(
        "q", SLUICE_F32,
        {size::tokens(), size::fixed(int64_t(heads)), size::fixed(int64_t(given.key_width))});
    const int64_t width = static_cast<int64_t>(heads);
    const value_number sinks_value =
        given.sinks ? build.weight("sinks", std::span(&width, 1), f32_format()) : value_none;
    const value_number o =
        build.attention("attention", {q_value, state, sinks_value}, given.attributes, SLUICE_F32);
    test::plain_runner runner(decompose(build.finish()), batch.extents, 5);
    batch.set(runner);
    runner.set("slots", batch.all_slots());
    runner.set("part0", keys);
    runner.set("part1", values);
    runner.set("q", q);
    if (given.sinks) runner.set_weight("sinks", sinks);
    runner.run(2);

    std::vector<double> expected(batch.rows * heads * given.value_width, 0);
    for (size_t row = 0; row < batch.rows; ++row) {
        for (size_t head = 0; head < heads; ++head) {
            attend_literally(given, batch, q, keys, values, sinks, row, head,
                             &expected[(row * heads + head) * given.value_width]);
        }
    }
    compare(runner.float_values(o), expected, 1e-5);
}

} // namespace

TEST_CASE("attention: groups of heads, windows, soft caps and sinks") {
    for (const uint32_t kv_heads : {1u, 2u, 4u}) {
        for (const uint32_t window : {0u, 1u, 3u, 100u}) {
            for (const float softcap : {0.0f, 1.5f}) {
                for (const bool sinks : {false, true}) {
                    CAPTURE(kv_heads);
                    CAPTURE(window);
                    CAPTURE(softcap);
                    CAPTURE(sinks);
                    attention_case given;
                    given.attributes.kv_heads = kv_heads;
                    given.attributes.scale = 0.7f;
                    given.attributes.window = window;
                    given.attributes.softcap = softcap;
                    given.sinks = sinks;
                    check_attention_case(given);
                }
            }
        }
    }
}

TEST_CASE("latent attention: both forms follow the formula") {
    constexpr size_t heads = 3, nope = 4, rope = 2, rank = 6, value_width = 5;
    constexpr float scale = 0.6f;
    std::mt19937 random(11);
    const attended_batch batch;
    const floats q_nope = random_floats(random, batch.rows * heads * nope);
    const floats q_pe = random_floats(random, batch.rows * heads * rope);
    const floats latent = random_floats(random, 15 * rank);
    const floats shared_key = random_floats(random, 15 * rope);
    const floats key_up = random_floats(random, heads * nope * rank, 0.5f);
    const floats value_up = random_floats(random, heads * value_width * rank, 0.5f);

    std::vector<double> expected(batch.rows * heads * value_width, 0);
    for (size_t row = 0; row < batch.rows; ++row) {
        const int32_t sequence = batch.sequence_of_row[row];
        if (sequence < 0) continue;
        const size_t first = sequence == 0 ? 0 : static_cast<size_t>(batch.kv_length[0]);
        for (size_t h = 0; h < heads; ++h) {
            double divisor = 0;
            double* o = &expected[(row * heads + h) * value_width];
            for (size_t j = 0; j <= static_cast<size_t>(batch.position[row]); ++j) {
                const float* c = &latent[(first + j) * rank];
                double z = 0;
                for (size_t n = 0; n < nope; ++n) {
                    double k = 0;
                    for (size_t r = 0; r < rank; ++r) {
                        k += double(key_up[(h * nope + n) * rank + r]) * c[r];
                    }
                    z += q_nope[(row * heads + h) * nope + n] * k;
                }
                for (size_t r = 0; r < rope; ++r) {
                    z += double(q_pe[(row * heads + h) * rope + r])
                         * shared_key[(first + j) * rope + r];
                }
                const double share = std::exp(scale * z);
                divisor += share;
                for (size_t d = 0; d < value_width; ++d) {
                    for (size_t r = 0; r < rank; ++r) {
                        o[d] += share * value_up[(h * value_width + d) * rank + r] * c[r];
                    }
                }
            }
            for (size_t d = 0; d < value_width; ++d) o[d] /= divisor;
        }
    }

    for (const uint32_t form :
         {SLUICE_MLA_FORM_ANY, SLUICE_MLA_FORM_EXPANDED, SLUICE_MLA_FORM_ABSORBED}) {
        CAPTURE(form);
        program_builder build("latent_attention");
        const value_number state = written_state(build, rank, rope);
        const value_number q_nope_value = build.custom_input(
            "q_nope", SLUICE_F32, {size::tokens(), size::fixed(heads), size::fixed(nope)});
        const value_number q_pe_value = build.custom_input(
            "q_pe", SLUICE_F32, {size::tokens(), size::fixed(heads), size::fixed(rope)});
        const int64_t key_shape[] = {heads, nope, rank};
        const int64_t up_shape[] = {heads, value_width, rank};
        auto attributes = SLUICE_INIT(sluice_mla_attention_attributes);
        attributes.scale = scale;
        attributes.form = form;
        const value_number o = build.mla_attention("attention", q_nope_value, q_pe_value, state,
                                                   build.weight("key_up", key_shape, f32_format()),
                                                   build.weight("value_up", up_shape, f32_format()),
                                                   attributes, SLUICE_F32);
        test::plain_runner runner(decompose(build.finish()), batch.extents, 5);
        batch.set(runner);
        runner.set("slots", batch.all_slots());
        runner.set("part0", latent);
        runner.set("part1", shared_key);
        runner.set("q_nope", q_nope);
        runner.set("q_pe", q_pe);
        runner.set_weight("key_up", key_up);
        runner.set_weight("value_up", value_up);
        runner.run();
        compare(runner.float_values(o), expected, 2e-5);
    }
}

// ---- Experts ----

namespace {

struct experts_case {
    sluice_moe_ffn_attributes attributes = SLUICE_INIT(sluice_moe_ffn_attributes);
    bool biases = false;
    bool map = false;
    static constexpr size_t rows = 7, choices = 3, hidden = 4, width = 5, experts = 4;
    // Experts that indices name; with a map some live elsewhere, without one those past the local
    // ones compute nothing.
    static constexpr size_t named = 6;
};

double silu(double x) { return x / (1 + std::exp(-x)); }

double activated(const sluice_moe_ffn_attributes& attributes, double gate, double up) {
    if (attributes.activation != SLUICE_ACTIVATION_SWIGLU_OAI) return silu(gate) * up;
    const double clamp = attributes.clamp;
    const double g = std::min(gate, clamp);
    const double u = std::clamp(up, -clamp, clamp);
    return g / (1 + std::exp(-attributes.alpha * g)) * (u + 1);
}

struct expert_weights {
    floats gate, up, down, gate_bias, up_bias, down_bias;
};

// W_down activation(...) of expert m for one row x.
std::vector<double> expert_literally(const experts_case& given, const expert_weights& weights,
                                     size_t m, const std::vector<double>& x) {
    const auto& a = given.attributes;
    const bool split = a.gate_layout == SLUICE_GATE_SPLIT;
    const auto product = [&](const floats& w, const floats& b, size_t rows, size_t n) {
        double y = given.biases ? b[m * rows + n] : 0;
        for (size_t d = 0; d < given.hidden; ++d) {
            y += w[(m * rows + n) * given.hidden + d] * x[d];
        }
        return y;
    };
    std::vector<double> inner;
    for (size_t f = 0; f < given.width; ++f) {
        const bool interleaved = a.gate_layout == SLUICE_GATE_INTERLEAVED;
        const size_t gate_row = interleaved ? 2 * f : f;
        const size_t up_row = interleaved ? 2 * f + 1 : given.width + f;
        const size_t gate_rows = split ? given.width : 2 * given.width;
        const double gate = product(weights.gate, weights.gate_bias, gate_rows, gate_row);
        const double up = split ? product(weights.up, weights.up_bias, given.width, f)
                                : product(weights.gate, weights.gate_bias, gate_rows, up_row);
        inner.push_back(activated(a, gate, up));
    }
    std::vector<double> y(given.hidden);
    for (size_t d = 0; d < given.hidden; ++d) {
        y[d] = given.biases ? weights.down_bias[m * given.hidden + d] : 0;
        for (size_t f = 0; f < given.width; ++f) {
            y[d] += weights.down[(m * given.hidden + d) * given.width + f] * inner[f];
        }
    }
    return y;
}

void check_experts_case(const experts_case& given, uint32_t seed) {
    std::mt19937 random(seed);
    const auto& a = given.attributes;
    const bool split = a.gate_layout == SLUICE_GATE_SPLIT;
    const size_t gate_rows = split ? given.width : 2 * given.width;
    const size_t local = given.experts;
    expert_weights weights;
    weights.gate = random_floats(random, local * gate_rows * given.hidden);
    weights.up = random_floats(random, local * given.width * given.hidden);
    weights.down = random_floats(random, local * given.hidden * given.width);
    weights.gate_bias = random_floats(random, local * gate_rows);
    weights.up_bias = random_floats(random, local * given.width);
    weights.down_bias = random_floats(random, local * given.hidden);
    const floats x = random_floats(random, given.rows * given.hidden);
    const floats weight = random_floats(random, given.rows * given.choices);
    integers index;
    std::uniform_int_distribution<int32_t> any(-1, int32_t(given.named) - 1);
    for (size_t i = 0; i < given.rows * given.choices; ++i) index.push_back(any(random));
    const integers map = {2, -1, 0, 3, -1, 1};

    program_builder build("experts");
    const auto matrices = [&](const char* name, size_t rows, size_t columns) {
        const int64_t shape[] = {int64_t(local), int64_t(rows), int64_t(columns)};
        return build.weight(name, std::span(shape).first(columns == 0 ? 2 : 3), f32_format());
    };
    moe_operands operands{};
    operands.x = build.custom_input("x", SLUICE_F32, {size::tokens(), size::fixed(given.hidden)});
    operands.index =
        build.custom_input("index", SLUICE_I32, {size::tokens(), size::fixed(given.choices)});
    operands.weight =
        build.custom_input("weight", SLUICE_F32, {size::tokens(), size::fixed(given.choices)});
    if (given.map) {
        operands.expert_map = build.custom_input("map", SLUICE_I32, {size::fixed(given.named)});
    }
    operands.gate = matrices("gate", gate_rows, given.hidden);
    if (split) operands.up = matrices("up", given.width, given.hidden);
    operands.down = matrices("down", given.hidden, given.width);
    if (given.biases) {
        operands.gate_bias = matrices("gate_bias", gate_rows, 0);
        if (split) operands.up_bias = matrices("up_bias", given.width, 0);
        operands.down_bias = matrices("down_bias", given.hidden, 0);
    }
    const value_number y = build.moe_ffn("experts", operands, a, SLUICE_F32);
    test::plain_runner runner(decompose(build.finish()), {0, given.rows, 1, 1, 1});
    runner.set("x", x);
    runner.set("index", index);
    runner.set("weight", weight);
    if (given.map) runner.set("map", map);
    runner.set_weight("gate", weights.gate);
    if (split) runner.set_weight("up", weights.up);
    runner.set_weight("down", weights.down);
    if (given.biases) {
        runner.set_weight("gate_bias", weights.gate_bias);
        if (split) runner.set_weight("up_bias", weights.up_bias);
        runner.set_weight("down_bias", weights.down_bias);
    }
    runner.run(2);

    std::vector<double> expected(given.rows * given.hidden, 0);
    for (size_t t = 0; t < given.rows; ++t) {
        for (size_t j = 0; j < given.choices; ++j) {
            const int32_t named = index[t * given.choices + j];
            if (named < 0) continue;
            const int32_t m = given.map ? map[static_cast<size_t>(named)] : named;
            if (m < 0) continue;
            const double w = weight[t * given.choices + j];
            const bool on_input = a.weight_on_input != 0;
            std::vector<double> row(given.hidden);
            for (size_t d = 0; d < given.hidden; ++d) {
                row[d] = x[t * given.hidden + d] * (on_input ? w : 1);
            }
            std::vector<double> result(given.hidden, 0);
            if (static_cast<size_t>(m) < local) {
                result = expert_literally(given, weights, static_cast<size_t>(m), row);
            } else if (a.zero_expert == SLUICE_ZERO_EXPERT_IDENTITY) {
                result = row;
            }
            for (size_t d = 0; d < given.hidden; ++d) {
                expected[t * given.hidden + d] += result[d] * (on_input ? 1 : w);
            }
        }
    }
    compare(runner.float_values(y), expected, 5e-5);
}

} // namespace

TEST_CASE("experts: layouts, biases, maps, weights on the input, experts without computation") {
    uint32_t seed = 0;
    for (const uint32_t layout : {SLUICE_GATE_SPLIT, SLUICE_GATE_CONCAT, SLUICE_GATE_INTERLEAVED}) {
        for (const uint32_t activation : {SLUICE_ACTIVATION_SILU, SLUICE_ACTIVATION_SWIGLU_OAI}) {
            for (const uint32_t variant : {0u, 1u, 2u, 3u, 4u, 5u, 6u, 7u}) {
                experts_case given;
                given.attributes.gate_layout = layout;
                given.attributes.activation = activation;
                if (activation == SLUICE_ACTIVATION_SWIGLU_OAI) {
                    given.attributes.alpha = 1.702f;
                    given.attributes.clamp = 1.5f;
                }
                given.biases = (variant & 1) != 0;
                given.attributes.weight_on_input = (variant & 2) != 0 ? 1 : 0;
                given.map = (variant & 4) != 0;
                if (!given.map) given.attributes.zero_expert = seed % 3;
                CAPTURE(layout);
                CAPTURE(activation);
                CAPTURE(variant);
                check_experts_case(given, ++seed);
            }
        }
    }
}

TEST_CASE("sampling: ties, what is no number, and rows of nothing else") {
    constexpr float nan = std::numeric_limits<float>::quiet_NaN();
    constexpr float infinity = std::numeric_limits<float>::infinity();
    const std::vector<floats> rows = {{1, 3, -2, 3, 0.5f},
                                      {nan, -7, infinity, -5, -infinity},
                                      {nan, infinity, -infinity, nan, infinity},
                                      {-1000, 900, -1000, 900, 900}};
    floats logits;
    for (const floats& row : rows) logits.insert(logits.end(), row.begin(), row.end());
    program_builder build("sampling");
    const value_number input =
        build.custom_input("logits", SLUICE_F32, {size::logits(), size::fixed(5)});
    const sample_results results = build.sample("sample", input);
    build.output(results.token);
    build.output(results.log_probability);
    const program composite = build.finish();
    // As a composite, which the plain kernels have too, and in primitives.
    for (const program& made : {composite, decompose(composite)}) {
        test::plain_runner runner(made, {0, 1, 1, 4, 1});
        runner.set("logits", logits);
        runner.run(3);
        CHECK(runner.integer_values(results.token) == integers{1, 3, -1, 1});
        compare(runner.float_values(results.log_probability),
                {-std::log(2 + std::exp(-2.0) + std::exp(-5.0) + std::exp(-2.5)),
                 -std::log(1 + std::exp(-2.0)), 0, -std::log(3.0)},
                1e-6);
    }
}

TEST_CASE("a gated MLP in both layouts") {
    for (const uint32_t layout : {SLUICE_GATE_SPLIT, SLUICE_GATE_CONCAT}) {
        std::mt19937 random(3);
        const floats x = random_floats(random, 3 * 4);
        const floats both = random_floats(random, 2 * 5 * 4);
        const floats down = random_floats(random, 4 * 5);
        program_builder build("mlp");
        const value_number x_value =
            build.custom_input("x", SLUICE_F32, {size::tokens(), size::fixed(4)});
        const bool split = layout == SLUICE_GATE_SPLIT;
        const int64_t gate_shape[] = {split ? 5 : 10, 4};
        const int64_t down_shape[] = {4, 5};
        auto attributes = SLUICE_INIT(sluice_activation_attributes);
        attributes.gate_layout = layout;
        const value_number gate = build.weight("gate", gate_shape, f32_format());
        const value_number up = split ? build.weight("up", gate_shape, f32_format()) : value_none;
        const value_number y =
            build.gated_mlp("mlp", x_value, gate, up,
                            build.weight("down", down_shape, f32_format()), attributes, SLUICE_F32);
        test::plain_runner runner(decompose(build.finish()), {0, 3, 1, 1, 1});
        runner.set("x", x);
        runner.set_weight("gate", split ? floats(both.begin(), both.begin() + 20) : both);
        if (split) runner.set_weight("up", floats(both.begin() + 20, both.end()));
        runner.set_weight("down", down);
        runner.run();

        std::vector<double> expected(3 * 4, 0);
        for (size_t t = 0; t < 3; ++t) {
            for (size_t f = 0; f < 5; ++f) {
                double g = 0;
                double u = 0;
                for (size_t d = 0; d < 4; ++d) {
                    g += double(both[f * 4 + d]) * x[t * 4 + d];
                    u += double(both[(5 + f) * 4 + d]) * x[t * 4 + d];
                }
                for (size_t d = 0; d < 4; ++d) {
                    expected[t * 4 + d] += down[d * 5 + f] * silu(g) * u;
                }
            }
        }
        compare(runner.float_values(y), expected, 1e-5);
    }
}

} // namespace sluice
