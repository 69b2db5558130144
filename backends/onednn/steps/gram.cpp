// accumulate_gram over all rows: half of the products, since the sum is symmetric.
#include "step.hpp"

#include <algorithm>

namespace sluice::onednn {

namespace {

// Rows of the sum that a free worker takes, and rows of x that stay in a second-level cache.
constexpr int64_t rows_per_unit = 4 * kernels::gram_rows;
constexpr int64_t rows_per_pass = 128;

class gram_step final : public step {
  public:
    gram_step(bound& owner, const plugin::operation& operation)
        : owner_(owner), operation_(operation), width_(owner.at(operation.inputs[0]).width()) {}

    void run(const plugin::worker& self) override {
        const auto& x = owner_.at(operation_.inputs[0]);
        if (self.index == 0) {
            units_.reset();
            owner_.at(operation_.outputs[1]).as<float>()[0] =
                owner_.at(operation_.inputs[3]).as<float>()[0] + static_cast<float>(x.shape[0]);
        }
        self.meet.wait();
        const int64_t unit_count = (width_ + rows_per_unit - 1) / rows_per_unit;
        for (int64_t unit = units_.take(); unit < unit_count; unit = units_.take())
            run_unit(x, unit * rows_per_unit, std::min((unit + 1) * rows_per_unit, width_));
    }

  private:
    // Rows [begin, end) of the sum from their diagonal on, and the columns that mirror them.
    void run_unit(const plugin::tensor& x, int64_t begin, int64_t end) const {
        const float* before = owner_.at(operation_.inputs[2]).as<float>();
        float* sum = owner_.at(operation_.outputs[0]).as<float>();
        const auto& rows = owner_.kernels().rows;
        for (int64_t i = begin; i < end; ++i)
            std::copy(before + i * width_ + begin, before + (i + 1) * width_,
                      sum + i * width_ + begin);
        for (int64_t first = 0; first < x.shape[0]; first += rows_per_pass) {
            const int64_t count = std::min(rows_per_pass, x.shape[0] - first);
            for (int64_t i = begin; i < end; i += kernels::gram_rows)
                for (int64_t j = begin; j < width_; j += kernels::gram_columns)
                    rows.add_gram(x.as<float>() + first * width_, width_, count, i, j,
                                  std::min(kernels::gram_columns, width_ - j), sum + i * width_ + j,
                                  width_);
        }
        // The sum before need not be symmetric.
        for (int64_t i = begin; i < end; ++i)
            for (int64_t j = end; j < width_; ++j) {
                const float above = before[i * width_ + j], below = before[j * width_ + i];
                const float found = sum[i * width_ + j];
                sum[j * width_ + i] = above == below ? found : below + (found - above);
            }
    }

    bound& owner_;
    const plugin::operation& operation_;
    int64_t width_;
    work_counter units_;
};

} // namespace

bool claims_gram(const plugin::operation& operation, const value_reader& values, claimed& verdict) {
    if (operation.kind != SLUICE_OP_ACCUMULATE_GRAM || operation.has_input(1)) return false;
    const plugin::value x = values(operation.inputs[0]);
    if (x.type != SLUICE_F32 || x.shape[1].offset % kernels::gram_rows != 0) return false;
    verdict.kernel = "accumulate_gram, half of the products";
    return true;
}

std::unique_ptr<step> make_gram(bound& owner, const plugin::operation& operation) {
    return std::make_unique<gram_step>(owner, operation);
}

} // namespace sluice::onednn
