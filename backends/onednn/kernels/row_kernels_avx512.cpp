#include "attend_kernels_template.hpp"
#include "row_kernels_template.hpp"
#include "transpose_avx512.hpp"

namespace sluice::kernels {
namespace {

struct transpose_avx512 {
    static void run(const words (&tile)[lanes], std::uint32_t* to, std::int64_t rows) {
        __m512 r[lanes];
        for (int i = 0; i < lanes; ++i) r[i] = reinterpret_cast<__m512>(tile[i]);
        transpose(r);
#pragma GCC unroll 16
        for (int i = 0; i < lanes; ++i)
            if (i < rows) _mm512_storeu_ps(to + i * block_width, r[i]);
    }
};

} // namespace

extern const row_kernels row_kernels_avx512;
const row_kernels row_kernels_avx512 = all_row_kernels;

extern const attend_kernels attend_kernels_avx512;
const attend_kernels attend_kernels_avx512 = make_attend_kernels<transpose_avx512>();

} // namespace sluice::kernels
