// GPTQ (Frantar et al. 2023): weights are rounded one input after another, and those that are left
// make up for what the outputs lose.
#include "../common/module_bits.hpp"
#include "row_quantizer.hpp"
#include "row_refiner.hpp"

#include <cmath>
#include <numeric>

namespace sluice::quantizers {
namespace {

plugin::schema declare_settings() {
    plugin::schema schema;
    // Every token passes through shared experts and dense layers, and they are few.
    declare_module_bits(
        schema,
        {.symmetric = false, .shared_experts = "8", .mlp = "8", .attention = "16", .head = "8"});
    schema
        .number("damping",
                "Added to the diagonal of the inputs' second moments, as a share of its mean; "
                "grows tenfold until they can be inverted.",
                0.01, 1e-6, 1.0)
        .boolean("activation_order",
                 "Whether inputs with the largest activations are rounded first. Groups stay as "
                 "they are.",
                 true)
        .boolean("weighted_search",
                 "Whether the search for scales counts errors by the inputs' second moments.", true)
        .integer("refinement",
                 "Passes that refit the scales and then each code, when all are rounded.", 3, 0,
                 100)
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

// H with what makes it invertible, in float32.
std::vector<float> damped_moments(const std::vector<double>& moments, int64_t columns,
                                  double damping) {
    std::vector<float> damped(moments.begin(), moments.end());
    double trace = 0;
    for (int64_t i = 0; i < columns; ++i) trace += moments[static_cast<size_t>(i * (columns + 1))];
    const double mean = trace > 0 ? trace / static_cast<double>(columns) : 1.0;
    for (int64_t i = 0; i < columns; ++i)
        damped[static_cast<size_t>(i * (columns + 1))] += static_cast<float>(damping * mean);
    return damped;
}

quantized_row row_of(const plugin::quantizer_request& request, const group_cut& groups,
                     int64_t row) {
    const int64_t columns = request.module.column_count;
    return {{request.weights + row * columns, static_cast<size_t>(columns)},
            groups.width,
            request.target.codes + row * columns,
            request.target.scales + row * groups.count,
            request.target.zeros == nullptr ? nullptr : request.target.zeros + row * groups.count};
}

// x H x^T: the square of a row as the outputs see it. `room`: [K].
double seen(std::span<const double> x, const std::vector<double>& moments,
            std::vector<double>& room) {
    const size_t columns = x.size();
    room.assign(columns, 0.0);
    for (size_t i = 0; i < columns; ++i) {
        const double* line = moments.data() + i * columns;
        for (size_t j = 0; j < columns; ++j) room[j] += x[i] * line[j];
    }
    return std::inner_product(x.begin(), x.end(), room.begin(), 0.0);
}

// Squares of a row, and of what it loses, as the outputs see them.
struct row_errors {
    double whole = 0;
    double lost = 0;
    double lost_by_rounding = 0; // each weight to the nearest code
};

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
        weighted_search_ = settings.boolean("weighted_search");
        refinement_ = static_cast<int>(settings.integer("refinement"));
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
        const std::vector<float> damped = damped_moments(moments, columns, factor.damping);
        std::vector<float> importance;
        if (weighted_search_)
            for (int64_t i = 0; i < columns; ++i)
                importance.push_back(damped[static_cast<size_t>(i * (columns + 1))]);
        const group_cut groups = groups_of(request.format, columns);
        std::vector<group_check> checks(static_cast<size_t>(rows));
        std::vector<row_errors> errors(static_cast<size_t>(rows));
        constexpr int64_t operations_at_once = int64_t{1} << 30;
        const auto quantize_share = [&](int64_t begin, int64_t end) {
            bool all_good = true;
            for (int64_t row = begin; row < end; ++row) {
                auto& found = checks[static_cast<size_t>(row)];
                found = check_row(request, how, row);
                all_good = all_good && found == group_check::good;
            }
            if (!all_good) return;
            quantize_rows(request.weights, columns, begin, end, groups.width, factor, how,
                          importance,
                          {request.target.codes, request.target.scales, request.target.zeros});
            row_refiner refiner(damped, columns);
            for (int64_t row = begin; row < end; ++row) {
                refiner.refine(row_of(request, groups, row), how, refinement_);
                errors[static_cast<size_t>(row)] = errors_of(request, groups, moments, how, row);
            }
        };
        run_rows(host_, request, std::max<int64_t>(16, operations_at_once / (columns * columns)),
                 quantize_share);
        require_rows(request, checks);
        row_errors sum;
        for (const row_errors& row : errors) {
            sum.whole += row.whole;
            sum.lost += row.lost;
            sum.lost_by_rounding += row.lost_by_rounding;
        }
        if (sum.whole > 0) {
            report.error_relative = sum.lost / sum.whole;
            report.rounding_error_relative = sum.lost_by_rounding / sum.whole;
        }
        return report;
    }

  private:
    static row_errors errors_of(const plugin::quantizer_request& request, const group_cut& groups,
                                const std::vector<double>& moments, const rounding& how,
                                int64_t row) {
        const quantized_row made = row_of(request, groups, row);
        const auto columns = made.weights.size();
        std::vector<double> weight(columns), lost(columns), rounded(columns), room;
        group_grid nearest{};
        for (size_t i = 0; i < columns; ++i) {
            const size_t group = i / static_cast<size_t>(groups.width);
            const size_t begin = group * static_cast<size_t>(groups.width);
            if (i == begin)
                nearest = find_grid(
                    made.weights.subspan(
                        begin, std::min(static_cast<size_t>(groups.width), columns - begin)),
                    how);
            const group_grid grid = grid_of(made, static_cast<int64_t>(group), how);
            const float given = made.weights[i];
            weight[i] = double{given};
            lost[i] = weight[i] - double{value_of(grid, made.codes[i])};
            rounded[i] = weight[i] - double{value_of(nearest, code_on(nearest, given, how))};
        }
        return {seen(weight, moments, room), seen(lost, moments, room),
                seen(rounded, moments, room)};
    }

    plugin::host host_;
    module_bits bits_;
    factor_options factor_;
    double prior_tokens_;
    bool weighted_search_;
    int refinement_;
};

} // namespace
} // namespace sluice::quantizers

SLUICE_PLUGIN(sluice::quantizers::gptq)
