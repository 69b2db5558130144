#include "quantization/module_quantizer.hpp"

#include "base/element_type.hpp"
#include "base/error.hpp"
#include "base/text.hpp"

namespace sluice {

namespace {

uint64_t packed_bytes(const gptq_packed& packed) {
    return packed.qweight.size() * 4 + packed.qzeros.size() * 4 + packed.scales.size()
           + packed.g_idx.size() * 4;
}

// The plugin's side of module_inputs.
sluice_calibration calibration_of(const module_inputs& inputs) {
    auto calibration = SLUICE_INIT(sluice_calibration);
    if (!inputs.own.gram.empty()) calibration.gram = inputs.own.gram.data();
    calibration.row_count = inputs.own.row_count;
    if (!inputs.prior.gram.empty()) calibration.prior_gram = inputs.prior.gram.data();
    calibration.prior_row_count = inputs.prior.row_count;
    return calibration;
}

} // namespace

module_report module_quantizer::describe(const stored_module& module) const {
    module_report result;
    result.name = module.name;
    result.kind = module.kind;
    result.row_count = module.row_count;
    result.column_count = module.column_count;
    const uint64_t elements = uint64_t(module.row_count) * uint64_t(module.column_count)
                              * (module.in_stack ? module.request.matrix_count : 1);
    result.bits = element_bits(stored_type(module));
    result.bytes_before = elements * result.bits / 8;
    result.bytes_after = result.bytes_before;
    return result;
}

std::vector<float> module_quantizer::read_matrix(const stored_module& module) const {
    const bound_weight bound =
        bind_weight(weights_, module.request, format_of_(module.request.slices.front().tensor));
    const sluice_weight_slice& slice = *bound.source()->slices[0];
    const sluice_tensor& data = *slice.parts[SLUICE_PART_DATA];
    if (!is_plain_float(data.element_type))
        fail(SLUICE_UNSUPPORTED, "{}: {}: expected f32, f16 or bf16 to quantize, found {}",
             weights_.directory().string(), quote(module.name, 160),
             element_type_name(data.element_type));
    std::vector<float> values(size_t(module.row_count) * size_t(module.column_count));
    const size_t offset =
        size_t(slice.row_begin) * size_t(module.column_count) * element_bits(data.element_type) / 8;
    convert_to_f32(data.element_type, static_cast<const std::byte*>(data.data) + offset,
                   values.data(), values.size());
    return values;
}

quantized_module module_quantizer::quantize(const stored_module& module, const module_plan& plan,
                                            const module_inputs* inputs) const {
    const gptq_parameters& parameters = *plan.parameters;
    const auto rows = size_t(module.row_count);
    const auto columns = size_t(module.column_count);
    const auto groups = size_t(gptq_group_count(parameters.group_size, module.column_count));
    std::vector<uint8_t> codes(rows * columns);
    std::vector<float> scales(rows * groups);
    std::vector<uint8_t> zeros(rows * groups, parameters.bits == 4 ? 8 : 128);
    std::vector<int32_t> group_index(parameters.activation_order ? columns : 0);
    auto target = SLUICE_INIT(sluice_quantized);
    target.codes = codes.data();
    target.scales = scales.data();
    target.zeros = zeros.data();
    target.group_index = group_index.empty() ? nullptr : group_index.data();

    const std::vector<float> weights = read_matrix(module);
    const sluice_module description = module_for_plugin(module, stored_type(module));
    sluice_calibration calibration{};
    if (inputs != nullptr) calibration = calibration_of(*inputs);
    auto answer = SLUICE_INIT(sluice_quantization_report);
    plugin_call call = quantizer_.call("quantize");
    call = quantizer_.quantizer().quantize(quantizer_.handle(), &description, weights.data(),
                                           &plan.format, inputs != nullptr ? &calibration : nullptr,
                                           &target, &answer, call.error());

    quantized_module made;
    made.report = describe(module);
    try {
        made.packed = gptq_pack(parameters, format_, module.row_count, module.column_count, codes,
                                zeros, scales, plan.format.scale_type, group_index);
    } catch (const error& problem) {
        fail(problem.status(), "quantizer {}: what it made of {}: {}", quote(quantizer_.id()),
             quote(module.name, 160), problem.what());
    }
    made.report.bytes_after = packed_bytes(made.packed);
    made.report.is_quantized = true;
    made.report.bits = parameters.bits;
    made.report.group_size = parameters.group_size;
    made.report.is_symmetric = parameters.symmetric;
    made.report.error_relative = answer.error_relative;
    made.report.rounding_error_relative = answer.rounding_error_relative;
    made.report.damping = answer.damping;
    made.report.fallback = answer.fallback != 0;
    made.report.note = text_of_array(answer.note, sizeof answer.note);
    if (inputs != nullptr) made.report.token_count = inputs->row_count;
    return made;
}

std::vector<float> module_quantizer::values(const stored_module& module, const module_plan& plan,
                                            const gptq_packed& packed) const {
    std::vector<float> result(size_t(module.row_count) * size_t(module.column_count));
    gptq_dequantize(gptq_view(module.name, *plan.parameters, format_, module.row_count,
                              module.column_count, plan.format.scale_type, packed),
                    0, module.row_count, 0, module.column_count, result);
    return result;
}

} // namespace sluice
