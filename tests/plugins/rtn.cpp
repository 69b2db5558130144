// The quantizer "rtn" through the host: plans by kind of module, and whole matrices.
#include "opened_plugin.hpp"

#include "backend_checks/host_tensor.hpp"

#include <cmath>
#include <doctest/doctest.h>
#include <random>

using namespace sluice;
using namespace sluice::plugin_tests;

namespace {

sluice_module module_of(uint32_t kind, int64_t rows = 16, int64_t columns = 128,
                        sluice_element_type stored = SLUICE_BF16) {
    auto module = SLUICE_INIT(sluice_module);
    module.kind = kind;
    module.row_count = rows;
    module.column_count = columns;
    module.name = text_view("layers.0.test");
    module.stored_type = stored;
    return module;
}

sluice_weight_format plan(plugin_instance& rtn, const sluice_module& module) {
    auto format = SLUICE_INIT(sluice_weight_format);
    plugin_call call = rtn.call("plan");
    call = rtn.quantizer().plan(rtn.handle(), &module, &format, call.error());
    return format;
}

} // namespace

TEST_CASE("experts, dense layers and attention are quantized, the rest is kept") {
    const auto rtn = open_plugin("quantizer", "rtn");
    for (const uint32_t kind :
         {SLUICE_MODULE_EXPERT, SLUICE_MODULE_SHARED_EXPERT, SLUICE_MODULE_MLP}) {
        const auto format = plan(*rtn, module_of(kind));
        CHECK(format.element_type == SLUICE_U4);
        CHECK(format.scale_type == SLUICE_F16);
        CHECK(format.group_columns == 64);
        CHECK(format.zero_point == SLUICE_ZERO_MIDDLE);
    }
    CHECK(plan(*rtn, module_of(SLUICE_MODULE_ATTENTION)).element_type == SLUICE_U8);
    for (const uint32_t kind :
         {SLUICE_MODULE_EMBEDDING, SLUICE_MODULE_HEAD, SLUICE_MODULE_ROUTER, SLUICE_MODULE_NORM})
        for (const sluice_element_type stored : {SLUICE_BF16, SLUICE_F16, SLUICE_F32}) {
            const auto format = plan(*rtn, module_of(kind, 16, 128, stored));
            CHECK(format.element_type == stored);
            CHECK(format.scale_type == 0);
        }
    // A vector has no inputs to group.
    CHECK(plan(*rtn, module_of(SLUICE_MODULE_EXPERT, 128, 1)).scale_type == 0);
}

TEST_CASE("settings choose bits, groups and zero points") {
    const auto rtn = open_plugin(
        "quantizer", "rtn",
        {"experts=8", "attention=16", "embedding=8", "group_size=-1", "symmetric=false"});
    const auto experts = plan(*rtn, module_of(SLUICE_MODULE_EXPERT));
    CHECK(experts.element_type == SLUICE_U8);
    CHECK(experts.group_columns == 0);
    CHECK(experts.zero_point == SLUICE_ZERO_GROUP);
    CHECK(plan(*rtn, module_of(SLUICE_MODULE_ATTENTION)).element_type == SLUICE_BF16);
    CHECK(plan(*rtn, module_of(SLUICE_MODULE_EMBEDDING)).element_type == SLUICE_U8);
    CHECK_THROWS_WITH_AS(open_plugin("quantizer", "rtn", {"group_size=48"}),
                         doctest::Contains("expected 32, 64, 128, or -1"), sluice::error);
    CHECK_THROWS_WITH_AS(open_plugin("quantizer", "rtn", {"norm=4"}), doctest::Contains("norm"),
                         sluice::error);
}

TEST_CASE("a matrix whose columns are no whole number of groups") {
    const auto rtn = open_plugin("quantizer", "rtn");
    const auto module = module_of(SLUICE_MODULE_EXPERT, 5, 150);
    const auto format = plan(*rtn, module);
    std::mt19937_64 random(3);
    auto weights = checker::normal_numbers(random, 5 * 150, 0.02F);
    // The last, short group has a size of its own.
    for (size_t k = 128; k < 150; ++k) weights[k] *= 100;
    std::vector<uint8_t> codes(5 * 150);
    std::vector<uint8_t> zeros(5 * 3);
    std::vector<float> scales(5 * 3);
    auto target = SLUICE_INIT(sluice_quantized);
    target.codes = codes.data();
    target.scales = scales.data();
    target.zeros = zeros.data();
    auto report = SLUICE_INIT(sluice_quantization_report);
    plugin_call call = rtn->call("quantize");
    call = rtn->quantizer().quantize(rtn->handle(), &module, weights.data(), &format, nullptr,
                                     &target, &report, call.error());
    CHECK(scales[2] > 20 * scales[1]);
    double error = 0;
    double total = 0;
    for (size_t n = 0; n < 5; ++n)
        for (size_t k = 0; k < 150; ++k) {
            const double back = (double{1} * codes[n * 150 + k] - 8) * scales[n * 3 + k / 64];
            const double weight = weights[n * 150 + k];
            error += (weight - back) * (weight - back);
            total += weight * weight;
        }
    CHECK(report.error_relative == doctest::Approx(error / total));
    CHECK(report.error_relative > 0.001);
    CHECK(report.error_relative < 0.02);
}
