// A tensor in the checker's own memory.
#pragma once

#include <sluice/abi/tensor.h>

#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

namespace sluice::checker {

struct host_tensor {
    sluice_element_type type = SLUICE_F32;
    std::vector<int64_t> shape;
    std::vector<std::byte> bytes;

    // The numbers rounded to the type, a float one or I32 or BOOL.
    static host_tensor floats(std::vector<int64_t> shape, const std::vector<float>& values,
                              sluice_element_type type = SLUICE_F32);
    static host_tensor integers(std::vector<int64_t> shape, const std::vector<int32_t>& values);
    static host_tensor booleans(std::vector<int64_t> shape, const std::vector<bool>& values);
    // Zeros, of any type.
    static host_tensor zeros(sluice_element_type type, std::vector<int64_t> shape);

    int64_t count() const;
    std::vector<float> as_floats() const; // of any type; BOOL as 0 and 1
    std::vector<int32_t> as_integers() const;
};

int64_t count_of(const std::vector<int64_t>& shape);

// Standard normal numbers times `scale`; the same in every standard library.
std::vector<float> normal_numbers(std::mt19937_64& random, int64_t count, float scale = 1);
// Whole numbers from 0 to bound-1.
std::vector<int32_t> whole_numbers(std::mt19937_64& random, int64_t count, int32_t bound);

} // namespace sluice::checker
