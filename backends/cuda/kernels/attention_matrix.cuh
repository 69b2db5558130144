// The matrix units' instructions (PTX ISA, "Warp-level matrix instructions") and asynchronous
// copies as functions, for bfloat16 and float16. In all of them lane l has g = l / 4 and t = l % 4.
#pragma once

#include "elements.cuh"

namespace sluice::cuda {

// c += A B for A [16, 16] and B [16, 8]. Pairs of elements of the fragments:
//   a[0]: row g, columns 2t and 2t + 1;  a[1]: row g + 8;  a[2], a[3]: likewise, columns + 8
//   b[0]: rows 2t and 2t + 1, column g;  b[1]: rows + 8
//   c[0], c[1]: row g, columns 2t and 2t + 1;  c[2], c[3]: row g + 8
template <typename Element>
__device__ __forceinline__ void multiply_add(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t a2,
                                             uint32_t a3, uint32_t b0, uint32_t b1) {
    if constexpr (std::is_same_v<Element, __nv_bfloat16>)
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                     "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                     : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                     : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
    else
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
                     "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                     : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                     : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// An 8 x 8 matrix, of which each lane holds row g, columns 2t and 2t + 1: its transpose.
__device__ __forceinline__ uint32_t transposed(uint32_t pair) {
    uint32_t result;
    asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(result) : "r"(pair));
    return result;
}

// Four 8 x 8 matrices from shared memory; lane l gives the address of row l % 8 of matrix l / 8.
// Each lane gets row g, columns 2t and 2t + 1 of each, or of their transposes.
__device__ __forceinline__ void load_matrices(uint32_t (&m)[4], const void* row) {
    const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
                 : "r"(address)
                 : "memory");
}
__device__ __forceinline__ void load_matrices_transposed(uint32_t (&m)[4], const void* row) {
    const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
                 : "r"(address)
                 : "memory");
}

// 16 bytes from global to shared memory; zeros where not `is_there` (the address must be good all
// the same).
__device__ __forceinline__ void copy_async(void* to, const void* from, bool is_there) {
    const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(to));
    const int size = is_there ? 16 : 0;
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(address), "l"(from),
                 "r"(size)
                 : "memory");
}
__device__ __forceinline__ void copy_commit() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}
// Until at most so many groups of copies are under way.
template <int groups>
__device__ __forceinline__ void copy_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(groups) : "memory");
}

// 16 bytes of memory that is read once and written by no running kernel.
__device__ __forceinline__ uint4 load_streamed(const void* from) {
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(from));
    return v;
}

// The same where kernels before, or the block itself behind a barrier, may have written it.
__device__ __forceinline__ uint4 load_own(const void* from) {
    uint4 v;
    asm volatile("ld.global.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(from)
                 : "memory");
    return v;
}

// offset ^ bits, computed where it stands: the compiler would otherwise keep the results of a whole
// unrolled loop in registers that it does not have.
__device__ __forceinline__ int toggled(int offset, int bits) {
    int result;
    asm volatile("xor.b32 %0, %1, %2;" : "=r"(result) : "r"(offset), "r"(bits));
    return result;
}

// To within 2^-22 of the number; 0 for minus infinity.
__device__ __forceinline__ float power_of_2(float exponent) {
    float result;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(exponent));
    return result;
}

template <typename Element>
__device__ __forceinline__ uint32_t pack(float low, float high) {
    if constexpr (std::is_same_v<Element, __nv_bfloat16>) {
        const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
        return *reinterpret_cast<const uint32_t*>(&pair);
    } else {
        const __half2 pair = __floats2half2_rn(low, high);
        return *reinterpret_cast<const uint32_t*>(&pair);
    }
}

inline constexpr float log2_e = 1.44269504088896341f;

__device__ __forceinline__ const uint32_t* words(const uint4& v) {
    return reinterpret_cast<const uint32_t*>(&v);
}

// Maximum and sum over the lanes of one t.
__device__ __forceinline__ float maximum_over_groups(float value) {
    for (int step = 4; step < 32; step *= 2)
        value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, step));
    return value;
}
__device__ __forceinline__ float sum_over_groups(float value) {
    for (int step = 4; step < 32; step *= 2) value += __shfl_xor_sync(0xffffffffu, value, step);
    return value;
}
// And over the lanes of one g.
__device__ __forceinline__ float maximum_in_group(float value) {
    for (int step = 1; step < 4; step *= 2)
        value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, step));
    return value;
}
__device__ __forceinline__ float sum_in_group(float value) {
    for (int step = 1; step < 4; step *= 2) value += __shfl_xor_sync(0xffffffffu, value, step);
    return value;
}

} // namespace sluice::cuda
