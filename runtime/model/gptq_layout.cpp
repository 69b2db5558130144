#include "model/gptq_layout.hpp"

#include "base/element_type.hpp"
#include "base/error.hpp"
#include "base/text.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace sluice {
namespace {

// Bytes in the file need not be aligned for the compiler's taste, nor be read as their own type.
template <typename Stored>
Stored load(const tensor_view& tensor, int64_t index) {
    Stored value;
    std::memcpy(&value, tensor.bytes.data() + size_t(index) * sizeof(Stored), sizeof(Stored));
    return value;
}

// One in every lane of a word: 0x11111111 for 4 bits, 0x01010101 for 8.
uint32_t lane_ones(uint32_t bits) { return bits == 4 ? 0x11111111u : 0x01010101u; }

uint32_t lane_mask(uint32_t bits) { return (1u << bits) - 1; }

struct gptq_shapes {
    std::vector<int64_t> qweight, qzeros, scales, g_idx;
};

gptq_shapes shapes_of(const gptq_parameters& parameters, int64_t output_features,
                      int64_t input_features) {
    int64_t lanes = 32 / int64_t(parameters.bits);
    int64_t groups = gptq_group_count(parameters.group_size, input_features);
    return {{input_features / lanes, output_features},
            {groups, output_features / lanes},
            {groups, output_features},
            {input_features}};
}

void check_features(const std::string& where, const gptq_parameters& parameters,
                    int64_t output_features, int64_t input_features) {
    int64_t lanes = 32 / int64_t(parameters.bits);
    if (output_features > 0 && input_features > 0 && output_features % lanes == 0
        && input_features % lanes == 0) {
        return;
    }
    fail(
        SLUICE_INVALID,
        "{}: expected output and input features that are multiples of {} ({} bits packed into 32), "
        "found {} and {}",
        where, lanes, parameters.bits, output_features, input_features);
}

void expect_type(const tensor_view& tensor, std::initializer_list<sluice_element_type> types) {
    std::vector<std::string> names;
    for (sluice_element_type type : types) {
        if (tensor.element_type == type) return;
        names.emplace_back(element_type_name(type));
    }
    fail(SLUICE_INVALID, "{}: {}: expected elements of type {}, found {}", tensor.file,
         quote(tensor.name, 160), join(names, " or "), element_type_name(tensor.element_type));
}

void check_group_index(const gptq_module& module) {
    for (int64_t k = 0; k < module.input_features; ++k) {
        int32_t group = load<int32_t>(*module.g_idx, k);
        if (group >= 0 && group < module.groups) continue;
        fail(SLUICE_INVALID, "{}: {}[{}]: expected a group from 0 to {}, found {}",
             module.g_idx->file, quote(module.g_idx->name, 160), k, module.groups - 1, group);
    }
}

// Packs 32 / bits values, `stride` apart, into one word, the first in the lowest bits.
uint32_t pack_word(const uint8_t* values, int64_t stride, uint32_t bits) {
    uint32_t word = 0;
    for (uint32_t lane = 0; lane * bits < 32; ++lane) {
        word |= uint32_t(values[int64_t(lane) * stride]) << (lane * bits);
    }
    return word;
}

void check_sizes(const gptq_shapes& shapes, int64_t output_features, int64_t input_features,
                 size_t quantized, size_t zeros, size_t scales, size_t group_index) {
    auto expected = size_t(output_features * input_features);
    auto expected_groups = size_t(output_features * shapes.scales[0]);
    if (quantized == expected && zeros == expected_groups && scales == expected_groups
        && (group_index == 0 || group_index == size_t(input_features))) {
        return;
    }
    fail(SLUICE_INVALID,
         "GPTQ packing of [{}, {}]: expected {} values, {} zero points, {} scales and {} group "
         "numbers (or none), found {}, {}, {} and {}",
         output_features, input_features, expected, expected_groups, expected_groups,
         input_features, quantized, zeros, scales, group_index);
}

void check_values(std::span<const uint8_t> values, uint32_t min, uint32_t max, const char* what) {
    for (size_t i = 0; i < values.size(); ++i) {
        if (values[i] >= min && values[i] <= max) continue;
        fail(SLUICE_INVALID, "GPTQ packing: {}[{}]: expected {} to {}, found {}", what, i, min, max,
             values[i]);
    }
}

std::vector<std::byte> pack_scales(std::span<const float> scales, sluice_element_type type,
                                   int64_t output_features, int64_t groups) {
    std::vector<float> transposed(scales.size()); // [groups, N]
    for (int64_t n = 0; n < output_features; ++n) {
        for (int64_t group = 0; group < groups; ++group) {
            float scale = scales[size_t(n * groups + group)];
            bool fits = std::isfinite(scale) && (type != SLUICE_F16 || std::abs(scale) < 65520.0f)
                        && (type != SLUICE_BF16 || !std::isinf(bf16_to_f32(f32_to_bf16(scale))));
            if (!fits) {
                fail(SLUICE_INVALID, "GPTQ packing: scales[{}, {}]: expected a finite {}, found {}",
                     n, group, element_type_name(type), scale);
            }
            transposed[size_t(group * output_features + n)] = scale;
        }
    }
    std::vector<std::byte> bytes(transposed.size() * element_bits(type) / 8);
    convert_from_f32(type, transposed.data(), bytes.data(), transposed.size());
    return bytes;
}

} // namespace

