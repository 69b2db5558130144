#include "shapes.hpp"

#include <algorithm>
#include <numeric>

namespace sluice::plain {

namespace {

constexpr float minus_infinity = -std::numeric_limits<float>::infinity();

void softmax(const call& c, int64_t begin, int64_t end) {
    const int64_t width = c.in(0).width();
    for (int64_t row = begin; row < end; ++row) {
        float maximum = minus_infinity;
        for (int64_t i = 0; i < width; ++i)
            maximum = std::max(maximum, get(c.in(0), row * width + i));
        double sum = 0;
        if (maximum != minus_infinity)
            for (int64_t i = 0; i < width; ++i)
                sum += std::exp(static_cast<double>(get(c.in(0), row * width + i)) - maximum);
        for (int64_t i = 0; i < width; ++i) {
            const double x = get(c.in(0), row * width + i);
            put(c.out(0), row * width + i,
                sum == 0 ? 0.0f : static_cast<float>(std::exp(x - maximum) / sum));
        }
    }
}

void reduce(const call& c, int64_t begin, int64_t end) {
    const uint32_t function = c.attributes<sluice_reduce_attributes>().function;
    const int64_t width = c.in(0).width();
    for (int64_t row = begin; row < end; ++row) {
        double sum = 0;
        float largest = minus_infinity;
        float smallest = -minus_infinity;
        for (int64_t i = 0; i < width; ++i) {
            const float x = get(c.in(0), row * width + i);
            sum += x;
            largest = std::max(largest, x);
            smallest = std::min(smallest, x);
        }
        if (function == SLUICE_REDUCE_MEAN) sum /= static_cast<double>(width);
        put(c.out(0), row,
            function == SLUICE_REDUCE_MAXIMUM   ? largest
            : function == SLUICE_REDUCE_MINIMUM ? smallest
                                                : static_cast<float>(sum));
    }
}

void topk(const call& c, int64_t begin, int64_t end) {
    const int64_t width = c.in(0).width();
    const int64_t wanted = c.out(0).width();
    std::vector<float> row_values(static_cast<size_t>(width));
    std::vector<int32_t> order(static_cast<size_t>(width));
    for (int64_t row = begin; row < end; ++row) {
        get_row(c.in(0), row * width, width, row_values.data());
        for (auto& x : row_values)
            if (std::isnan(x)) x = minus_infinity;
        std::iota(order.begin(), order.end(), 0);
        std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
            return row_values[static_cast<size_t>(a)] > row_values[static_cast<size_t>(b)];
        });
        for (int64_t j = 0; j < wanted; ++j) {
            const int32_t chosen = order[static_cast<size_t>(j)];
            put(c.out(0), row * wanted + j, row_values[static_cast<size_t>(chosen)]);
            c.out(1).as<int32_t>()[row * wanted + j] = chosen;
        }
    }
}

void sample(const call& c, int64_t begin, int64_t end) {
    const int64_t width = c.in(0).width();
    for (int64_t row = begin; row < end; ++row) {
        const auto at = [&](int64_t i) { return get(c.in(0), row * width + i); };
        int32_t token = -1;
        for (int64_t i = 0; i < width; ++i)
            if (std::isfinite(at(i)) && (token < 0 || at(i) > at(token)))
                token = static_cast<int32_t>(i);
        c.out(0).as<int32_t>()[row] = token;
        if (!c.has_out(1)) continue;
        double sum = 0;
        for (int64_t i = 0; token >= 0 && i < width; ++i)
            if (std::isfinite(at(i))) sum += static_cast<double>(std::exp(at(i) - at(token)));
        c.out(1).as<float>()[row] = token < 0 ? 0.0f : static_cast<float>(-std::log(sum));
    }
}

void cumsum(const call& c, int64_t begin, int64_t end) {
    const int64_t width = c.in(0).width();
    for (int64_t row = begin; row < end; ++row) {
        double sum = 0; // exact for int32 too
        for (int64_t i = row * width; i < (row + 1) * width; ++i) {
            if (c.in(0).type == SLUICE_I32) {
                sum += c.in(0).as<int32_t>()[i];
                c.out(0).as<int32_t>()[i] = static_cast<int32_t>(sum);
            } else {
                sum += get(c.in(0), i);
                put(c.out(0), i, static_cast<float>(sum));
            }
        }
    }
}

void matmul(const call& c, int64_t begin, int64_t end) {
    const auto& out = c.out(0);
    const int64_t n_count = out.width();
    const int64_t m_count = out.shape[out.rank - 2];
    const int64_t k_count = c.in(0).width();
    std::vector<float> row(static_cast<size_t>(n_count));
    for (int64_t i = begin; i < end; ++i) { // i counts rows of the result
        const auto place = unflatten(i * n_count, out);
        const int64_t x = (broadcast_index(c.in(0), place, out.rank, 2) * m_count + i % m_count);
        const int64_t y = broadcast_index(c.in(1), place, out.rank, 2) * k_count;
        std::fill(row.begin(), row.end(), 0.0f);
        for (int64_t k = 0; k < k_count; ++k) {
            const float factor = get(c.in(0), x * k_count + k);
            for (int64_t n = 0; n < n_count; ++n)
                row[static_cast<size_t>(n)] += factor * get(c.in(1), (y + k) * n_count + n);
        }
        for (int64_t n = 0; n < n_count; ++n)
            put(out, i * n_count + n, row[static_cast<size_t>(n)]);
    }
}

} // namespace

kernel find_axis_kernel(uint32_t kind) {
    switch (kind) {
    case SLUICE_OP_SOFTMAX:
        return {rows_of_output, softmax};
    case SLUICE_OP_REDUCE:
        return {elements_of_output, reduce};
    case SLUICE_OP_TOPK:
        return {rows_of_output, topk};
    case SLUICE_OP_SAMPLE:
        return {elements_of_output, sample};
    case SLUICE_OP_CUMSUM:
        return {rows_of_output, cumsum};
    case SLUICE_OP_MATMUL:
        return {rows_of_output, matmul};
    default:
        return {};
    }
}

} // namespace sluice::plain
