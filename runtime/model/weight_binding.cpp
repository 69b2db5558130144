#include "model/weight_binding.hpp"

#include "base/element_type.hpp"
#include "base/error.hpp"
#include "base/text.hpp"
#include "model/checkpoint.hpp"
#include "model/gptq_config.hpp"
#include "model/gptq_layout.hpp"

#include <cstring>
#include <map>

namespace sluice {

namespace {

constexpr int64_t microscaling_group = 32; // elements that share a scale in MXFP4
constexpr std::string_view weight_suffix = ".weight";
constexpr std::string_view blocks_suffix = "_blocks";

// Some writers store all experts of a layer as one tensor [E, N, K], gate above up.
struct fused_name {
    std::string tensor; // "model.layers.0.mlp.experts.gate_up_proj"
    uint32_t expert = 0;
    uint32_t part = 0; // which part of the rows: 1 for up
    uint32_t part_count = 1;
};

// From "model.layers.0.mlp.experts.7.up_proj.weight".
std::optional<fused_name> fused_name_of(const std::string& tensor) {
    constexpr std::string_view marker = ".experts.";
    const size_t at = tensor.find(marker);
    if (at == std::string::npos || !tensor.ends_with(weight_suffix)) return std::nullopt;
    const std::string prefix = tensor.substr(0, at + marker.size());
    const std::string rest = without_suffix(tensor.substr(prefix.size()), weight_suffix);
    const size_t dot = rest.find('.');
    if (dot == std::string::npos) return std::nullopt;
    const auto expert = parse_integer(rest.substr(0, dot));
    if (!expert || *expert < 0 || *expert > UINT32_MAX) return std::nullopt;
    const std::string projection = rest.substr(dot + 1);
    const auto number = static_cast<uint32_t>(*expert);
    if (projection == "gate_proj" || projection == "w1") {
        return fused_name{prefix + "gate_up_proj", number, 0, 2};
    }
    if (projection == "up_proj" || projection == "w3") {
        return fused_name{prefix + "gate_up_proj", number, 1, 2};
    }
    if (projection == "down_proj" || projection == "w2") {
        return fused_name{prefix + "down_proj", number, 0, 1};
    }
    return std::nullopt;
}

[[noreturn]] void fail_missing(const checkpoint& weights, const std::string& tensor) {
    fail(SLUICE_INVALID, "{}: expected the tensor {}, found none{}", weights.directory().string(),
         quote(tensor, 160), did_you_mean(tensor, weights.names()));
}

sluice_weight_format gptq_format_of(const gptq_parameters& parameters, gptq_format stored,
                                    sluice_element_type scale_type, bool by_index) {
    auto format = SLUICE_INIT(sluice_weight_format);
    format.element_type = parameters.bits == 4 ? SLUICE_U4 : SLUICE_U8;
    format.layout = SLUICE_WEIGHT_GPTQ;
    format.scale_type = scale_type;
    format.group_columns = parameters.group_size <= 0 ? 0 : uint32_t(parameters.group_size);
    format.zero_point =
        stored == gptq_format::gptq ? SLUICE_ZERO_GROUP_LESS_ONE : SLUICE_ZERO_GROUP;
    format.group_index = by_index ? 1 : 0;
    return format;
}

sluice_weight_format gptq_format_of(const gptq_module& module) {
    const bool by_index =
        module.g_idx && (module.parameters.activation_order || !module.has_sequential_groups());
    return gptq_format_of(module.parameters, module.format, module.scales.element_type, by_index);
}

// The configuration where the method is GPTQ; nothing for other methods.
std::optional<gptq_config> gptq_config_of(const checkpoint& weights) {
    const auto quantization = weights.config().object_if_present("quantization_config");
    if (!quantization || quantization->text("quant_method", "") != "gptq") return std::nullopt;
    return gptq_config::of(weights);
}

// The two sizes of FP8 blocks from the checkpoint's configuration.
std::pair<uint32_t, uint32_t> fp8_blocks(const checkpoint& weights) {
    const auto config = weights.config().object_if_present("quantization_config");
    if (!config) return {128, 128};
    const auto sizes = config->array_if_present("weight_block_size");
    if (!sizes) return {128, 128};
    const std::vector<int64_t> both = sizes->as_integer_list(1, 1 << 16, 2);
    if (both.size() != 2) sizes->fail_expected("two sizes, of rows and columns");
    return {static_cast<uint32_t>(both[0]), static_cast<uint32_t>(both[1])};
}

sluice_weight_format row_major_format(const checkpoint& weights, const tensor_view& tensor) {
    auto format = SLUICE_INIT(sluice_weight_format);
    format.element_type = tensor.element_type;
    if (is_plain_float(tensor.element_type)) return format;
    if (tensor.element_type != SLUICE_F8_E4M3) {
        fail(SLUICE_UNSUPPORTED,
             "{}: {}: weights of type {} are not supported; supported are f32, f16, bf16, f8_e4m3 "
             "with scales, GPTQ and MXFP4",
             tensor.file, quote(tensor.name, 160), element_type_name(tensor.element_type));
    }
    const auto [rows, columns] = fp8_blocks(weights);
    format.scale_type = SLUICE_F32;
    format.group_rows = rows;
    format.group_columns = columns;
    return format;
}

sluice_weight_format microscaling_format() {
    auto format = SLUICE_INIT(sluice_weight_format);
    format.element_type = SLUICE_F4_E2M1;
    format.scale_type = SLUICE_F8_E8M0;
    format.group_columns = microscaling_group;
    return format;
}

// [N, K] of a GPTQ module from its packed tensor, for a first look at its parameters.
gptq_module open_any_gptq_module(const checkpoint& weights, const gptq_config& config,
                                 const std::string& module) {
    const auto qweight = weights.find(module + ".qweight");
    const auto parameters = config.resolve(module);
    if (!qweight || qweight->shape.size() != 2 || !parameters) {
        fail(SLUICE_INVALID,
             "{}: {}: expected a GPTQ module that quantization_config describes, with a qweight of "
             "two axes",
             weights.directory().string(), quote(module, 160));
    }
    return open_gptq_module(weights, config, module, qweight->shape[1],
                            qweight->shape[0] * (32 / int64_t(parameters->bits)));
}

} // namespace

// Puts one weight together.
class weight_binder {
  public:
    weight_binder(const checkpoint& weights, const weight_request& request,
                  const sluice_weight_format& format)
        : weights_(weights), request_(request), storage_(*bound_.storage_) {
        storage_.format = format;
        storage_.format.struct_size = sizeof(sluice_weight_format);
        storage_.name = request.name;
    }

