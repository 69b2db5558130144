#include "row_kernels.hpp"

#include "attend_kernels.hpp"

namespace sluice::kernels {

extern const row_kernels row_kernels_plain;
extern const attend_kernels attend_kernels_plain;
#if defined(SLUICE_KERNELS_X86)
extern const row_kernels row_kernels_avx2;
extern const attend_kernels attend_kernels_avx2;
extern const row_kernels row_kernels_avx512;
extern const attend_kernels attend_kernels_avx512;
#endif

const row_kernels& row_kernels_of(instruction_set set) {
#if defined(SLUICE_KERNELS_X86)
    if (set >= instruction_set::avx512) return row_kernels_avx512;
    if (set == instruction_set::avx2) return row_kernels_avx2;
#endif
    (void)set;
    return row_kernels_plain;
}

const attend_kernels& attend_kernels_of(instruction_set set) {
#if defined(SLUICE_KERNELS_X86)
    if (set >= instruction_set::avx512) return attend_kernels_avx512;
    if (set == instruction_set::avx2) return attend_kernels_avx2;
#endif
    (void)set;
    return attend_kernels_plain;
}

} // namespace sluice::kernels
