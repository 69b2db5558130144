#include "direct.hpp"

#include "routing_oracle.hpp"

#include <cmath>

namespace sluice::checker {
namespace {

// One operation with its operands as float64 or int32, cut to the rows of the step.
class operand_reader {
  public:
    operand_reader(const operation_case& given, const batch_step& step)
        : given_(given), step_(step), operation_(given.made.operations()[0]) {}

    const program_operation& operation() const { return operation_; }
    template <typename Attributes>
    const Attributes& attributes() const {
        return std::get<Attributes>(operation_.attributes);
    }
    bool has(size_t index) const {
        return index < operation_.inputs.size() && operation_.inputs[index] != value_none;
    }
    std::vector<int64_t> shape(size_t index) const { return shape_of(operation_.inputs[index]); }
    std::vector<int64_t> output_shape(size_t index) const {
        return shape_of(operation_.outputs[index]);
    }
    sluice_element_type output_type(size_t index) const {
        return given_.made.value(operation_.outputs[index]).element_type;
    }

    std::vector<float> floats(size_t index) const {
        const value_number number = operation_.inputs[index];
        if (const auto weight = given_.weights.find(number); weight != given_.weights.end())
            return weight->second.real();
        std::vector<float> values = step_.custom.at(number).as_floats();
        values.resize(static_cast<size_t>(count_of(shape(index))));
        return values;
    }
    std::vector<int32_t> integers(size_t index) const {
        return step_.custom.at(operation_.inputs[index]).as_integers();
    }
    std::vector<int32_t> positions() const {
        std::vector<int32_t> values = step_.position;
        for (size_t i = values.size(); i < step_.token_count; ++i)
            values.push_back(static_cast<int32_t>(i));
        return values;
    }
    std::vector<int32_t> token_ids() const { return step_.token_ids; }

  private:
    std::vector<int64_t> shape_of(value_number number) const {
        return evaluate(given_.made.value(number).dimensions, present_extents(step_));
    }

    const operation_case& given_;
    const batch_step& step_;
    const program_operation& operation_;
};

host_tensor rounded(const operand_reader& of, const std::vector<double>& values,
                    size_t output = 0) {
    return host_tensor::floats(of.output_shape(output),
                               std::vector<float>(values.begin(), values.end()),
                               of.output_type(output));
}

step_outputs same_elements(const operand_reader& of, size_t operand) {
    const auto values = of.floats(operand);
    return {rounded(of, {values.begin(), values.end()})};
}

step_outputs embed(const operand_reader& of) {
    const auto table = of.floats(1);
    const int64_t words = of.shape(1)[0];
    const int64_t width = of.shape(1)[1];
    const float given = of.attributes<sluice_embed_attributes>().scale;
    const double scale = given == 0 ? 1.0 : given;
    std::vector<double> x;
    for (const int32_t id : of.token_ids())
        for (int64_t d = 0; d < width; ++d)
            x.push_back(id < 0 || id >= words ? 0.0
                                              : scale * table[static_cast<size_t>(id * width + d)]);
    return {rounded(of, x)};
}

step_outputs linear(const operand_reader& of) {
    const auto x = of.floats(0);
    const auto weight = of.floats(1);
    const auto bias = of.has(2) ? of.floats(2) : std::vector<float>();
    const auto depth = static_cast<size_t>(of.shape(0)[1]);
    const auto width = static_cast<size_t>(of.shape(1)[0]);
    std::vector<double> y;
    for (size_t row = 0; row < x.size() / depth; ++row)
        for (size_t n = 0; n < width; ++n) {
            double sum = bias.empty() ? 0.0 : bias[n];
            for (size_t k = 0; k < depth; ++k)
                sum += double{x[row * depth + k]} * weight[n * depth + k];
            y.push_back(sum);
        }
    return {rounded(of, y)};
}

step_outputs softmax(const operand_reader& of) {
    const auto x = of.floats(0);
    const auto width = static_cast<size_t>(of.shape(0).back());
    std::vector<double> y(x.size());
    for (size_t begin = 0; begin < x.size(); begin += width) {
        double most = -INFINITY;
        for (size_t i = 0; i < width; ++i) most = std::max<double>(most, x[begin + i]);
        if (most == -INFINITY) continue;
        double sum = 0;
        for (size_t i = 0; i < width; ++i) sum += std::exp(x[begin + i] - most);
        for (size_t i = 0; i < width; ++i) y[begin + i] = std::exp(x[begin + i] - most) / sum;
    }
    return {rounded(of, y)};
}

// z = x y for operands of rank 2.
std::optional<step_outputs> matmul(const operand_reader& of) {
    if (of.shape(0).size() != 2 || of.shape(1).size() != 2) return std::nullopt;
    const auto x = of.floats(0);
    const auto y = of.floats(1);
    const auto depth = static_cast<size_t>(of.shape(0)[1]);
    const auto width = static_cast<size_t>(of.shape(1)[1]);
    std::vector<double> z;
    for (size_t row = 0; row < x.size() / depth; ++row)
        for (size_t n = 0; n < width; ++n) {
            double sum = 0;
            for (size_t k = 0; k < depth; ++k) sum += double{x[row * depth + k]} * y[k * width + n];
            z.push_back(sum);
        }
    return step_outputs{rounded(of, z)};
}

step_outputs route(const operand_reader& of) {
    const auto logits = of.floats(0);
    const auto bias = of.has(1) ? of.floats(1) : std::vector<float>();
    const auto scale = of.has(2) ? of.floats(2) : std::vector<float>();
    const auto position = of.positions();
    const auto token_ids = of.has(5) ? of.token_ids() : std::vector<int32_t>();
    const auto table = of.has(5) ? of.integers(5) : std::vector<int32_t>();
    const auto found = route_directly(of.attributes<sluice_routing_specification>(),
                                      {logits, bias, scale, position, token_ids, table});
    step_outputs outputs{host_tensor::integers(of.output_shape(0), found.index),
                         host_tensor::floats(of.output_shape(1), found.weight),
                         host_tensor::integers(of.output_shape(2), found.count)};
    if (of.operation().outputs.size() > 3 && of.operation().outputs[3] != value_none)
        outputs.push_back(host_tensor::integers({1}, {found.dropped}));
    return outputs;
}

} // namespace

std::optional<step_outputs> direct_outputs(const operation_case& given, const batch_step& step) {
    if (given.made.operations().size() != 1) return std::nullopt;
    const operand_reader of(given, step);
    switch (of.operation().kind) {
    case SLUICE_OP_EMBED:
        return embed(of);
    case SLUICE_OP_LINEAR:
        return linear(of);
    case SLUICE_OP_RESHAPE:
    case SLUICE_OP_COPY:
    case SLUICE_OP_DEQUANTIZE:
        return same_elements(of, 0);
    case SLUICE_OP_SOFTMAX:
        return softmax(of);
    case SLUICE_OP_MATMUL:
        return matmul(of);
    case SLUICE_OP_ROUTE:
        return route(of);
    default:
        return std::nullopt;
    }
}

} // namespace sluice::checker
