#include "engine/loaded_model.hpp"

#include "base/element_type.hpp"
#include "base/error.hpp"
#include "engine/model_fingerprint.hpp"
#include "model/dummy_checkpoint.hpp"
#include "program/operation_table.hpp"
#include "program/print.hpp"
#include "tokenizer/tokenizer.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <system_error>

namespace sluice {

namespace {

std::string format_text(const sluice_weight_format& format) {
    std::string text(element_type_name(format.element_type));
    if (format.scale_type != SLUICE_ELEMENT_UNKNOWN) {
        if (format.group_rows > 1) {
            text += fmt::format(" in blocks of {} x {}", format.group_rows, format.group_columns);
        } else if (format.group_columns > 0) {
            text += fmt::format(" in groups of {}", format.group_columns);
        } else {
            text += " by row";
        }
        text += fmt::format(", scales {}", element_type_name(format.scale_type));
    }
    if (format.layout == SLUICE_WEIGHT_GPTQ) text += ", GPTQ layout";
    return text;
}

std::filesystem::path config_file(const std::filesystem::path& model) {
    return std::filesystem::is_directory(model) ? model / "config.json" : model;
}

// eos_token_id: absent, one number, or a list.
std::optional<std::vector<int32_t>> end_tokens_of(const json_view& file) {
    const auto found = file.find("eos_token_id");
    if (!found) return std::nullopt;
    std::vector<int64_t> numbers;
    if (found->is_array()) {
        numbers = found->as_integer_list(0, INT32_MAX, 64);
    } else {
        numbers.push_back(found->as_integer(0, INT32_MAX));
    }
    return std::vector<int32_t>(numbers.begin(), numbers.end());
}

} // namespace

std::vector<uint32_t> size_ladder(uint32_t size_max) {
    std::vector<uint32_t> sizes;
    for (uint32_t size = 1; size < size_max; size *= 2) {
        sizes.push_back(size);
        const uint32_t between = size + size / 2;
        if (size >= 32 && between < size_max) sizes.push_back(between);
        if (size > UINT32_MAX / 2) break;
    }
    sizes.push_back(size_max);
    return sizes;
}

uint32_t size_on_ladder(uint32_t size, uint32_t size_max) {
    const std::vector<uint32_t> sizes = size_ladder(size_max);
    const auto found = std::lower_bound(sizes.begin(), sizes.end(), size);
    return found == sizes.end() ? size_max : *found;
}

loaded_model::loaded_model(const configuration& configuration,
                           std::shared_ptr<host_services> services)
    : services_(std::move(services)), limits_(configuration.engine) {}

loaded_model::~loaded_model() {
    if (!backend_) return;
    const sluice_backend& table = backend_->backend();
    if (executable_ != nullptr) table.executable_destroy(backend_->handle(), executable_);
    for (sluice_weight* weight : weights_) {
        if (weight != nullptr) table.weight_destroy(backend_->handle(), weight);
    }
}

std::shared_ptr<const loaded_model> loaded_model::load(const configuration& configuration,
                                                       plugin_host& plugins,
                                                       std::shared_ptr<host_services> services,
                                                       const model_load_options& options) {
    const auto start = std::chrono::steady_clock::now();
    // Not make_shared: the constructor is private.
    std::shared_ptr<loaded_model> model(new loaded_model(configuration, std::move(services)));
    model->open_files(configuration);
    model->settle_limits(configuration);
    model->open_plugins(configuration, plugins);
    model->build_program(configuration, options);
    model->ask_claims(options);
    model->prepare_weights(options);
    model->compile();
    model->fingerprint_ = model_fingerprint(
        *model->files_,
        fmt::format(
            "{} {}\n{}\n{}", model->report_.backend, model->report_.backend_version,
            format_text(model->program_->value(model->model_->weights.front().value).weight_format),
            print_program(*model->program_)));
    model->report_.load_s =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    return model;
}

void loaded_model::open_files(const configuration& configuration) {
    const std::filesystem::path& path = configuration.model.path;
    if (path.empty()) {
        fail(SLUICE_INVALID,
             "{}: model.path is not given; expected the folder of a model with config.json and "
             "its weights",
             configuration.name);
    }
    std::error_code code;
    if (!std::filesystem::exists(path, code)) {
        fail(SLUICE_UNAVAILABLE,
             "{}: model.path: there is no {}; give the folder of a model with config.json and its "
             "weights",
             configuration.where("model.path"), path.string());
    }
    config_ = load_model_config(config_file(path));
    files_ = configuration.model.format == load_format::dummy
                 ? make_dummy_checkpoint(path, config_.stored_type)
                 : open_checkpoint(path);
    const std::filesystem::path tokenizer_file = files_->directory() / "tokenizer.json";
    if (std::filesystem::exists(tokenizer_file, code)) {
        tokenizer_ = tokenizer::load(tokenizer_file);
    }
    if (files_->generation_config()) {
        if (auto found = end_tokens_of(*files_->generation_config())) end_tokens_ = *found;
    }
    if (end_tokens_.empty()) {
        end_tokens_.assign(config_.end_token_ids.begin(), config_.end_token_ids.end());
    }
}

void loaded_model::settle_limits(const configuration& configuration) {
    const auto refuse = [&](std::string_view key, uint64_t found, std::string_view expected) {
        fail(SLUICE_INVALID, "{}: {} is {}; expected {}", configuration.where(key), key, found,
             expected);
    };
    if (limits_.tokens_per_step_max == 0) refuse("engine.tokens_per_step_max", 0, "at least 1");
    if (limits_.sequences_max == 0) refuse("engine.sequences_max", 0, "at least 1");
    if (limits_.tokens_per_block == 0) refuse("engine.tokens_per_block", 0, "at least 1");
    if (limits_.cache_tokens < limits_.tokens_per_block) {
        refuse("engine.cache_tokens", limits_.cache_tokens,
               fmt::format("at least engine.tokens_per_block ({})", limits_.tokens_per_block));
    }
    // Whole blocks only: the rest of a block could never be handed out.
    const uint32_t pool =
        limits_.cache_tokens / limits_.tokens_per_block * limits_.tokens_per_block;
    const uint32_t positions = config_.position_count_max;
    if (limits_.context_tokens_max == 0) {
        limits_.context_tokens_max = positions == 0 ? pool : std::min(positions, pool);
    }
    if (limits_.context_tokens_max > pool) {
        refuse("engine.context_tokens_max", limits_.context_tokens_max,
               fmt::format("at most the {} tokens that the KV pool holds; raise "
                           "engine.cache_tokens",
                           pool));
    }
    if (positions > 0 && limits_.context_tokens_max > positions) {
        services_->log(log_level::warning,
                       "engine.context_tokens_max is {}, but the model was made for {} positions; "
                       "later tokens may make no sense",
                       limits_.context_tokens_max, positions);
    }
    limits_.sequences_max = std::min(limits_.sequences_max, limits_.tokens_per_step_max);
}

void loaded_model::open_plugins(const configuration& configuration, plugin_host& plugins) {
    backend_ = plugins.open_backend(configuration);
    router_ = plugins.open(SLUICE_KIND_ROUTER, configuration.router, configuration);
    auto properties = SLUICE_INIT(sluice_backend_properties);
    plugin_call call = backend_->call("properties");
    call = backend_->backend().properties(backend_->handle(), &properties, call.error());
    const sluice_element_type type = configuration.model.compute_type;
    if ((properties.activation_types >> type & 1u) == 0) {
        fail(SLUICE_UNSUPPORTED,
             "{}: model.compute_type is \"{}\", which backend \"{}\" does not compute in; try "
             "\"float32\", or another backend",
             configuration.where("model.compute_type"), element_type_name(type), backend_->id());
    }
    report_.backend = backend_->id();
    report_.backend_version = text_of(backend_->descriptor().version);
    report_.device = text_of_array(properties.device_name, sizeof properties.device_name);
    report_.router = router_->id();
}

router_answer loaded_model::ask_router(const sluice_router_request& request) const {
    sluice_routing_specification specification = SLUICE_INIT(sluice_routing_specification);
    auto answer = SLUICE_INIT(sluice_router_answer);
    answer.specification = &specification;
    plugin_call call = router_->call("describe");
    call = router_->router().describe(router_->handle(), &request, &answer, call.error());
    return import_router_answer(
        request, answer, fmt::format("router \"{}\", layer {}", router_->id(), request.layer));
}

void loaded_model::build_program(const configuration& configuration,
                                 const model_load_options& options) {
    model_program_options building;
    building.compute_type = configuration.model.compute_type;
    building.cache_type = configuration.model.cache_type;
    building.tokens_per_block = limits_.tokens_per_block;
    building.mla_form = options.mla_form;
    building.weight_format = weight_formats_of(*files_);
    building.router = [this](const sluice_router_request& request) { return ask_router(request); };
    model_ = std::make_unique<model_program>(build_model_program(config_, building));
}

// ---- Claims ----

sluice_claim loaded_model::claim(const program& asked, uint32_t operation) const {
    auto verdict = SLUICE_INIT(sluice_claim);
    plugin_call call = backend_->call("claim");
    call = backend_->backend().claim(backend_->handle(), asked.view(), operation, &verdict,
                                     call.error());
    return verdict;
}

void loaded_model::ask_claims(const model_load_options& options) {
    const program& built = model_->step;
    std::vector<bool> kept(built.operations().size(), true);
    for (uint32_t i = 0; i < built.operations().size(); ++i) {
        const program_operation& operation = built.operations()[i];
        if (!is_composite(operation.kind)) continue;
        expansion_report expansion{operation.name, operation_name(operation.kind), backend_->id(),
                                   "expanded as asked"};
        if (!options.expand || !options.expand(operation)) {
            const sluice_claim verdict = claim(built, i);
            if (verdict.accepted != 0) continue;
            expansion.reason = text_of_array(verdict.reason, sizeof verdict.reason);
        }
        if (const auto obstacle = why_not_decomposable(operation)) {
            fail(SLUICE_UNSUPPORTED,
                 "operation {} ({}): backend \"{}\" does not run it ({}), and it has no expansion "
                 "into primitives: {}",
                 operation.name, expansion.kind, backend_->id(), expansion.reason, *obstacle);
        }
        kept[i] = false;
        report_.expansions.push_back(std::move(expansion));
    }
    program_ = std::make_unique<program>(
        decompose(built, [&](uint32_t operation) { return kept[operation]; }));
    for (uint32_t i = 0; i < program_->operations().size(); ++i) {
        const sluice_claim verdict = claim(*program_, i);
        const std::string reason = text_of_array(verdict.reason, sizeof verdict.reason);
        if (verdict.accepted == 0) {
            fail(SLUICE_UNSUPPORTED,
                 "operation {}: backend \"{}\" does not run it: {}; try backend = \"reference\"",
                 print_operation(*program_, i), backend_->id(), reason);
        }
        report_.operations.push_back(
            {i, backend_->id(), text_of_array(verdict.kernel, sizeof verdict.kernel), reason});
    }
}

// ---- Weights ----

void loaded_model::prepare_weights(const model_load_options& options) {
    weights_.assign(program_->values().size(), nullptr);
    uint64_t total = 0;
    const auto stored_bytes = [&](const weight_request& request) {
        return weight_bytes(program_->value(request.value).weight_format, request.row_count,
                            request.column_count)
               * request.matrix_count;
    };
    for (const weight_request& request : model_->weights) total += stored_bytes(request);
    uint64_t done = 0;
    for (const weight_request& request : model_->weights) {
        if (options.on_progress) options.on_progress(done, total);
        // A router that is a sub-program may have no use for one of the model's weights.
        if (program_->value(request.value).weight_role != 0) {
            prepare_weight(request);
            report_.weights.back().stored_bytes = stored_bytes(request);
        }
        done += stored_bytes(request);
    }
    if (options.on_progress) options.on_progress(total, total);
}

void loaded_model::prepare_weight(const weight_request& request) {
    const program_value& value = program_->value(request.value);
    const sluice_backend& table = backend_->backend();
    bound_weight bound = bind_weight(*files_, request, value.weight_format);
    uint64_t size_bytes = 0;
    plugin_call size_call = backend_->call("weight_size");
    size_call = table.weight_size(backend_->handle(), bound.source(), value.weight_role,
                                  &size_bytes, size_call.error());
    uint32_t source_needed = 0;
    plugin_call call = backend_->call("weight_prepare");
    call = table.weight_prepare(backend_->handle(), bound.source(), value.weight_role,
                                &weights_[request.value], &source_needed, call.error());
    char described[256] = {};
    table.weight_describe(backend_->handle(), weights_[request.value], described, sizeof described);
    if (source_needed != 0) kept_sources_.push_back(std::move(bound));
    report_.weights.push_back({value.name, format_text(value.weight_format),
                               text_of_array(described, sizeof described), 0, size_bytes,
                               source_needed != 0});
}

// ---- Executable ----

extent_sizes loaded_model::extents_max() const {
    extent_sizes sizes{};
    sizes[SLUICE_EXTENT_TOKENS] = limits_.tokens_per_step_max;
    sizes[SLUICE_EXTENT_SEQUENCES] = limits_.sequences_max;
    // Every row of a step may want its logits.
    sizes[SLUICE_EXTENT_LOGITS] = limits_.tokens_per_step_max;
    sizes[SLUICE_EXTENT_BLOCKS] =
        (limits_.context_tokens_max + limits_.tokens_per_block - 1) / limits_.tokens_per_block;
    return sizes;
}

void loaded_model::compile() {
    const extent_sizes largest = extents_max();
    auto options = SLUICE_INIT(sluice_compile_options);
    std::copy(largest.begin(), largest.end(), options.extent_max);
    std::vector<extent_sizes> buckets;
    for (const uint32_t tokens : size_ladder(limits_.tokens_per_step_max)) {
        extent_sizes bucket = largest;
        bucket[SLUICE_EXTENT_TOKENS] = tokens;
        bucket[SLUICE_EXTENT_SEQUENCES] = std::min(tokens, limits_.sequences_max);
        bucket[SLUICE_EXTENT_LOGITS] = bucket[SLUICE_EXTENT_SEQUENCES];
        buckets.push_back(bucket);
    }
    std::vector<const uint32_t*> pointers;
    for (const extent_sizes& bucket : buckets) pointers.push_back(bucket.data());
    options.bucket_count = uint32_t(pointers.size());
    options.buckets = pointers.data();
    plugin_call call = backend_->call("executable_create");
    call = backend_->backend().executable_create(backend_->handle(), program_->view(), &options,
                                                 weights_.data(), &executable_, call.error());
}

} // namespace sluice
