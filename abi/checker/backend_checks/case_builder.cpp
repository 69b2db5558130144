#include "generators.hpp"

namespace sluice::checker {

case_builder::case_builder(draw& with, uint32_t rows, bool padded)
    : draw_(with), rows_(rows), bound_(rows), builder_("checker") {
    if (padded) bound_ += with.between(0, 3);
    bound_ = std::max<int64_t>(bound_, 1);
    step_.token_count = rows;
}

std::vector<int64_t> case_builder::sizes(const value_shape& shape) const {
    extent_sizes extents{0, static_cast<uint32_t>(bound_), 1, 1, 1};
    return evaluate(shape, extents);
}

value_number case_builder::tensor(value_shape shape, host_tensor given) {
    const value_number made =
        builder_.custom_input(fmt::format("input{}", names_++), given.type, std::move(shape));
    step_.custom.emplace(made, std::move(given));
    return made;
}

value_number case_builder::floats(value_shape shape, sluice_element_type type) {
    const auto sized = sizes(shape);
    if (type == SLUICE_ELEMENT_UNKNOWN) type = draw_.type;
    return tensor(std::move(shape),
                  host_tensor::floats(sized, normal_numbers(draw_.random, count_of(sized)), type));
}

value_number case_builder::row_integers(value_shape shape, std::vector<int32_t> present) {
    const auto sized = sizes(shape);
    present.resize(static_cast<size_t>(count_of(sized)), -1);
    return tensor(std::move(shape), host_tensor::integers(sized, present));
}

value_number case_builder::add_weight(std::vector<int64_t> shape, const weight_case& weight) {
    const value_number made =
        builder_.weight(fmt::format("weight{}", names_++), shape, weight.format());
    weights_.emplace(made, weight);
    return made;
}

value_number case_builder::weight(std::vector<int64_t> shape, float scale) {
    const size_t rank = shape.size();
    const int64_t matrices = rank == 3 ? shape[0] : 1;
    const int64_t rows = rank == 1 ? shape[0] : shape[rank - 2];
    const int64_t columns = rank == 1 ? 1 : shape[rank - 1];
    return add_weight(shape,
                      weight_case(draw_.random, draw_.format, matrices, rows, columns, scale));
}

// shape: [size] or [count, size]
value_number case_builder::add_vectors(const std::vector<int64_t>& shape,
                                       std::vector<float> values) {
    if (draw_.coin()) {
        const auto type = draw_.coin() ? SLUICE_F32 : draw_.type;
        value_shape fixed_shape;
        for (const int64_t axis : shape) fixed_shape.push_back(fixed(axis));
        return tensor(fixed_shape, host_tensor::floats(shape, values, type));
    }
    const int64_t columns = shape.size() == 1 ? 1 : shape[1];
    return add_weight(shape, weight_case(std::move(values), 1, shape[0], columns));
}

value_number case_builder::vector(int64_t size, float offset) {
    auto values = normal_numbers(draw_.random, size, 0.3F);
    for (float& value : values) value += offset;
    return vector(std::move(values));
}

value_number case_builder::vector(std::vector<float> values) {
    const auto size = static_cast<int64_t>(values.size());
    return add_vectors({size}, std::move(values));
}

value_number case_builder::vectors(int64_t count, int64_t size) {
    return add_vectors({count, size}, normal_numbers(draw_.random, count * size, 0.3F));
}

operation_case case_builder::finish(std::initializer_list<value_number> outputs) {
    for (const value_number output : outputs)
        if (output != value_none) builder_.output(output);
    operation_case made(builder_.finish());
    made.bound[SLUICE_EXTENT_TOKENS] = static_cast<uint32_t>(bound_);
    made.weights = std::move(weights_);
    made.steps.push_back(std::move(step_));
    return made;
}

std::vector<generator> all_generators() {
    std::vector<generator> all;
    for (const auto& list : {dense_generators(), attention_generators(), expert_generators(),
                             movement_generators(), elementwise_generators(), axis_generators()})
        all.insert(all.end(), list.begin(), list.end());
    return all;
}

} // namespace sluice::checker
