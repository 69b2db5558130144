#include "performance.hpp"

#include "backend_checks.hpp"

#include "base/element_type.hpp"
#include "base/progress.hpp"

#include <nlohmann/json.hpp>

#include <numeric>

namespace sluice::checker {
namespace {

// One measured case: what it is, and the work that no backend can avoid.
struct workload {
    std::string name;
    operation_case given;
    double operations = 0; // multiplications and additions
    double bytes = 0;      // weights, caches and activations, each once
};

struct setup {
    sluice_element_type type;
    std::string_view format;
};

// A builder of cases with a fixed number of rows.
class workload_builder {
  public:
    workload_builder(const setup& of, uint32_t rows)
        : draw_{random_, of.type, weight_format_named(of.format).format, 2},
          to_(draw_, rows, false) {}
    case_builder& to() { return to_; }

  private:
    std::mt19937_64 random_{1};
    draw draw_;
    case_builder to_;
};

double element_bytes(sluice_element_type type) { return element_bits(type) / 8.0; }

double weight_bytes(const operation_case& given) {
    double bytes = 0;
    for (const auto& [number, weight] : given.weights)
        bytes += static_cast<double>(weight.stored_bytes());
    return bytes;
}

workload linear(const setup& of, uint32_t rows) {
    constexpr int64_t size = 2048;
    workload_builder builder(of, rows);
    auto& to = builder.to();
    const value_number x = to.floats({tokens(), fixed(size)});
    const value_number weight = to.weight({size, size}, 0.02F);
    auto given = to.finish({to.program().linear("y", x, weight, value_none, of.type)});
    const double bytes = weight_bytes(given) + 2.0 * rows * size * element_bytes(of.type);
    return {fmt::format("linear [{}, {}] x [{}, {}]", rows, size, size, size), std::move(given),
            2.0 * rows * size * size, bytes};
}

workload moe_ffn(const setup& of, uint32_t rows) {
    constexpr int64_t experts = 16;
    constexpr int64_t choices = 4;
    constexpr int64_t hidden = 1024;
    constexpr int64_t inner = 512;
    workload_builder builder(of, rows);
    auto& to = builder.to();
    moe_operands operands{};
    operands.x = to.floats({tokens(), fixed(hidden)});
    std::vector<int32_t> index;
    for (uint32_t row = 0; row < rows; ++row)
        for (int32_t j = 0; j < choices; ++j)
            index.push_back((static_cast<int32_t>(row) * 5 + j * 3) % experts);
    operands.index = to.row_integers({tokens(), fixed(choices)}, index);
    operands.weight = to.floats({tokens(), fixed(choices)}, SLUICE_F32);
    operands.gate = to.weight({experts, inner, hidden}, 0.02F);
    operands.up = to.weight({experts, inner, hidden}, 0.02F);
    operands.down = to.weight({experts, hidden, inner}, 0.02F);
    auto attributes = SLUICE_INIT(sluice_moe_ffn_attributes);
    auto given = to.finish({to.program().moe_ffn("y", operands, attributes, of.type)});
    const double touched = std::min<double>(experts, rows * choices) / experts;
    const double bytes =
        weight_bytes(given) * touched + 2.0 * rows * hidden * element_bytes(of.type);
    return {fmt::format("moe_ffn [{}, {}], {} of {} experts of {}", rows, hidden, choices, experts,
                        inner),
            std::move(given), 6.0 * rows * choices * hidden * inner, bytes};
}

// `sequences` of `context` cached tokens, each `added` of them in this step.
workload attention(const setup& of, uint32_t sequences, uint32_t context, uint32_t added) {
    constexpr int64_t heads = 16;
    constexpr int64_t kv_heads = 4;
    constexpr int64_t width = 64;
    constexpr uint32_t block = 16;
    const uint32_t rows = sequences * added;
    const uint32_t columns = (context + block - 1) / block;
    workload_builder builder(of, rows);
    auto& to = builder.to();
    program_state state;
    state.tokens_per_block = block;
    state.part_width.assign(2, kv_heads * width);
    state.part_type.assign(2, of.type);
    state.name = "cache";
    const value_number q = to.floats({tokens(), fixed(heads), fixed(width)});
    const value_number parts[] = {to.floats({tokens(), fixed(kv_heads * width)}),
                                  to.floats({tokens(), fixed(kv_heads * width)})};
    auto attributes = SLUICE_INIT(sluice_attention_attributes);
    attributes.kv_heads = kv_heads;
    attributes.scale = 0.125F;
    const value_number written = to.program().kv_write("written", to.program().state(state), parts);
    auto given =
        to.finish({to.program().attention("o", {q, written, value_none}, attributes, of.type)});
    given.block_count = sequences * columns;
    batch_step& step = given.steps[0];
    step.sequence_count = sequences;
    step.block_columns = columns;
    step.decode_sequence_count = added == 1 ? sequences : 0;
    step.block_table.resize(given.block_count);
    std::iota(step.block_table.begin(), step.block_table.end(), 0);
    step.kv_length.assign(sequences, static_cast<int32_t>(context));
    step.query_start.push_back(0);
    for (uint32_t s = 0; s < sequences; ++s) {
        for (uint32_t i = context - added; i < context; ++i) {
            step.position.push_back(static_cast<int32_t>(i));
            step.sequence_of_row.push_back(static_cast<int32_t>(s));
            step.slot.push_back(static_cast<int32_t>(s * columns * block + i));
        }
        step.query_start.push_back(static_cast<int32_t>(step.slot.size()));
    }
    const double attended = rows * (context - (added - 1) / 2.0); // causal
    const double cached = 2.0 * sequences * context * kv_heads * width * element_bytes(of.type);
    return {fmt::format("attention {} x {} rows, context {}, {} / {} heads of {}", sequences, added,
                        context, heads, kv_heads, width),
            std::move(given), 4.0 * attended * heads * width,
            cached + 2.0 * rows * heads * width * element_bytes(of.type)};
}

workload rms_norm(const setup& of, uint32_t rows) {
    constexpr int64_t size = 2048;
    workload_builder builder(of, rows);
    auto& to = builder.to();
    auto attributes = SLUICE_INIT(sluice_rms_norm_attributes);
    attributes.epsilon = 1e-6F;
    const value_number x = to.floats({tokens(), fixed(size)}, SLUICE_F32);
    const auto made =
        to.program().rms_norm("y", x, to.vector(size, 1), value_none, attributes, of.type);
    return {fmt::format("rms_norm [{}, {}]", rows, size), to.finish({made.normed}),
            3.0 * rows * size, rows * size * (4 + element_bytes(of.type))};
}

workload route(const setup& of, uint32_t rows) {
    constexpr int64_t experts = 64;
    workload_builder builder(of, rows);
    auto& to = builder.to();
    auto routing = SLUICE_INIT(sluice_routing_specification);
    routing.expert_count = experts;
    routing.choice_count = 8;
    routing.scale = 1;
    route_operands operands{};
    operands.logits = to.floats({tokens(), fixed(experts)}, SLUICE_F32);
    const auto made = to.program().route("route", operands, routing);
    return {fmt::format("route [{}, {}], top 8", rows, experts),
            to.finish({made.index, made.weight, made.count}), 0,
            4.0 * rows * (experts + 2 * routing.choice_count)};
}

std::vector<workload> workloads(const setup& of) {
    std::vector<workload> made;
    for (const uint32_t rows : {1U, 16U, 512U}) made.push_back(linear(of, rows));
    for (const uint32_t rows : {1U, 16U, 512U}) made.push_back(moe_ffn(of, rows));
    if (weight_format_named(of.format).required) {
        made.push_back(attention(of, 8, 512, 1));
        made.push_back(attention(of, 1, 512, 512));
        made.push_back(rms_norm(of, 512));
        made.push_back(route(of, 512));
    }
    return made;
}

double limit(plugin_instance& plugin, uint32_t measurement) {
    double value = 0;
    const sluice_status status =
        plugin.backend().measure(plugin.handle(), measurement, &value, nullptr);
    return status == SLUICE_OK ? value : 0;
}

struct measured {
    std::string name;
    setup of;
    std::string kernel;
    double seconds = 0;
    double operations_per_second = 0;
    double bytes_per_second = 0;
};

// The kernel that the backend names for the operation that counts, which is the last.
std::string kernel_name(plugin_instance& plugin, const program& of) {
    auto claim = SLUICE_INIT(sluice_claim);
    plugin_call call = plugin.call("claim");
    call = plugin.backend().claim(plugin.handle(), of.view(),
                                  static_cast<uint32_t>(of.operations().size() - 1), &claim,
                                  call.error());
    return claim.accepted != 0 ? text_of_array(claim.kernel, sizeof claim.kernel) : "";
}

std::vector<measured> measure(plugin_instance& plugin) {
    constexpr setup setups[] = {{SLUICE_F32, "f32"},
                                {SLUICE_BF16, "bf16"},
                                {SLUICE_BF16, "int8_g64"},
                                {SLUICE_BF16, "int4_g64"}};
    std::vector<measured> found;
    progress shown("timing", 0);
    for (const setup& of : setups) {
        if (!has_activations(plugin, of.type)) continue;
        for (workload& each : workloads(of)) {
            if (first_refusal(plugin, each.given.made)) continue;
            shown.advance();
            double seconds = 0;
            // Some first to warm up; the shortest of the rest. Plain backends are slow: once will
            // do.
            run_case(plugin, each.given, 1, &seconds);
            if (seconds < 0.2) run_case(plugin, each.given, seconds < 0.01 ? 20 : 3, &seconds);
            found.push_back({each.name, of, kernel_name(plugin, each.given.made), seconds,
                             each.operations / seconds, each.bytes / seconds});
        }
    }
    return found;
}

std::string share(double value, double of) {
    return of > 0 && value > 0 ? fmt::format("{:.0f}%", 100 * value / of) : "";
}

std::string as_table(const std::vector<measured>& rows, double bandwidth, double peak_f32,
                     double peak_bf16) {
    std::string text = fmt::format(
        "measured limits: {:.1f} GB/s read, {:.0f} GFLOP/s f32, {:.0f} GFLOP/s bf16 (0: not "
        "measured)\n{:<58} {:>5} {:>9} {:>10} {:>9} {:>5} {:>8} {:>5}  {}\n",
        bandwidth * 1e-9, peak_f32 * 1e-9, peak_bf16 * 1e-9, "operation", "type", "weights", "us",
        "GFLOP/s", "peak", "GB/s", "read", "kernel");
    for (const auto& row : rows) {
        const double peak = row.of.type == SLUICE_BF16 ? peak_bf16 : peak_f32;
        text += fmt::format("{:<58} {:>5} {:>9} {:>10.1f} {:>9.1f} {:>5} {:>8.2f} {:>5}  {}\n",
                            row.name, element_type_name(row.of.type), row.of.format,
                            row.seconds * 1e6, row.operations_per_second * 1e-9,
                            share(row.operations_per_second, peak), row.bytes_per_second * 1e-9,
                            share(row.bytes_per_second, bandwidth), row.kernel);
    }
    return text;
}

std::string as_json(const std::vector<measured>& rows, double bandwidth, double peak_f32,
                    double peak_bf16) {
    nlohmann::ordered_json document;
    document["read_bytes_per_second"] = bandwidth;
    document["f32_operations_per_second"] = peak_f32;
    document["bf16_operations_per_second"] = peak_bf16;
    document["rows"] = nlohmann::ordered_json::array();
    for (const auto& row : rows)
        document["rows"].push_back({{"operation", row.name},
                                    {"type", element_type_name(row.of.type)},
                                    {"weights", row.of.format},
                                    {"kernel", row.kernel},
                                    {"seconds", row.seconds},
                                    {"operations_per_second", row.operations_per_second},
                                    {"bytes_per_second", row.bytes_per_second}});
    return document.dump(2) + "\n";
}

} // namespace

std::string performance_report(context& with, bool json) {
    const auto plugin = with.open({}, 0);
    if (plugin->kind() != SLUICE_KIND_BACKEND)
        fail(SLUICE_INVALID, "perf times backends, and {} is a {}", plugin->id(), plugin->kind());
    const double bandwidth = limit(*plugin, SLUICE_MEASURE_READ_BANDWIDTH);
    const double peak_f32 = limit(*plugin, SLUICE_MEASURE_F32_PEAK);
    const double peak_bf16 = limit(*plugin, SLUICE_MEASURE_BF16_PEAK);
    const auto rows = measure(*plugin);
    return json ? as_json(rows, bandwidth, peak_f32, peak_bf16)
                : as_table(rows, bandwidth, peak_f32, peak_bf16);
}

} // namespace sluice::checker
