// Attention over gathered keys and values: for each row of the step a copy of its sequence's cache,
// which is plain and slow, as an oracle may be.
#include "program/expansion.hpp"

namespace sluice {

attended_rows attended_rows_of(const expansion& composite, size_t first) {
    return {composite.in(first), composite.in(first + 1), composite.in(first + 2),
            composite.in(first + 3)};
}

value_number attended_places(expansion& composite, const attended_rows& rows,
                             const dimension& places, uint32_t window) {
    program_builder& build = composite.build;
    const value_shape column = {build.dimensions(rows.position)[0], size::fixed(1)};
    const value_number place = build.iota(composite.name("place"), {places});
    // A row of sequence -1 has length 0 and so attends to nothing.
    const value_number length =
        build.gather_rows(composite.name("length"), rows.kv_length, rows.sequence_of_row);
    const value_number length_column =
        build.reshape(composite.name("length_column"), length, column);
    const value_number position = build.reshape(composite.name("position"), rows.position, column);
    const value_number cached = build.binary(composite.name("cached"), SLUICE_BINARY_LESS, place,
                                             length_column); // [T, P]
    const value_number past =
        build.binary(composite.name("past"), SLUICE_BINARY_LESS_EQUAL, place, position);
    value_number seen = build.binary(composite.name("seen"), SLUICE_BINARY_AND, cached, past);
    if (window != 0) {
        const value_number begin =
            build.binary(composite.name("window_begin"), SLUICE_BINARY_SUBTRACT, position,
                         composite.integer("window", 2, static_cast<float>(window)));
        const value_number near =
            build.binary(composite.name("near"), SLUICE_BINARY_GREATER, place, begin);
        seen = build.binary(composite.name("seen_near"), SLUICE_BINARY_AND, seen, near);
    }
    return seen;
}

namespace {

// The part of the cache that belongs to each row's sequence: f32 [T, P, heads, width].
value_number cached_heads(expansion& composite, const attended_rows& rows, uint32_t part,
                          int64_t heads, int64_t width, const char* name) {
    program_builder& build = composite.build;
    const value_number all =
        build.kv_gather(composite.name(name), composite.in(1), rows.block_table, part, SLUICE_F32);
    const std::string row_name = composite.name(name) + "_of_row";
    const value_number of_row = build.gather_rows(row_name, all, rows.sequence_of_row);
    const value_shape& shape = build.dimensions(of_row);
    return build.reshape(composite.name(name) + "_heads", of_row,
                         {shape[0], shape[1], size::fixed(heads), size::fixed(width)});
}

// Softmax over the places with the head's sink as one place more, whose share is then left out.
value_number softmax_with_sinks(expansion& composite, value_number scores, size_t sinks_operand) {
    program_builder& build = composite.build;
    const value_shape shape = build.dimensions(scores); // [T, Hkv, G, P]
    const value_number sinks =
        build.reshape(composite.name("sinks_of_head"), composite.f32(sinks_operand, "sinks"),
                      {size::fixed(1), shape[1], shape[2], size::fixed(1)});
    const value_number zeros =
        build.fill(composite.name("zeros"), SLUICE_F32,
                   {shape[0], size::fixed(1), size::fixed(1), size::fixed(1)}, 0);
    const value_number column =
        build.binary(composite.name("sinks_of_row"), SLUICE_BINARY_ADD, zeros, sinks);
    const value_number joined =
        build.concat(composite.name("scores_and_sink"), std::array{scores, column}, 3);
    const value_number shares = build.softmax(composite.name("shares_and_sink"), joined);
    return build.slice(composite.name("shares"), shares, 3, 0, shape[3]);
}

} // namespace

std::vector<value_number> expand_attention(expansion& composite) {
    program_builder& build = composite.build;
    const auto& attributes = composite.attributes<sluice_attention_attributes>();
    const attended_rows rows = attended_rows_of(composite, 2);
    const value_shape q_shape = composite.shape_in(0); // [T, Hq, dk]
    const value_shape o_shape = composite.shape_out(0);
    const dimension kv_heads = size::fixed(attributes.kv_heads);
    const dimension group = size::fixed(q_shape[1].offset / attributes.kv_heads);

    const value_number q = build.reshape(composite.name("q_groups"), composite.f32(0, "q"),
                                         {q_shape[0], kv_heads, group, q_shape[2]});
    const value_number keys =
        cached_heads(composite, rows, 0, attributes.kv_heads, q_shape[2].offset, "keys");
    const value_number keys_turned = build.transpose(composite.name("keys_turned"), keys,
                                                     std::array{0u, 2u, 3u, 1u}); // [T, Hkv, dk, P]
    value_number scores = build.matmul(composite.name("products"), q, keys_turned);
    scores = build.unary(composite.name("scores"), SLUICE_UNARY_AFFINE, scores, attributes.scale);
    if (attributes.softcap > 0) {
        const value_number cap = composite.constant("softcap", 4, attributes.softcap);
        scores = build.binary(composite.name("capped_by"), SLUICE_BINARY_DIVIDE, scores, cap);
        scores = build.unary(composite.name("capped_tanh"), SLUICE_UNARY_TANH, scores);
        scores = build.binary(composite.name("capped"), SLUICE_BINARY_MULTIPLY, scores, cap);
    }
    const dimension places = build.dimensions(scores)[3];
    const value_number seen = build.reshape(
        composite.name("seen_by_head"), attended_places(composite, rows, places, attributes.window),
        {q_shape[0], size::fixed(1), size::fixed(1), places});
    scores = build.select(composite.name("masked"), seen, scores,
                          composite.constant("never", 4, -std::numeric_limits<float>::infinity()));
    const value_number shares = composite.has(6) ? softmax_with_sinks(composite, scores, 6)
                                                 : build.softmax(composite.name("shares"), scores);

    const value_number values =
        cached_heads(composite, rows, 1, attributes.kv_heads, o_shape[2].offset, "values");
    const value_number values_turned = build.transpose(
        composite.name("values_turned"), values, std::array{0u, 2u, 1u, 3u}); // [T, Hkv, P, dv]
    const value_number mixed =
        build.matmul(composite.name("mixed"), shares, values_turned, composite.type_out(0));
    return {build.reshape(composite.name("o"), mixed, o_shape)};
}

} // namespace sluice
