#include "module_bits.hpp"

namespace sluice::quantizers {
namespace {

// A kind of module and the setting that gives its bits.
struct module_setting {
    uint32_t kind;
    std::string_view name;
    std::string_view help;
};

constexpr std::array module_settings{
    module_setting{SLUICE_MODULE_EXPERT, "experts", "Bits of routed experts; 16: as stored."},
    module_setting{SLUICE_MODULE_SHARED_EXPERT, "shared_experts",
                   "Bits of shared experts; 16: as stored."},
    module_setting{SLUICE_MODULE_MLP, "mlp", "Bits of dense feed-forward layers; 16: as stored."},
    module_setting{SLUICE_MODULE_ATTENTION, "attention",
                   "Bits of the projections of attention; 16: as stored."},
    module_setting{SLUICE_MODULE_EMBEDDING, "embedding",
                   "Bits of the token embedding; 16: as stored."},
    module_setting{SLUICE_MODULE_HEAD, "head", "Bits of the output head; 16: as stored."},
    module_setting{SLUICE_MODULE_ROUTER, "router", "Bits of the routers; 16: as stored."},
};

std::string_view default_of(uint32_t kind, const default_bits& defaults) {
    switch (kind) {
    case SLUICE_MODULE_EXPERT:
        return "4";
    case SLUICE_MODULE_SHARED_EXPERT:
        return defaults.shared_experts;
    case SLUICE_MODULE_MLP:
        return defaults.mlp;
    case SLUICE_MODULE_ATTENTION:
        return defaults.attention;
    case SLUICE_MODULE_HEAD:
        return defaults.head;
    default:
        return "16";
    }
}

} // namespace

void declare_module_bits(plugin::schema& schema, const default_bits& defaults) {
    schema
        .integer("group_size",
                 "Neighbouring inputs that share a scale: 32, 64, 128, or -1 for the "
                 "whole row.",
                 64, -1, 128)
        .boolean("symmetric",
                 "Whether zero lies in the middle of the codes; else each group has a "
                 "zero point.",
                 defaults.symmetric)
        .boolean("scale_search", "Whether to search each scale for the least squared error.", true);
    for (const auto& each : module_settings)
        schema.text(each.name, each.help, default_of(each.kind, defaults), {"4", "8", "16"});
    schema.text("norm", "Bits of norms and other vectors; they stay as stored.", "16", {"16"});
}

namespace {

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

} // namespace

module_bits::module_bits(const plugin::settings& settings)
    : group_columns_(read_group_size(settings)), symmetric_(settings.boolean("symmetric")),
      scale_search_(settings.boolean("scale_search")) {
    bits_.fill(16);
    for (const auto& each : module_settings) bits_[each.kind] = bits_of(settings.text(each.name));
}

sluice_weight_format module_bits::plan(const sluice_module& module) const {
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

rounding module_bits::rounding_of(const sluice_weight_format& format,
                                  std::string_view quantizer) const {
    const bool known_type = format.element_type == SLUICE_U4 || format.element_type == SLUICE_U8;
    const bool known_zero =
        format.zero_point == SLUICE_ZERO_MIDDLE || format.zero_point == SLUICE_ZERO_GROUP;
    if (!known_type || !known_zero || format.scale_type != SLUICE_F16 || format.group_rows > 1
        || format.group_index != 0 || format.global_scale_type != 0)
        plugin::fail(SLUICE_UNSUPPORTED, quantizer,
                     " writes unsigned 4- and 8-bit codes with binary16 scales of one row, "
                     "middle or grouped zero points and no group index; quantize with the "
                     "format that plan answered");
    return {format.element_type == SLUICE_U4 ? 4U : 8U, format.zero_point == SLUICE_ZERO_MIDDLE,
            scale_search_};
}

group_cut groups_of(const sluice_weight_format& format, int64_t columns) {
    const int64_t width = format.group_columns == 0 ? columns : format.group_columns;
    return {width, (columns + width - 1) / width};
}

group_check check_row(const plugin::quantizer_request& request, const rounding& how, int64_t row) {
    const int64_t columns = request.module.column_count;
    const group_cut groups = groups_of(request.format, columns);
    for (int64_t group = 0; group < groups.count; ++group) {
        const int64_t begin = group * groups.width;
        const auto size = static_cast<size_t>(std::min(groups.width, columns - begin));
        const auto found = check_group({request.weights + row * columns + begin, size}, how);
        if (found != group_check::good) return found;
    }
    return group_check::good;
}

void require_rows(const plugin::quantizer_request& request, std::span<const group_check> found) {
    for (size_t row = 0; row < found.size(); ++row) {
        if (found[row] == group_check::not_finite)
            plugin::fail(SLUICE_INVALID, "'", plugin::view(request.module.name), "' row ", row,
                         " has a weight that is not finite; check the checkpoint");
        if (found[row] == group_check::too_large)
            plugin::fail(SLUICE_INVALID, "'", plugin::view(request.module.name), "' row ", row,
                         " has weights so large that their scale is over binary16's 65504; "
                         "keep this kind of module in 16 bits");
    }
}

void run_rows(const plugin::host& host, const plugin::quantizer_request& request,
              int64_t rows_at_once, const std::function<void(int64_t begin, int64_t end)>& run) {
    const int64_t rows = request.module.row_count;
    for (int64_t begin = 0; begin < rows; begin += rows_at_once) {
        if (host.cancelled())
            plugin::fail(SLUICE_CANCELLED, "quantizing '", plugin::view(request.module.name),
                         "' was cancelled");
        host.run([&](const plugin::worker& worker) {
            const auto share = worker.share(std::min(rows_at_once, rows - begin));
            run(begin + share.begin, begin + share.end);
        });
    }
}

} // namespace sluice::quantizers
