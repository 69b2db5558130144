// Cases of caches and attention: sequences of several lengths, prefilled in the first step, and
// continued by decoding and by further chunks in the second.
#include "generators.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace sluice::checker {
namespace {

// Sequences with their blocks.
class sequence_plan {
  public:
    sequence_plan(draw& with, uint32_t sequences, uint32_t tokens_per_block)
        : with_(with), tokens_per_block_(tokens_per_block), lengths_(sequences) {
        constexpr uint32_t columns_max = 5;
        columns_ = columns_max;
        blocks_.resize(sequences * columns_max);
        std::iota(blocks_.begin(), blocks_.end(), 0);
        std::shuffle(blocks_.begin(), blocks_.end(), with.random);
    }

    uint32_t block_count() const { return static_cast<uint32_t>(blocks_.size()) + 1; }
    uint32_t columns() const { return columns_; }
    int32_t length_max() const { return static_cast<int32_t>(columns_ * tokens_per_block_); }

    // A step that adds so many tokens to each sequence; one for those that decode, which come
    // first.
    batch_step step(const std::vector<int32_t>& added, uint32_t decodes) {
        batch_step made;
        const auto sequences = static_cast<uint32_t>(lengths_.size());
        made.sequence_count = sequences;
        made.block_columns = columns_;
        made.decode_sequence_count = decodes;
        made.query_start.push_back(0);
        for (uint32_t s = 0; s < sequences; ++s) {
            for (int32_t i = 0; i < added[s]; ++i) add_row(made, s, lengths_[s] + i);
            lengths_[s] += added[s];
            made.kv_length.push_back(lengths_[s]);
            made.query_start.push_back(static_cast<int32_t>(made.slot.size()));
            add_table_row(made, s);
        }
        made.token_count = static_cast<uint32_t>(made.slot.size());
        return made;
    }

    // Some tokens for each sequence, up to `most` and as far as there is room.
    std::vector<int32_t> draw_added(int32_t most, uint32_t decodes) {
        std::vector<int32_t> added;
        for (uint32_t s = 0; s < lengths_.size(); ++s) {
            const int32_t room = length_max() - lengths_[s];
            added.push_back(s < decodes ? 1
                                        : static_cast<int32_t>(
                                            with_.between(1, std::max(1, std::min(most, room)))));
        }
        return added;
    }

  private:
    int32_t block(uint32_t sequence, int32_t column) const {
        return blocks_[sequence * columns_ + static_cast<uint32_t>(column)];
    }
    void add_row(batch_step& to, uint32_t sequence, int32_t place) {
        const auto size = static_cast<int32_t>(tokens_per_block_);
        to.position.push_back(place);
        to.sequence_of_row.push_back(static_cast<int32_t>(sequence));
        to.slot.push_back(block(sequence, place / size) * size + place % size);
    }
    void add_table_row(batch_step& to, uint32_t sequence) {
        const auto size = static_cast<int32_t>(tokens_per_block_);
        const int32_t used = (lengths_[sequence] + size - 1) / size;
        for (int32_t column = 0; column < static_cast<int32_t>(columns_); ++column)
            to.block_table.push_back(column < used ? block(sequence, column) : -1);
    }

