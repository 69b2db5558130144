// Routed and shared experts at the same time.
#include "experts.hpp"

namespace sluice::cuda {

namespace {

// A second stream that runs beside the one of a step.
class side_branch {
  public:
    side_branch() {
        check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "creating a stream");
        check(cudaEventCreateWithFlags(&begun_, cudaEventDisableTiming), "creating an event");
        check(cudaEventCreateWithFlags(&ended_, cudaEventDisableTiming), "creating an event");
    }
    side_branch(const side_branch&) = delete;
    side_branch& operator=(const side_branch&) = delete;
    ~side_branch() {
        cudaEventDestroy(begun_);
        cudaEventDestroy(ended_);
        cudaStreamDestroy(stream_);
    }
    cudaStream_t begin(cudaStream_t from) const {
        check(cudaEventRecord(begun_, from), "parting streams");
        check(cudaStreamWaitEvent(stream_, begun_, 0), "parting streams");
        return stream_;
    }
    void end(cudaStream_t into) const {
        check(cudaEventRecord(ended_, stream_), "joining streams");
        check(cudaStreamWaitEvent(into, ended_, 0), "joining streams");
    }

  private:
    cudaStream_t stream_ = nullptr;
    cudaEvent_t begun_ = nullptr, ended_ = nullptr;
};

// Rows up to which the shared experts' down is read for each row in the launch of the routed one's;
// of more it is a launch of its own, which reads it once.
constexpr int32_t joined_rows = 1;
// Rows from which a branch of its own gains: of fewer, memory is what both wait for, and kernels of
// a branch start later.
constexpr int32_t branch_rows = 1024;

// Both kinds of experts, and the memory that they need at the same time.
class shared_experts_step : public step {
  public:
    uint64_t scratch_bytes() const final {
        scratch_pieces pieces;
        moe_ffn_step(routed_).place(pieces);
        gated_mlp_step(shared_).place(pieces);
        return pieces.used();
    }

  protected:
    shared_experts_step(bound& owner, const shared_experts& found)
        : owner_(owner), routed_(owner, *found.routed, found.sum, found.shared->outputs[0]),
          shared_(owner, *found.shared) {}

    void place() {
        scratch_pieces pieces(owner_.scratch());
        routed_.place(pieces);
        shared_.place(pieces);
    }

    bound& owner_;
    moe_ffn_step routed_; // with the sum
    gated_mlp_step shared_;
};

// Of few rows:
//   the shared experts' gate and up, with the norm of the router before them, so that they run
//   while it routes;
//   the routed experts' gate and up;
//   down of both, and the sum: of one row in one launch, of more the shared experts' while the
//   routed ones' gate and up still run.
class few_shared_experts_step final : public shared_experts_step {
  public:
    few_shared_experts_step(bound& owner, const shared_experts& found)
        : shared_experts_step(owner, found), shared_in_(few_call_of(owner, shared_.in())),
          shared_out_(few_call_of(owner, shared_.out())) {
        fits_ = routed_.is_few() && fits_product_few(shared_in_);
        if (!fits_) return;
        shared_in_.programmatic = may_start_early(owner);
        if (found.router) take_norm(*found.router);
        in_ = routed_.few_in();
        out_ = routed_.few_out();
        few_combine_call joined = out_;
        joined.addend = nullptr;
        joined.shared = shared_.out().weight;
        joins_ = out_.rows <= joined_rows && fits_product_few_combine(joined);
        if (joins_)
            out_ = joined;
        else if (!fits_product_few(shared_out_))
            fits_ = false;
        if (!fits_) return;
        shared_out_.programmatic = shared_out_.reads_earlier = overlaps_kernels(owner);
        shared_in_.warps = choose_few_warps(owner, shared_in_);
        in_.warps = choose_few_warps(owner, in_);
        if (!joins_) shared_out_.warps = choose_few_warps(owner, shared_out_);
        out_.parts = choose_few_combine_parts(owner, out_);
    }

    bool fits() const { return fits_; }

    void launch(cudaStream_t stream) override {
        place();
        in_.product.y = routed_.few_in().product.y;
        out_.x = in_.product.y;
        shared_in_.product.y = shared_.in().y;
        shared_out_.product.x = out_.shared_x = shared_.in().y;
        launch_product_few(shared_in_, stream);
        launch_product_few(in_, stream);
        check(cudaGetLastError(), "multiplying by the experts' first weights");
        if (!joins_) launch_product_few(shared_out_, stream);
        launch_product_few_combine(out_, stream);
        check(cudaGetLastError(), "multiplying by the experts' second weights");
    }

  private:
    // The router is one launch, which lets the next one start when all that it reads is there.
    void take_norm(const normed_product& router) {
        if (!runs_in_one_launch(owner_, router)) return;
        few_call normed = shared_in_;
        normed.norm = few_norm_of(owner_, *router.norm);
        normed.norm.sum = normed.norm.normed = nullptr;
        normed.reads_earlier = true;
        if (fits_product_few(normed)) shared_in_ = normed;
    }

    few_call shared_in_, shared_out_, in_;
    few_combine_call out_;
    bool fits_ = false;
    bool joins_ = false; // down of both is one launch
};

// Of many rows: one after the other or in two branches, until the sum.
class many_shared_experts_step final : public shared_experts_step {
  public:
    many_shared_experts_step(bound& owner, const shared_experts& found)
        : shared_experts_step(owner, found) {
        routed_.choose();
        shared_.choose();
        if (shared_.in().places >= branch_rows) branch_.emplace();
    }

    void launch(cudaStream_t stream) override {
        place();
        if (routed_.is_few()) { // but the shared experts' weights are not of that kind
            shared_.launch_products(stream);
            routed_.launch(stream); // which takes the same memory again
            return;
        }
        shared_.launch_products(branch_ ? branch_->begin(stream) : stream);
        routed_.launch_products(stream);
        if (branch_) branch_->end(stream);
        routed_.launch_sum(stream);
    }

  private:
    std::optional<side_branch> branch_;
};

} // namespace

std::unique_ptr<step> make_shared_experts(bound& owner, const shared_experts& found) {
    auto few = std::make_unique<few_shared_experts_step>(owner, found);
    if (few->fits()) return few;
    return std::make_unique<many_shared_experts_step>(owner, found);
}

} // namespace sluice::cuda
