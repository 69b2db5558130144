#include "shapes.hpp"

namespace sluice::plain {

namespace {

// Copies one element without a detour over float, which would lose bits of large integers.
void copy_element(const plugin::tensor& target, int64_t to, const plugin::tensor& source,
                  int64_t from) {
    const auto size = static_cast<int64_t>(plugin::element_bits(target.type) / 8);
    std::memcpy(target.data + to * size, source.data + from * size, static_cast<size_t>(size));
}

void zero_element(const plugin::tensor& target, int64_t to) {
    const auto size = static_cast<int64_t>(plugin::element_bits(target.type) / 8);
    std::memset(target.data + to * size, 0, static_cast<size_t>(size));
}

void gather_rows(const call& c, int64_t begin, int64_t end) {
    const int64_t rows = c.in(0).shape[0];
    const int64_t wanted = c.in(1).element_count();
    const int64_t width = wanted == 0 ? 0 : c.out(0).element_count() / wanted;
    for (int64_t m = begin; m < end; ++m) {
        const int32_t row = c.in(1).as<int32_t>()[m];
        for (int64_t d = 0; d < width; ++d) {
            if (row >= 0 && row < rows)
                copy_element(c.out(0), m * width + d, c.in(0), row * width + d);
            else
                zero_element(c.out(0), m * width + d);
        }
    }
}

void gather(const call& c, int64_t begin, int64_t end) {
    const auto& out = c.out(0);
    const int64_t width = c.in(0).width();
    for (int64_t i = begin; i < end; ++i) {
        const auto place = unflatten(i, out);
        const int32_t at = c.in(1).as<int32_t>()[broadcast_index(c.in(1), place, out.rank)];
        const int64_t row = broadcast_index(c.in(0), place, out.rank, 1);
        if (at >= 0 && at < width)
            copy_element(out, i, c.in(0), row * width + at);
        else
            zero_element(out, i);
    }
}

void scatter_add(const call& c, int64_t, int64_t) {
    const int64_t rows = c.in(0).shape[0];
    const int64_t width = rows == 0 ? 0 : c.in(0).element_count() / rows;
    for (int64_t i = 0; i < rows * width; ++i) copy_element(c.out(0), i, c.in(0), i);
    for (int64_t m = 0; m < c.in(1).shape[0]; ++m) {
        const int32_t row = c.in(1).as<int32_t>()[m];
        if (row < 0 || row >= rows) continue;
        for (int64_t d = 0; d < width; ++d)
            c.out(0).as<float>()[row * width + d] += get(c.in(2), m * width + d);
    }
}

// A reshape of what lies in the arena shares its memory; others are copied.
void copy(const call& c, int64_t begin, int64_t end) {
    if (c.out(0).data == c.in(0).data) return;
    for (int64_t i = begin; i < end; ++i) copy_element(c.out(0), i, c.in(0), i);
}

void transpose(const call& c, int64_t begin, int64_t end) {
    const auto& order = c.attributes<sluice_transpose_attributes>().order;
    for (int64_t i = begin; i < end; ++i) {
        const auto place = unflatten(i, c.out(0));
        index_array from{};
        for (uint32_t axis = 0; axis < c.out(0).rank; ++axis) from[order[axis]] = place[axis];
        int64_t flat = 0;
        for (uint32_t axis = 0; axis < c.in(0).rank; ++axis)
            flat = flat * c.in(0).shape[axis] + from[axis];
        copy_element(c.out(0), i, c.in(0), flat);
    }
}

void slice(const call& c, int64_t begin, int64_t end) {
    const auto& a = c.attributes<sluice_axis_attributes>();
    for (int64_t i = begin; i < end; ++i) {
        auto place = unflatten(i, c.out(0));
        place[a.axis] += a.begin;
        copy_element(c.out(0), i, c.in(0), broadcast_index(c.in(0), place, c.out(0).rank));
    }
}

void concat(const call& c, int64_t begin, int64_t end) {
    const uint32_t axis = c.attributes<sluice_axis_attributes>().axis;
    for (int64_t i = begin; i < end; ++i) {
        auto place = unflatten(i, c.out(0));
        size_t operand = 0;
        while (place[axis] >= c.in(operand).shape[axis]) place[axis] -= c.in(operand++).shape[axis];
        int64_t flat = 0;
        for (uint32_t a = 0; a < c.out(0).rank; ++a)
            flat = flat * c.in(operand).shape[a] + place[a];
        copy_element(c.out(0), i, c.in(operand), flat);
    }
}

void cast(const call& c, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
        if (c.in(0).type == c.out(0).type)
            copy_element(c.out(0), i, c.in(0), i);
        else
            put(c.out(0), i, get(c.in(0), i));
    }
}

void dequantize(const call& c, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) put(c.out(0), i, c.weight(0).matrix(0)[i]);
}

} // namespace

kernel find_movement_kernel(uint32_t kind) {
    switch (kind) {
    case SLUICE_OP_GATHER_ROWS:
        return {[](const call& c) { return c.in(1).element_count(); }, gather_rows};
    case SLUICE_OP_GATHER:
        return {elements_of_output, gather};
    case SLUICE_OP_SCATTER_ADD:
        return {[](const call&) -> int64_t { return 1; }, scatter_add};
    case SLUICE_OP_RESHAPE:
    case SLUICE_OP_COPY:
        return {elements_of_output, copy};
    case SLUICE_OP_TRANSPOSE:
        return {elements_of_output, transpose};
    case SLUICE_OP_SLICE:
        return {elements_of_output, slice};
    case SLUICE_OP_CONCAT:
        return {elements_of_output, concat};
    case SLUICE_OP_CAST:
        return {elements_of_output, cast};
    case SLUICE_OP_DEQUANTIZE:
        return {elements_of_output, dequantize};
    default:
        return {};
    }
}

} // namespace sluice::plain
