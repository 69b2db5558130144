// Multi-head latent attention in both forms; see SLUICE_OP_MLA_ATTENTION.
#include "program/expansion.hpp"

namespace sluice {

namespace {

// Swaps the last two of three axes, or the first two.
value_number turn_last(expansion& composite, value_number x, const char* name) {
    return composite.build.transpose(composite.name(name), x, std::array{0u, 2u, 1u});
}
value_number turn_first(expansion& composite, value_number x, const char* name) {
    return composite.build.transpose(composite.name(name), x, std::array{1u, 0u, 2u});
}

// A part of the cache as it is: f32 [S, P, width].
value_number cached(expansion& composite, const attended_rows& rows, uint32_t part,
                    const char* name) {
    return composite.build.kv_gather(composite.name(name), composite.in(2), rows.block_table, part,
                                     SLUICE_F32);
}

// scale * (content + rope products), masked: f32 [T, H, P]; and its softmax.
value_number shares_of(expansion& composite, const attended_rows& rows, value_number content) {
    program_builder& build = composite.build;
    const value_number keys =
        build.gather_rows(composite.name("rope_keys_of_row"),
                          cached(composite, rows, 1, "rope_keys"), rows.sequence_of_row);
    const value_number turned = turn_last(composite, keys, "rope_keys_turned"); // [T, r, P]
    const value_number products =
        build.matmul(composite.name("rope_products"), composite.f32(1, "q_pe"), turned);
    const value_number sum =
        build.binary(composite.name("products"), SLUICE_BINARY_ADD, content, products);
    const value_number scores =
        build.unary(composite.name("scores"), SLUICE_UNARY_AFFINE, sum,
                    composite.attributes<sluice_mla_attention_attributes>().scale);
    const value_shape shape = build.dimensions(scores);
    const value_number seen =
        build.reshape(composite.name("seen_by_head"), attended_places(composite, rows, shape[2], 0),
                      {shape[0], size::fixed(1), shape[2]});
    const value_number masked =
        build.select(composite.name("masked"), seen, scores,
                     composite.constant("never", 3, -std::numeric_limits<float>::infinity()));
    return build.softmax(composite.name("shares"), masked);
}

std::vector<value_number> expand_absorbed(expansion& composite, const attended_rows& rows) {
    program_builder& build = composite.build;
    const value_number q = turn_first(composite, composite.f32(0, "q_nope"), "q_heads");
    const value_number absorbed = // [H, T, n] [H, n, R]
        build.matmul(composite.name("q_absorbed"), q, composite.f32(3, "key_up"));
    const value_number q_latent = turn_first(composite, absorbed, "q_latent"); // [T, H, R]
    const value_number latent =
        build.gather_rows(composite.name("latent_of_row"), cached(composite, rows, 0, "latent"),
                          rows.sequence_of_row);
    const value_number content = build.matmul(composite.name("content_products"), q_latent,
                                              turn_last(composite, latent, "latent_turned"));
    const value_number shares = shares_of(composite, rows, content);                  // [T, H, P]
    const value_number mixed = build.matmul(composite.name("mixed"), shares, latent); // [T, H, R]
    const value_number value_up =
        turn_last(composite, composite.f32(4, "value_up"), "value_up_turned"); // [H, R, dv]
    const value_number o =
        build.matmul(composite.name("o_heads"), turn_first(composite, mixed, "mixed_heads"),
                     value_up, composite.type_out(0));
    return {turn_first(composite, o, "o")};
}

// The keys or values of all heads for each row: f32 [T, H, P, width].
value_number expanded(expansion& composite, const attended_rows& rows, value_number latent,
                      size_t operand, const std::string& name) {
    program_builder& build = composite.build;
    const value_number up = turn_last(composite, composite.f32(operand, (name + "_up").c_str()),
                                      (name + "_up_turned").c_str()); // [H, R, width]
    const value_number of_sequence =
        build.matmul(composite.name(name.c_str()), latent, up); // [S, H, P, width]
    return build.gather_rows(composite.name((name + "_of_row").c_str()), of_sequence,
                             rows.sequence_of_row);
}

std::vector<value_number> expand_expanded(expansion& composite, const attended_rows& rows) {
    program_builder& build = composite.build;
    const value_shape q_shape = composite.shape_in(0); // [T, H, n]
    const value_number cache = cached(composite, rows, 0, "latent");
    const value_shape cache_shape = build.dimensions(cache);
    const value_number latent =
        build.reshape(composite.name("latent_for_heads"), cache,
                      {cache_shape[0], size::fixed(1), cache_shape[1], cache_shape[2]});
    const value_number keys = expanded(composite, rows, latent, 3, "key");
    const value_number keys_turned = build.transpose(composite.name("keys_turned"), keys,
                                                     std::array{0u, 1u, 3u, 2u}); // [T, H, n, P]
    const value_number q = build.reshape(composite.name("q_rows"), composite.f32(0, "q_nope"),
                                         {q_shape[0], q_shape[1], size::fixed(1), q_shape[2]});
    const value_number products =
        build.matmul(composite.name("content_rows"), q, keys_turned); // [T, H, 1, P]
    const value_number content = build.reshape(composite.name("content_products"), products,
                                               {q_shape[0], q_shape[1], cache_shape[1]});
    const value_number shares = shares_of(composite, rows, content);
    const value_number share_rows =
        build.reshape(composite.name("share_rows"), shares,
                      {q_shape[0], q_shape[1], size::fixed(1), cache_shape[1]});
    const value_number values = expanded(composite, rows, latent, 4, "value");
    const value_number o = build.matmul(composite.name("o_rows"), share_rows, values,
                                        composite.type_out(0)); // [T, H, 1, dv]
    return {build.reshape(composite.name("o"), o, composite.shape_out(0))};
}

} // namespace

std::vector<value_number> expand_mla_attention(expansion& composite) {
    const attended_rows rows = attended_rows_of(composite, 5);
    // Where the form is free, the absorbed one keeps the gathered cache small.
    const auto form = composite.attributes<sluice_mla_attention_attributes>().form;
    return form == SLUICE_MLA_FORM_EXPANDED ? expand_expanded(composite, rows)
                                            : expand_absorbed(composite, rows);
}

} // namespace sluice