    draw& with_;
    uint32_t tokens_per_block_;
    uint32_t columns_;
    std::vector<int32_t> blocks_; // [sequences, columns]
    std::vector<int32_t> lengths_;
};

// A program with a cache, run for two steps. `inputs` names the custom inputs [T, ...], which get
// fresh numbers in each step; the other custom inputs stay as they were given.
operation_case two_steps(draw& with, operation_case made, const std::vector<value_number>& inputs,
                         uint32_t tokens_per_block) {
    const auto sequences = static_cast<uint32_t>(with.number < 2 ? 1 : with.between(1, 5));
    sequence_plan plan(with, sequences, tokens_per_block);
    made.block_count = plan.block_count();
    std::vector<batch_step> steps;
    steps.push_back(plan.step(plan.draw_added(plan.length_max() / 2, 0), 0));
    const auto decodes = static_cast<uint32_t>(with.between(0, sequences));
    steps.push_back(plan.step(plan.draw_added(plan.length_max() / 2, decodes), decodes));
    for (auto& step : steps) step.custom = made.steps.at(0).custom;
    uint32_t rows_max = 1;
    for (const auto& step : steps) rows_max = std::max(rows_max, step.token_count);
    made.bound[SLUICE_EXTENT_TOKENS] = rows_max + static_cast<uint32_t>(with.between(0, 3));
    made.steps = std::move(steps);
    const extent_sizes extents = bound_extents(made);
    for (auto& step : made.steps)
        for (const value_number input : inputs) {
            const auto sized = evaluate(made.made.value(input).dimensions, extents);
            step.custom.emplace(
                input, host_tensor::floats(sized, normal_numbers(with.random, count_of(sized)),
                                           made.made.value(input).element_type));
        }
    return made;
}

// A vector of the cache: heads of that many elements, which share a scale in whole numbers.
struct cached_part {
    int64_t heads;
    int64_t width;
};

program_state paged(const std::vector<cached_part>& parts, sluice_element_type type,
                    uint32_t tokens_per_block) {
    program_state state;
    state.tokens_per_block = tokens_per_block;
    for (const auto& part : parts) {
        state.part_type.push_back(type);
        state.part_width.push_back(static_cast<uint32_t>(part.heads * part.width));
        if (type == SLUICE_I8) state.part_group.push_back(static_cast<uint32_t>(part.width));
    }
    state.name = "cache";
    return state;
}

uint32_t draw_block_size(draw& with) {
    constexpr uint32_t block_sizes[] = {1, 4, 16, 13};
    return block_sizes[with.between(0, 3)];
}

operation_case kv_write_of(draw& with, sluice_element_type cache_type) {
    const uint32_t tokens_per_block = draw_block_size(with);
    const cached_part part0{1, with.between(1, 40)};
    const cached_part part1{with.between(1, 4), with.between(1, 40)};
    const auto width0 = static_cast<uint32_t>(part0.width);
    const auto width1 = static_cast<uint32_t>(part1.heads * part1.width);
    case_builder to(with, 1, false);
    auto& program = to.program();
    const value_number state = program.state(paged({part0, part1}, cache_type, tokens_per_block));
    const value_number parts[] = {
        program.custom_input("part0", with.type, {tokens(), fixed(width0)}),
        program.custom_input("part1", SLUICE_F32, {tokens(), fixed(1), fixed(width1)})};
    const value_number written = program.kv_write("written", state, parts);
    const value_number table = program.batch_input(SLUICE_INPUT_BLOCK_TABLE);
    const value_number first = program.kv_gather("first", written, table, 0, with.type);
    const value_number second = program.kv_gather("second", written, table, 1, SLUICE_F32);
    return two_steps(with, to.finish({first, second}), {parts[0], parts[1]}, tokens_per_block);
}

operation_case kv_write(draw& with) { return kv_write_of(with, with.type); }
operation_case kv_write_int8(draw& with) { return kv_write_of(with, SLUICE_I8); }

// Of a cache in whole numbers a backend may round once more: numbers times their scale, to the type
// of the activations. Scores are as large as models have them, so that this stays within bounds.
float scale_of_models(int64_t width) { return 1.0F / std::sqrt(static_cast<float>(width)); }

struct attention_sizes {
    uint32_t tokens_per_block;
    int64_t kv_heads, group, key_width, value_width;
    sluice_element_type cache_type;
};

operation_case attention_of(draw& with, const attention_sizes& sizes) {
    const auto [tokens_per_block, kv_heads, group, key_width, value_width, cache_type] = sizes;
    const int64_t heads = kv_heads * group;
    case_builder to(with, 1, false);
    auto& program = to.program();
    const value_number state = program.state(
        paged({{kv_heads, key_width}, {kv_heads, value_width}}, cache_type, tokens_per_block));
    const value_number q =
        program.custom_input("q", with.type, {tokens(), fixed(heads), fixed(key_width)});
    const value_number parts[] = {
        program.custom_input("k", with.type, {tokens(), fixed(kv_heads), fixed(key_width)}),
        program.custom_input("v", with.type, {tokens(), fixed(kv_heads), fixed(value_width)})};
    auto attributes = SLUICE_INIT(sluice_attention_attributes);
    attributes.kv_heads = static_cast<uint32_t>(kv_heads);
    attributes.scale = cache_type == SLUICE_I8 ? scale_of_models(key_width) : 0.4F;
    attributes.softcap = with.coin() ? 3.0F : 0.0F;
    attributes.window = with.coin() ? static_cast<uint32_t>(with.between(1, 20)) : 0;
    const attention_operands operands{q, program.kv_write("written", state, parts),
                                      with.coin() ? to.vector(heads) : value_none};
    const value_number o = program.attention("o", operands, attributes, with.type);
    return two_steps(with, to.finish({o}), {q, parts[0], parts[1]}, tokens_per_block);
}

operation_case attention(draw& with) {
    const uint32_t tokens_per_block = draw_block_size(with);
    const int64_t kv_heads = with.between(1, 3), group = with.between(1, 4);
    const int64_t key_width = with.between(1, 48);
    const int64_t value_width = with.coin() ? key_width : with.between(1, 48);
    return attention_of(with,
                        {tokens_per_block, kv_heads, group, key_width, value_width, with.type});
}

// Of heads as models have them, which backends have their fastest kernels for, and contexts long
// enough to be cut.
constexpr uint32_t long_block = 40;

operation_case attention_of_models_in(draw& with, sluice_element_type cache_type) {
    constexpr int64_t widths[] = {64, 96, 128, 256};
    const int64_t width = widths[with.between(0, 3)];
    return attention_of(
        with, {long_block, with.between(1, 2), with.between(1, 9), width, width, cache_type});
}

operation_case attention_of_models(draw& with) { return attention_of_models_in(with, with.type); }
operation_case attention_int8(draw& with) { return attention_of_models_in(with, SLUICE_I8); }

struct mla_attention_sizes {
    uint32_t tokens_per_block;
    int64_t heads, nope, rope, rank, value_width;
    sluice_element_type cache_type;
};

operation_case mla_attention_of(draw& with, const mla_attention_sizes& sizes) {
    const auto [tokens_per_block, heads, nope, rope, rank, value_width, cache_type] = sizes;
    case_builder to(with, 1, false);
    auto& program = to.program();
    // In groups of half a rank that is large enough.
    const int64_t groups = rank % 64 == 0 ? 2 : 1;
    const value_number state =
        program.state(paged({{groups, rank / groups}, {1, rope}}, cache_type, tokens_per_block));
    const value_number q_nope =
        program.custom_input("q_nope", with.type, {tokens(), fixed(heads), fixed(nope)});
    const value_number q_pe =
        program.custom_input("q_pe", with.type, {tokens(), fixed(heads), fixed(rope)});
    const value_number parts[] = {
        program.custom_input("latent", with.type, {tokens(), fixed(rank)}),
        program.custom_input("k_pe", with.type, {tokens(), fixed(rope)})};
    auto attributes = SLUICE_INIT(sluice_mla_attention_attributes);
    attributes.scale = cache_type == SLUICE_I8 ? scale_of_models(nope + rope) : 0.2F;
    attributes.form = static_cast<uint32_t>(with.between(0, 2));
    const value_number written = program.kv_write("written", state, parts);
    // Sums over the rank stay of the size of what is summed.
    const float deviation = std::min(0.2F, 1.0F / std::sqrt(static_cast<float>(rank)));
    const value_number key_up = to.weight({heads, nope, rank}, deviation);
    const value_number value_up = to.weight({heads, value_width, rank}, deviation);
    const value_number o =
        program.mla_attention("o", q_nope, q_pe, written, key_up, value_up, attributes, with.type);
    return two_steps(with, to.finish({o}), {q_nope, q_pe, parts[0], parts[1]}, tokens_per_block);
}

operation_case mla_attention(draw& with) {
    const uint32_t tokens_per_block = draw_block_size(with);
    const int64_t heads = with.between(1, 5), nope = 8 * with.between(1, 4);
    const int64_t rope = with.between(1, 20), rank = 8 * with.between(1, 16);
    return mla_attention_of(
        with, {tokens_per_block, heads, nope, rope, rank, 8 * with.between(1, 4), with.type});
}

// DeepSeek-V2-Lite's, once with all heads.
operation_case mla_attention_of_models_in(draw& with, sluice_element_type cache_type) {
    const int64_t heads = with.number == 0 ? 16 : with.between(1, 3);
    return mla_attention_of(with, {long_block / 2, heads, 128, 64, 512, 128, cache_type});
}

operation_case mla_attention_of_models(draw& with) {
    return mla_attention_of_models_in(with, with.type);
}
operation_case mla_attention_int8(draw& with) {
    return mla_attention_of_models_in(with, SLUICE_I8);
}

} // namespace

std::vector<generator> attention_generators() {
    return {
        {SLUICE_OP_KV_WRITE, "kv_write and kv_gather", false, true, kv_write},
        {SLUICE_OP_KV_WRITE, "kv_write and kv_gather in int8", false, true, kv_write_int8,
         SLUICE_I8},
        {SLUICE_OP_ATTENTION, "attention", false, true, attention},
        {SLUICE_OP_ATTENTION, "attention of models", false, true, attention_of_models},
        {SLUICE_OP_ATTENTION, "attention of an int8 cache", false, true, attention_int8, SLUICE_I8},
        {SLUICE_OP_MLA_ATTENTION, "mla_attention", true, true, mla_attention},
        {SLUICE_OP_MLA_ATTENTION, "mla_attention of models", false, true, mla_attention_of_models},
        {SLUICE_OP_MLA_ATTENTION, "mla_attention of an int8 cache", false, true, mla_attention_int8,
         SLUICE_I8}};
}

} // namespace sluice::checker
