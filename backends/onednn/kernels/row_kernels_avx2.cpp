#include "attend_kernels_template.hpp"
#include "row_kernels_template.hpp"

namespace sluice::kernels {

extern const row_kernels row_kernels_avx2;
const row_kernels row_kernels_avx2 = all_row_kernels;

extern const attend_kernels attend_kernels_avx2;
const attend_kernels attend_kernels_avx2 = make_attend_kernels<transpose_plain>();

} // namespace sluice::kernels
