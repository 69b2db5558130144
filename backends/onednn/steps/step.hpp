// One operation of a bound program.
#pragma once

#include "../executable.hpp"

#include <atomic>

namespace sluice::onednn {

struct scratch_size {
    int64_t shared_bytes = 0;
    int64_t worker_bytes = 0; // for each worker
};

// Made at the largest extents; allocates nothing afterwards.
class step {
  public:
    virtual ~step() = default;
    virtual scratch_size scratch() const { return {}; }
    // On the host, when the shapes of a step are known.
    virtual void planned() {}
    // On one worker, before the barrier that all meet at before they run the step.
    virtual void begin() {}
    // On every worker. May meet at the barrier; all workers do so equally often, so it must not
    // throw. Another barrier follows before the next step.
    virtual void run(const plugin::worker& self) = 0;
};

// What a claim says of an operation.
struct claimed {
    std::string kernel;
    bool multiplies = false; // bfloat16 matrices, by whichever kernels were chosen
};

// Throws SLUICE_UNSUPPORTED with the reason where nothing here can run it.
claimed claim(const sluice_program& program, const plugin::operation& operation);

// Whether its rows are rounded to int8 before weights multiply them.
bool rounds_rows(const plugin::operation& operation,
                 const std::function<plugin::value(uint32_t number)>& values,
                 const kernel_choice& kernels);

// The step of an operation that was claimed.
std::unique_ptr<step> make_step(bound& owner, const plugin::operation& operation);

// By file: NULL, or a reason in `refusal`, where the file has no step for it.
using value_reader = std::function<plugin::value(uint32_t number)>;
using state_reader = std::function<sluice_state(uint32_t number)>;
bool claims_dense(const plugin::operation& operation, const value_reader& values, claimed& verdict);
bool claims_rows(const plugin::operation& operation, const value_reader& values,
                 const state_reader& states, claimed& verdict);
bool claims_attention(const plugin::operation& operation, const value_reader& values,
                      const state_reader& states, claimed& verdict);
bool claims_experts(const plugin::operation& operation, const value_reader& values,
                    claimed& verdict);
bool claims_sample(const plugin::operation& operation, const value_reader& values,
                   claimed& verdict);
bool claims_gram(const plugin::operation& operation, const value_reader& values, claimed& verdict);
std::unique_ptr<step> make_dense(bound& owner, const plugin::operation& operation);
std::unique_ptr<step> make_rows(bound& owner, const plugin::operation& operation);
std::unique_ptr<step> make_attention(bound& owner, const plugin::operation& operation);
std::unique_ptr<step> make_mla_attention(bound& owner, const plugin::operation& operation);
std::unique_ptr<step> make_route(bound& owner, const plugin::operation& operation);
std::unique_ptr<step> make_moe_ffn(bound& owner, const plugin::operation& operation);
std::unique_ptr<step> make_sample(bound& owner, const plugin::operation& operation);
std::unique_ptr<step> make_gram(bound& owner, const plugin::operation& operation);

// ---- Shared by the steps ----

inline bool is_fast_type(sluice_element_type type) {
    return type == SLUICE_F32 || type == SLUICE_BF16;
}

inline int64_t aligned(int64_t bytes) { return (bytes + 63) / 64 * 64; }

// Hands out units of work to whichever worker is free. Results must not depend on who does what.
class work_counter {
  public:
    void reset() { next_.store(0, std::memory_order_relaxed); }
    int64_t take() { return next_.fetch_add(1, std::memory_order_relaxed); }

  private:
    alignas(64) std::atomic<int64_t> next_{0};
};

// Things first to last - 1, and the first that the worker takes after them, or `none`.
struct work_run {
    static constexpr int64_t none = -1;
    int64_t first;
    int64_t last;
    int64_t next;
};

// Calls function(run) with runs of [0, count) that the worker is free to take. The run after is
// taken ahead, so that its memory can be fetched.
template <typename Function>
void take_runs(work_counter& counter, int64_t count, int64_t run, Function&& function) {
    const auto take = [&] {
        const int64_t first = counter.take() * run;
        return first < count ? first : work_run::none;
    };
    for (int64_t first = take(); first != work_run::none;) {
        const int64_t next = take();
        function(work_run{first, std::min(first + run, count), next});
        first = next;
    }
}

// Elements [begin, begin + count) of a float32 or bfloat16 tensor as float32: the tensor's own
// memory, or a copy in `room`.
inline const float* read_floats(const kernels::row_kernels& rows, const plugin::tensor& t,
                                int64_t begin, int64_t count, float* room) {
    if (t.type == SLUICE_F32) return t.as<float>() + begin;
    rows.widen(t.as<uint16_t>() + begin, count, room);
    return room;
}

// Likewise, always into `to`.
inline void put_floats(const kernels::row_kernels& rows, const plugin::tensor& t, int64_t begin,
                       int64_t count, float* to) {
    const float* read = read_floats(rows, t, begin, count, to);
    if (read != to) std::copy_n(read, count, to);
}

inline void write_floats(const kernels::row_kernels& rows, const float* values, int64_t count,
                         const plugin::tensor& t, int64_t begin) {
    if (t.type == SLUICE_BF16) {
        rows.narrow(values, count, t.as<uint16_t>() + begin);
    } else if (values != t.as<float>() + begin) {
        std::memcpy(t.as<float>() + begin, values, static_cast<size_t>(count) * sizeof(float));
    }
}

inline kernels::float_type float_type_of(sluice_element_type type) {
    return type == SLUICE_BF16 ? kernels::float_type::bfloat16 : kernels::float_type::float32;
}

} // namespace sluice::onednn
