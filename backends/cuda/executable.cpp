#include "executable.hpp"

#include "steps/step.hpp"
#include "tuning.hpp"

#include <cstring>

namespace sluice::cuda {

namespace {

constexpr uint64_t alignment = 256;

uint64_t aligned(uint64_t bytes) { return (bytes + alignment - 1) / alignment * alignment; }

// Whether the value is what sampling chose, and nothing on the device reads it.
bool is_sampled(const plugin::program& program, uint32_t number) {
    bool result = false;
    for (const auto& operation : program.operations) {
        const auto names = [&](const std::vector<uint32_t>& list) {
            return std::find(list.begin(), list.end(), number) != list.end();
        };
        if (names(operation.inputs)) return false;
        result = result || (operation.kind == SLUICE_OP_SAMPLE && names(operation.outputs));
    }
    return result;
}

// Ends a capture that an exception leaves open.
class capture_guard {
  public:
    explicit capture_guard(cudaStream_t stream) : stream_(stream) {
        check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal),
              "starting to capture a step");
    }
    ~capture_guard() {
        cudaGraph_t left = nullptr;
        if (stream_ != nullptr && cudaStreamEndCapture(stream_, &left) == cudaSuccess)
            cudaGraphDestroy(left);
    }
    cudaGraph_t end() {
        cudaGraph_t graph = nullptr;
        const cudaError_t error = cudaStreamEndCapture(std::exchange(stream_, nullptr), &graph);
        check(error, "capturing a step");
        return graph;
    }

  private:
    cudaStream_t stream_;
};

} // namespace

executable::executable(const execution_context& context, const sluice_program& program,
                       std::span<sluice_weight* const> weights)
    : context_(context), program_(&program), order_(make_schedule(program_, context.fuses)) {
    for (const auto& value : program_.values) {
        const bool is_weight = value.kind == SLUICE_VALUE_WEIGHT;
        if (is_weight && weights[value.number] == nullptr)
            plugin::fail(SLUICE_INVALID, "weight '", value.name, "' was not given");
        weights_.push_back(is_weight ? static_cast<const device_weight*>(weights[value.number])
                                     : nullptr);
    }
    std::string remark;
    for (const auto& operation : program_.operations)
        claim(program, operation, *context.tuning, remark);
}

std::unique_ptr<sluice_bound> executable::bind(const plugin::extents& sizes, sluice_cache* cache,
                                               std::span<const sluice_binding> bindings) {
    return std::make_unique<bound>(*this, sizes, cache, bindings);
}

// ---- Binding ----

bound::bound(const executable& compiled, const plugin::extents& sizes, sluice_cache* cache,
             std::span<const sluice_binding> bindings)
    : compiled_(compiled), sizes_(sizes), plan_(compiled.program(), sizes, compiled.order().groups),
      data_(compiled.program().values.size()), bound_(compiled.program().values.size()) {
    card().use();
    if (!source().states.empty()) {
        cache_ = dynamic_cast<device_cache*>(cache);
        if (cache_ == nullptr || cache_->states().size() != source().states.size())
            plugin::fail(SLUICE_INVALID, "the program has ", source().states.size(),
                         " states; bind it to a cache that was made for them");
    }
    place_values(bindings);
    make_steps();
    capture();
}

bound::~bound() {
    if (ended_ != nullptr) {
        cudaEventSynchronize(ended_);
        cudaEventDestroy(ended_);
    }
    for (const cudaEvent_t mark : marks_) cudaEventDestroy(mark);
    if (graph_ != nullptr) cudaGraphExecDestroy(graph_);
    if (stream_ != nullptr) cudaStreamDestroy(stream_);
}

void bound::place_values(std::span<const sluice_binding> bindings) {
    arena_ = device_memory(card(), plan_.size_bytes, "the memory of a step's values");
    for (uint32_t i = 0; i < data_.size(); ++i)
        if (plan_.planned[i]) data_[i] = arena_.as() + plan_.offset[i];
    for (const auto& binding : bindings) bind_buffer(binding);
    place_inputs();
}