    bound_weight bind() {
        for (const weight_slice_request& slice : request_.slices) add_slice(slice);
        for (const sluice_weight_slice& slice : storage_.slices) {
            storage_.slice_pointers.push_back(&slice);
        }
        sluice_weight_source& source = storage_.source;
        source = SLUICE_INIT(sluice_weight_source);
        source.matrix_count = request_.matrix_count;
        source.row_count = request_.row_count;
        source.column_count = request_.column_count;
        source.format = &storage_.format;
        source.slices = storage_.slice_pointers.data();
        source.slice_rows = storage_.slice_rows.data();
        source.slice_count = storage_.slices.size();
        source.name = {storage_.name.data(), storage_.name.size()};
        return std::move(bound_);
    }

  private:
    // A stored matrix: its parts, and where in it the requested rows begin.
    struct stored_matrix {
        const sluice_tensor* parts[SLUICE_PART_COUNT] = {};
        int64_t rows = 0;
        int64_t columns = 0;
        int64_t first_row = 0;
    };

    void add_slice(const weight_slice_request& wanted) {
        const std::string key = fmt::format("{} {}", wanted.tensor, wanted.matrix);
        auto found = matrices_.find(key);
        if (found == matrices_.end()) {
            found = matrices_.emplace(key, open(wanted)).first;
        }
        const stored_matrix& stored = found->second;
        auto slice = SLUICE_INIT(sluice_weight_slice);
        std::copy(std::begin(stored.parts), std::end(stored.parts), slice.parts);
        slice.stored_rows = stored.rows;
        slice.stored_columns = stored.columns;
        slice.row_begin = stored.first_row + wanted.row_begin;
        slice.row_step = wanted.row_step;
        slice.column_begin = wanted.column_begin;
        storage_.slices.push_back(slice);
        storage_.slice_rows.push_back(wanted.row_count);
    }

    stored_matrix open(const weight_slice_request& wanted) {
        if (storage_.format.layout == SLUICE_WEIGHT_GPTQ) return open_gptq(wanted);
        if (storage_.format.element_type == SLUICE_F4_E2M1) return open_microscaling(wanted);
        if (!weights_.is_dummy() && !weights_.contains(wanted.tensor)) return open_fused(wanted);
        return open_row_major(wanted);
    }

