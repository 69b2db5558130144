// Cases of the dense layers, rope and activations.
#include "generators.hpp"

#include <memory>

namespace sluice::checker {
namespace {

// Sizes for rows of a matrix in a stored format: the packed ones want multiples of 8 (4-bit words)
// and whole bytes; the plain ones take anything.
int64_t width(draw& with, int64_t most) {
    const int64_t any = with.between(1, most);
    return with.format.scale_type == 0 ? any : (any + 7) / 8 * 8;
}
// Inputs of a matrix: at least a few groups, and not a whole number of them.
int64_t depth(draw& with) {
    // One row and many columns: room that was sized by rows would be too small.
    const int64_t any = with.between(1, with.number == 1 ? 1100 : 300);
    return with.format.scale_type == 0 ? any : (any + 31) / 32 * 32 + 8;
}

operation_case embed(draw& with) {
    case_builder to(with, with.rows());
    const int64_t words = width(with, 60);
    const value_number table = to.weight({words, depth(with)}, 1);
    auto ids = whole_numbers(with.random, to.rows(), static_cast<int32_t>(words));
    if (ids.size() > 2) {
        ids[0] = -1;
        ids[1] = static_cast<int32_t>(words);
    }
    to.step().token_ids = ids;
    const value_number x = to.program().embed("x", to.program().batch_input(SLUICE_INPUT_TOKEN_IDS),
                                              table, with.type, with.coin() ? 1.0F : 2.5F);
    return to.finish({x});
}

operation_case rms_norm(draw& with) {
    case_builder to(with, with.rows());
    auto attributes = SLUICE_INIT(sluice_rms_norm_attributes);
    attributes.epsilon = 1e-5F;
    attributes.weight_offset = with.coin() ? 1.0F : 0.0F;
    const int64_t group = with.between(1, 130);
    const int64_t groups = with.coin() ? 1 : with.between(2, 5);
    attributes.group_width = groups == 1 ? 0 : static_cast<uint32_t>(group);
    const value_shape shape{tokens(), fixed(groups * group)};
    const value_number x = to.floats(shape);
    const bool adds = with.coin();
    const value_number addend = adds ? to.floats(shape) : value_none;
    const auto made =
        to.program().rms_norm("y", x, to.vector(group, 1), addend, attributes, with.type);
    return adds ? to.finish({made.normed, made.sum}) : to.finish({made.normed});
}

operation_case layer_norm(draw& with) {
    case_builder to(with, with.rows());
    const int64_t size = with.between(2, 260);
    const value_number x = to.floats({tokens(), fixed(size)});
    const value_number bias = with.coin() ? to.vector(size) : value_none;
    return to.finish({to.program().layer_norm("y", x, to.vector(size, 1), bias, 1e-5F, with.type)});
}

operation_case linear(draw& with) {
    case_builder to(with, with.rows());
    const int64_t in = depth(with);
    const int64_t out = width(with, 200);
    const value_number x = to.floats({tokens(), fixed(in)});
    const value_number weight = to.weight({out, in}, 0.1F);
    const value_number bias = with.coin() ? to.vector(out) : value_none;
    return to.finish({to.program().linear("y", x, weight, bias, with.type)});
}

sluice_rope_attributes rope_attributes(draw& with, uint32_t dimension) {
    auto rope = SLUICE_INIT(sluice_rope_attributes);
    rope.dimension = dimension;
    rope.interleaved = with.coin() ? 1 : 0;
    rope.inverse = with.coin() ? 1 : 0;
    rope.scaling = static_cast<uint32_t>(with.between(SLUICE_ROPE_PLAIN, SLUICE_ROPE_TABLE));
    rope.magnitude = with.coin() ? 0.0F : 1.25F;
    rope.base = with.coin() ? 10000 : 500000;
    rope.factor = 8;
    rope.original_length = 64;
    rope.low_frequency_factor = 1;
    rope.high_frequency_factor = 4;
    rope.beta_fast = 32;
    rope.beta_slow = 1;
    rope.truncate_bounds = static_cast<uint32_t>(with.between(0, 2));
    return rope;
}

operation_case rope(draw& with) {
    case_builder to(with, with.rows());
    const int64_t heads = with.between(1, 5);
    const auto pairs = static_cast<uint32_t>(with.between(1, 33));
    const int64_t size = 2 * pairs + with.between(0, 7);
    sluice_rope_attributes attributes = rope_attributes(with, 2 * pairs);
    std::shared_ptr<std::vector<double>> table;
    if (attributes.scaling == SLUICE_ROPE_TABLE) {
        table = std::make_shared<std::vector<double>>();
        for (uint32_t i = 0; i < pairs; ++i) table->push_back(1.0 / (1 + i * 3));
        attributes.table = table->data();
        attributes.table_count = pairs;
    }
    // Small positions: the angle itself carries an error that grows with them in float32.
    to.step().position = whole_numbers(with.random, to.rows(), 100);
    const value_number x = to.floats({tokens(), fixed(heads), fixed(size)});
    return to.finish({to.program().rope("y", x, to.program().batch_input(SLUICE_INPUT_POSITION),
                                        attributes, table)});
}

operation_case activation(draw& with) {
    case_builder to(with, with.rows());
    auto attributes = SLUICE_INIT(sluice_activation_attributes);
    attributes.activation =
        static_cast<uint32_t>(with.between(SLUICE_ACTIVATION_SILU, SLUICE_ACTIVATION_RELU_SQUARED));
    const value_number x = to.floats({tokens(), fixed(with.between(1, 90))});
    return to.finish({to.program().activation("y", x, attributes)});
}

sluice_activation_attributes gate_attributes(draw& with) {
    auto attributes = SLUICE_INIT(sluice_activation_attributes);
    attributes.activation =
        static_cast<uint32_t>(with.between(SLUICE_ACTIVATION_SILU, SLUICE_ACTIVATION_SWIGLU_OAI));
    attributes.gate_layout =
        static_cast<uint32_t>(with.between(SLUICE_GATE_SPLIT, SLUICE_GATE_INTERLEAVED));
    if (attributes.activation == SLUICE_ACTIVATION_SWIGLU_OAI) {
        attributes.alpha = 1.702F;
        attributes.clamp = with.coin() ? 1.5F : 0.0F;
    }
    return attributes;
}

operation_case gated_activation(draw& with) {
    case_builder to(with, with.rows());
    const auto attributes = gate_attributes(with);
    const int64_t size = with.between(1, 90);
    const bool split = attributes.gate_layout == SLUICE_GATE_SPLIT;
    const value_number gate = to.floats({tokens(), fixed(split ? size : 2 * size)});
    const value_number up = split ? to.floats({tokens(), fixed(size)}) : value_none;
    return to.finish({to.program().gated_activation("y", gate, up, attributes)});
}

operation_case gated_mlp(draw& with) {
    case_builder to(with, with.rows());
    const auto attributes = gate_attributes(with);
    const int64_t hidden = depth(with);
    const int64_t inner = width(with, 120);
    const bool split = attributes.gate_layout == SLUICE_GATE_SPLIT;
    const value_number x = to.floats({tokens(), fixed(hidden)});
    const value_number gate = to.weight({split ? inner : 2 * inner, hidden}, 0.1F);
    const value_number up = split ? to.weight({inner, hidden}, 0.1F) : value_none;
    const value_number down = to.weight({hidden, inner}, 0.1F);
    return to.finish({to.program().gated_mlp("y", x, gate, up, down, attributes, with.type)});
}

operation_case dequantize(draw& with) {
    case_builder to(with, 1, false);
    const value_number weight =
        with.coin() ? to.weight({width(with, 40), depth(with)}, 0.1F)
                    : to.weight({with.between(1, 3), width(with, 20), depth(with)}, 0.1F);
    return to.finish({to.program().dequantize("y", weight)});
}

} // namespace

std::vector<generator> dense_generators() {
    return {{SLUICE_OP_EMBED, "embed", true, true, embed},
            {SLUICE_OP_RMS_NORM, "rms_norm", false, true, rms_norm},
            {SLUICE_OP_LAYER_NORM, "layer_norm", false, true, layer_norm},
            {SLUICE_OP_LINEAR, "linear", true, true, linear},
            {SLUICE_OP_ROPE, "rope", false, true, rope},
            {SLUICE_OP_ACTIVATION, "activation", false, true, activation},
            {SLUICE_OP_GATED_ACTIVATION, "gated_activation", false, true, gated_activation},
            {SLUICE_OP_GATED_MLP, "gated_mlp", true, true, gated_mlp},
            {SLUICE_OP_DEQUANTIZE, "dequantize", true, false, dequantize}};
}

} // namespace sluice::checker
