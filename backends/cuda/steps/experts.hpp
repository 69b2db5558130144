// The steps of gated layers and of experts, for themselves and as parts of others.
#pragma once

#include "multiply.hpp"

#include "../kernels/expert_sort.hpp"
#include "../kernels/rows.hpp"

namespace sluice::cuda {

// Cuts a step's scratch memory into aligned pieces; without a base it only measures.
class scratch_pieces {
  public:
    explicit scratch_pieces(std::byte* base = nullptr) : base_(base) {}
    template <typename Element>
    Element* take(int64_t count) {
        std::byte* at = base_ == nullptr ? nullptr : base_ + used_;
        used_ += (static_cast<uint64_t>(count) * sizeof(Element) + 255) / 256 * 256;
        return reinterpret_cast<Element*>(at);
    }
    std::byte* take_elements(sluice_element_type type, int64_t count) {
        return take<std::byte>(static_cast<int64_t>(plugin::bytes_of(type, count)));
    }
    uint64_t used() const { return used_; }

  private:
    std::byte* base_;
    uint64_t used_ = 0;
};

// y = (activation(x W_gate^T) * x W_up^T) W_down^T
class gated_mlp_step final : public step {
  public:
    gated_mlp_step(bound& owner, const plugin::operation& operation);

    // Settles which kernels run: once, before the first launch.
    void choose();
    // Takes the scratch memory of the step: before launch_products.
    void place(scratch_pieces& pieces);
    uint64_t scratch_bytes() const override;
    void launch(cudaStream_t stream) override;
    void launch_products(cudaStream_t stream) const;

    const product_call& in() const { return in_; }
    const product_call& out() const { return out_; }

  private:
    bound& owner_;
    product_call in_;
    product_call out_;
    product_choice in_choice_;
    product_choice out_choice_;
};

// Rows sorted by expert, both products over all experts at once, and the weighted sum; of few
// choices nothing is sorted, and the second product takes the weighted sum along.
class moe_ffn_step final : public step {
  public:
    // `sum`: the operation that adds value `addend` to the output, which is then not written: the
    // sum is.
    moe_ffn_step(bound& owner, const plugin::operation& operation,
                 const plugin::operation* sum = nullptr, uint32_t addend = SLUICE_VALUE_NONE);

    void choose();
    void place(scratch_pieces& pieces);
    uint64_t scratch_bytes() const override;
    void launch(cudaStream_t stream) override;

    // Of few choices: both products by choice, as kernels choose for themselves.
    bool is_few() const { return is_few_; }
    few_call few_in() const;
    few_combine_call few_out() const;
    // Of many.
    void launch_products(cudaStream_t stream) const;
    void launch_sum(cudaStream_t stream) const;

  private:
    bound& owner_;
    int64_t total_ = 0;
    bool is_few_ = false;
    expert_sort_call sort_;
    product_call in_;
    product_call out_;
    product_choice in_choice_;
    product_choice out_choice_;
    int32_t few_in_warps_ = 0;
    int32_t few_out_parts_ = 0;
    combine_rows_call combine_;
};

void launch_few(const few_call& in, const few_combine_call& out, cudaStream_t stream);

// The step of routed and shared experts at once.
std::unique_ptr<step> make_shared_experts(bound& owner, const shared_experts& found);

} // namespace sluice::cuda
