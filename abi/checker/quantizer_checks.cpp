#include "backend_checks/host_tensor.hpp"
#include "checks.hpp"
#include "tailed.hpp"

#include "base/element_type.hpp"

#include <cmath>
#include <limits>

namespace sluice::checker {
namespace {

constexpr uint32_t module_kinds[] = {
    SLUICE_MODULE_EMBEDDING,     SLUICE_MODULE_HEAD,   SLUICE_MODULE_ATTENTION, SLUICE_MODULE_MLP,
    SLUICE_MODULE_SHARED_EXPERT, SLUICE_MODULE_EXPERT, SLUICE_MODULE_ROUTER,    SLUICE_MODULE_NORM};

sluice_module make_module(uint32_t kind, int64_t rows, int64_t columns) {
    auto module = SLUICE_INIT(sluice_module);
    module.kind = kind;
    module.row_count = rows;
    module.column_count = columns;
    module.name = text_view("model.layers.0.checker");
    module.stored_type = SLUICE_BF16;
    return module;
}

bool is_kept(const sluice_weight_format& format) { return format.scale_type == 0; }

sluice_weight_format plan(plugin_instance& plugin, const sluice_module& module) {
    auto format = SLUICE_INIT(sluice_weight_format);
    plugin_call call = plugin.call("plan");
    call = plugin.quantizer().plan(plugin.handle(), &module, &format, call.error());
    return format;
}

// What a format must be for the runtime to store it.
void check_format(const sluice_weight_format& format, const sluice_module& module) {
    const std::string_view type = element_type_name(format.element_type);
    if (is_kept(format)) {
        require(format.element_type == SLUICE_F32 || format.element_type == SLUICE_F16
                    || format.element_type == SLUICE_BF16,
                "a format without scales must be f32, f16 or bf16, found {}", type);
        return;
    }
    require(module.column_count > 1, "it quantizes a vector");
    require(format.element_type == SLUICE_U4 || format.element_type == SLUICE_U8,
            "codes must be u4 or u8, one a byte, found {}", type);
    require(format.scale_type == SLUICE_F16 || format.scale_type == SLUICE_BF16
                || format.scale_type == SLUICE_F32,
            "scales must be f16, bf16 or f32, found {}", element_type_name(format.scale_type));
    require(format.zero_point <= SLUICE_ZERO_GROUP_LESS_ONE, "unknown zero point {}",
            format.zero_point);
    require(format.group_rows <= 1, "rows must not share scales, found groups of {}",
            format.group_rows);
}

std::string plans(context& with) {
    size_t quantized = 0;
    size_t kept = 0;
    for (const uint32_t kind : module_kinds)
        for (const auto& [rows, columns] :
             {std::pair{1, 1}, {96, 1}, {96, 64}, {7, 200}, {1, 33}, {64, 4096}}) {
            const sluice_module module = make_module(kind, rows, columns);
            const auto format = plan(with.plugin(), module);
            check_format(format, module);
            ++(is_kept(format) ? kept : quantized);
        }
    return fmt::format("{} quantized, {} kept", quantized, kept);
}

// One call of quantize with its buffers, which end in bytes that must stay as they are.
struct quantization {
    sluice_module module = SLUICE_INIT(sluice_module);
    sluice_weight_format format = SLUICE_INIT(sluice_weight_format);
    std::vector<float> weights; // [N, K]
    std::vector<uint8_t> codes, zeros;
    std::vector<float> scales, gram;
    std::vector<int32_t> group_index;
    sluice_quantization_report report = SLUICE_INIT(sluice_quantization_report);
    sluice_status status = SLUICE_OK;
    std::string message;

    static constexpr size_t margin = 16;
    static constexpr uint8_t untouched = 0xa5;