int64_t gptq_group_count(int64_t group_size, int64_t input_features) {
    if (group_size <= 0 || group_size >= input_features) return 1;
    return (input_features + group_size - 1) / group_size;
}

int64_t gptq_module::group_of(int64_t k) const {
    if (g_idx) return load<int32_t>(*g_idx, k);
    return groups == 1 ? 0 : k / parameters.group_size;
}

uint32_t gptq_module::quantized(int64_t n, int64_t k) const {
    uint32_t bits = parameters.bits;
    int64_t lanes = 32 / int64_t(bits);
    auto word = load<uint32_t>(qweight, k / lanes * output_features + n);
    return word >> (uint32_t(k % lanes) * bits) & lane_mask(bits);
}

uint32_t gptq_module::zero_point(int64_t n, int64_t group) const {
    uint32_t bits = parameters.bits;
    int64_t lanes = 32 / int64_t(bits);
    auto word = load<uint32_t>(qzeros, group * (output_features / lanes) + n / lanes);
    // The writers of format gptq subtract one from each lane of the whole word at once, so that a
    // zero point of 0 borrows from its neighbour; adding likewise undoes it exactly.
    if (format == gptq_format::gptq) word += lane_ones(bits);
    return word >> (uint32_t(n % lanes) * bits) & lane_mask(bits);
}

float gptq_module::scale(int64_t n, int64_t group) const {
    int64_t index = group * output_features + n;
    if (scales.element_type == SLUICE_F32) return load<float>(scales, index);
    auto half = load<uint16_t>(scales, index);
    return scales.element_type == SLUICE_F16 ? f16_to_f32(half) : bf16_to_f32(half);
}

bool gptq_module::has_sequential_groups() const {
    if (!g_idx) return true;
    for (int64_t k = 0; k < input_features; ++k) {
        if (group_of(k) != (groups == 1 ? 0 : k / parameters.group_size)) return false;
    }
    return true;
}

bool has_gptq_module(const checkpoint& model, std::string_view prefix) {
    return model.contains(std::string(prefix) + ".qweight");
}

