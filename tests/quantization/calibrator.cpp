// What calibration hands out for each module, against sums over values of the whole program.
#include "quantization/calibrator.hpp"

#include "base/element_type.hpp"
#include "base/error_check.hpp"
#include "engine/part_runner.hpp"
#include "program/slice.hpp"
#include "quantization/quantizer_fixture.hpp"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <random>

using namespace sluice;
using namespace sluice::test;

namespace {

std::vector<std::vector<int32_t>> draw_windows(uint32_t vocabulary_size) {
    std::mt19937 random(3);
    std::uniform_int_distribution<int32_t> token(0, int32_t(vocabulary_size) - 1);
    std::vector<std::vector<int32_t>> windows;
    for (const size_t size : {17, 5, 12}) {
        windows.emplace_back(size);
        for (int32_t& each : windows.back()) each = token(random);
    }
    return windows;
}

// A golden model as calibration sees it.
struct calibrated_model {
    quantizer_fixture fixture{{}};
    std::shared_ptr<const checkpoint> files;
    std::unique_ptr<model_program> model;
    module_list list;
    calibration_options options;
    std::vector<std::optional<module_use>> uses;

    explicit calibrated_model(const std::string& family)
        : files(open_checkpoint(golden_folder(family))) {
        const model_config config = read_model_config(files->config());
        model_program_options how;
        how.weight_format = weight_formats_of(*files);
        model = std::make_unique<model_program>(build_model_program(config, how));
        list = list_modules(*model);
        options.windows = draw_windows(config.vocabulary_size);
        options.few_rows = 1 << 20;
        options.weigh_by_router = false;
        uses = find_module_uses(*model, list);
    }

    calibrator make() const { return {*model, list, files, fixture.backend(), options}; }

