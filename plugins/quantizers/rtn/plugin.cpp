// The quantizer that rounds to nearest: no calibration, seconds for a model.
#include "rounding.hpp"

#include <sluice/plugin/quantizer.hpp>

#include <array>

namespace sluice::quantizers {
namespace {

// A kind of module and the setting that gives its bits.
struct module_setting {
    uint32_t kind;
    std::string_view name;
    std::string_view help;
    std::string_view fallback;
};

constexpr std::array module_settings{
    module_setting{SLUICE_MODULE_EXPERT, "experts", "Bits of routed experts; 16: as stored.", "4"},
    module_setting{SLUICE_MODULE_SHARED_EXPERT, "shared_experts",
                   "Bits of shared experts; 16: as stored.", "4"},
    module_setting{SLUICE_MODULE_MLP, "mlp", "Bits of dense feed-forward layers; 16: as stored.",
                   "4"},
    module_setting{SLUICE_MODULE_ATTENTION, "attention",
                   "Bits of the projections of attention; 16: as stored.", "8"},
    module_setting{SLUICE_MODULE_EMBEDDING, "embedding",
                   "Bits of the token embedding; 16: as stored.", "16"},
    module_setting{SLUICE_MODULE_HEAD, "head", "Bits of the output head; 16: as stored.", "16"},
    module_setting{SLUICE_MODULE_ROUTER, "router", "Bits of the routers; 16: as stored.", "16"},
};

plugin::schema declare_settings() {
    plugin::schema schema;
    schema
        .integer("group_size",
                 "Neighbouring inputs that share a scale: 32, 64, 128, or -1 for the "
                 "whole row.",
                 64, -1, 128)
        .boolean("symmetric",
                 "Whether zero lies in the middle of the codes; else each group has a "
                 "zero point.",
                 true)
        .boolean("scale_search", "Whether to search each scale for the least squared error.", true);
    for (const auto& each : module_settings)
        schema.text(each.name, each.help, each.fallback, {"4", "8", "16"});
    schema.text("norm", "Bits of norms and other vectors; they stay as stored.", "16", {"16"});
    return schema;
}

uint32_t read_group_size(const plugin::settings& settings) {
    const int64_t given = settings.integer("group_size");
    if (given != -1 && given != 32 && given != 64 && given != 128)
        plugin::fail(SLUICE_INVALID, "group_size is ", given,
                     "; expected 32, 64, 128, or -1 for the whole row");
    return given == -1 ? 0 : static_cast<uint32_t>(given);
}

uint32_t bits_of(std::string_view text) { return text == "4" ? 4 : text == "8" ? 8 : 16; }

// The type that an unquantized module keeps.
sluice_element_type kept_type(sluice_element_type stored) {
    const bool plain = stored == SLUICE_F32 || stored == SLUICE_F16 || stored == SLUICE_BF16;
    return plain ? stored : SLUICE_BF16;
}

// Adds up over the rows of a matrix.
struct row_errors {
    double error_squared = 0;
    double weight_squared = 0;
    group_check check = group_check::good;
};

class rtn {
  public:
    static constexpr bool needs_gram = false;

    static const plugin::definition& define() {
        static const plugin::definition definition{
            .id = "rtn",
            .kind = SLUICE_KIND_QUANTIZER,
            .version = "0.1.0",
            .summary = "Rounds weights to the nearest of 16 or 256 values a group, without "
                       "calibration.",
            .settings = declare_settings(),
            .extensions = {SLUICE_QUANTIZER_EXTENSION}};
        return definition;
    }

    static const void* extension(std::string_view id) {
        return id == SLUICE_QUANTIZER_EXTENSION ? plugin::quantizer_table<rtn>() : nullptr;
    }

    rtn(plugin::host host, const plugin::settings& settings)
        : host_(host), group_columns_(read_group_size(settings)),
          symmetric_(settings.boolean("symmetric")),
          scale_search_(settings.boolean("scale_search")) {
        bits_.fill(16);
        for (const auto& each : module_settings)
            bits_[each.kind] = bits_of(settings.text(each.name));
    }

    sluice_weight_format plan(const sluice_module& module) const {
        auto format = SLUICE_INIT(sluice_weight_format);
        format.layout = SLUICE_WEIGHT_ROW_MAJOR;
        const uint32_t bits = bits_[module.kind];
        if (bits == 16 || module.column_count == 1) {
            format.element_type = kept_type(module.stored_type);
            return format;
        }
        format.element_type = bits == 4 ? SLUICE_U4 : SLUICE_U8;
        format.scale_type = SLUICE_F16;
        format.group_columns = group_columns_;
        format.zero_point = symmetric_ ? SLUICE_ZERO_MIDDLE : SLUICE_ZERO_GROUP;
        return format;
    }