gptq_module open_gptq_module(const checkpoint& model, const gptq_config& config,
                             std::string_view prefix, int64_t output_features,
                             int64_t input_features) {
    std::string name(prefix);
    std::optional<gptq_parameters> parameters = config.resolve(prefix);
    if (!parameters) {
        fail(
            SLUICE_INVALID,
            "{}: {}.qweight is there, but quantization_config in config.json says that this module "
            "is not quantized; correct its lm_head, dynamic or modules_in_block_to_quantize",
            model.directory().string(), name);
    }
    std::string where = model.directory().string() + ": " + quote(name, 160);
    check_features(where, *parameters, output_features, input_features);
    gptq_shapes shapes = shapes_of(*parameters, output_features, input_features);
    gptq_module module;
    module.name = name;
    module.parameters = *parameters;
    module.format = config.format();
    module.output_features = output_features;
    module.input_features = input_features;
    module.groups = shapes.scales[0];
    module.qweight = model.tensor(name + ".qweight", shapes.qweight);
    module.qzeros = model.tensor(name + ".qzeros", shapes.qzeros);
    module.scales = model.tensor(name + ".scales", shapes.scales);
    expect_type(module.qweight, {SLUICE_I32});
    expect_type(module.qzeros, {SLUICE_I32});
    expect_type(module.scales, {SLUICE_F16, SLUICE_BF16, SLUICE_F32});
    if (model.contains(name + ".g_idx")) {
        module.g_idx = model.tensor(name + ".g_idx", shapes.g_idx);
        expect_type(*module.g_idx, {SLUICE_I32});
        check_group_index(module);
    } else if (parameters->activation_order && module.groups > 1) {
        fail(SLUICE_INVALID,
             "{}: expected {}.g_idx, since quantization_config.desc_act is true; "
             "found none",
             model.directory().string(), name);
    }
    return module;
}

gptq_unpacked gptq_unpack(const gptq_module& module) {
    gptq_unpacked unpacked;
    for (int64_t k = 0; k < module.input_features; ++k) {
        unpacked.group_index.push_back(int32_t(module.group_of(k)));
    }
    unpacked.quantized.reserve(size_t(module.output_features * module.input_features));
    for (int64_t n = 0; n < module.output_features; ++n) {
        for (int64_t k = 0; k < module.input_features; ++k) {
            unpacked.quantized.push_back(uint8_t(module.quantized(n, k)));
        }
        for (int64_t group = 0; group < module.groups; ++group) {
            unpacked.zeros.push_back(uint8_t(module.zero_point(n, group)));
            unpacked.scales.push_back(module.scale(n, group));
        }
    }
    return unpacked;
}

void gptq_dequantize(const gptq_module& module, int64_t row_begin, int64_t row_end,
                     int64_t column_begin, int64_t column_end, std::span<float> target) {
    bool is_inside = 0 <= row_begin && row_begin <= row_end && row_end <= module.output_features
                     && 0 <= column_begin && column_begin <= column_end
                     && column_end <= module.input_features;
    if (!is_inside
        || target.size() != size_t((row_end - row_begin) * (column_end - column_begin))) {
        fail(SLUICE_INTERNAL,
             "{}: dequantize: rows {} to {} and columns {} to {} of [{}, {}] do not "
             "fit the target of {}",
             module.name, row_begin, row_end, column_begin, column_end, module.output_features,
             module.input_features, target.size());
    }
    size_t index = 0;
    for (int64_t n = row_begin; n < row_end; ++n) {
        for (int64_t k = column_begin; k < column_end; ++k) {
            int64_t group = module.group_of(k);
            auto level = int32_t(module.quantized(n, k)) - int32_t(module.zero_point(n, group));
            target[index++] = module.scale(n, group) * float(level);
        }
    }
}

