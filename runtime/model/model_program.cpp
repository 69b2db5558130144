#include "model/model_program.hpp"

#include "base/element_type.hpp"
#include "base/error.hpp"
#include "base/text.hpp"
#include "model/families/family.hpp"
#include "model/families/model_builder.hpp"

#include <algorithm>
#include <cmath>
#include <map>

namespace sluice {

namespace {

void check_options(const model_program_options& options) {
    const auto is_one_of = [](sluice_element_type type,
                              std::initializer_list<sluice_element_type> allowed) {
        return std::find(allowed.begin(), allowed.end(), type) != allowed.end();
    };
    if (!is_one_of(options.compute_type, {SLUICE_F32, SLUICE_BF16})) {
        fail(SLUICE_UNSUPPORTED,
             "compute_type {} is not supported; supported are float32 and "
             "bfloat16",
             element_type_name(options.compute_type));
    }
    if (!is_one_of(options.cache_type, {SLUICE_F32, SLUICE_F16, SLUICE_BF16, SLUICE_I8})) {
        fail(SLUICE_UNSUPPORTED,
             "cache_type {} is not supported; supported are float32, float16, "
             "bfloat16 and int8",
             element_type_name(options.cache_type));
    }
    if (options.tokens_per_block == 0) {
        fail(SLUICE_INVALID, "tokens_per_block is 0, expected a positive number");
    }
}

// The share of a stacked weight's matrices that one token uses.
struct expert_share {
    uint64_t chosen = 1;
    uint64_t of = 1;
};

std::map<value_number, expert_share> expert_shares(const program& step) {
    std::map<value_number, expert_share> shares;
    for (const program_operation& operation : step.operations()) {
        if (operation.kind != SLUICE_OP_MOE_FFN) continue;
        const auto chosen = step.value(operation.inputs[1]).dimensions[1].offset;
        const auto count = step.value(operation.inputs[4]).dimensions[0].offset;
        const expert_share share = {uint64_t(std::min(chosen, count)), uint64_t(count)};
        for (size_t i = 4; i < operation.inputs.size(); ++i) {
            if (operation.inputs[i] != value_none) shares[operation.inputs[i]] = share;
        }
    }
    return shares;
}

std::string format_name(const sluice_weight_format& format) {
    std::string name(element_type_name(format.element_type));
    if (format.scale_type == SLUICE_ELEMENT_UNKNOWN) return name;
    if (format.group_rows > 1) {
        return fmt::format("{} in blocks of {}x{}", name, format.group_rows, format.group_columns);
    }
    return format.group_columns == 0
               ? name + " by rows"
               : fmt::format("{} in groups of {}", name, format.group_columns);
}

uint64_t divided_up(uint64_t value, uint64_t divisor) { return (value + divisor - 1) / divisor; }

uint64_t size_bytes_of(const model_program& model, const weight_request& request) {
    return request.matrix_count
           * weight_bytes(model.step.value(request.value).weight_format, request.row_count,
                          request.column_count);
}

// The part of a weight that one token uses.
expert_share share_of(const model_config& config, const model_program& model,
                      const std::map<value_number, expert_share>& shares, value_number weight) {
    // An embedding gives one row to a token, unless it is the head too.
    if (model.step.value(weight).weight_role == SLUICE_ROLE_EMBEDDING) {
        return {1, uint64_t(config.vocabulary_size)};
    }
    const auto found = shares.find(weight);
    return found != shares.end() ? found->second : expert_share{};
}

} // namespace

model_program build_model_program(const model_config& config,
                                  const model_program_options& options) {
    check_options(options);
    const model_family* family = find_model_family(config.model_type);
    if (family == nullptr) {
        fail(SLUICE_UNSUPPORTED, "the model type {} is not supported; supported are {}",
             quote(config.model_type), join(supported_model_types(), ", "));
    }
    return build_decoder(*family, config, options);
}

program without_sampling(const program& step) {
    program_contents contents = step.contents();
    const program_operation sample = contents.operations.back();
    contents.operations.pop_back();
    for (const value_number output : sample.outputs) std::erase(contents.outputs, output);
    contents.values.resize(contents.values.size() - sample.outputs.size());
    return program(std::move(contents));
}

uint64_t weight_bytes(const sluice_weight_format& format, int64_t rows, int64_t columns) {
    const uint64_t n = static_cast<uint64_t>(rows);
    const uint64_t k = static_cast<uint64_t>(columns);
    const uint64_t bits = element_bits(format.element_type);
    uint64_t total = divided_up(n * k * bits, 8);
    const uint64_t row_groups = divided_up(n, std::max(1u, format.group_rows));
    const uint64_t column_groups =
        format.group_columns == 0 ? 1 : divided_up(k, format.group_columns);
    if (format.scale_type != SLUICE_ELEMENT_UNKNOWN) {
        total += divided_up(row_groups * column_groups * element_bits(format.scale_type), 8);
    }
    if (format.zero_point == SLUICE_ZERO_GROUP || format.zero_point == SLUICE_ZERO_GROUP_LESS_ONE) {
        total += divided_up(row_groups * column_groups * bits, 8);
    }
    if (format.group_index != 0) total += k * sizeof(int32_t);
    if (format.global_scale_type != SLUICE_ELEMENT_UNKNOWN) {
        total += divided_up(element_bits(format.global_scale_type), 8);
    }
    return total;
}

double step_bytes(const model_config& config, const model_program& model, uint32_t rows) {
    const auto shares = expert_shares(model.step);
    double total = 0;
    for (const weight_request& request : model.weights) {
        const expert_share share = share_of(config, model, shares, request.value);
        const double spared = 1 - double(share.chosen) / double(share.of); // by one row
        total += double(size_bytes_of(model, request)) * (1 - std::pow(spared, rows));
    }
    return total;
}

parameter_account account_parameters(const model_config& config, const model_program& model) {
    parameter_account account;
    const auto shares = expert_shares(model.step);
    std::map<std::string, type_bytes> types;
    for (const weight_request& request : model.weights) {
        const program_value& value = model.step.value(request.value);
        const uint64_t count = uint64_t(request.matrix_count) * uint64_t(request.row_count)
                               * uint64_t(request.column_count);
        const uint64_t size_bytes = size_bytes_of(model, request);
        account.parameter_count += count;
        account.size_bytes += size_bytes;
        const expert_share share = share_of(config, model, shares, request.value);
        account.active_parameter_count += count / share.of * share.chosen;
        account.bytes_per_token += size_bytes / share.of * share.chosen;
        type_bytes& type = types[format_name(value.weight_format)];
        type.parameter_count += count;
        type.size_bytes += size_bytes;
    }
    for (auto& [name, type] : types) {
        type.type = name;
        account.types.push_back(type);
    }
    for (const program_state& state : model.step.states()) {
        account.cache_bytes_per_token += state.bytes_per_token();
    }
    return account;
}

} // namespace sluice
