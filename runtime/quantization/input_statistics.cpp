#include "quantization/input_statistics.hpp"

#include "base/element_type.hpp"
#include "program/builder.hpp"

#include <algorithm>
#include <cstring>

namespace sluice {

namespace {

value_number rows_input(program_builder& build, const std::string& name, int64_t width) {
    return build.custom_input(name, SLUICE_F32, {size::tokens(), size::fixed(width)});
}

// The sum over the rows of one step: what it is added to is an input that stays zero.
program gram_program(int64_t width) {
    program_builder build("gram");
    const value_number x = rows_input(build, "x", width);
    const value_number sum =
        build.custom_input("no_sum", SLUICE_F32, {size::fixed(width), size::fixed(width)});
    const value_number rows = build.custom_input("no_rows", SLUICE_F32, {size::fixed(1)});
    build.output(build.accumulate_gram("gram", x, value_none, sum, rows, 0).sum);
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
    program_builder build("inner layer");
    const value_number x = rows_input(build, "x", layer.gate->column_count);
    const value_number gate =
        build.linear("gate", x, weight_of(build, *layer.gate), value_none, SLUICE_F32);
    value_number up = value_none;
    if (layer.up != nullptr)
        up = build.linear("up", x, weight_of(build, *layer.up), value_none, SLUICE_F32);
    build.output(build.gated_activation("inner", gate, up, layer.activation));
    return build.finish();
}

// Calls `run` with the begin and the number of the rows of each step.
template <typename Function>
void by_step(size_t row_count, uint32_t rows_max, Function&& run) {
    for (size_t begin = 0; begin < row_count; begin += rows_max)
        run(begin, std::min<size_t>(rows_max, row_count - begin));
}

} // namespace

size_t row_array::row_bytes() const { return size_t(width) * element_bits(type) / 8; }

moment_collector::moment_collector(std::shared_ptr<plugin_instance> backend, uint32_t rows_max)
    : backend_(std::move(backend)), rows_max_(rows_max) {}

row_array moment_collector::rows_of_inner(const std::shared_ptr<const checkpoint>& weights,
                                          const inner_layer& layer, const row_array& x,
                                          std::span<const uint32_t> rows) const {
    std::vector<weight_request> requests{*layer.gate};
    if (layer.up != nullptr) requests.push_back(*layer.up);
    part_runner runner(backend_, weights, inner_program(layer), requests, rows_max_);
    row_array inner;
    inner.width = runner.part().value(runner.part().at("inner")).dimensions[1].offset;
    inner.bytes.resize(rows.size() * inner.row_bytes());
    std::vector<std::byte> gathered(size_t(rows_max_) * x.row_bytes());
    const std::vector<int32_t> tokens(rows_max_);
    by_step(rows.size(), rows_max_, [&](size_t begin, size_t count) {
        for (size_t i = 0; i < count; ++i)
            std::memcpy(gathered.data() + i * x.row_bytes(), x.row(rows[begin + i]), x.row_bytes());
        runner.write("x", std::span(gathered).first(count * x.row_bytes()));
        runner.run(plan_of_one_sequence(std::span(tokens).first(count), 1));
        runner.read(
            "inner",
            std::span(inner.bytes).subspan(begin * inner.row_bytes(), count * inner.row_bytes()));
    });
    return inner;
}

// One gram of rows [x', x] has both sums in it. Adds up in double: a float32 sum over many steps
// would lose the small moments.
second_moments moment_collector::of_rows(const row_array& x, const row_array* original,
                                         std::span<const uint32_t> rows,
                                         std::span<const float> factor) {
    second_moments result;
    if (rows.empty()) return result;
    const auto width = size_t(x.width);
    const size_t before = original != nullptr ? width : 0;
    const size_t whole = before + width;
    std::unique_ptr<part_runner>& runner = by_width_[int64_t(whole)];
    std::vector<float> sum(whole * whole), gathered(size_t(rows_max_) * whole);
    if (runner == nullptr) {
        const float no_rows = 0;
        runner = std::make_unique<part_runner>(backend_, nullptr, gram_program(int64_t(whole)),
                                               std::span<const weight_request>(), rows_max_);
        runner->write("no_sum", std::as_bytes(std::span(sum)));
        runner->write("no_rows", std::as_bytes(std::span(&no_rows, 1)));
    }
    std::vector<double> total(whole * whole);
    const std::vector<int32_t> tokens(rows_max_);
    by_step(rows.size(), rows_max_, [&](size_t begin, size_t count) {
        for (size_t i = 0; i < count; ++i) {
            float* row = gathered.data() + i * whole;
            const uint32_t number = rows[begin + i];
            if (original != nullptr) std::memcpy(row, original->row(number), x.row_bytes());
            std::memcpy(row + before, x.row(number), x.row_bytes());
            if (factor.empty()) continue;
            for (size_t k = 0; k < whole; ++k) row[k] *= factor[begin + i];
        }
        runner->write("x", std::as_bytes(std::span(gathered).first(count * whole)));
        runner->run(plan_of_one_sequence(std::span(tokens).first(count), 1));
        runner->read("gram", std::as_writable_bytes(std::span(sum)));
        for (size_t i = 0; i < sum.size(); ++i) total[i] += double(sum[i]);
    });
    const auto block = [&](size_t first_row) {
        std::vector<float> values;
        for (size_t i = 0; i < width; ++i)
            for (size_t j = 0; j < width; ++j)
                values.push_back(float(total[(first_row + i) * whole + before + j]));
        return values;
    };
    result.gram = block(before);
    if (original != nullptr) result.cross = block(0);
    result.row_count = double(rows.size());
    return result;
}

} // namespace sluice
