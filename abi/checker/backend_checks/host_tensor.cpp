#include "host_tensor.hpp"

#include "base/element_type.hpp"
#include "base/error.hpp"

#include <cmath>
#include <cstring>
#include <numbers>
#include <numeric>

namespace sluice::checker {

int64_t count_of(const std::vector<int64_t>& shape) {
    return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
}

namespace {

void expect_count(const std::vector<int64_t>& shape, size_t found) {
    if (static_cast<size_t>(count_of(shape)) != found)
        fail(SLUICE_INTERNAL, "a case of the checker gives {} numbers for {} places", found,
             count_of(shape));
}

} // namespace

host_tensor host_tensor::zeros(sluice_element_type type, std::vector<int64_t> shape) {
    host_tensor made{type, std::move(shape), {}};
    made.bytes.resize(tensor_bytes(type, made.shape).value());
    return made;
}

host_tensor host_tensor::floats(std::vector<int64_t> shape, const std::vector<float>& values,
                                sluice_element_type type) {
    expect_count(shape, values.size());
    host_tensor made = zeros(type, std::move(shape));
    if (type == SLUICE_I32 || type == SLUICE_BOOL) {
        for (size_t i = 0; i < values.size(); ++i) {
            const auto whole = static_cast<int32_t>(values[i]);
            if (type == SLUICE_I32)
                std::memcpy(made.bytes.data() + i * sizeof whole, &whole, sizeof whole);
            else
                made.bytes[i] = std::byte{whole != 0};
        }
    } else {
        convert_from_f32(type, values.data(), made.bytes.data(), values.size());
    }
    return made;
}

host_tensor host_tensor::integers(std::vector<int64_t> shape, const std::vector<int32_t>& values) {
    expect_count(shape, values.size());
    host_tensor made = zeros(SLUICE_I32, std::move(shape));
    if (!values.empty()) std::memcpy(made.bytes.data(), values.data(), made.bytes.size());
    return made;
}

host_tensor host_tensor::booleans(std::vector<int64_t> shape, const std::vector<bool>& values) {
    expect_count(shape, values.size());
    host_tensor made = zeros(SLUICE_BOOL, std::move(shape));
    for (size_t i = 0; i < values.size(); ++i) made.bytes[i] = std::byte{values[i]};
    return made;
}

int64_t host_tensor::count() const { return count_of(shape); }

std::vector<float> host_tensor::as_floats() const {
    std::vector<float> values(static_cast<size_t>(count()));
    if (!values.empty()) convert_to_f32(type, bytes.data(), values.data(), values.size());
    return values;
}

std::vector<int32_t> host_tensor::as_integers() const {
    if (type != SLUICE_I32)
        fail(SLUICE_INTERNAL, "a case of the checker reads {} as i32", element_type_name(type));
    std::vector<int32_t> values(static_cast<size_t>(count()));
    if (!values.empty()) std::memcpy(values.data(), bytes.data(), values.size() * sizeof(int32_t));
    return values;
}

std::vector<float> normal_numbers(std::mt19937_64& random, int64_t count, float scale) {
    std::vector<float> numbers(static_cast<size_t>(count));
    // Box and Muller 1958; std::normal_distribution differs between standard libraries.
    for (auto& number : numbers) {
        const double u = (static_cast<double>(random() >> 11) + 1) * 0x1p-53;
        const double v = static_cast<double>(random() >> 11) * 0x1p-53;
        number =
            scale
            * static_cast<float>(std::sqrt(-2 * std::log(u)) * std::cos(2 * std::numbers::pi * v));
    }
    return numbers;
}

std::vector<int32_t> whole_numbers(std::mt19937_64& random, int64_t count, int32_t bound) {
    std::vector<int32_t> numbers(static_cast<size_t>(count));
    for (auto& number : numbers)
        number = static_cast<int32_t>(random() % static_cast<uint64_t>(bound));
    return numbers;
}

} // namespace sluice::checker
