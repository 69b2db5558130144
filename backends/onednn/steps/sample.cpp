// sample: rows of a vocabulary are long and few, so that workers share pieces of rows.
#include "step.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace sluice::onednn {

namespace {

constexpr float minus_infinity = -std::numeric_limits<float>::infinity();

// The same for any number of workers, so that sums are.
constexpr int64_t piece_width = 4096;

class sample_step final : public step {
  public:
    sample_step(bound& owner, const plugin::operation& operation)
        : owner_(owner), operation_(operation), rows_(owner.kernels().rows), width_(in().width()),
          pieces_((width_ + piece_width - 1) / piece_width) {}

    scratch_size scratch() const override {
        const auto size = static_cast<int64_t>(sizeof(piece));
        return {aligned(in().row_count() * pieces_ * size), aligned(piece_width * 4)};
    }

    void run(const plugin::worker& self) override {
        const int64_t rows = in().row_count();
        const auto part = self.share(rows * pieces_);
        float* present = reinterpret_cast<float*>(owner_.own_scratch(self));
        for (int64_t i = part.begin; i < part.end; ++i) pieces()[i] = summed(i, present);
        self.meet.wait();
        const auto range = self.share(rows);
        for (int64_t row = range.begin; row < range.end; ++row) finish(row);
    }

  private:
    struct piece {
        float largest; // minus infinity where no logit is finite
        float sum;     // of exp(logit - largest)
    };

    const plugin::tensor& in() const { return owner_.at(operation_.inputs[0]); }
    piece* pieces() const { return reinterpret_cast<piece*>(owner_.shared_scratch()); }

    // The logits of a piece with minus infinity for what is not finite. Returns their number.
    int64_t read(int64_t row, int64_t index, float* present) const {
        const int64_t begin = index * piece_width;
        const int64_t count = std::min(piece_width, width_ - begin);
        const float* x = read_floats(rows_, in(), row * width_ + begin, count, present);
        for (int64_t i = 0; i < count; ++i) // a NaN compares false
            present[i] =
                std::abs(x[i]) <= std::numeric_limits<float>::max() ? x[i] : minus_infinity;
        return count;
    }

    piece summed(int64_t i, float* present) const {
        const int64_t count = read(i / pieces_, i % pieces_, present);
        const float largest = rows_.maximum(present, count);
        if (largest == minus_infinity) return {largest, 0};
        return {largest, rows_.exp_in_place(present, largest, count)};
    }

    void finish(int64_t row) const {
        const piece* parts = pieces() + row * pieces_;
        const piece* best = std::max_element( // the first of several
            parts, parts + pieces_,
            [](const piece& left, const piece& right) { return left.largest < right.largest; });
        const bool found = best->largest != minus_infinity;
        owner_.at(operation_.outputs[0]).as<int32_t>()[row] =
            found ? place_of(row, best - parts, best->largest) : -1;
        if (!operation_.has_output(1)) return;
        double sum = 0;
        for (int64_t i = 0; found && i < pieces_; ++i)
            sum += static_cast<double>(parts[i].sum)
                   * std::exp(static_cast<double>(parts[i].largest) - best->largest);
        owner_.at(operation_.outputs[1]).as<float>()[row] =
            found ? static_cast<float>(-std::log(sum)) : 0.0f;
    }

    int32_t place_of(int64_t row, int64_t index, float largest) const {
        int64_t place = index * piece_width;
        float logit = 0;
        while (*read_floats(rows_, in(), row * width_ + place, 1, &logit) != largest) ++place;
        return static_cast<int32_t>(place);
    }

    bound& owner_;
    const plugin::operation& operation_;
    const kernels::row_kernels& rows_;
    int64_t width_;
    int64_t pieces_; // of each row
};

} // namespace

bool claims_sample(const plugin::operation& operation, const value_reader& values,
                   claimed& verdict) {
    if (operation.kind != SLUICE_OP_SAMPLE
        || operation.as<sluice_sample_attributes>().method != SLUICE_SAMPLE_GREEDY)
        return false;
    const plugin::value logits = values(operation.inputs[0]);
    if (!is_fast_type(logits.type) || logits.shape[1].extent != SLUICE_EXTENT_NONE) return false;
    verdict.kernel = "sample, pieces of rows";
    return true;
}

std::unique_ptr<step> make_sample(bound& owner, const plugin::operation& operation) {
    return std::make_unique<sample_step>(owner, operation);
}

} // namespace sluice::onednn