void bound::bind_buffer(const sluice_binding& binding) {
    const auto& values = source().values;
    if (binding.value >= values.size())
        plugin::fail(SLUICE_INVALID, "a binding names value ", binding.value, " of ",
                     values.size());
    const auto& v = values[binding.value];
    const auto& outputs = source().outputs;
    if (v.kind != SLUICE_VALUE_INPUT
        && std::find(outputs.begin(), outputs.end(), v.number) == outputs.end())
        plugin::fail(SLUICE_INVALID, "value '", v.name, "' is neither an input nor an output");
    auto& buffer = dynamic_cast<device_buffer&>(*binding.buffer);
    buffer.choose_place(is_sampled(source(), v.number));
    std::byte* data =
        buffer.at(binding.offset_bytes, plugin::bytes_of(v.type, v.element_count(sizes_)));
    for (uint32_t i = 0; i < data_.size(); ++i)
        if (plan_.alias[i] == binding.value) data_[i] = data;
    bound_[binding.value] = true;
}

// All batch inputs lie in one block, so that a step uploads them with one copy.
void bound::place_inputs() {
    uint64_t size = aligned(SLUICE_EXTENT_COUNT * sizeof(int32_t));
    query_start_offset_ = size;
    size += aligned((sizes_[SLUICE_EXTENT_SEQUENCES] + 1) * sizeof(int32_t));
    for (const auto& v : source().values) {
        if (v.kind != SLUICE_VALUE_INPUT || bound_[v.number]) continue;
        if (v.input == SLUICE_INPUT_CUSTOM)
            plugin::fail(SLUICE_INVALID, "input '", v.name, "' must be bound to a buffer");
        input_places_.push_back({v.number, size});
        size += aligned(plugin::bytes_of(v.type, v.element_count(sizes_)));
    }
    inputs_ = device_memory(card(), size, "the inputs of a step");
    staging_ = pinned_memory(card(), size);
    for (const auto& place : input_places_)
        for (uint32_t i = 0; i < data_.size(); ++i)
            if (plan_.alias[i] == place.value) data_[i] = inputs_.as() + place.offset_bytes;
    present_ = inputs_.as<int32_t>();
    query_start_ = reinterpret_cast<const int32_t*>(inputs_.as() + query_start_offset_);
}

tensor_view bound::view(uint32_t number) const {
    const auto& v = source().values[number];
    tensor_view result;
    result.rank = static_cast<int32_t>(v.rank);
    for (uint32_t axis = 0; axis < v.rank; ++axis) result.shape[axis] = v.size(axis, sizes_);
    if (const auto* weight = compiled_.weight(number)) {
        result.data = weight->values.as();
        result.type = SLUICE_F32;
    } else {
        result.data = data_[number];
        result.type = v.type;
    }
    return result;
}

int64_t bound::context_max() const {
    int64_t tokens = 0;
    for (const auto& state : source().states)
        tokens = std::max<int64_t>(tokens, state.tokens_per_block);
    return tokens * sizes_[SLUICE_EXTENT_BLOCKS];
}

// Measures what is not known of their kernels.
void bound::make_steps() {
    const tuning_guard measuring(*context().tuning);
    uint64_t scratch = 0;
    const fused_schedule& order = compiled_.order();
    for (size_t i = 0; i < order.groups.size(); ++i) {
        const auto& group = order.groups[i];
        auto made = group.size() == 1 ? make_step(*this, source().operations[group.front()])
                                      : make_fused_step(*this, group, order.fused[i]);
        scratch = std::max(scratch, made->scratch_bytes());
        steps_.push_back(std::move(made));
        const auto* experts = std::get_if<shared_experts>(&order.fused[i]);
        step_operation_.push_back(experts != nullptr ? experts->routed->number : group.back());
        follows_kernel_ = // reshapes may launch nothing
            follows_kernel_ || source().operations[group.back()].kind != SLUICE_OP_RESHAPE;
    }
    scratch_ = device_memory(card(), scratch, "the scratch memory of a step");
    check(cudaEventCreateWithFlags(&ended_, cudaEventDisableTiming), "creating an event");
    if (!context().takes_profile) return;
    marks_.resize(steps_.size() + 1);
    for (auto& mark : marks_) check(cudaEventCreate(&mark), "creating an event");
}

