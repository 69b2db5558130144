#include "tolerance.hpp"

#include "report.hpp"

#include "base/element_type.hpp"

#include <sluice/abi/operations.h>

#include <algorithm>
#include <cmath>
#include <span>

namespace sluice::checker {
namespace {

// What an operation does to rounding errors.
enum class numerics {
    exact,     // moves, compares or rounds numbers once by a rule
    rounded,   // one or two basic operations, then one rounding
    function,  // exp, tanh and the like: approximations of a few units in the last place are fair
    logarithm, // of a sum: however small it is, it is as far off as the sum is in proportion
    sum,       // many terms in any order, each product exact in float32
    composite  // several of these after each other, with the freedom to round between them
};

numerics numerics_of(uint32_t kind) {
    switch (kind) {
    case SLUICE_OP_KV_WRITE:
    case SLUICE_OP_KV_GATHER:
    case SLUICE_OP_GROUP_ROWS:
    case SLUICE_OP_GATHER_ROWS:
    case SLUICE_OP_GATHER:
    case SLUICE_OP_RESHAPE:
    case SLUICE_OP_TRANSPOSE:
    case SLUICE_OP_SLICE:
    case SLUICE_OP_CONCAT:
    case SLUICE_OP_CAST:
    case SLUICE_OP_COPY:
    case SLUICE_OP_SELECT:
    case SLUICE_OP_FILL:
    case SLUICE_OP_IOTA:
    case SLUICE_OP_TOPK:
    case SLUICE_OP_ACCUMULATE_ABS_MAX:
        return numerics::exact;
    case SLUICE_OP_EMBED:
    case SLUICE_OP_BINARY:
    case SLUICE_OP_DEQUANTIZE:
    case SLUICE_OP_SCATTER_ADD:
        return numerics::rounded;
    case SLUICE_OP_UNARY:
    case SLUICE_OP_ACTIVATION:
    case SLUICE_OP_GATED_ACTIVATION:
    case SLUICE_OP_ROPE:
    case SLUICE_OP_SOFTMAX:
        return numerics::function;
    case SLUICE_OP_SAMPLE:
        return numerics::logarithm;
    case SLUICE_OP_GATED_MLP:
    case SLUICE_OP_ATTENTION:
    case SLUICE_OP_MLA_ATTENTION:
    case SLUICE_OP_MOE_FFN:
        return numerics::composite;
    default:
        return numerics::sum;
    }
}

// One unit in the last place, relative to the number: where the float32 results of two sound
// implementations lie on two sides of a rounding boundary, the rounded ones are this far apart.
float unit_of(sluice_element_type type) { return type == SLUICE_BF16 ? 0x1p-7F : 0x1p-10F; }

tolerance float32_tolerance(numerics of) {
    switch (of) {
    case numerics::exact:
        return {0, 0};
    case numerics::rounded:
        return {2e-7F, 1e-6F};
    case numerics::function:
        return {2e-6F, 1e-5F};
    case numerics::logarithm:
        return {2e-6F, 1e-5F, 1};
    case numerics::sum:
        // Sums of up to some hundred random terms: about sqrt(n) * 2^-24 of their size, and ten
        // times that for unlucky places.
        return {1e-5F, 1e-5F};
    default:
        return {5e-5F, 5e-5F};
    }
}

// What rounding rows to 8-bit codes adds. A run's step is its largest magnitude / 127, which for 64
// normal numbers is at most about 4 / 127 of their size; an element is off by up to half a step,
// evenly, so by 4 / 127 / sqrt(12) = 0.0091 of its size, and a sum of many such terms by as much of
// its own size: five deviations are 0.046.
// A composite rounds twice. Gate and up bring 0.0091 each, which the activation may double: 0.026.
// Products have long tails, but no number of 64 is above 8 times their size: 0.018. Together 0.032,
// and five deviations are 0.16.
float rounding_of_rows(numerics of) {
    if (of == numerics::sum) return 0.046F;
    return of == numerics::composite ? 0.16F : 0.0F;
}

tolerance exact_rows_tolerance(numerics of, sluice_element_type activations,
                               sluice_element_type output) {
    const tolerance exact = float32_tolerance(of);
    if (of == numerics::exact) return exact;
    if (of == numerics::logarithm) return exact; // of logits that are the same in every type
    const bool is_narrow = activations == SLUICE_BF16 || activations == SLUICE_F16;
    if (!is_narrow) return exact;
    const float unit = unit_of(activations);
    const bool wide_output = output == SLUICE_F32;
    switch (of) {
    case numerics::sum:
        // A weight in a wider type than the activations may be rounded to theirs: each term is off
        // by up to unit/4 at random, and the sum by about unit/8 of its own size; five deviations.
        return {unit + exact.absolute, (wide_output ? unit / 2 : unit) + exact.relative};
    case numerics::composite:
        // Likewise at each of three to four steps, whose errors the activation may double.
        return {4 * unit, 2 * unit};
    default:
        return {exact.absolute, (wide_output ? 0 : unit) + exact.relative};
    }
}

} // namespace

tolerance tolerance_of(uint32_t kind, sluice_element_type activations, sluice_element_type output,
                       uint32_t activation_bits) {
    const numerics of = numerics_of(kind);
    tolerance allowed = exact_rows_tolerance(of, activations, output);
    if (activation_bits != 0) allowed.absolute += rounding_of_rows(of);
    return allowed;
}

namespace {

// Of the finite values.
float root_mean_square(std::span<const float> values) {
    double sum = 0;
    size_t count = 0;
    for (const float value : values)
        if (std::isfinite(value)) {
            sum += double{value} * value;
            ++count;
        }
    return count == 0 ? 0 : static_cast<float>(std::sqrt(sum / static_cast<double>(count)));
}

// The size that errors at a place are measured by: that of its row or, where that is smaller, of
// the whole tensor. Rows differ in size by much where activations are squared or tokens weighed.
std::vector<float> sizes_of_rows(const std::vector<float>& values, int64_t width) {
    const float whole = root_mean_square(values);
    std::vector<float> sizes;
    for (size_t begin = 0; begin < values.size(); begin += static_cast<size_t>(width))
        sizes.push_back(
            std::max(whole, root_mean_square({values.data() + begin, static_cast<size_t>(width)})));
    return sizes;
}

std::string place_text(const std::vector<int64_t>& shape, size_t place) {
    std::string text;
    auto rest = static_cast<int64_t>(place);
    for (size_t axis = shape.size(); axis-- > 0;) {
        text = fmt::format("{}{}{}", rest % shape[axis], text.empty() ? "" : ", ", text);
        rest /= shape[axis];
    }
    return "[" + text + "]";
}

bool same_special(float expected, float found) {
    if (std::isnan(expected)) return std::isnan(found);
    return expected == found;
}

} // namespace

void compare(const std::string& label, const host_tensor& expected, const host_tensor& found,
             const tolerance& allowed) {
    require(expected.type == found.type && expected.shape == found.shape,
            "{}: the checker compares different tensors", label);
    const bool whole = expected.type == SLUICE_I32 || expected.type == SLUICE_BOOL
                       || expected.type == SLUICE_I64 || expected.type == SLUICE_U8
                       || expected.type == SLUICE_I8 || expected.type == SLUICE_I16;
    const auto left = expected.as_floats();
    const auto right = found.as_floats();
    const int64_t width = expected.shape.empty() ? 1 : expected.shape.back();
    const auto sizes = sizes_of_rows(left, std::max<int64_t>(width, 1));
    float worst = 0;
    size_t worst_place = 0;
    for (size_t i = 0; i < left.size(); ++i) {
        if (!std::isfinite(left[i]) || !std::isfinite(right[i])) {
            if (same_special(left[i], right[i])) continue;
            fail_check("{}: at {} expected {}, found {}", label, place_text(expected.shape, i),
                       left[i], right[i]);
        }
        const float difference = std::abs(left[i] - right[i]);
        if (difference == 0) continue;
        const float size = std::max(sizes[i / static_cast<size_t>(width)], allowed.size_min);
        const float bound =
            whole ? 0 : allowed.absolute * size + allowed.relative * std::abs(left[i]);
        const float excess = bound > 0 ? difference / bound : INFINITY;
        if (excess > worst) {
            worst = excess;
            worst_place = i;
        }
    }
    if (worst <= 1) return;
    fail_check("{}: at {} expected {}, found {}; {} times the allowed difference ({} of the "
               "size {} and {} of the number)",
               label, place_text(expected.shape, worst_place), left[worst_place],
               right[worst_place], worst, allowed.absolute,
               std::max(sizes[worst_place / static_cast<size_t>(width)], allowed.size_min),
               allowed.relative);
}

} // namespace sluice::checker
