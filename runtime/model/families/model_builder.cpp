#include "model/families/model_builder.hpp"

#include "base/error.hpp"
#include "base/text.hpp"

namespace sluice {

std::string layer_module(uint32_t layer, std::string_view module) {
    return fmt::format("model.layers.{}.{}", layer, module);
}

std::string layer_value(uint32_t layer, std::string_view value) {
    return fmt::format("layers.{}.{}", layer, value);
}

model_builder::model_builder(const model_config& configuration, const model_program_options& how)
    : config(configuration), options(how), build(configuration.model_type) {}

sluice_weight_format model_builder::format_of(const std::string& tensor) const {
    if (options.weight_format) return options.weight_format(tensor);
    auto format = SLUICE_INIT(sluice_weight_format);
    format.element_type = config.stored_type;
    if (config.quantization == "mxfp4" && tensor.ends_with("_blocks")) {
        format.element_type = SLUICE_F4_E2M1;
        format.scale_type = SLUICE_F8_E8M0;
        format.group_columns = 32;
    }
    return format;
}

value_number model_builder::request(weight_request wanted, std::span<const int64_t> dimensions) {
    const sluice_weight_format format = format_of(wanted.slices.front().tensor);
    wanted.value = build.weight(wanted.name, dimensions, format);
    const value_number value = wanted.value;
    if (requested_.insert(value).second) requests_.push_back(std::move(wanted));
    return value;
}

value_number model_builder::matrix(const std::string& module, int64_t rows, int64_t columns) {
    weight_request wanted;
    wanted.name = module + ".weight";
    wanted.row_count = rows;
    wanted.column_count = columns;
    weight_slice_request slice;
    slice.tensor = wanted.name;
    slice.stored_rows = rows;
    slice.stored_columns = columns;
    slice.row_count = rows;
    wanted.slices = {std::move(slice)};
    const int64_t dimensions[] = {rows, columns};
    return request(std::move(wanted), dimensions);
}

value_number model_builder::vector(const std::string& tensor, int64_t width) {
    weight_request wanted;
    wanted.name = tensor;
    wanted.row_count = width;
    weight_slice_request slice;
    slice.tensor = tensor;
    slice.stored_rows = width;
    slice.stored_columns = 0;
    slice.row_count = width;
    wanted.slices = {std::move(slice)};
    return request(std::move(wanted), std::span(&width, 1));
}

value_number model_builder::bias(const std::string& module, int64_t width, bool present) {
    return present ? vector(module + ".bias", width) : value_none;
}

value_number model_builder::stack(const std::string& name, int64_t rows, int64_t columns,
                                  std::vector<weight_slice_request> slices) {
    weight_request wanted;
    wanted.name = name;
    wanted.matrix_count = static_cast<uint32_t>(slices.size());
    wanted.row_count = rows;
    wanted.column_count = columns == 0 ? 1 : columns;
    wanted.stacked = true;
    wanted.slices = std::move(slices);
    const int64_t dimensions[] = {int64_t(wanted.matrix_count), rows, columns};
    return request(std::move(wanted), std::span(dimensions).first(columns == 0 ? 2 : 3));
}

value_number model_builder::linear(const std::string& name, value_number x,
                                   const std::string& module, int64_t outputs, bool has_bias,
                                   sluice_element_type type) {
    const int64_t inputs = build.dimensions(x).back().offset;
    const value_number weight = matrix(module, outputs, inputs);
    return build.linear(name, x, weight, bias(module, outputs, has_bias), type);
}

value_number model_builder::norm(const std::string& name, value_number x, const std::string& tensor,
                                 int64_t width, float epsilon, uint32_t group_width) {
    auto attributes = SLUICE_INIT(sluice_rms_norm_attributes);
    attributes.epsilon = epsilon;
    attributes.group_width = group_width;
    return build.rms_norm(name, x, vector(tensor, width), value_none, attributes, compute_type())
        .normed;
}

value_number model_builder::add_cache(uint32_t layer, std::span<const cache_part> parts) {
    program_state state;
    const uint32_t window = config.layers[layer].window;
    if (window != 0 && options.separate_window_group) {
        state.kind = SLUICE_STATE_PAGED_WINDOW;
        state.group = 1;
        state.window = window;
        cache_group_count_ = 2;
    }
    state.tokens_per_block = options.tokens_per_block;
    for (const cache_part& part : parts) {
        state.part_width.push_back(part.width);
        state.part_type.push_back(options.cache_type);
        if (options.cache_type == SLUICE_I8) state.part_group.push_back(part.group);
    }
    state.name = layer_value(layer, "cache");
    return build.state(std::move(state));
}

model_program model_builder::finish(value_number logits) {
    // Last, so that without_sampling() leaves the numbers of all other values as they are.
    const sample_results sampled = build.sample("sample", logits);
    build.output(logits);
    build.output(sampled.token);
    build.output(sampled.log_probability);
    for (const routed_layer& routed : routed_layers) {
        build.output(routed.count);
        if (routed.dropped != value_none) build.output(routed.dropped);
    }
    return {build.finish(),
            std::move(requests_),
            logits,
            {sampled.token, sampled.log_probability},
            std::move(routed_layers),
            cache_group_count_};
}

} // namespace sluice
