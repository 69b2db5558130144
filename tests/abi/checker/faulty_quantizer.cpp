// A quantizer with faults: scales that binary16 cannot say, a report that flatters, NaN let
// through.
#include <sluice/plugin/quantizer.hpp>

#include <cmath>

namespace {

namespace plugin = sluice::plugin;

class faulty_quantizer {
  public:
    static constexpr bool needs_gram = false;
    static const plugin::definition& define() {
        static const plugin::definition made{
            .id = "faulty_quantizer",
            .kind = SLUICE_KIND_QUANTIZER,
            .version = "0.1.0",
            .summary = "Wrong on purpose",
            .settings = plugin::schema().boolean("rounds_scales", "Whether to.", false),
            .extensions = {SLUICE_QUANTIZER_EXTENSION}};
        return made;
    }
    static const void* extension(std::string_view id) {
        return id == SLUICE_QUANTIZER_EXTENSION ? plugin::quantizer_table<faulty_quantizer>()
                                                : nullptr;
    }
    faulty_quantizer(plugin::host, const plugin::settings&) {}

    sluice_weight_format plan(const sluice_module& module) const {
        auto format = SLUICE_INIT(sluice_weight_format);
        format.element_type = module.column_count == 1 ? SLUICE_BF16 : SLUICE_U8;
        format.scale_type = module.column_count == 1 ? 0 : SLUICE_F16;
        format.zero_point = module.column_count == 1 ? 0 : SLUICE_ZERO_MIDDLE;
        return format;
    }
    sluice_quantization_report quantize(const plugin::quantizer_request& request) const {
        const int64_t columns = request.module.column_count;
        for (int64_t n = 0; n < request.module.row_count; ++n) {
            const float* row = request.weights + n * columns;
            float most = 0;
            for (int64_t k = 0; k < columns; ++k) most = std::fmax(most, std::fabs(row[k]));
            const float scale = most > 0 ? most / 127 : 1;
            request.target.scales[n] = scale;
            request.target.zeros[n] = 128;
            for (int64_t k = 0; k < columns; ++k)
                request.target.codes[n * columns + k] =
                    static_cast<uint8_t>(128 + std::lround(std::fmax(row[k], -most) / scale));
        }
        return SLUICE_INIT(sluice_quantization_report);
    }
};

} // namespace

SLUICE_PLUGIN(faulty_quantizer)
