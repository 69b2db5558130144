#include "shapes.hpp"

namespace sluice::plain {

namespace {

struct accumulate_operands {
    const plugin::tensor& x;
    const plugin::tensor* index;
    const plugin::tensor& total;
    const plugin::tensor& rows;
    uint32_t expert;

    explicit accumulate_operands(const call& c)
        : x(c.in(0)), index(c.has_in(1) ? &c.in(1) : nullptr), total(c.in(2)), rows(c.in(3)),
          expert(c.attributes<sluice_accumulate_attributes>().expert) {}

    bool counts(int64_t row) const {
        if (index == nullptr) return true;
        const int64_t choices = index->shape[1];
        for (int64_t j = 0; j < choices; ++j)
            if (index->as<int32_t>()[row * choices + j] == static_cast<int32_t>(expert))
                return true;
        return false;
    }
    float row_count_after() const {
        float count = rows.as<float>()[0];
        for (int64_t row = 0; row < x.shape[0]; ++row) count += counts(row) ? 1.0f : 0.0f;
        return count;
    }
};

void accumulate_gram(const call& c, int64_t begin, int64_t end) {
    const accumulate_operands o(c);
    const int64_t width = o.x.width();
    if (begin == 0) c.out(1).as<float>()[0] = o.row_count_after();
    for (int64_t i = begin; i < end; ++i) {
        double sum = o.total.as<float>()[i];
        for (int64_t row = 0; row < o.x.shape[0]; ++row)
            if (o.counts(row))
                sum += static_cast<double>(get(o.x, row * width + i / width))
                       * get(o.x, row * width + i % width);
        c.out(0).as<float>()[i] = static_cast<float>(sum);
    }
}

void accumulate_abs_max(const call& c, int64_t begin, int64_t end) {
    const accumulate_operands o(c);
    const int64_t width = o.x.width();
    if (begin == 0) c.out(1).as<float>()[0] = o.row_count_after();
    for (int64_t k = begin; k < end; ++k) {
        float maximum = o.total.as<float>()[k];
        for (int64_t row = 0; row < o.x.shape[0]; ++row)
            if (o.counts(row)) maximum = std::max(maximum, std::fabs(get(o.x, row * width + k)));
        c.out(0).as<float>()[k] = maximum;
    }
}

} // namespace

kernel find_statistics_kernel(uint32_t kind) {
    switch (kind) {
    case SLUICE_OP_ACCUMULATE_GRAM:
        return {elements_of_output, accumulate_gram};
    case SLUICE_OP_ACCUMULATE_ABS_MAX:
        return {elements_of_output, accumulate_abs_max};
    default:
        return {};
    }
}

} // namespace sluice::plain
