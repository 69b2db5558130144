#include "operations.hpp"

namespace sluice::plain {

namespace {

void group_rows(const call& c, int64_t, int64_t) {
    const auto& index = c.in(0);
    const int64_t rows = index.shape[0];
    const int64_t choices = index.shape[1];
    const int64_t experts = c.out(3).shape[0] - 1;
    auto* row = c.out(0).as<int32_t>();
    auto* choice = c.out(1).as<int32_t>();
    auto* place = c.out(2).as<int32_t>();
    auto* offset = c.out(3).as<int32_t>();
    const auto expert_of = [&](int64_t i) -> int64_t {
        int64_t expert = index.as<int32_t>()[i];
        if (c.has_in(1) && expert >= 0)
            expert = expert < c.in(1).shape[0] ? c.in(1).as<int32_t>()[expert] : -1;
        return expert < experts ? expert : -1;
    };
    int32_t next = 0;
    std::fill_n(place, rows * choices, -1);
    for (int64_t expert = 0; expert < experts; ++expert) {
        offset[expert] = next;
        for (int64_t i = 0; i < rows * choices; ++i) {
            if (expert_of(i) != expert) continue;
            row[next] = static_cast<int32_t>(i / choices);
            choice[next] = static_cast<int32_t>(i);
            place[i] = next++;
        }
    }
    offset[experts] = next;
    for (int64_t p = next; p < rows * choices; ++p) row[p] = choice[p] = -1;
}

void grouped_linear(const call& c, int64_t begin, int64_t end) {
    const auto& w = c.weight(2);
    const auto* offset = c.in(1).as<int32_t>();
    const int64_t n_count = w.row_count;
    const int64_t k_count = w.column_count;
    std::vector<float> x(static_cast<size_t>(k_count));
    int64_t expert = 0;
    for (int64_t p = begin; p < end; ++p) {
        while (expert < w.matrix_count && offset[expert + 1] <= p) ++expert;
        get_row(c.in(0), p * k_count, k_count, x.data());
        for (int64_t n = 0; n < n_count; ++n) {
            float y = 0;
            if (expert < w.matrix_count) {
                y = dot(x.data(), w.matrix(expert) + n * k_count, k_count);
                if (c.has_in(3)) y += get(c.in(3), expert * n_count + n);
            }
            put(c.out(0), p * n_count + n, y);
        }
    }
}

void combine_rows(const call& c, int64_t begin, int64_t end) {
    const int64_t choices = c.in(1).shape[1];
    const int64_t width = c.in(0).width();
    for (int64_t t = begin; t < end; ++t)
        for (int64_t d = 0; d < width; ++d) {
            float sum = 0;
            for (int64_t j = 0; j < choices; ++j) {
                const int32_t place = c.in(1).as<int32_t>()[t * choices + j];
                if (place < 0) continue;
                const float weight = c.has_in(2) ? get(c.in(2), t * choices + j) : 1.0f;
                sum += weight * get(c.in(0), place * width + d);
            }
            put(c.out(0), t * width + d, sum);
        }
}

int64_t one(const call&) { return 1; }

} // namespace

kernel find_expert_kernel(uint32_t kind) {
    switch (kind) {
    case SLUICE_OP_GROUP_ROWS:
        return {one, group_rows};
    case SLUICE_OP_GROUPED_LINEAR:
        return {[](const call& c) { return c.in(0).shape[0]; }, grouped_linear};
    case SLUICE_OP_COMBINE_ROWS:
        return {[](const call& c) { return c.out(0).shape[0]; }, combine_rows};
    default:
        return {};
    }
}

} // namespace sluice::plain