gptq_packed gptq_pack(const gptq_parameters& parameters, gptq_format format,
                      int64_t output_features, int64_t input_features,
                      std::span<const uint8_t> quantized, std::span<const uint8_t> zeros,
                      std::span<const float> scales, sluice_element_type scale_type,
                      std::span<const int32_t> group_index) {
    uint32_t bits = gptq_config(parameters, format).defaults().bits; // checks them
    check_features("GPTQ packing", parameters, output_features, input_features);
    if (scale_type != SLUICE_F16 && scale_type != SLUICE_BF16 && scale_type != SLUICE_F32) {
        fail(SLUICE_INVALID, "GPTQ packing: expected scales as f16, bf16 or f32, found {}",
             element_type_name(scale_type));
    }
    gptq_shapes shapes = shapes_of(parameters, output_features, input_features);
    check_sizes(shapes, output_features, input_features, quantized.size(), zeros.size(),
                scales.size(), group_index.size());
    check_values(quantized, 0, lane_mask(bits), "quantized values");
    check_values(zeros, format == gptq_format::gptq ? 1 : 0, lane_mask(bits), "zero points");
    int64_t groups = shapes.scales[0], lanes = 32 / int64_t(bits);
    gptq_packed packed;
    for (int64_t k = 0; k < input_features; k += lanes) {
        for (int64_t n = 0; n < output_features; ++n) {
            uint32_t word = pack_word(quantized.data() + n * input_features + k, 1, bits);
            packed.qweight.push_back(int32_t(word));
        }
    }
    for (int64_t group = 0; group < groups; ++group) {
        for (int64_t n = 0; n < output_features; n += lanes) {
            uint32_t word = pack_word(zeros.data() + n * groups + group, groups, bits);
            if (format == gptq_format::gptq) word -= lane_ones(bits);
            packed.qzeros.push_back(int32_t(word));
        }
    }
    packed.scales = pack_scales(scales, scale_type, output_features, groups);
    for (int64_t k = 0; k < input_features; ++k) {
        int64_t by_position = groups == 1 ? 0 : k / parameters.group_size;
        int64_t group = group_index.empty() ? by_position : group_index[size_t(k)];
        if (group < 0 || group >= groups) {
            fail(SLUICE_INVALID,
                 "GPTQ packing: group number of feature {}: expected 0 to {}, found {}", k,
                 groups - 1, group);
        }
        packed.g_idx.push_back(int32_t(group));
    }
    return packed;
}

gptq_module gptq_view(std::string name, const gptq_parameters& parameters, gptq_format format,
                      int64_t output_features, int64_t input_features,
                      sluice_element_type scale_type, const gptq_packed& packed) {
    const gptq_shapes shapes = shapes_of(parameters, output_features, input_features);
    const auto view = [&](const char* part, sluice_element_type type,
                          const std::vector<int64_t>& shape, std::span<const std::byte> bytes) {
        return tensor_view{name + part, type, shape, bytes, "packed values", 0, nullptr};
    };
    gptq_module module;
    module.parameters = parameters;
    module.format = format;
    module.output_features = output_features;
    module.input_features = input_features;
    module.groups = shapes.scales[0];
    module.qweight =
        view(".qweight", SLUICE_I32, shapes.qweight, std::as_bytes(std::span(packed.qweight)));
    module.qzeros =
        view(".qzeros", SLUICE_I32, shapes.qzeros, std::as_bytes(std::span(packed.qzeros)));
    module.scales = view(".scales", scale_type, shapes.scales, packed.scales);
    module.g_idx = view(".g_idx", SLUICE_I32, shapes.g_idx, std::as_bytes(std::span(packed.g_idx)));
    module.name = std::move(name);
    return module;
}

void declare_gptq_module(safetensors_writer& writer, const std::string& prefix,
                         const gptq_parameters& parameters, int64_t output_features,
                         int64_t input_features, sluice_element_type scale_type) {
    gptq_config checked(parameters, gptq_format::gptq); // fails on impossible parameters
    check_features(quote(prefix, 160), parameters, output_features, input_features);
    gptq_shapes shapes = shapes_of(parameters, output_features, input_features);
    writer.declare(prefix + ".qweight", SLUICE_I32, shapes.qweight);
    writer.declare(prefix + ".qzeros", SLUICE_I32, shapes.qzeros);
    writer.declare(prefix + ".scales", scale_type, shapes.scales);
    writer.declare(prefix + ".g_idx", SLUICE_I32, shapes.g_idx);
}

void append_gptq_module(safetensors_writer& writer, const std::string& prefix,
                        const gptq_packed& packed) {
    writer.append(prefix + ".qweight", std::as_bytes(std::span(packed.qweight)));
    writer.append(prefix + ".qzeros", std::as_bytes(std::span(packed.qzeros)));
    writer.append(prefix + ".scales", packed.scales);
    writer.append(prefix + ".g_idx", std::as_bytes(std::span(packed.g_idx)));
}

} // namespace sluice
