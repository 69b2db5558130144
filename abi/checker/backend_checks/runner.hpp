// Runs a small program on a backend and reads what it wrote.
#pragma once

#include "host_tensor.hpp"
#include "weight_case.hpp"

#include "base/error.hpp"
#include "plugin/plugin_host.hpp"
#include "program/program.hpp"

#include <deque>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace sluice::checker {

// What a backend is given for one step; sluice_batch, owned. One cache group at most.
struct batch_step {
    uint32_t token_count = 0;
    uint32_t sequence_count = 0;
    uint32_t logit_count = 0;
    uint32_t block_columns = 0;
    uint32_t decode_sequence_count = 0;
    std::vector<int32_t> token_ids;             // [T], or empty: zeros
    std::vector<int32_t> position;              // [T], or empty: 0, 1, ...
    std::vector<int32_t> sequence_of_row;       // [T], or empty: all of sequence 0
    std::vector<int32_t> query_start;           // [S+1], or empty: all rows are of sequence 0
    std::vector<int32_t> kv_length;             // [S]
    std::vector<int32_t> logit_rows;            // [L]
    std::vector<int32_t> block_table;           // [S, B]
    std::vector<int32_t> slot;                  // [T]
    std::map<value_number, host_tensor> custom; // by value; at the bound extents
    bool token_ids_bound = false;               // they come from a buffer; see operation_case::fed
};

struct operation_case {
    explicit operation_case(program of) : made(std::move(of)) {}

    program made;
    extent_sizes bound{}; // 0: the largest of the steps, at least 1
    std::map<value_number, weight_case> weights;
    uint32_t block_count = 0; // of the cache
    // Batch inputs that lie in the buffer of an output: what a step writes the next one reads.
    std::map<value_number, value_number> fed;
    std::vector<batch_step> steps;

    batch_step& add_step() { return steps.emplace_back(); }
};

// The outputs of every step, one after another, cut to the step's own extents (which must be their
// leading axes where the bound ones are larger).
using step_outputs = std::vector<host_tensor>;

// The extents that the case's executable is bound to, and those of one step.
extent_sizes bound_extents(const operation_case& given);
extent_sizes present_extents(const batch_step& step);

// The backend's verdict on each operation of the program; the first that is refused, or none.
struct refusal {
    uint32_t operation;
    std::string reason;
};
std::optional<refusal> first_refusal(plugin_instance& backend, const program& of);
// The fewest activation_bits that it claims any operation with; 0 where all keep their type.
uint32_t activation_bits(plugin_instance& backend, const program& of);

// Objects of a backend, destroyed in the reverse order of their making.
class backend_objects {
  public:
    explicit backend_objects(plugin_instance& instance)
        : instance_(instance), table_(instance.backend()) {}
    backend_objects(const backend_objects&) = delete;
    backend_objects& operator=(const backend_objects&) = delete;
    ~backend_objects() {
        while (!undo_.empty()) {
            undo_.back()();
            undo_.pop_back();
        }
    }

    // Calls a function of the table that makes an object as its last argument but the error.
    template <typename Object, typename Function, typename Destroy, typename... Arguments>
    Object* make(std::string_view name, Function function, Destroy destroy,
                 Arguments... arguments) {
        Object* made = nullptr;
        plugin_call call = instance_.call(name);
        call = function(arguments..., &made, call.error());
        if (made == nullptr)
            fail(SLUICE_INTERNAL, "{}: {} answered OK and no object", instance_.id(), name);
        undo_.push_back([destroy, made] { destroy(made); });
        return made;
    }

    template <typename Function, typename... Arguments>
    void call(std::string_view name, Function function, Arguments... arguments) {
        plugin_call made = instance_.call(name);
        made = function(arguments..., made.error());
    }

    const sluice_backend& table() const { return table_; }
    sluice_plugin* plugin() const { return instance_.handle(); }

    sluice_buffer* buffer(uint64_t size_bytes) {
        return make<sluice_buffer>(
            "buffer_create", table_.buffer_create,
            [this](sluice_buffer* b) { table_.buffer_destroy(plugin(), b); }, plugin(), size_bytes);
    }

    sluice_weight* weight(const sluice_weight_source* source, uint32_t roles) {
        uint64_t size = 0;
        call("weight_size", table_.weight_size, plugin(), source, roles, &size);
        sluice_weight* made = nullptr;
        uint32_t still_needed = 0;
        plugin_call prepare = instance_.call("weight_prepare");
        prepare =
            table_.weight_prepare(plugin(), source, roles, &made, &still_needed, prepare.error());
        undo_.push_back([this, made] { table_.weight_destroy(plugin(), made); });
        return made;
    }

  private:
    plugin_instance& instance_;
    const sluice_backend& table_;
    std::vector<std::function<void()>> undo_;
};
// One executable with its weights, buffers and cache, ready to run steps.
class case_runner {
  public:
    // Throws sluice::error with the backend's own message where anything fails. `given` outlives
    // it.
    case_runner(plugin_instance& backend, const operation_case& given);

    // Queues the step and waits; `repeats` times, `seconds` then is the shortest time.
    step_outputs run(const batch_step& step, uint32_t repeats = 1, double* seconds = nullptr);
    // The same in pieces: start, then finish once or more.
    void write_inputs(const batch_step& step);
    void write(value_number bound, const host_tensor& tensor);
    sluice_status plan(const batch_step& step, std::string* message = nullptr);
    void submit(std::vector<sluice_event*> waits = {});
    void wait();
    step_outputs read_outputs(const batch_step& step);

    backend_objects& objects() { return objects_; }
    sluice_cache* cache() const { return cache_; }
    sluice_bound* bound() const { return bound_; }
    sluice_event* done() const { return done_; }

  private:
    void make_executable();
    void make_cache();
    void add_buffer(value_number number);
    void add_binding(value_number number, sluice_buffer* buffer);
    void bind();

    backend_objects objects_;
    const operation_case& given_;
    extent_sizes sizes_;
    std::map<value_number, sluice_buffer*> buffers_;
    std::deque<sluice_binding> bindings_;
    sluice_executable* executable_ = nullptr;
    sluice_cache* cache_ = nullptr;
    sluice_bound* bound_ = nullptr;
    sluice_queue* queue_ = nullptr;
    sluice_event* done_ = nullptr;
};

// sluice_batch with its arrays; `step` outlives it.
class batch_storage {
  public:
    explicit batch_storage(const batch_step& step);
    batch_storage(const batch_storage&) = delete;
    batch_storage& operator=(const batch_storage&) = delete;
    const sluice_batch* get() const { return &batch_; }

  private:
    std::vector<int32_t> token_ids_, position_, sequence_of_row_, query_start_;
    const int32_t* block_table_;
    const int32_t* slot_;
    sluice_batch batch_ = SLUICE_INIT(sluice_batch);
};

// Runs all steps. `seconds`: the time of the last step's submission, the shortest of `repeats`.
std::vector<step_outputs> run_case(plugin_instance& backend, const operation_case& given,
                                   uint32_t repeats = 1, double* seconds = nullptr);

// The case with every weight stored in float32 and another program of the same values: an oracle's.
operation_case with_plain_weights(const operation_case& given);
operation_case with_program(const operation_case& given, const program& other);

} // namespace sluice::checker