    int64_t rows() const { return module.row_count; }
    int64_t columns() const { return module.column_count; }
    int64_t group_width() const {
        return format.group_columns == 0 ? columns() : format.group_columns;
    }
    int64_t groups() const { return (columns() + group_width() - 1) / group_width(); }
    int64_t group_of(int64_t k) const {
        return format.group_index != 0 ? group_index[static_cast<size_t>(k)] : k / group_width();
    }
    float code_max() const { return format.element_type == SLUICE_U4 ? 15.0F : 255.0F; }
};

quantization prepare(plugin_instance& plugin, const sluice_module& module,
                     std::vector<float> weights) {
    quantization made;
    made.module = module;
    made.format = plan(plugin, module);
    made.weights = std::move(weights);
    const auto size = static_cast<size_t>(made.rows() * made.columns());
    const auto scales = static_cast<size_t>(made.rows() * made.groups());
    made.codes.assign(size + quantization::margin, quantization::untouched);
    made.zeros.assign(scales + quantization::margin, quantization::untouched);
    made.scales.assign(scales + quantization::margin, -1.0F);
    made.group_index.assign(static_cast<size_t>(made.columns()) + quantization::margin, -7);
    if (plugin.quantizer().needs_gram != 0) {
        made.gram.resize(static_cast<size_t>(made.columns() * made.columns()));
        for (int64_t k = 0; k < made.columns(); ++k)
            made.gram[static_cast<size_t>(k * made.columns() + k)] = 1;
    }
    return made;
}

void call_quantize(plugin_instance& plugin, quantization& of) {
    auto target = SLUICE_INIT(sluice_quantized);
    target.codes = of.codes.data();
    target.scales = of.scales.data();
    target.zeros = of.zeros.data();
    target.group_index = of.group_index.data();
    auto calibration = SLUICE_INIT(sluice_calibration);
    calibration.gram = of.gram.empty() ? nullptr : of.gram.data();
    calibration.row_count = of.gram.empty() ? 0 : 1;
    auto error = SLUICE_INIT(sluice_error);
    of.status = plugin.quantizer().quantize(plugin.handle(), &of.module, of.weights.data(),
                                            &of.format, &calibration, &target, &of.report, &error);
    of.message = of.status == SLUICE_OK ? "" : text_of_array(error.message, sizeof error.message);
}

void check_margins(const quantization& of) {
    const auto size = static_cast<size_t>(of.rows() * of.columns());
    const auto scales = static_cast<size_t>(of.rows() * of.groups());
    for (size_t i = 0; i < quantization::margin; ++i)
        require(of.codes[size + i] == quantization::untouched
                    && of.zeros[scales + i] == quantization::untouched
                    && of.scales[scales + i] == -1.0F
                    && of.group_index[static_cast<size_t>(of.columns()) + i] == -7,
                "it wrote beyond a buffer");
}

// A scale must be a value of the type that it will be stored in.
bool is_of_type(float scale, sluice_element_type type) {
    if (type == SLUICE_F16) return f16_to_f32(f32_to_f16(scale)) == scale;
    if (type == SLUICE_BF16) return bf16_to_f32(f32_to_bf16(scale)) == scale;
    return true;
}

// Codes, scales and zeros in range; returns sum (w - w')^2 / sum w^2. Where nothing but rounding is
// at work (no calibration), every code that is not at an end is within half a step.
double check_values(const quantization& of, bool rounds_alone) {
    double error = 0;
    double total = 0;
    for (int64_t n = 0; n < of.rows(); ++n)
        for (int64_t k = 0; k < of.columns(); ++k) {
            const int64_t group = of.group_of(k);
            require(group >= 0 && group < of.groups(), "group_index[{}] is {}, of {} groups", k,
                    group, of.groups());
            const auto place = static_cast<size_t>(n * of.groups() + group);
            const float scale = of.scales[place];
            require(std::isfinite(scale) && scale > 0, "scale [{}, {}] is {}", n, group, scale);
            require(is_of_type(scale, of.format.scale_type),
                    "scale [{}, {}] = {} changes when it is stored as {}", n, group, scale,
                    element_type_name(of.format.scale_type));
            const auto code =
                static_cast<float>(of.codes[static_cast<size_t>(n * of.columns() + k)]);
            const auto zero = static_cast<float>(of.zeros[place]);
            require(code <= of.code_max() && zero <= of.code_max(),
                    "code {} or zero {} at [{}, {}] is over {}", code, zero, n, k, of.code_max());
            if (of.format.zero_point == SLUICE_ZERO_MIDDLE)
                require(zero == (of.code_max() + 1) / 2,
                        "the zero point [{}, {}] is {}, the format "
                        "says the middle",
                        n, group, zero);
            const float weight = of.weights[static_cast<size_t>(n * of.columns() + k)];
            const float back = (code - zero) * scale;
            if (rounds_alone && code > 0 && code < of.code_max())
                require(std::abs(weight - back) <= 0.501F * scale,
                        "[{}, {}]: {} became {}, more than half a step of {}", n, k, weight, back,
                        scale);
            error += (double{weight} - back) * (double{weight} - back);
            total += double{weight} * weight;
        }
    return total > 0 ? error / total : 0;
}

struct sample {
    std::string name;
    int64_t rows, columns;
    std::vector<float> weights;
};

std::vector<sample> make_samples(std::mt19937_64 random) {
    std::vector<sample> samples;
    for (const auto& [rows, columns] :
         {std::pair{17, 256}, {5, 200}, {1, 33}, {3, 2}, {64, 64}, {2, 4099}})
        samples.push_back({fmt::format("normal [{}, {}]", rows, columns), rows, columns,
                           normal_numbers(random, int64_t{rows} * columns, 0.02F)});
    samples.push_back({"zeros", 4, 128, std::vector<float>(512, 0.0F)});
    samples.push_back({"one constant", 4, 128, std::vector<float>(512, 0.37F)});
    samples.push_back({"one negative constant", 2, 96, std::vector<float>(192, -3.0F)});
    samples.push_back({"tiny", 2, 128, normal_numbers(random, 256, 1e-9F)});
    samples.push_back({"of size 1000", 2, 128, normal_numbers(random, 256, 1000.0F)});
    samples.push_back({"one outlier", 2, 128, normal_numbers(random, 256, 0.01F)});
    samples.back().weights[77] = 30;
    samples.push_back({"all positive", 3, 192, normal_numbers(random, 576, 0.1F)});
    for (float& weight : samples.back().weights) weight = 1 + std::abs(weight);
    return samples;
}

std::string rounds(context& with) {
    with.plugin();
    const auto variants = settings_variants(with.raw().manifest());
    if (variants.empty()) skip_check("it has required settings, whose values only its user knows");
    size_t count = 0;
    double worst_4 = 0;
    for (const auto& variant : variants) {
        std::shared_ptr<plugin_instance> plugin;
        try {
            plugin = with.open(variant.settings);
        } catch (const std::exception&) {
            continue; // "settings within bounds" looks at refusals
        }
        const bool rounds_alone = plugin->quantizer().needs_gram == 0;
        for (const uint32_t kind : {SLUICE_MODULE_EXPERT, SLUICE_MODULE_ATTENTION})
            for (const auto& each : make_samples(with.random("quantize"))) {
                quantization made =
                    prepare(*plugin, make_module(kind, each.rows, each.columns), each.weights);
                if (is_kept(made.format)) continue;
                call_quantize(*plugin, made);
                require(made.status == SLUICE_OK, "{}, {}: {}", variant.name, each.name,
                        made.message);
                check_margins(made);
                const double error = check_values(made, rounds_alone);
                require(std::abs(made.report.error_relative - error) <= 1e-3 * error + 1e-9,
                        "{}, {}: it reports a relative error of {}, found {}", variant.name,
                        each.name, made.report.error_relative, error);
                if (made.format.element_type == SLUICE_U4 && each.name == "normal [64, 64]")
                    worst_4 = std::max(worst_4, error);
                ++count;
            }
    }
    if (count == 0) skip_check("it quantizes neither experts nor attention");
    // Even uniform rounding over the range of a whole row stays far below this.
    require(worst_4 < 0.05, "normal weights lose {} of their square in 4 bits", worst_4);
    return fmt::format("{} matrices; 4 bits lose {:.5f} of normal weights' square at most", count,
                       worst_4);
}

std::string repeats(context& with) {
    auto random = with.random("repeats");
    const auto weights = normal_numbers(random, int64_t{200} * 640, 0.05F);
    const sluice_module module = make_module(SLUICE_MODULE_EXPERT, 200, 640);
    std::optional<quantization> first;
    for (const uint32_t workers : {1U, 2U, 3U}) {
        const auto plugin = with.open({}, workers);
        quantization made = prepare(*plugin, module, weights);
        if (is_kept(made.format)) skip_check("it does not quantize experts");
        call_quantize(*plugin, made);
        require(made.status == SLUICE_OK, "{}", made.message);
        if (!first)
            first = std::move(made);
        else
            require(made.codes == first->codes && made.scales == first->scales
                        && made.zeros == first->zeros
                        && made.report.error_relative == first->report.error_relative,
                    "with {} workers it gives other bits than with 1", workers);
    }
    return {};
}

std::string bad_numbers_refused(context& with) {
    const sluice_module module = make_module(SLUICE_MODULE_EXPERT, 3, 96);
    constexpr float infinity = std::numeric_limits<float>::infinity();
    for (const float bad : {std::numeric_limits<float>::quiet_NaN(), infinity, -infinity, 1e30F}) {
        auto random = with.random("bad numbers");
        quantization made = prepare(with.plugin(), module, normal_numbers(random, 3 * 96, 0.1F));
        if (is_kept(made.format)) skip_check("it does not quantize experts");
        made.weights[150] = bad;
        call_quantize(with.plugin(), made);
        check_margins(made);
        if (made.status == SLUICE_OK) {
            require(std::isfinite(bad), "it quantizes {} without an error", bad);
            check_values(made, false);
            continue;
        }
        require(SLUICE_STATUS_CLASS(made.status) == SLUICE_INVALID && !made.message.empty(),
                "{} is refused as '{}' with the message '{}', expected 'invalid' and a reason", bad,
                status_name(made.status), made.message);
    }
    return {};
}

std::string cancels(context& with) {
    auto random = with.random("cancel");
    const std::atomic<bool> stop{true};
    const cancellation_scope scope(&stop);
    const sluice_module module = make_module(SLUICE_MODULE_EXPERT, 64, 512);
    quantization made = prepare(with.plugin(), module, normal_numbers(random, 64 * 512, 0.1F));
    if (is_kept(made.format)) skip_check("it does not quantize experts");
    call_quantize(with.plugin(), made);
    require(made.status == SLUICE_OK || SLUICE_STATUS_CLASS(made.status) == SLUICE_CANCELLED,
            "a cancelled call ends as '{}': {}", status_name(made.status), made.message);
    require(SLUICE_STATUS_CLASS(made.status) == SLUICE_CANCELLED,
            "a call whose cancellation was asked for beforehand runs to its end");
    return {};
}

std::string growth_respected(context& with) {
    plugin_instance& plugin = with.plugin();
    const sluice_quantizer& table = plugin.quantizer();
    const sluice_module module = make_module(SLUICE_MODULE_EXPERT, 4, 64);
    auto format = SLUICE_INIT(sluice_weight_format);
    const auto plan_status = [&](const sluice_module* sent, sluice_weight_format* target) {
        return table.plan(plugin.handle(), sent, target, nullptr);
    };
    const auto newer = with_unknown_field(module);
    require(SLUICE_STATUS_CLASS(plan_status(newer.get(), &format)) == SLUICE_UNSUPPORTED,
            "a module with an unknown field is not refused as unsupported");
    const auto zero = with_zero_tail(module);
    require(plan_status(zero.get(), &format) == SLUICE_OK, "a module with a zero tail is refused");
    const auto older = cut_to(module, offsetof(sluice_module, layer));
    require(plan_status(older.get(), &format) == SLUICE_OK,
            "a module without its last fields is refused");
    require(plan_status(nullptr, &format) != SLUICE_OK, "a module that is NULL is accepted");
    require(plan_status(&module, nullptr) != SLUICE_OK, "a format that is NULL is accepted");

    // The format that it is to write may be larger, with what was in it before.
    auto larger = with_unknown_field(SLUICE_INIT(sluice_weight_format));
    require(plan_status(&module, larger.get()) == SLUICE_OK, "a larger format is refused");
    const auto* bytes = reinterpret_cast<const unsigned char*>(larger.get());
    for (size_t i = 0; i < tail_bytes; ++i)
        require(bytes[sizeof(sluice_weight_format) + i] == 0,
                "it answers a larger format with a tail that is not zero");

    quantization made = prepare(plugin, module, std::vector<float>(4 * 64, 0.5F));
    if (is_kept(made.format)) return "it does not quantize experts";
    auto target = SLUICE_INIT(sluice_quantized);
    target.codes = made.codes.data();
    target.scales = made.scales.data();
    target.zeros = made.zeros.data();
    target.group_index = made.group_index.data();
    auto calibration = SLUICE_INIT(sluice_calibration);
    calibration.gram = made.gram.empty() ? nullptr : made.gram.data();
    const auto quantize_status = [&](const sluice_weight_format* sent,
                                     const sluice_quantized* written) {
        return table.quantize(plugin.handle(), &module, made.weights.data(), sent, &calibration,
                              written, &made.report, nullptr);
    };
    const auto newer_format = with_unknown_field(made.format);
    require(SLUICE_STATUS_CLASS(quantize_status(newer_format.get(), &target)) == SLUICE_UNSUPPORTED,
            "a format with an unknown field is not refused as unsupported");
    const auto zero_format = with_zero_tail(made.format);
    require(quantize_status(zero_format.get(), &target) == SLUICE_OK,
            "a format with a zero tail is refused");
    const auto newer_target = with_unknown_field(target);
    require(SLUICE_STATUS_CLASS(quantize_status(&made.format, newer_target.get()))
                == SLUICE_UNSUPPORTED,
            "a target with an unknown field is not refused as unsupported");
    return {};
}

} // namespace

std::vector<check> quantizer_checks() {
    return {{"quantizer: plans", plans},
            {"quantizer: rounding", rounds},
            {"quantizer: repeatable", repeats},
            {"quantizer: numbers out of range", bad_numbers_refused},
            {"quantizer: cancellation", cancels},
            {"quantizer: growth of structs", growth_respected}};
}

} // namespace sluice::checker