    stored_matrix open_gptq(const weight_slice_request& wanted) {
        if (!gptq_) gptq_ = gptq_config_of(weights_);
        if (!gptq_) {
            fail(SLUICE_INVALID, "{}: {} is GPTQ, but config.json has no quantization_config",
                 weights_.directory().string(), quote(request_.name, 160));
        }
        const gptq_module module =
            open_gptq_module(weights_, *gptq_, without_suffix(wanted.tensor, weight_suffix),
                             wanted.stored_rows, wanted.stored_columns);
        const sluice_weight_format found = gptq_format_of(module);
        const sluice_weight_format& expected = storage_.format;
        if (found.element_type != expected.element_type || found.scale_type != expected.scale_type
            || found.group_columns != expected.group_columns
            || found.zero_point != expected.zero_point || found.group_index > expected.group_index
            || (expected.group_index != 0 && !module.g_idx)) {
            fail(SLUICE_UNSUPPORTED,
                 "{}: {}: this module is quantized otherwise than the others that {} is made of; "
                 "all experts of a layer must have the same bits, groups and order",
                 module.qweight.file, quote(module.name, 160), quote(request_.name, 160));
        }
        stored_matrix stored;
        stored.rows = wanted.stored_rows;
        stored.columns = wanted.stored_columns;
        stored.parts[SLUICE_PART_DATA] = keep(module.qweight);
        stored.parts[SLUICE_PART_SCALES] = keep(module.scales);
        stored.parts[SLUICE_PART_ZEROS] = keep(module.qzeros);
        if (expected.group_index != 0) {
            stored.parts[SLUICE_PART_GROUP_INDEX] = keep(*module.g_idx);
        }
        return stored;
    }

    // "<name>_blocks" u8 [E, N, K/32, 16] and "<name>_scales" u8 [E, N, K/32].
    stored_matrix open_microscaling(const weight_slice_request& wanted) {
        const int64_t rows = wanted.stored_rows;
        const int64_t groups = wanted.stored_columns / microscaling_group;
        if (wanted.stored_columns % microscaling_group != 0) {
            fail(SLUICE_INVALID, "{}: {}: MXFP4 needs rows of a multiple of {} elements, found {}",
                 weights_.directory().string(), quote(wanted.tensor, 160), microscaling_group,
                 wanted.stored_columns);
        }
        const int64_t count = std::max(1u, wanted.stack_size);
        tensor_view blocks =
            weights_.tensor(wanted.tensor, {count, rows, groups, microscaling_group / 2});
        tensor_view scales = weights_.tensor(
            without_suffix(wanted.tensor, blocks_suffix) + "_scales", {count, rows, groups});
        expect_type(blocks, SLUICE_U8);
        expect_type(scales, SLUICE_U8);
        stored_matrix stored;
        stored.rows = rows;
        stored.columns = wanted.stored_columns;
        stored.parts[SLUICE_PART_DATA] = keep(blocks, SLUICE_F4_E2M1, {rows, wanted.stored_columns},
                                              wanted.matrix * (blocks.bytes.size() / size_t(count)),
                                              blocks.bytes.size() / size_t(count));
        stored.parts[SLUICE_PART_SCALES] =
            keep(scales, SLUICE_F8_E8M0, {rows, groups},
                 wanted.matrix * (scales.bytes.size() / size_t(count)),
                 scales.bytes.size() / size_t(count));
        return stored;
    }

    stored_matrix open_fused(const weight_slice_request& wanted) {
        const auto fused = fused_name_of(wanted.tensor);
        if (!fused || !weights_.contains(fused->tensor)) fail_missing(weights_, wanted.tensor);
        weight_slice_request whole = wanted;
        whole.tensor = fused->tensor;
        whole.matrix = fused->expert;
        whole.stack_size = request_.stored_matrix_count != 0 ? request_.stored_matrix_count
                                                             : request_.matrix_count;
        whole.stored_rows = wanted.stored_rows * fused->part_count;
        stored_matrix stored = open_row_major(whole);
        stored.first_row = wanted.stored_rows * fused->part;
        return stored;
    }

    stored_matrix open_row_major(const weight_slice_request& wanted) {
        const bool is_vector = wanted.stored_columns == 0;
        std::vector<int64_t> shape = {wanted.stored_rows};
        if (!is_vector) shape.push_back(wanted.stored_columns);
        if (wanted.stored_transposed) std::swap(shape[0], shape[1]);
        std::vector<int64_t> whole = shape;
        if (wanted.stack_size != 0) whole.insert(whole.begin(), wanted.stack_size);
        const tensor_view tensor = weights_.tensor(wanted.tensor, whole);
        expect_type(tensor, storage_.format.element_type);
        const size_t matrix_bytes = tensor.bytes.size() / std::max(1u, wanted.stack_size);
        const size_t offset = wanted.matrix * matrix_bytes;
        stored_matrix stored;
        stored.rows = wanted.stored_rows;
        stored.columns = is_vector ? 1 : wanted.stored_columns;
        stored.parts[SLUICE_PART_DATA] =
            wanted.stored_transposed
                ? keep_transposed(tensor, shape[0], shape[1], offset)
                : keep(tensor, tensor.element_type, shape, offset, matrix_bytes);
        if (storage_.format.scale_type != SLUICE_ELEMENT_UNKNOWN) add_fp8_scales(wanted, stored);
        return stored;
    }

