// One operation (or several fused ones) of a bound program: made once for the bound sizes, launched
// into a stream that is being captured. All sizes are those of the bucket; rows of padding have
// position, sequence and slot -1.
#pragma once

#include "../executable.hpp"

#include <functional>

namespace sluice::cuda {

class step {
  public:
    virtual ~step() = default;
    // Device memory that the step uses while it runs (bound::scratch()); the next step overwrites
    // it.
    virtual uint64_t scratch_bytes() const { return 0; }
    // Launches kernels. Called once, while the stream is captured into a graph, or for each
    // submission where graphs are off: it must not allocate, synchronise or read device memory.
    virtual void launch(cudaStream_t stream) = 0;
};

using value_reader = std::function<plugin::value(uint32_t number)>;

// The kernel's name for `explain`; throws SLUICE_UNSUPPORTED with the reason where nothing here can
// run the operation. `remark`: what was measured of its kernels.
std::string claim(const sluice_program& program, const plugin::operation& operation,
                  const tuner& tuning, std::string& remark);

// The step of an operation that was claimed.
std::unique_ptr<step> make_step(bound& owner, const plugin::operation& operation);

// The step of several operations that run together (schedule.hpp).
std::unique_ptr<step> make_fused_step(bound& owner, const std::vector<uint32_t>& group,
                                      const fused_group& fused);

// By file. claim_*: the kernel's name, or an empty text where the file has no step for the
// operation; throws SLUICE_UNSUPPORTED with the reason where it has one, but not for these
// operands.
std::string claim_dense(const plugin::operation& operation, const value_reader& values);
std::string claim_rows(const plugin::operation& operation, const value_reader& values);
std::string claim_attention(const plugin::operation& operation, const value_reader& values);
std::string claim_experts(const plugin::operation& operation, const value_reader& values);
std::string claim_sample(const plugin::operation& operation, const value_reader& values);
std::string claim_primitive(const plugin::operation& operation, const value_reader& values);
std::unique_ptr<step> make_dense(bound& owner, const plugin::operation& operation);
std::unique_ptr<step> make_rows(bound& owner, const plugin::operation& operation);
std::unique_ptr<step> make_attention(bound& owner, const plugin::operation& operation);
std::unique_ptr<step> make_experts(bound& owner, const plugin::operation& operation);
std::unique_ptr<step> make_sample(bound& owner, const plugin::operation& operation);
std::unique_ptr<step> make_primitive(bound& owner, const plugin::operation& operation);

inline bool is_half_type(sluice_element_type type) {
    return type == SLUICE_BF16 || type == SLUICE_F16;
}
inline bool is_float_type(sluice_element_type type) {
    return type == SLUICE_F32 || is_half_type(type);
}

inline int64_t blocks_for(int64_t units, int64_t per_block) {
    return (units + per_block - 1) / per_block;
}

} // namespace sluice::cuda
