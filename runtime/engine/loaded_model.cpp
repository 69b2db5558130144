#include "engine/loaded_model.hpp"

#include "base/element_type.hpp"
#include "base/error.hpp"
#include "engine/cache_size.hpp"
#include "engine/claim.hpp"
#include "engine/crossings.hpp"
#include "engine/host_router.hpp"
#include "engine/model_fingerprint.hpp"
#include "engine/placement.hpp"
#include "model/dummy_checkpoint.hpp"
#include "program/decompose.hpp"
#include "program/operation_table.hpp"
#include "program/print.hpp"
#include "tokenizer/tokenizer.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <chrono>
#include <system_error>

namespace sluice {

namespace {

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
    if (size >= size_max) return size_max;
    const uint64_t power = std::bit_ceil(std::max<uint64_t>(size, 1));
    const uint64_t between = power / 4 * 3; // of the power before and this one
    return uint32_t(std::min<uint64_t>(power >= 64 && size <= between ? between : power, size_max));
}

uint32_t columns_on_ladder(uint32_t column_count, uint32_t column_count_max) {
    uint64_t count = 64;
    while (count < column_count) count *= 4;
    return uint32_t(std::min<uint64_t>(count, column_count_max));
}

std::vector<uint32_t> column_ladder(uint32_t column_count_max) {
    std::vector<uint32_t> counts{columns_on_ladder(1, column_count_max)};
    while (counts.back() < column_count_max) {
        counts.push_back(columns_on_ladder(counts.back() + 1, column_count_max));
    }
    return counts;
}

loaded_model::loaded_model(const configuration& configuration,
                           std::shared_ptr<host_services> services)
    : services_(std::move(services)), limits_(configuration.engine) {}

loaded_model::~loaded_model() {
    for (size_t i = 0; i < executables_.size(); ++i) {
        const plugin_instance& backend = *backends_[partition_.segments[i].placement];
        backend.backend().executable_destroy(backend.handle(), executables_[i]);
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
    model->place(configuration, plugins, options);
    model->ask_claims(options);
    model->cut();
    model->prepare_weights(options);
    model->settle_cache(configuration);
    model->compile();
    model->fingerprint_ = model_fingerprint(*model->files_, model->fingerprint_text());
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

namespace {

[[noreturn]] void refuse_limit(const configuration& configuration, std::string_view key,
                               uint64_t found, std::string_view expected) {
    fail(SLUICE_INVALID, "{}: {} is {}; expected {}", configuration.where(key), key, found,
         expected);
}

} // namespace

void loaded_model::settle_limits(const configuration& configuration) {
    for (const auto& [key, found] :
         {std::pair("engine.tokens_per_step_max", limits_.tokens_per_step_max),
          std::pair("engine.sequences_max", limits_.sequences_max),
          std::pair("engine.tokens_per_block", limits_.tokens_per_block)}) {
        if (found == 0) refuse_limit(configuration, key, 0, "at least 1");
    }
    limits_.sequences_max = std::min(limits_.sequences_max, limits_.tokens_per_step_max);
    if (limits_.cache_tokens != 0) settle_context(configuration);
}

// The size of a pool that was left open, now that the weights have taken their memory.
void loaded_model::settle_cache(const configuration& configuration) {
    if (limits_.cache_tokens != 0) return;
    constexpr uint64_t pool_max = uint64_t(1) << 30;
    const uint64_t longest =
        limits_.context_tokens_max != 0 ? limits_.context_tokens_max : config_.position_count_max;
    // More than all sequences at their longest would only be kept for later requests.
    const uint64_t useful =
        longest == 0 ? pool_max : std::min(pool_max, longest * limits_.sequences_max);
    const uint64_t whole_blocks = (useful + limits_.tokens_per_block - 1) / limits_.tokens_per_block
                                  * limits_.tokens_per_block;
    limits_.cache_tokens =
        cache_tokens_that_fit(backends_, partition_, limits_.tokens_per_block, whole_blocks);
    if (limits_.cache_tokens == 0) limits_.cache_tokens = engine_configuration{}.cache_tokens;
    services_->log(log_level::info, "the KV pool has {} tokens", limits_.cache_tokens);
    settle_context(configuration);
}

void loaded_model::settle_context(const configuration& configuration) {
    if (limits_.cache_tokens < limits_.tokens_per_block) {
        refuse_limit(
            configuration, "engine.cache_tokens", limits_.cache_tokens,
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
        refuse_limit(configuration, "engine.context_tokens_max", limits_.context_tokens_max,
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
}

void loaded_model::open_plugins(const configuration& configuration, plugin_host& plugins) {
    add_backend(configuration, "backend", plugins.open_backend(configuration));
    router_ = plugins.open(SLUICE_KIND_ROUTER, configuration.router, configuration);
    router_settings_ = settings_text(configuration.settings_of(configuration.router));
    report_.backend = report_.backends[0].id;
    report_.backend_version = report_.backends[0].version;
    report_.device = report_.backends[0].device;
    report_.router = router_->id();
}

// `key`: what names the backend in the configuration.
void loaded_model::add_backend(const configuration& configuration, const std::string& key,
                               std::shared_ptr<plugin_instance> backend) {
    auto properties = SLUICE_INIT(sluice_backend_properties);
    plugin_call call = backend->call("properties");
    call = backend->backend().properties(backend->handle(), &properties, call.error());
    const sluice_element_type type = configuration.model.compute_type;
    if ((properties.activation_types >> type & 1u) == 0) {
        fail(SLUICE_UNSUPPORTED,
             "{}: model.compute_type is \"{}\", which backend \"{}\" ({}) does not compute in; try "
             "\"float32\", or another backend",
             configuration.where("model.compute_type"), element_type_name(type), backend->id(),
             configuration.where(key));
    }
    // The first keeps the caches; others have experts alone.
    if (configuration.model.cache_type == SLUICE_I8 && backends_.empty()
        && (properties.cache_types >> SLUICE_I8 & 1u) == 0) {
        fail(SLUICE_UNSUPPORTED,
             "{}: model.cache_type is \"int8\", which backend \"{}\" ({}) does not keep caches in; "
             "try \"bfloat16\", or another backend",
             configuration.where("model.cache_type"), backend->id(), configuration.where(key));
    }
    report_.backends.push_back(
        {backend->id(), text_of(backend->descriptor().version),
         text_of_array(properties.device_name, sizeof properties.device_name)});
    backends_.push_back(std::move(backend));
}

router_answer loaded_model::ask_router(const sluice_router_request& request) const {
    sluice_routing_specification specification = SLUICE_INIT(sluice_routing_specification);
    auto answer = SLUICE_INIT(sluice_router_answer);
    answer.specification = &specification;
    plugin_call call = router_->call("describe");
    call = router_->router().describe(router_->handle(), &request, &answer, call.error());
    const std::string origin = fmt::format("router \"{}\", layer {}", router_->id(), request.layer);
    router_answer imported = import_router_answer(request, answer, origin);
    if (imported.host_function && !has_route(router_->router())) {
        fail(SLUICE_INVALID, "{}: it answers with a host function, but has no function route",
             origin);
    }
    return imported;
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

// ---- Placement ----

void loaded_model::place(const configuration& configuration, plugin_host& plugins,
                         const model_load_options& options) {
    std::map<std::string, uint32_t> host_layers = host_routed_layers();
    report_.host_function_count = uint32_t(host_layers.size());
    if (configuration.placement.empty() && host_layers.empty()) {
        placed_ = std::make_unique<spread_program>(
            spread_program{settle_sampling(model_->step, options), model_->weights, {}});
        return;
    }
    const placement_plan plan = plan_placement(configuration, backends_[0]->id(), model_->step);
    for (const std::string& warning : plan.warnings) {
        services_->log(log_level::warning, "{}", warning);
    }
    for (size_t i = 1; i < plan.backends.size(); ++i) {
        const placement_plan::placed_backend& backend = plan.backends[i];
        add_backend(configuration, backend.key,
                    plugins.open(SLUICE_KIND_BACKEND, backend.id, configuration, backend.key));
    }
    if (!host_layers.empty()) {
        add_backend(configuration, "router",
                    open_host_router(plugins, router_, std::move(host_layers)));
    }
    const program step = settle_sampling(with_placements(model_->step, plan), options);
    placed_ = std::make_unique<spread_program>(spread_experts(step, model_->weights, plan.experts));
}

// The layers that a host function routes, by the names of their operations.
std::map<std::string, uint32_t> loaded_model::host_routed_layers() const {
    constexpr size_t count_result = 2;
    std::map<std::string, uint32_t> layers;
    for (const program_operation& operation : model_->step.operations()) {
        if (!is_host_function(operation)) continue;
        for (const routed_layer& each : model_->routed_layers) {
            if (each.count == operation.outputs.at(count_result)) {
                layers[operation.name] = each.layer;
            }
        }
    }
    return layers;
}

// Where the backend has no kernel for it, the host samples: the expansion into primitives would
// take several times the logits' memory, and more time than reading them. (One that is asked for is
// made all the same.)
program loaded_model::settle_sampling(program step, const model_load_options& options) {
    const auto last = uint32_t(step.operations().size() - 1);
    const program_operation& sample = step.operations()[last];
    if (options.expand && options.expand(sample)) return step;
    const sluice_claim verdict = ask_claim(*backends_[sample.placement], step, last);
    if (verdict.accepted != 0) return step;
    report_.host_sampling = fmt::format("backend \"{}\": {}", backends_[sample.placement]->id(),
                                        text_of_array(verdict.reason, sizeof verdict.reason));
    model_->step = without_sampling(model_->step);
    model_->sampled = {};
    return without_sampling(step);
}

void loaded_model::cut() {
    partition_ = partition_program(*program_);
    report_.segment_count = uint32_t(partition_.segments.size());
    for (const value_crossing& each : crossings_of(*program_, partition_)) {
        const program_value& value = program_->value(each.value);
        report_.crossings.push_back({value.name, print_value_type(value),
                                     backends_[each.from]->id(), backends_[each.to]->id(),
                                     unit_name(value), bytes_per_unit(value)});
    }
    report_.operations.resize(program_->operations().size());
    for (const program_segment& segment : partition_.segments) {
        const plugin_instance& backend = *backends_[segment.placement];
        for (uint32_t i = 0; i < segment.operations.size(); ++i) {
            const sluice_claim verdict = ask_claim(*backends_[segment.placement], segment.part, i);
            const std::string reason = text_of_array(verdict.reason, sizeof verdict.reason);
            if (verdict.accepted == 0) {
                fail(SLUICE_UNSUPPORTED,
                     "operation {}: backend \"{}\" does not run it: {}; try backend = "
                     "\"reference\"",
                     print_operation(segment.part, i), backend.id(), reason);
            }
            const uint32_t number = segment.operations[i];
            report_.operations[number] = {
                number, backend.id(), text_of_array(verdict.kernel, sizeof verdict.kernel), reason};
        }
    }
}

// ---- Claims ----

void loaded_model::ask_claims(const model_load_options& options) {
    const program& built = placed_->step;
    std::vector<bool> kept(built.operations().size(), true);
    for (uint32_t i = 0; i < built.operations().size(); ++i) {
        const program_operation& operation = built.operations()[i];
        if (!is_composite(operation.kind) || is_host_function(operation)) continue;
        const std::string& backend = backends_[operation.placement]->id();
        expansion_report expansion{operation.name, operation_name(operation.kind), backend,
                                   "expanded as asked"};
        if (!options.expand || !options.expand(operation)) {
            const sluice_claim verdict = ask_claim(*backends_[operation.placement], built, i);
            if (verdict.accepted != 0) continue;
            expansion.reason = text_of_array(verdict.reason, sizeof verdict.reason);
        }
        if (const auto obstacle = why_not_decomposable(operation)) {
            fail(SLUICE_UNSUPPORTED,
                 "operation {} ({}): backend \"{}\" does not run it ({}), and it has no expansion "
                 "into primitives: {}",
                 operation.name, expansion.kind, backend, expansion.reason, *obstacle);
        }
        kept[i] = false;
        report_.expansions.push_back(std::move(expansion));
    }
    program_ = std::make_unique<program>(
        decompose(built, [&](uint32_t operation) { return kept[operation]; }));
}

// ---- Weights ----

void loaded_model::prepare_weights(const model_load_options& options) {
    weights_ = std::make_unique<weight_store>(files_, backends_);
    report_.weights =
        weights_->prepare(*program_, placed_->weights, partition_, options.on_progress);
}

// Everything besides the checkpoint that the results depend on.
std::string loaded_model::fingerprint_text() const {
    std::string text;
    for (const backend_report& each : report_.backends) {
        text += fmt::format("{} {}\n", each.id, each.version);
    }
    // The program says what the other forms compute.
    if (report_.host_function_count > 0) {
        text += fmt::format("router {} {} {}\n", router_->id(), router_->manifest().version,
                            router_settings_);
    }
    const program_value& first = program_->value(model_->weights.front().value);
    return text + weight_format_text(first.weight_format) + "\n" + print_program(*program_);
}

// ---- Executables ----

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
    for (const program_segment& segment : partition_.segments) {
        const plugin_instance& backend = *backends_[segment.placement];
        const std::vector<sluice_weight*> weights = weights_->of(segment);
        sluice_executable* executable = nullptr;
        plugin_call call = backend.call("executable_create");
        call = backend.backend().executable_create(backend.handle(), segment.part.view(), &options,
                                                   weights.data(), &executable, call.error());
        executables_.push_back(executable);
    }
}

} // namespace sluice
