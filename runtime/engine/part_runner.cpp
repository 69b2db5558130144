#include "engine/part_runner.hpp"

#include "base/element_type.hpp"
#include "base/error.hpp"
#include "base/text.hpp"
#include "engine/claim.hpp"
#include "engine/crossings.hpp"
#include "program/decompose.hpp"
#include "program/operation_table.hpp"
#include "program/print.hpp"

#include <algorithm>
#include <numeric>

namespace sluice {

namespace {

std::vector<weight_request> requests_of(const program& part,
                                        std::span<const weight_request> requests) {
    std::vector<weight_request> found;
    for (const weight_request& request : requests) {
        const auto number = part.find(request.name);
        if (!number || part.value(*number).kind != SLUICE_VALUE_WEIGHT) continue;
        found.push_back(request);
        found.back().value = *number;
    }
    return found;
}

// The part with its weights in the formats of `weights`, and without composites that the backend
// does not run.
program settled(const plugin_instance& backend, const checkpoint& weights, const program& part,
                std::span<const weight_request> requests) {
    program_contents contents = part.contents();
    const weight_format_function format_of = weight_formats_of(weights);
    for (const weight_request& request : requests_of(part, requests))
        contents.values[request.value].weight_format = format_of(request.slices.front().tensor);
    const program formatted(std::move(contents));
    return decompose(formatted, [&](uint32_t operation) {
        return ask_claim(backend, formatted, operation).accepted != 0;
    });
}

uint32_t tokens_per_block_of(const program& part) {
    return part.states().empty() ? 1 : part.states().front().tokens_per_block;
}

} // namespace

step_plan plan_of_one_sequence(std::span<const int32_t> tokens, uint32_t tokens_per_block) {
    const auto count = uint32_t(tokens.size());
    step_plan plan;
    step_part part;
    part.row_count = count;
    part.logit_count = count;
    part.reaches_end = true;
    plan.parts = {part};
    plan.token_ids.assign(tokens.begin(), tokens.end());
    plan.position.resize(count);
    std::iota(plan.position.begin(), plan.position.end(), 0);
    plan.sequence_of_row.assign(count, 0);
    plan.query_start = {0, int32_t(count)};
    plan.kv_length = {int32_t(count)};
    plan.block_table_columns = (count + tokens_per_block - 1) / tokens_per_block;
    plan.block_table.emplace_back(plan.block_table_columns);
    std::iota(plan.block_table[0].begin(), plan.block_table[0].end(), 0);
    plan.slot = {plan.position};
    plan.logit_rows = plan.position;
    return plan;
}

part_runner::part_runner(std::shared_ptr<plugin_instance> backend,
                         std::shared_ptr<const checkpoint> weights, const program& part,
                         std::span<const weight_request> requests, uint32_t rows_max)
    : backend_(std::move(backend)), files_(std::move(weights)),
      part_(settled(*backend_, *files_, part, requests)), partition_(partition_program(part_)) {
    weights_ = std::make_unique<weight_store>(files_, std::vector{backend_});
    weights_->prepare(part_, requests_of(part_, requests), partition_, {});
    const uint32_t block_count =
        (rows_max + tokens_per_block_of(part_) - 1) / tokens_per_block_of(part_);
    extent_sizes extents{};
    extents[SLUICE_EXTENT_TOKENS] = rows_max;
    extents[SLUICE_EXTENT_SEQUENCES] = 1;
    extents[SLUICE_EXTENT_LOGITS] = rows_max;
    extents[SLUICE_EXTENT_BLOCKS] = block_count;
    try {
        create_executable(extents);
        create_cache(block_count);
        bind(extents);
    } catch (...) {
        destroy();
        throw;
    }
}

part_runner::~part_runner() { destroy(); }

void part_runner::destroy() noexcept {
    const sluice_backend& table = backend_->backend();
    if (bound_ != nullptr) table.bound_destroy(bound_);
    if (event_ != nullptr) table.event_destroy(event_);
    if (queue_ != nullptr) table.queue_destroy(queue_);
    if (cache_ != nullptr) table.cache_destroy(backend_->handle(), cache_);
    if (executable_ != nullptr) table.executable_destroy(backend_->handle(), executable_);
}

void part_runner::create_executable(const extent_sizes& extents) {
    const program_segment& segment = partition_.segments.front();
    for (uint32_t i = 0; i < segment.part.operations().size(); ++i) {
        const sluice_claim verdict = ask_claim(*backend_, segment.part, i);
        if (verdict.accepted != 0) continue;
        fail(SLUICE_UNSUPPORTED, "operation {}: backend \"{}\" does not run it: {}",
             print_operation(segment.part, i), backend_->id(),
             text_of_array(verdict.reason, sizeof verdict.reason));
    }
    auto options = SLUICE_INIT(sluice_compile_options);
    std::copy(extents.begin(), extents.end(), options.extent_max);
    const uint32_t* bucket = options.extent_max;
    options.bucket_count = 1;
    options.buckets = &bucket;
    const std::vector<sluice_weight*> weights = weights_->of(segment);
    plugin_call call = backend_->call("executable_create");
    call = backend_->backend().executable_create(backend_->handle(), segment.part.view(), &options,
                                                 weights.data(), &executable_, call.error());
}

void part_runner::create_cache(uint32_t block_count) {
    const sluice_backend& table = backend_->backend();
    plugin_call queue_call = backend_->call("queue_create");
    queue_call = table.queue_create(backend_->handle(), &queue_, queue_call.error());
    plugin_call event_call = backend_->call("event_create");
    event_call = table.event_create(backend_->handle(), &event_, event_call.error());
    const program& part = partition_.segments.front().part;
    if (part.states().empty()) return;
    plugin_call call = backend_->call("cache_create");
    call = table.cache_create(backend_->handle(), part.view()->states, part.view()->state_count,
                              &block_count, 1, &cache_, call.error());
}

void part_runner::bind(const extent_sizes& extents) {
    const program& part = partition_.segments.front().part;
    std::vector<sluice_binding> bindings;
    const auto add = [&](value_number number) {
        const program_value& value = part.value(number);
        const auto made =
            buffers_.emplace(value.name, device_buffer(*backend_, valid_bytes(value, extents)));
        auto binding = SLUICE_INIT(sluice_binding);
        binding.value = number;
        binding.buffer = made.first->second.handle();
        bindings.push_back(binding);
    };
    for (value_number i = 0; i < part.values().size(); ++i) {
        const program_value& value = part.values()[i];
        if (value.kind == SLUICE_VALUE_INPUT && value.input == SLUICE_INPUT_CUSTOM) add(i);
    }
    for (const value_number output : part.outputs()) add(output);
    std::vector<const sluice_binding*> pointers;
    for (const sluice_binding& binding : bindings) pointers.push_back(&binding);
    plugin_call call = backend_->call("bind");
    call = backend_->backend().bind(executable_, extents.data(), cache_, pointers.data(),
                                    uint32_t(pointers.size()), &bound_, call.error());
}

const device_buffer& part_runner::buffer_of(const std::string& value) const {
    const auto found = buffers_.find(value);
    if (found == buffers_.end())
        fail(SLUICE_INTERNAL, "{} is no custom input and no output of {}", quote(value),
             part_.name());
    return found->second;
}

void part_runner::write(const std::string& input, std::span<const std::byte> bytes) {
    buffer_of(input).write(0, bytes.data(), bytes.size());
}

void part_runner::read(const std::string& output, std::span<std::byte> bytes) const {
    buffer_of(output).read(0, bytes.data(), bytes.size());
}

void part_runner::run(const step_plan& step) {
    const sluice_batch batch = step.batch();
    const sluice_backend& table = backend_->backend();
    plugin_call plan_call = backend_->call("plan");
    plan_call = table.plan(bound_, &batch, plan_call.error());
    plugin_call submit_call = backend_->call("submit");
    submit_call = table.submit(bound_, queue_, nullptr, 0, event_, submit_call.error());
    plugin_call wait_call = backend_->call("event_wait");
    wait_call = table.event_wait(event_, wait_call.error());
}

} // namespace sluice
