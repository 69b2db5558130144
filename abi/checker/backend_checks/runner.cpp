#include "runner.hpp"

#include "report.hpp"

#include "base/element_type.hpp"
#include "base/error.hpp"
#include "engine/claim.hpp"

#include <chrono>
#include <cstring>
#include <numeric>

namespace sluice::checker {
namespace {

std::vector<int32_t> or_default(const std::vector<int32_t>& given, uint32_t count,
                                bool rising = false) {
    if (!given.empty()) return given;
    std::vector<int32_t> made(count);
    if (rising) std::iota(made.begin(), made.end(), 0);
    return made;
}

} // namespace

batch_storage::batch_storage(const batch_step& step)
    : token_ids_(or_default(step.token_ids, step.token_count)),
      position_(or_default(step.position, step.token_count, true)),
      sequence_of_row_(or_default(step.sequence_of_row, step.token_count)),
      query_start_(step.query_start), block_table_(step.block_table.data()),
      slot_(step.slot.data()) {
    if (query_start_.empty()) {
        query_start_.assign(step.sequence_count + 1, static_cast<int32_t>(step.token_count));
        query_start_[0] = 0;
    }
    batch_.token_count = step.token_count;
    batch_.sequence_count = step.sequence_count;
    batch_.logit_count = step.logit_count;
    batch_.decode_sequence_count = step.decode_sequence_count;
    batch_.group_count = 1;
    batch_.block_table_columns = step.block_columns;
    batch_.token_ids = step.token_ids_bound ? nullptr : token_ids_.data();
    batch_.position = position_.data();
    batch_.sequence_of_row = sequence_of_row_.data();
    batch_.query_start = query_start_.data();
    batch_.kv_length = step.kv_length.data();
    batch_.block_table = &block_table_;
    batch_.slot = &slot_;
    batch_.logit_rows = step.logit_rows.data();
}

case_runner::case_runner(plugin_instance& backend, const operation_case& given)
    : objects_(backend), given_(given), sizes_(bound_extents(given)) {
    make_executable();
    make_cache();
    bind();
}

void case_runner::write_inputs(const batch_step& step) {
    for (const auto& [value, tensor] : step.custom) write(value, tensor);
}

void case_runner::write(value_number bound, const host_tensor& tensor) {
    objects_.call("buffer_write", objects_.table().buffer_write, objects_.plugin(),
                  buffers_.at(bound), uint64_t{0}, static_cast<const void*>(tensor.bytes.data()),
                  uint64_t{tensor.bytes.size()});
}

sluice_status case_runner::plan(const batch_step& step, std::string* message) {
    const batch_storage batch(step);
    auto error = SLUICE_INIT(sluice_error);
    const sluice_status status = objects_.table().plan(bound_, batch.get(), &error);
    if (message != nullptr) *message = text_of_array(error.message, sizeof error.message);
    return status;
}

void case_runner::submit(std::vector<sluice_event*> waits) {
    objects_.call("submit", objects_.table().submit, bound_, queue_,
                  static_cast<sluice_event* const*>(waits.data()),
                  static_cast<uint32_t>(waits.size()), done_);
}

void case_runner::wait() {
    objects_.call("event_wait", objects_.table().event_wait, done_);
    if (objects_.table().event_ended(done_) != 1)
        fail(SLUICE_INTERNAL, "event_ended answers 0 after event_wait returned");
}

step_outputs case_runner::run(const batch_step& step, uint32_t repeats, double* seconds) {
    write_inputs(step);
    for (uint32_t i = 0; i < repeats; ++i) {
        const batch_storage batch(step);
        objects_.call("plan", objects_.table().plan, bound_, batch.get());
        const auto start = std::chrono::steady_clock::now();
        submit();
        wait();
        const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
        if (seconds != nullptr && (i == 0 || elapsed.count() < *seconds))
            *seconds = elapsed.count();
    }
    return read_outputs(step);
}

void case_runner::make_executable() {
    const sluice_backend& table = objects_.table();
    const auto& values = given_.made.values();
    std::vector<sluice_weight*> weights(values.size());
    for (const auto& [number, weight] : given_.weights)
        weights[number] = objects_.weight(weight.source(), values[number].weight_role);
    auto options = SLUICE_INIT(sluice_compile_options);
    const uint32_t* const bucket = sizes_.data();
    std::copy(sizes_.begin(), sizes_.end(), options.extent_max);
    options.bucket_count = 1;
    options.buckets = &bucket;
    executable_ = objects_.make<sluice_executable>(
        "executable_create", table.executable_create,
        [this](sluice_executable* e) { objects_.table().executable_destroy(objects_.plugin(), e); },
        objects_.plugin(), given_.made.view(), static_cast<const sluice_compile_options*>(&options),
        static_cast<sluice_weight* const*>(weights.data()));
}

void case_runner::make_cache() {
    if (given_.made.states().empty()) return;
    const sluice_program* view = given_.made.view();
    cache_ = objects_.make<sluice_cache>(
        "cache_create", objects_.table().cache_create,
        [this](sluice_cache* c) { objects_.table().cache_destroy(objects_.plugin(), c); },
        objects_.plugin(), view->states, view->state_count,
        static_cast<const uint32_t*>(&given_.block_count), uint32_t{1});
}

void case_runner::add_buffer(value_number number) {
    if (buffers_.contains(number)) return;
    const program_value& value = given_.made.value(number);
    const auto bytes = tensor_bytes(value.element_type, evaluate(value.dimensions, sizes_));
    add_binding(number, objects_.buffer(std::max<uint64_t>(bytes.value(), 1)));
}

void case_runner::add_binding(value_number number, sluice_buffer* buffer) {
    buffers_[number] = buffer;
    auto& binding = bindings_.emplace_back(SLUICE_INIT(sluice_binding));
    binding.value = number;
    binding.buffer = buffer;
}

void case_runner::bind() {
    for (const value_number output : given_.made.outputs()) add_buffer(output);
    for (const auto& [input, output] : given_.fed) add_binding(input, buffers_.at(output));
    const auto& values = given_.made.values();
    for (value_number number = 0; number < values.size(); ++number)
        if (values[number].kind == SLUICE_VALUE_INPUT
            && values[number].input == SLUICE_INPUT_CUSTOM)
            add_buffer(number);
    std::vector<const sluice_binding*> pointers;
    for (const auto& binding : bindings_) pointers.push_back(&binding);
    const sluice_backend& table = objects_.table();
    bound_ = objects_.make<sluice_bound>("bind", table.bind, table.bound_destroy, executable_,
                                         static_cast<const uint32_t*>(sizes_.data()), cache_,
                                         static_cast<const sluice_binding* const*>(pointers.data()),
                                         static_cast<uint32_t>(pointers.size()));
    queue_ = objects_.make<sluice_queue>("queue_create", table.queue_create, table.queue_destroy,
                                         objects_.plugin());
    done_ = objects_.make<sluice_event>("event_create", table.event_create, table.event_destroy,
                                        objects_.plugin());
}

step_outputs case_runner::read_outputs(const batch_step& step) {
    const extent_sizes present = present_extents(step);
    step_outputs outputs;
    for (const value_number number : given_.made.outputs()) {
        const program_value& value = given_.made.value(number);
        auto tensor = host_tensor::zeros(value.element_type, evaluate(value.dimensions, present));
        if (!tensor.bytes.empty())
            objects_.call("buffer_read", objects_.table().buffer_read, objects_.plugin(),
                          static_cast<const sluice_buffer*>(buffers_.at(number)), uint64_t{0},
                          static_cast<void*>(tensor.bytes.data()), uint64_t{tensor.bytes.size()});
        outputs.push_back(std::move(tensor));
    }
    return outputs;
}

extent_sizes present_extents(const batch_step& step) {
    return {0, step.token_count, step.sequence_count, step.logit_count, step.block_columns};
}

extent_sizes bound_extents(const operation_case& given) {
    extent_sizes largest{0, 1, 1, 1, 1};
    for (const auto& step : given.steps) {
        const extent_sizes present = present_extents(step);
        for (size_t i = 1; i < largest.size(); ++i) largest[i] = std::max(largest[i], present[i]);
    }
    for (size_t i = 1; i < largest.size(); ++i)
        if (given.bound[i] != 0) largest[i] = given.bound[i];
    return largest;
}

uint32_t activation_bits(plugin_instance& backend, const program& of) {
    uint32_t fewest = 0;
    for (uint32_t i = 0; i < of.operations().size(); ++i) {
        const uint32_t bits = ask_claim(backend, of, i).activation_bits;
        if (bits != 0 && (fewest == 0 || bits < fewest)) fewest = bits;
    }
    require(fewest == 0 || fewest == 8,
            "a claim says that activations are rounded to {} bits; known are 0 and 8", fewest);
    return fewest;
}

std::optional<refusal> first_refusal(plugin_instance& backend, const program& of) {
    for (uint32_t i = 0; i < of.operations().size(); ++i) {
        const sluice_claim claim = ask_claim(backend, of, i);
        if (claim.accepted == 0)
            return refusal{i, text_of_array(claim.reason, sizeof claim.reason)};
        if (text_of_array(claim.kernel, sizeof claim.kernel).empty())
            fail(SLUICE_INVALID, "{}: a claim names no kernel", backend.id());
    }
    return std::nullopt;
}

std::vector<step_outputs> run_case(plugin_instance& backend, const operation_case& given,
                                   uint32_t repeats, double* seconds) {
    case_runner runner(backend, given);
    std::vector<step_outputs> outputs;
    for (const auto& step : given.steps) {
        const bool last = &step == &given.steps.back();
        outputs.push_back(runner.run(step, last ? repeats : 1, last ? seconds : nullptr));
    }
    return outputs;
}

operation_case with_program(const operation_case& given, const program& other) {
    operation_case made = given;
    made.made = other;
    return made;
}

operation_case with_plain_weights(const operation_case& given) {
    program_contents contents = given.made.contents();
    operation_case made = given;
    for (auto& [number, weight] : made.weights) {
        weight = weight.plain();
        contents.values[number].weight_format = weight.format();
    }
    made.made = program(std::move(contents));
    return made;
}

} // namespace sluice::checker
