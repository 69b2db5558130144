// The quantizer that rounds to nearest: no calibration, seconds for a model.
#include "../common/module_bits.hpp"

namespace sluice::quantizers {
namespace {

plugin::schema declare_settings() {
    plugin::schema schema;
    declare_module_bits(schema, {});
    return schema;
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

    rtn(plugin::host host, const plugin::settings& settings) : host_(host), bits_(settings) {}

    sluice_weight_format plan(const sluice_module& module) const { return bits_.plan(module); }

    sluice_quantization_report quantize(const plugin::quantizer_request& request) const {
        const rounding how = bits_.rounding_of(request.format, "rtn");
        constexpr int64_t elements_at_once = int64_t{1} << 22;
        std::vector<row_errors> errors(static_cast<size_t>(request.module.row_count));
        run_rows(host_, request,
                 std::max<int64_t>(1, elements_at_once / request.module.column_count),
                 [&](int64_t begin, int64_t end) {
                     for (int64_t row = begin; row < end; ++row)
                         errors[static_cast<size_t>(row)] = quantize_row(request, how, row);
                 });
        return report(request, errors);
    }

  private:
    static row_errors quantize_row(const plugin::quantizer_request& request, const rounding& how,
                                   int64_t row) {
        const int64_t columns = request.module.column_count;
        const auto [width, groups] = groups_of(request.format, columns);
        const float* weights = request.weights + row * columns;
        uint8_t* codes = request.target.codes + row * columns;
        row_errors sum;
        sum.check = check_row(request, how, row);
        if (sum.check != group_check::good) return sum;
        for (int64_t group = 0; group < groups; ++group) {
            const int64_t begin = group * width;
            const auto size = static_cast<size_t>(std::min(width, columns - begin));
            const std::span<const float> run(weights + begin, size);
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
        std::vector<group_check> checks;
        for (const row_errors& row : errors) {
            checks.push_back(row.check);
            sum.error_squared += row.error_squared;
            sum.weight_squared += row.weight_squared;
        }
        require_rows(request, checks);
        auto answer = SLUICE_INIT(sluice_quantization_report);
        answer.error_relative =
            sum.weight_squared > 0 ? sum.error_squared / sum.weight_squared : 0.0;
        return answer;
    }

    plugin::host host_;
    module_bits bits_;
};

} // namespace
} // namespace sluice::quantizers

SLUICE_PLUGIN(sluice::quantizers::rtn)