// ---- Running ----

void bound::launch_all(cudaStream_t stream) {
    check(cudaMemcpyAsync(inputs_.as(), staging_.as(), inputs_.size(), cudaMemcpyHostToDevice,
                          stream),
          "uploading the inputs of a step");
    for (size_t i = 0; i < steps_.size(); ++i) {
        mark(i, stream);
        steps_[i]->launch(stream);
    }
    mark(steps_.size(), stream);
}

// Within a capture the record becomes a node of the graph, whose time each launch sets anew.
void bound::mark(size_t step, cudaStream_t stream) const {
    if (marks_.empty()) return;
    cudaStreamCaptureStatus capturing{};
    check(cudaStreamIsCapturing(stream, &capturing), "taking a profile");
    const unsigned flags = capturing == cudaStreamCaptureStatusActive ? cudaEventRecordExternal : 0;
    check(cudaEventRecordWithFlags(marks_[step], stream, flags), "taking a profile");
}

// One run over nothing but padding first: kernels are loaded and libraries choose before the
// capture, in which neither may happen.
void bound::capture() {
    auto empty = SLUICE_INIT(sluice_batch);
    const int32_t no_rows = 0;
    empty.query_start = &no_rows;
    for (const auto& place : input_places_) fill_input(place, empty);
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "creating a stream");
    launch_all(stream_);
    check(cudaStreamSynchronize(stream_), "running a step of padding");
    if (!context().uses_graphs) return;
    const std::lock_guard lock(card().capture_mutex());
    capture_guard capturing(stream_);
    launch_all(stream_);
    const cudaGraph_t graph = capturing.end();
    const cudaError_t error = cudaGraphInstantiate(&graph_, graph, 0);
    cudaGraphDestroy(graph);
    check(error, "preparing the graph of a step");
    check(cudaGraphUpload(graph_, stream_), "uploading the graph of a step");
    check(cudaStreamSynchronize(stream_), "uploading the graph of a step");
}

void bound::check_batch(const sluice_batch& batch) const {
    if (batch.token_count > sizes_[SLUICE_EXTENT_TOKENS]
        || batch.sequence_count > sizes_[SLUICE_EXTENT_SEQUENCES]
        || batch.logit_count > sizes_[SLUICE_EXTENT_LOGITS]
        || batch.block_table_columns > sizes_[SLUICE_EXTENT_BLOCKS])
        plugin::fail(SLUICE_INVALID, "a batch of ", batch.token_count, " tokens, ",
                     batch.sequence_count, " sequences, ", batch.logit_count, " logit rows and ",
                     batch.block_table_columns, " block columns is over what was bound (",
                     sizes_[1], ", ", sizes_[2], ", ", sizes_[3], ", ", sizes_[4], ")");
    if (batch.query_start == nullptr) plugin::fail(SLUICE_INVALID, "batch.query_start is missing");
}

const int32_t* bound::batch_input(const plugin::value& v, const sluice_batch& batch) const {
    switch (v.input) {
    case SLUICE_INPUT_TOKEN_IDS:
        return batch.token_ids;
    case SLUICE_INPUT_POSITION:
        return batch.position;
    case SLUICE_INPUT_SEQUENCE_OF_ROW:
        return batch.sequence_of_row;
    case SLUICE_INPUT_KV_LENGTH:
        return batch.kv_length;
    case SLUICE_INPUT_LOGIT_ROWS:
        return batch.logit_rows;
    case SLUICE_INPUT_ADAPTER_INDEX:
        return batch.adapter_index;
    case SLUICE_INPUT_SLOT:
        return v.group < batch.group_count ? batch.slot[v.group] : nullptr;
    case SLUICE_INPUT_BLOCK_TABLE:
        return v.group < batch.group_count ? batch.block_table[v.group] : nullptr;
    default:
        plugin::fail(SLUICE_UNSUPPORTED, "input kind ", v.input, " is not known to this backend");
    }
}

