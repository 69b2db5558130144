#include "row_kernels_template.hpp"

namespace sluice::kernels {

extern const row_kernels row_kernels_avx2;
const row_kernels row_kernels_avx2 = all_row_kernels;

} // namespace sluice::kernels
