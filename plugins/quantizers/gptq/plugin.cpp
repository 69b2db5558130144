// GPTQ (Frantar et al. 2023): weights are rounded one input after another, and those that are left
// make up for what the outputs lose.
#include "common/module_bits.hpp"
#include "row_quantizer.hpp"

#include <cmath>

namespace sluice::quantizers {
namespace {

plugin::schema declare_settings() {
    plugin::schema schema;
    declare_module_bits(schema, "16");
    schema
        .number("damping",
                "Added to the diagonal of the inputs' second moments, as a share of its mean; "
                "grows tenfold until they can be inverted.",
                0.01, 1e-6, 1.0)
        .boolean("activation_order",
                 "Whether inputs with the largest activations are rounded first. Groups stay as "
                 "they are.",
                 true)
        .number("prior_tokens",
                "How many tokens the statistics of all of a layer's tokens count as beside an "
                "expert's own.",
                256, 0, 1e9);
    return schema;
}

// [K, K] mean second moments of the inputs, those of few rows drawn towards those of all.
std::vector<double> second_moments(const plugin::quantizer_request& request, double prior_tokens) {
    const auto& calibration = request.calibration;
    const auto count = static_cast<size_t>(request.module.column_count)
                       * static_cast<size_t>(request.module.column_count);
    std::vector<double> moments(count);
    const bool has_prior = calibration.prior_gram != nullptr && calibration.prior_row_count > 0;
    const double prior = has_prior ? std::min(prior_tokens, calibration.prior_row_count) : 0.0;
    const double rows = calibration.gram != nullptr ? calibration.row_count : 0.0;
    if (rows + prior <= 0) return {};
    for (size_t i = 0; i < count; ++i) {
        if (rows > 0) moments[i] += double{calibration.gram[i]};
        if (prior > 0)
            moments[i] += double{calibration.prior_gram[i]} * (prior / calibration.prior_row_count);
        moments[i] /= rows + prior;
    }
    return moments;
}

// |W - W'|^2 and |W|^2 of a row, as the outputs see them: x H x^T.
double seen(std::span<const double> x, const std::vector<double>& moments) {
    const size_t columns = x.size();
    double total = 0;
    for (size_t i = 0; i < columns; ++i) {
        double sum = 0;
        for (size_t j = 0; j < columns; ++j) sum += moments[i * columns + j] * x[j];
        total += sum * x[i];
    }
    return total;
}

class gptq {
  public:
    static constexpr bool needs_gram = true;

    static const plugin::definition& define() {
        static const plugin::definition definition{
            .id = "gptq",
            .kind = SLUICE_KIND_QUANTIZER,
            .version = "0.1.0",
            .summary = "Rounds weights so that outputs change least on calibration text (GPTQ).",
            .settings = declare_settings(),
            .extensions = {SLUICE_QUANTIZER_EXTENSION}};
        return definition;
    }

    static const void* extension(std::string_view id) {
        return id == SLUICE_QUANTIZER_EXTENSION ? plugin::quantizer_table<gptq>() : nullptr;
    }

    gptq(plugin::host host, const plugin::settings& settings)
        : host_(host), bits_(settings), prior_tokens_(settings.number("prior_tokens")) {
        factor_.damping = settings.number("damping");
        factor_.activation_order = settings.boolean("activation_order");
    }

    sluice_weight_format plan(const sluice_module& module) const { return bits_.plan(module); }

    sluice_quantization_report quantize(const plugin::quantizer_request& request) const {
        const rounding how = bits_.rounding_of(request.format, "gptq");
        const int64_t rows = request.module.row_count, columns = request.module.column_count;
        std::vector<double> moments = second_moments(request, prior_tokens_);
        auto report = SLUICE_INIT(sluice_quantization_report);
        if (moments.empty()) {
            report.fallback = 1;
            constexpr std::string_view note = "no token came here: rounded to nearest";
            std::copy(note.begin(), note.end(), report.note);
            moments.resize(static_cast<size_t>(columns * columns));
            for (int64_t i = 0; i < columns; ++i)
                moments[static_cast<size_t>(i * (columns + 1))] = 1;
        }
        const inverse_factor factor = factor_inverse(moments, columns, factor_);
        report.damping = factor.damping;
        const group_cut groups = groups_of(request.format, columns);
        std::vector<group_check> checks(static_cast<size_t>(rows));
        std::vector<std::array<double, 2>> errors(static_cast<size_t>(rows));
        // Cut by shape, so that neither the result nor how soon a cancellation is seen depends on
        // the number of workers.
        constexpr int64_t operations_per_entry = int64_t{1} << 30;
        const int64_t rows_per_entry =
            std::max<int64_t>(16, operations_per_entry / (columns * columns));
        for (int64_t begin = 0; begin < rows; begin += rows_per_entry) {
            if (host_.cancelled())
                plugin::fail(SLUICE_CANCELLED, "quantizing '", plugin::view(request.module.name),
                             "' was cancelled");
            const int64_t count = std::min(rows_per_entry, rows - begin);
            host_.run([&](const plugin::worker& worker) {
                const auto share = worker.share(count);
                const int64_t first = begin + share.begin, last = begin + share.end;
                bool all_good = true;
                for (int64_t row = first; row < last; ++row) {
                    auto& found = checks[static_cast<size_t>(row)];
                    found = check_row(request, how, row);
                    all_good = all_good && found == group_check::good;
                }
                if (!all_good) return;
                quantize_rows(request.weights, columns, first, last, groups.width, factor, how,
                              {request.target.codes, request.target.scales, request.target.zeros});
                for (int64_t row = first; row < last; ++row)
                    errors[static_cast<size_t>(row)] =
                        errors_of(request, groups, moments, how, row);
            });
        }
        require_rows(request, checks);
        double lost = 0, whole = 0;
        for (const auto& [row_lost, row_whole] : errors) {
            lost += row_lost;
            whole += row_whole;
        }
        report.error_relative = whole > 0 ? lost / whole : 0.0;
        return report;
    }

  private:
    static std::array<double, 2> errors_of(const plugin::quantizer_request& request,
                                           const group_cut& groups,
                                           const std::vector<double>& moments, const rounding& how,
                                           int64_t row) {
        const int64_t columns = request.module.column_count;
        std::vector<double> weight(static_cast<size_t>(columns)), lost(weight.size());
        for (int64_t i = 0; i < columns; ++i) {
            const int64_t group = row * groups.count + i / groups.width;
            const auto zero = request.target.zeros != nullptr
                                  ? request.target.zeros[group]
                                  : static_cast<uint8_t>(1U << (how.bits - 1));
            const auto at = static_cast<size_t>(i);
            weight[at] = double{request.weights[row * columns + i]};
            lost[at] = weight[at]
                       - double{value_of({request.target.scales[group], zero},
                                         request.target.codes[row * columns + i])};
        }
        return {seen(lost, moments), seen(weight, moments)};
    }

    plugin::host host_;
    module_bits bits_;
    factor_options factor_;
    double prior_tokens_;
};

} // namespace
} // namespace sluice::quantizers

SLUICE_PLUGIN(sluice::quantizers::gptq)