    std::vector<float> weights_of(size_t module) const {
        const stored_module& which = list.modules[module];
        return files
            ->tensor(which.request.slices.front().tensor, {which.row_count, which.column_count})
            .to_f32();
    }
    // A value of the whole program for all tokens, [tokens, width].
    std::vector<float> values_of(const std::string& name) const {
        part_runner runner(fixture.backend(), files,
                           slice_program(model->step, std::vector<std::string>{name}),
                           model->weights, 32);
        const program_value& value = runner.part().value(runner.part().at(name));
        const auto width = size_t(value.dimensions.size() > 1 ? value.dimensions[1].offset : 1);
        std::vector<float> all;
        for (const auto& window : options.windows) {
            runner.run(plan_of_one_sequence(
                window,
                runner.part().states().empty() ? 1 : model->step.states()[0].tokens_per_block));
            std::vector<std::byte> bytes(window.size() * width * 4);
            runner.read(name, bytes);
            for (size_t i = 0; i < window.size() * width; ++i) {
                float number = 0;
                int32_t whole = 0;
                std::memcpy(&number, bytes.data() + i * 4, 4);
                std::memcpy(&whole, bytes.data() + i * 4, 4);
                all.push_back(value.element_type == SLUICE_I32 ? float(whole) : number);
            }
        }
        return all;
    }
};

float silu(float x) { return x / (1 + std::exp(-x)); }

// What a module multiplies, row by row, computed apart from the calibrator.
std::vector<std::vector<float>> rows_of(const calibrated_model& with, size_t module) {
    const module_use& use = *with.uses[module];
    const auto& step = with.model->step;
    const program_operation& operation = step.operations()[use.operation];
    const auto x = with.values_of(step.value(use.rows).name);
    size_t tokens = 0;
    for (const auto& window : with.options.windows) tokens += window.size();
    const size_t width = x.size() / tokens;
    std::vector<float> index;
    if (use.expert) index = with.values_of(step.value(operation.inputs[1]).name);
    const size_t choices = index.size() / tokens;
    std::vector<std::vector<float>> rows;
    for (size_t t = 0; t < tokens; ++t) {
        bool chosen = !use.expert;
        for (size_t c = 0; c < choices; ++c)
            chosen = chosen || index[t * choices + c] == float(*use.expert);
        if (chosen)
            rows.emplace_back(x.begin() + long(t * width), x.begin() + long((t + 1) * width));
    }
    if (!use.is_down) return rows;
    std::string base = with.list.modules[module].name;
    base.resize(base.rfind('.'));
    const auto matrix = [&](const char* part) {
        for (size_t i = 0; i < with.list.modules.size(); ++i)
            if (with.list.modules[i].name == base + part) return with.weights_of(i);
        FAIL("no module ", base, part);
        return std::vector<float>();
    };
    const auto gate = matrix(".gate_proj"), up = matrix(".up_proj");
    const size_t inner = gate.size() / width;
    for (auto& row : rows) {
        std::vector<float> h(inner);
        for (size_t i = 0; i < inner; ++i) {
            float g = 0, u = 0;
            for (size_t k = 0; k < width; ++k) {
                g += gate[i * width + k] * row[k];
                u += up[i * width + k] * row[k];
            }
            h[i] = silu(g) * u;
        }
        row = std::move(h);
    }
    return rows;
}

double worst_difference(const second_moments& found, const std::vector<std::vector<float>>& rows) {
    if (rows.empty()) return found.gram.empty() ? 0 : 1;
    const size_t width = rows[0].size();
    REQUIRE(found.gram.size() == width * width);
    double largest = 0, worst = 0;
    for (size_t i = 0; i < width; ++i)
        for (size_t j = 0; j < width; ++j) {
            double sum = 0;
            for (const auto& row : rows) sum += double(row[i]) * double(row[j]);
            largest = std::max(largest, std::abs(sum));
            worst = std::max(worst, std::abs(sum - double(found.gram[i * width + j])));
        }
    return worst / std::max(largest, 1e-30);
}

std::vector<std::vector<size_t>> modules_by_unit(const calibrated_model& with,
                                                 const calibrator& text) {
    std::vector<std::vector<size_t>> units(text.unit_count());
    for (size_t i = 0; i < with.list.modules.size(); ++i)
        if (with.uses[i]) units[text.unit_of(i)].push_back(i);
    return units;
}

void check_family(const std::string& family, std::string_view named) {
    CAPTURE(family);
    const calibrated_model with(family);
    calibrator text = with.make();
    size_t checked = 0, with_prior = 0;
    for (const auto& modules : modules_by_unit(with, text)) {
        text.calibrate(modules, [&](size_t module, const module_inputs& inputs) {
            CAPTURE(with.list.modules[module].name);
            const auto rows = rows_of(with, module);
            CHECK(inputs.row_count == double(rows.size()));
            CHECK(worst_difference(inputs.own, rows) < 1e-4);
            with_prior += inputs.prior.row_count > 0 ? 1 : 0;
            if (!with.uses[module]->expert) CHECK(inputs.prior.gram.empty());
            ++checked;
            return with.weights_of(module);
        });
        text.advance();
    }
    CHECK(checked == size_t(std::count_if(with.uses.begin(), with.uses.end(), [](const auto& use) {
              return use.has_value();
          })));
    if (!named.empty()) CHECK(with_prior > 0);
}

} // namespace

TEST_CASE("moments are those of the rows that each module multiplies") {
    check_family("llama", "");
    check_family("qwen3_moe", "experts");
    check_family("deepseek_v3", "experts");
}

TEST_CASE("later modules see what earlier ones became") {
    const calibrated_model with("qwen3_moe");
    const auto sum_of_last = [&](bool changes) {
        calibrator text = with.make();
        double last = 0;
        for (const auto& modules : modules_by_unit(with, text)) {
            text.calibrate(modules, [&](size_t module, const module_inputs& inputs) {
                if (!inputs.own.gram.empty()) last = double(inputs.own.gram[0]);
                auto values = with.weights_of(module);
                if (changes && with.list.modules[module].layer == 0)
                    std::fill(values.begin(), values.end(), 0.0f);
                return values;
            });
            text.advance();
        }
        return last;
    };
    CHECK(sum_of_last(true) != sum_of_last(false));
}

TEST_CASE("units are what leads to the layers, each layer, and the head") {
    const calibrated_model with("llama");
    const auto units = cut_into_units(with.model->step);
    const auto layers = read_model_config(with.files->config()).layer_count;
    REQUIRE(units.size() == layers + 2);
    CHECK(units[0].inputs.empty());
    CHECK(units[1].inputs == std::vector<std::string>{"embed"});
    CHECK(units.back().outputs.empty());
    for (size_t i = 1; i < units.size(); ++i)
        CHECK(units[i].operation_begin == units[i - 1].operation_end);
}

TEST_CASE("text without a token is refused") {
    calibrated_model with("llama");
    with.options.windows = {{}};
    check_error([&] { with.make(); }, SLUICE_INVALID, {"expected one token at least"});
}
