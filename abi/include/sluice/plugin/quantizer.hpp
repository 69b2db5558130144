// For quantizer plugins: from a class to the table of abi/quantizer.h.
//
// A quantizer has, besides what entry.hpp asks for and safe for several threads at once,
//   static constexpr bool needs_gram = false;   whether quantize wants calibration.gram
//   sluice_weight_format plan(const sluice_module& module);
//   sluice_quantization_report quantize(const quantizer_request& request);
#pragma once

#include <sluice/abi/quantizer.h>
#include <sluice/plugin/entry.hpp>

namespace sluice::plugin {

// One call of quantize, read. Everything is borrowed for the call.
struct quantizer_request {
    sluice_module module;
    sluice_weight_format format;
    const float* weights;           // [N, K]
    sluice_calibration calibration; // all NULL where none was given
    sluice_quantized target;        // see sluice_quantized; checked not to be NULL
};

namespace detail {

inline sluice_module read_module(const sluice_module* source) {
    const auto module = read(source, "the module");
    if (module.kind < SLUICE_MODULE_EMBEDDING || module.kind > SLUICE_MODULE_NORM)
        fail(SLUICE_UNSUPPORTED, "module '", view(module.name), "' is of kind ", module.kind,
             ", the kinds known here are ", SLUICE_MODULE_EMBEDDING, " to ", SLUICE_MODULE_NORM);
    constexpr int64_t size_max = int64_t{1} << 31;
    if (module.row_count < 1 || module.column_count < 1 || module.row_count > size_max
        || module.column_count > size_max)
        fail(SLUICE_INVALID, "module '", view(module.name), "' has the shape [", module.row_count,
             ", ", module.column_count, "]; expected sizes from 1 to ", size_max);
    return module;
}

inline quantizer_request read_quantizer_request(const sluice_module* module, const float* weights,
                                                const sluice_weight_format* format,
                                                const sluice_calibration* calibration,
                                                const sluice_quantized* quantized) {
    quantizer_request request{};
    request.module = read_module(module);
    request.format = read(format, "the weight format");
    request.weights = weights;
    if (calibration != nullptr) request.calibration = read(calibration, "the calibration");
    request.target = read(quantized, "the quantized target");
    const bool wants_zeros = request.format.zero_point == SLUICE_ZERO_GROUP;
    if (weights == nullptr || request.target.codes == nullptr || request.target.scales == nullptr
        || (wants_zeros && request.target.zeros == nullptr)
        || (request.format.group_index != 0 && request.target.group_index == nullptr))
        fail(SLUICE_INVALID, "quantizing '", view(request.module.name),
             "' needs weights, codes and scales, and zeros and group_index where the format has "
             "them; found NULL");
    return request;
}

} // namespace detail

template <typename Class>
const sluice_quantizer* quantizer_table() {
    static const sluice_quantizer table = [] {
        sluice_quantizer made = SLUICE_INIT(sluice_quantizer);
        made.needs_gram = Class::needs_gram ? 1 : 0;
        made.plan = [](sluice_plugin* plugin, const sluice_module* module,
                       sluice_weight_format* format, sluice_error* error) {
            return guard(error, [&] {
                write_semantic(format, instance<Class>(plugin).plan(detail::read_module(module)),
                               "the weight format");
            });
        };
        made.quantize = [](sluice_plugin* plugin, const sluice_module* module, const float* weights,
                           const sluice_weight_format* format,
                           const sluice_calibration* calibration, const sluice_quantized* quantized,
                           sluice_quantization_report* report, sluice_error* error) {
            return guard(error, [&] {
                const auto found = instance<Class>(plugin).quantize(detail::read_quantizer_request(
                    module, weights, format, calibration, quantized));
                if (report != nullptr) write(report, found, "the quantization report");
            });
        };
        return made;
    }();
    return &table;
}

} // namespace sluice::plugin
