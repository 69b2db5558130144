// What the card can do at most, measured.
#pragma once

#include "matmul_library.hpp"

namespace sluice::cuda {

// The quantity SLUICE_MEASURE_*, in bytes or operations a second. Takes about a second.
double measure(const device& card, matmul_library& library, uint32_t quantity);

} // namespace sluice::cuda