    sluice_quantization_report quantize(const plugin::quantizer_request& request) const {
        const rounding how = rounding_of(request.format);
        // Cut by shape, so that neither the result nor how soon a cancellation is seen depends on
        // the number of workers.
        constexpr int64_t elements_per_entry = int64_t{1} << 22;
        const int64_t rows = request.module.row_count;
        const int64_t rows_per_entry =
            std::max<int64_t>(1, elements_per_entry / request.module.column_count);
        std::vector<row_errors> errors(static_cast<size_t>(rows));
        for (int64_t begin = 0; begin < rows; begin += rows_per_entry) {
            if (host_.cancelled())
                plugin::fail(SLUICE_CANCELLED, "quantizing '", plugin::view(request.module.name),
                             "' was cancelled");
            const int64_t count = std::min(rows_per_entry, rows - begin);
            host_.run([&](const plugin::worker& worker) {
                const auto share = worker.share(count);
                for (int64_t row = begin + share.begin; row < begin + share.end; ++row)
                    errors[static_cast<size_t>(row)] = quantize_row(request, how, row);
            });
        }
        return report(request, errors);
    }

  private:
    rounding rounding_of(const sluice_weight_format& format) const {
        const bool known_type =
            format.element_type == SLUICE_U4 || format.element_type == SLUICE_U8;
        const bool known_zero =
            format.zero_point == SLUICE_ZERO_MIDDLE || format.zero_point == SLUICE_ZERO_GROUP;
        if (!known_type || !known_zero || format.scale_type != SLUICE_F16 || format.group_rows > 1
            || format.group_index != 0 || format.global_scale_type != 0)
            plugin::fail(SLUICE_UNSUPPORTED,
                         "rtn writes unsigned 4- and 8-bit codes with binary16 scales of one row, "
                         "middle or grouped zero points and no group index; quantize with the "
                         "format that plan answered");
        return {format.element_type == SLUICE_U4 ? 4U : 8U, format.zero_point == SLUICE_ZERO_MIDDLE,
                scale_search_};
    }

    static row_errors quantize_row(const plugin::quantizer_request& request, const rounding& how,
                                   int64_t row) {
        const int64_t columns = request.module.column_count;
        const int64_t width =
            request.format.group_columns == 0 ? columns : request.format.group_columns;
        const int64_t groups = (columns + width - 1) / width;
        const float* weights = request.weights + row * columns;
        uint8_t* codes = request.target.codes + row * columns;
        row_errors sum;
        for (int64_t group = 0; group < groups; ++group) {
            const int64_t begin = group * width;
            const auto size = static_cast<size_t>(std::min(width, columns - begin));
            const std::span<const float> run(weights + begin, size);
            sum.check = check_group(run, how);
            if (sum.check != group_check::good) return sum;
            const group_result found = round_group(run, {codes + begin, size}, how);
            request.target.scales[row * groups + group] = found.scale;
            if (request.target.zeros != nullptr)
                request.target.zeros[row * groups + group] = found.zero;
            sum.error_squared += found.error_squared;
            sum.weight_squared += found.weight_squared;
        }
        return sum;
    }

    static sluice_quantization_report report(const plugin::quantizer_request& request,
                                             const std::vector<row_errors>& errors) {
        row_errors sum;
        for (size_t row = 0; row < errors.size(); ++row) {
            if (errors[row].check == group_check::not_finite)
                plugin::fail(SLUICE_INVALID, "'", plugin::view(request.module.name), "' row ", row,
                             " has a weight that is not finite; check the checkpoint");
            if (errors[row].check == group_check::too_large)
                plugin::fail(SLUICE_INVALID, "'", plugin::view(request.module.name), "' row ", row,
                             " has weights so large that their scale is over binary16's 65504; "
                             "keep this kind of module in 16 bits");
            sum.error_squared += errors[row].error_squared;
            sum.weight_squared += errors[row].weight_squared;
        }
        auto answer = SLUICE_INIT(sluice_quantization_report);
        answer.error_relative =
            sum.weight_squared > 0 ? sum.error_squared / sum.weight_squared : 0.0;
        return answer;
    }

    plugin::host host_;
    uint32_t group_columns_; // 0: the whole row
    bool symmetric_;
    bool scale_search_;
    std::array<uint32_t, SLUICE_MODULE_NORM + 1> bits_{}; // by kind of module
};

} // namespace
} // namespace sluice::quantizers

SLUICE_PLUGIN(sluice::quantizers::rtn)
