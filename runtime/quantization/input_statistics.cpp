#include "quantization/input_statistics.hpp"

#include "base/element_type.hpp"
#include "program/builder.hpp"

#include <algorithm>
#include <cstring>

namespace sluice {

namespace {

// What is added to a sum of no rows: x and factor are inputs, and the sum of the step is a result.
void add_gram(program_builder& build, value_number x, int64_t width) {
    const dimension square[] = {size::fixed(width), size::fixed(width)};
    const value_number factor =
        build.custom_input("factor", SLUICE_F32, {size::tokens(), size::fixed(1)});
    const value_number sum =
        build.custom_input("no_sum", SLUICE_F32, {std::begin(square), std::end(square)});
    const value_number rows = build.custom_input("no_rows", SLUICE_F32, {size::fixed(1)});
    const value_number weighted = build.binary("weighted", SLUICE_BINARY_MULTIPLY, x, factor);
    const auto results = build.accumulate_gram("gram", weighted, value_none, sum, rows, 0);
    build.output(results.sum);
}

value_number rows_input(program_builder& build, int64_t width) {
    return build.custom_input("x", SLUICE_F32, {size::tokens(), size::fixed(width)});
}

program gram_program(int64_t width) {
    program_builder build("gram");
    add_gram(build, rows_input(build, width), width);
    return build.finish();
}

value_number weight_of(program_builder& build, const weight_request& request) {
    const int64_t dimensions[] = {request.row_count, request.column_count};
    // The runner asks the checkpoint for the format.
    auto format = SLUICE_INIT(sluice_weight_format);
    format.element_type = SLUICE_F32;
    return build.weight(request.name, dimensions, format);
}

program inner_program(const inner_layer& layer) {
    program_builder build("gram of an inner layer");
    const value_number x = rows_input(build, layer.gate->column_count);
    const value_number gate =
        build.linear("gate", x, weight_of(build, *layer.gate), value_none, SLUICE_F32);
    value_number up = value_none;
    if (layer.up != nullptr)
        up = build.linear("up", x, weight_of(build, *layer.up), value_none, SLUICE_F32);
    const value_number h = build.gated_activation("inner", gate, up, layer.activation);
    add_gram(build, h, build.dimensions(h)[1].offset);
    return build.finish();
}

} // namespace

size_t row_array::row_bytes() const { return size_t(width) * element_bits(type) / 8; }

moment_collector::moment_collector(std::shared_ptr<plugin_instance> backend,
                                   std::shared_ptr<const checkpoint> weights, uint32_t rows_max)
    : backend_(std::move(backend)), weights_(std::move(weights)), rows_max_(rows_max) {}

second_moments moment_collector::of_rows(const row_array& x, std::span<const uint32_t> rows,
                                         std::span<const float> factor) {
    std::unique_ptr<part_runner>& runner = by_width_[x.width];
    if (runner == nullptr)
        runner = std::make_unique<part_runner>(backend_, weights_, gram_program(x.width),
                                               std::span<const weight_request>(), rows_max_);
    return run(*runner, x.width, x, rows, factor);
}

second_moments moment_collector::of_inner(const inner_layer& layer, const row_array& x,
                                          std::span<const uint32_t> rows,
                                          std::span<const float> factor) {
    std::vector<weight_request> requests{*layer.gate};
    if (layer.up != nullptr) requests.push_back(*layer.up);
    part_runner runner(backend_, weights_, inner_program(layer), requests, rows_max_);
    const int64_t width = runner.part().value(runner.part().at("inner")).dimensions[1].offset;
    return run(runner, width, x, rows, factor);
}

// Adds up in double: a float32 sum over many steps would lose the small moments.
second_moments moment_collector::run(part_runner& runner, int64_t width, const row_array& x,
                                     std::span<const uint32_t> rows,
                                     std::span<const float> factor) const {
    second_moments result;
    if (rows.empty()) return result;
    const auto count = size_t(width) * size_t(width);
    std::vector<double> total(count);
    std::vector<float> sum(count), scale(rows_max_, 1.0f);
    const float no_rows = 0;
    runner.write("no_sum", std::as_bytes(std::span(sum)));
    runner.write("no_rows", std::as_bytes(std::span(&no_rows, 1)));
    std::vector<std::byte> gathered(size_t(rows_max_) * x.row_bytes());
    const std::vector<int32_t> tokens(rows_max_);
    for (size_t begin = 0; begin < rows.size(); begin += rows_max_) {
        const size_t in_step = std::min<size_t>(rows_max_, rows.size() - begin);
        for (size_t i = 0; i < in_step; ++i) {
            std::memcpy(gathered.data() + i * x.row_bytes(), x.row(rows[begin + i]), x.row_bytes());
            if (!factor.empty()) scale[i] = factor[begin + i];
        }
        runner.write("x", std::span(gathered).first(in_step * x.row_bytes()));
        runner.write("factor", std::as_bytes(std::span(scale).first(in_step)));
        runner.run(plan_of_one_sequence(std::span(tokens).first(in_step), 1));
        runner.read("gram", std::as_writable_bytes(std::span(sum)));
        for (size_t i = 0; i < count; ++i) total[i] += double(sum[i]);
    }
    result.gram.assign(total.begin(), total.end());
    result.row_count = double(rows.size());
    return result;
}

} // namespace sluice