    // "<module>.weight_scale_inv" f32 [N / block, K / block].
    void add_fp8_scales(const weight_slice_request& wanted, stored_matrix& stored) {
        const sluice_weight_format& format = storage_.format;
        const auto blocks = [](int64_t size, uint32_t block) {
            return (size + block - 1) / std::max(1u, block);
        };
        const tensor_view scales = weights_.tensor(
            wanted.tensor + "_scale_inv",
            {blocks(stored.rows, format.group_rows), blocks(stored.columns, format.group_columns)});
        expect_type(scales, format.scale_type);
        stored.parts[SLUICE_PART_SCALES] = keep(scales);
    }

    void expect_type(const tensor_view& tensor, sluice_element_type type) const {
        if (tensor.element_type == type) return;
        fail(SLUICE_INVALID, "{}: {}: expected elements of type {}, found {}", tensor.file,
             quote(tensor.name, 160), element_type_name(type),
             element_type_name(tensor.element_type));
    }

    const sluice_tensor* keep(const tensor_view& tensor) {
        storage_.owners.push_back(tensor.owner);
        storage_.tensors.push_back(tensor.to_abi());
        return &storage_.tensors.back();
    }

    const sluice_tensor* keep(const tensor_view& tensor, sluice_element_type type,
                              const std::vector<int64_t>& shape, size_t offset_bytes,
                              size_t size_bytes) {
        storage_.owners.push_back(tensor.owner);
        return keep_bytes(type, shape, tensor.bytes.subspan(offset_bytes, size_bytes));
    }

    const sluice_tensor* keep_bytes(sluice_element_type type, const std::vector<int64_t>& shape,
                                    std::span<const std::byte> bytes) {
        auto view = SLUICE_INIT(sluice_tensor);
        view.element_type = type;
        view.rank = static_cast<uint32_t>(shape.size());
        std::copy(shape.begin(), shape.end(), view.shape);
        view.data = bytes.data();
        view.size_bytes = bytes.size();
        storage_.tensors.push_back(view);
        return &storage_.tensors.back();
    }

    // [K, N] at the offset as a copy [N, K].
    const sluice_tensor* keep_transposed(const tensor_view& tensor, int64_t columns, int64_t rows,
                                         size_t offset_bytes) {
        const size_t width = element_bits(tensor.element_type) / 8;
        const auto n = static_cast<size_t>(rows);
        const auto k = static_cast<size_t>(columns);
        std::vector<std::byte>& copy = storage_.copies.emplace_back(n * k * width);
        const std::byte* source = tensor.bytes.data() + offset_bytes;
        for (size_t column = 0; column < k; ++column) {
            for (size_t row = 0; row < n; ++row) {
                std::memcpy(copy.data() + (row * k + column) * width,
                            source + (column * n + row) * width, width);
            }
        }
        return keep_bytes(tensor.element_type, {rows, columns}, copy);
    }

    const checkpoint& weights_;
    const weight_request& request_;
    bound_weight bound_;
    bound_weight::storage& storage_;
    std::optional<gptq_config> gptq_;
    std::map<std::string, stored_matrix> matrices_;
};

bound_weight bind_weight(const checkpoint& weights, const weight_request& request,
                         const sluice_weight_format& format) {
    return weight_binder(weights, request, format).bind();
}

weight_format_function weight_formats_of(const checkpoint& weights) {
    auto gptq = std::make_shared<const std::optional<gptq_config>>(gptq_config_of(weights));
    if (weights.is_dummy()) {
        return [&weights, gptq](const std::string& tensor) {
            const std::string module = without_suffix(tensor, weight_suffix);
            if (*gptq && has_gptq_module(weights, module)) {
                return gptq_format_of(*(*gptq)->resolve(module), (*gptq)->format(),
                                      weights.tensor(module + ".scales", {1}).element_type, false);
            }
            auto format = SLUICE_INIT(sluice_weight_format);
            format.element_type = weights.tensor("any.weight", {1}).element_type;
            return format;
        };
    }
    return [&weights, gptq](const std::string& tensor) {
        if (tensor.ends_with(blocks_suffix)) return microscaling_format();
        if (const auto plain = weights.find(tensor)) return row_major_format(weights, *plain);
        const std::string module = without_suffix(tensor, weight_suffix);
        if (has_gptq_module(weights, module)) {
            if (!*gptq) {
                fail(SLUICE_INVALID,
                     "{}: {} is a GPTQ module, but config.json has no quantization_config of the "
                     "method gptq",
                     weights.directory().string(), quote(module, 160));
            }
            return gptq_format_of(open_any_gptq_module(weights, **gptq, module));
        }
        const auto fused = fused_name_of(tensor);
        const auto stack = fused ? weights.find(fused->tensor) : std::nullopt;
        if (!stack) fail_missing(weights, tensor);
        return row_major_format(weights, *stack);
    };
}

} // namespace sluice