// The planned part, and padding up to the bound sizes. A block table is laid out anew: its rows are
// as long as the bound number of columns.
void bound::fill_input(const input_place& place, const sluice_batch& batch) {
    const auto& v = source().values[place.value];
    plugin::extents present{};
    present[SLUICE_EXTENT_TOKENS] = batch.token_count;
    present[SLUICE_EXTENT_SEQUENCES] = batch.sequence_count;
    present[SLUICE_EXTENT_LOGITS] = batch.logit_count;
    present[SLUICE_EXTENT_BLOCKS] = batch.block_table_columns;
    const int32_t padding =
        v.input == SLUICE_INPUT_TOKEN_IDS || v.input == SLUICE_INPUT_KV_LENGTH ? 0 : -1;
    auto* target = reinterpret_cast<int32_t*>(staging_.as() + place.offset_bytes);
    std::fill_n(target, v.element_count(sizes_), padding);
    const int64_t count = v.element_count(present);
    if (count == 0) return;
    const int32_t* from = batch_input(v, batch);
    if (from == nullptr)
        plugin::fail(SLUICE_INVALID, "the batch lacks what input '", v.name, "' needs");
    const int64_t row = v.rank > 1 ? v.size(1, present) : count;
    const int64_t row_bound = v.rank > 1 ? v.size(1, sizes_) : count;
    for (int64_t i = 0; i < count / row; ++i)
        std::copy_n(from + i * row, row, target + i * row_bound);
}

void bound::plan(const sluice_batch& batch) {
    if (cudaEventQuery(ended_) == cudaErrorNotReady)
        plugin::fail(SLUICE_INVALID, "plan was called while a submission runs");
    check_batch(batch);
    const int32_t present[SLUICE_EXTENT_COUNT] = {
        0, static_cast<int32_t>(batch.token_count), static_cast<int32_t>(batch.sequence_count),
        static_cast<int32_t>(batch.logit_count), static_cast<int32_t>(batch.block_table_columns)};
    std::memcpy(staging_.as(), present, sizeof present);
    auto* starts = reinterpret_cast<int32_t*>(staging_.as() + query_start_offset_);
    std::fill_n(starts, sizes_[SLUICE_EXTENT_SEQUENCES] + 1,
                static_cast<int32_t>(batch.token_count));
    std::copy_n(batch.query_start, batch.sequence_count + 1, starts);
    for (const auto& place : input_places_) fill_input(place, batch);
    is_planned_ = true;
}

void bound::submit(sluice_queue& queue, std::span<sluice_event* const> waits, sluice_event* done) {
    if (!is_planned_) plugin::fail(SLUICE_INVALID, "submit needs a plan first");
    if (cudaEventQuery(ended_) == cudaErrorNotReady)
        plugin::fail(SLUICE_INVALID, "the last submission still runs");
    card().use();
    const cudaStream_t stream = static_cast<device_queue&>(queue).stream();
    for (sluice_event* const wait : waits)
        check(cudaStreamWaitEvent(stream, static_cast<device_event*>(wait)->handle(), 0),
              "waiting for an event");
    if (graph_ != nullptr)
        check(cudaGraphLaunch(graph_, stream), "launching a step");
    else
        launch_all(stream);
    check(cudaEventRecord(ended_, stream), "recording the end of a step");
    if (done != nullptr) static_cast<device_event*>(done)->record(stream);
}

void bound::profile(std::span<double> seconds) const {
    if (marks_.empty())
        plugin::fail(SLUICE_UNSUPPORTED,
                     "no profile was taken; set profile = true in [settings.cuda]");
    check(cudaEventSynchronize(ended_), "taking a profile");
    std::fill(seconds.begin(), seconds.end(), 0.0);
    for (size_t i = 0; i < steps_.size(); ++i) {
        float elapsed_ms = 0;
        check(cudaEventElapsedTime(&elapsed_ms, marks_[i], marks_[i + 1]), "taking a profile");
        if (step_operation_[i] < seconds.size())
            seconds[step_operation_[i]] += static_cast<double>(elapsed_ms) / 1000.0;
    }
}

} // namespace sluice::cuda
