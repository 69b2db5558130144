// The largest logit of each row, and the logarithm of what it is among all of them.
#include "program/expansion.hpp"

namespace sluice {

namespace {

constexpr float minus_infinity = -std::numeric_limits<float>::infinity();

class sample_expansion {
  public:
    explicit sample_expansion(expansion& composite)
        : composite_(composite), build_(composite.build), rows_(composite.shape_in(0)[0]) {}

    std::vector<value_number> expand() {
        const value_number present = present_logits();
        const topk_results best = build_.topk(name("best"), present, 1);
        // Of a row without a finite logit, the best one is minus infinity.
        const value_number found = build_.binary(name("found"), SLUICE_BINARY_GREATER, best.value,
                                                 composite_.constant("least", 2, minus_infinity));
        const value_number token = build_.select(name("token_or_none"), found, best.index,
                                                 composite_.integer("no_token", 2, -1));
        return {build_.reshape(name("token"), token, {rows_}),
                composite_.wants(1) ? log_probability(present, best.value, found) : value_none};
    }

  private:
    std::string name(const char* part) const { return composite_.name(part); }

    // f32 [L, V]: minus infinity in place of what is not finite; a NaN compares false.
    value_number present_logits() {
        const value_number logits = composite_.f32(0, "logits_f32");
        const value_number size = build_.unary(name("size"), SLUICE_UNARY_ABS, logits);
        const value_number finite =
            build_.binary(name("finite"), SLUICE_BINARY_LESS_EQUAL, size,
                          composite_.constant("most", 2, std::numeric_limits<float>::max()));
        return build_.select(name("present"), finite, logits,
                             composite_.constant("absent", 2, minus_infinity));
    }

    // f32 [L]: minus the logarithm of sum exp(logit - largest), to which the largest adds 1.
    value_number log_probability(value_number present, value_number largest, value_number found) {
        const value_number zero = composite_.constant("zero", 2, 0);
        const value_number base = build_.select(name("base"), found, largest, zero);
        const value_number below =
            build_.binary(name("below"), SLUICE_BINARY_SUBTRACT, present, base);
        const value_number sum =
            build_.reduce(name("sum"), SLUICE_REDUCE_SUM,
                          build_.unary(name("exponentials"), SLUICE_UNARY_EXP, below));
        const value_number logarithm = build_.unary(name("logarithm"), SLUICE_UNARY_LOG, sum);
        const value_number negated =
            build_.unary(name("negated"), SLUICE_UNARY_AFFINE, logarithm, -1, 0);
        return build_.reshape(name("log_probability"),
                              build_.select(name("log_or_zero"), found, negated, zero), {rows_});
    }

    expansion& composite_;
    program_builder& build_;
    dimension rows_;
};

} // namespace

std::vector<value_number> expand_sample(expansion& composite) {
    return sample_expansion(composite).expand();
}

} // namespace sluice
