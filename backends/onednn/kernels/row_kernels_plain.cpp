#include "row_kernels_template.hpp"

namespace sluice::kernels {

extern const row_kernels row_kernels_plain;
const row_kernels row_kernels_plain = all_row_kernels;

} // namespace sluice::kernels
