#include "quantization/module_report.hpp"

#include "base/error.hpp"
#include "quantization/module_list.hpp"

#include <sluice/abi/quantizer.h>

#include <nlohmann/json.hpp>

namespace sluice {

namespace {

// Calls `visit` with the name and the member of each that stands for itself.
template <typename Report, typename Function>
void visit_members(Report& report, Function&& visit) {
    visit("name", report.name);
    visit("rows", report.row_count);
    visit("columns", report.column_count);
    visit("quantized", report.is_quantized);
    visit("bits", report.bits);
    visit("group_size", report.group_size);
    visit("symmetric", report.is_symmetric);
    visit("bytes_before", report.bytes_before);
    visit("bytes_after", report.bytes_after);
    visit("error_relative", report.error_relative);
    visit("rounding_error_relative", report.rounding_error_relative);
    visit("tokens", report.token_count);
    visit("damping", report.damping);
    visit("fallback", report.fallback);
    visit("note", report.note);
}

} // namespace

nlohmann::ordered_json to_json(const quantization_report& report) {
    auto modules = nlohmann::ordered_json::array();
    for (const module_report& module : report.modules) modules.push_back(to_json(module));
    return {{"bytes_before", report.bytes_before},
            {"bytes_after", report.bytes_after},
            {"other_tensors", report.other_tensors},
            {"other_bytes", report.other_bytes},
            {"calibration_tokens", report.calibration_tokens},
            {"resumed_modules", report.resumed_modules},
            {"modules", modules}};
}

nlohmann::ordered_json to_json(const module_report& module) {
    nlohmann::ordered_json json;
    json["kind"] = module_kind_name(module.kind);
    visit_members(module, [&](const char* name, const auto& member) { json[name] = member; });
    return json;
}

module_report module_report_from_json(const nlohmann::ordered_json& json) {
    module_report module;
    try {
        const auto kind = json.at("kind").get<std::string>();
        for (uint32_t i = SLUICE_MODULE_EMBEDDING; i <= SLUICE_MODULE_NORM; ++i)
            if (module_kind_name(i) == kind) module.kind = i;
        visit_members(module,
                      [&](const char* name, auto& member) { json.at(name).get_to(member); });
    } catch (const nlohmann::json::exception& problem) {
        fail(SLUICE_INVALID, "the report of a module cannot be read: {}", problem.what());
    }
    return module;
}

} // namespace sluice
