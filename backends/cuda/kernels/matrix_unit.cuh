// The few instructions that the products for few rows need by name: fragments of mma.m16n8k16 and
// streaming loads.
#pragma once

#include "launch.cuh"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <type_traits>

namespace sluice::cuda {

// d += a b for a [16, 16] and b [16, 8]. Lane l (g = l / 4, t = l % 4) has
//   a: (g, 2t), (g + 8, 2t), (g, 2t + 8), (g + 8, 2t + 8), each with its right neighbour;
//   b: (2t, g), (2t + 8, g), each with the one below; d: (g, 2t), (g, 2t + 1), (g + 8, ...).
template <typename Half>
__device__ __forceinline__ void multiply_add(float (&d)[4], const uint32_t (&a)[4], uint32_t b_low,
                                             uint32_t b_high) {
    if constexpr (std::is_same_v<Half, __nv_bfloat16>) {
        asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
            "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
            : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b_low), "r"(b_high));
    } else {
        asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
            "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
            : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b_low), "r"(b_high));
    }
}

// Four 8 x 8 matrices of halves from shared memory: lane l gives the address of row l % 8 of matrix
// l / 8, and gets of each matrix elements 2t and 2t + 1 of row g.
__device__ __forceinline__ void load_matrices(uint32_t (&to)[4], const void* row) {
    const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(address)
                 : "memory");
}

// Weights are read once: past the first cache. Volatile, so that they are asked for where the
// source says, long before their use.
__device__ __forceinline__ uint4 load_stream(const void* from) {
    uint4 to;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to.x), "=r"(to.y), "=r"(to.z), "=r"(to.w)
                 : "l"(from));
    return to;
}
__device__ __forceinline__ uint32_t load_word(const void* from) {
    uint32_t to;
    asm volatile("ld.global.nc.u32 %0, [%1];" : "=r"(to) : "l"(from));
    return to;
}
__device__ __forceinline__ uint32_t load_short(const void* from) {
    uint16_t to;
    asm volatile("ld.global.nc.u16 %0, [%1];" : "=h"(to) : "l"(from));
    return to;
}
// What kernels write, where the source says; the second one past the first cache, for what other
// blocks of the same grid wrote.
__device__ __forceinline__ uint4 load_now(const void* from) {
    uint4 to;
    asm volatile("ld.global.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to.x), "=r"(to.y), "=r"(to.z), "=r"(to.w)
                 : "l"(from)
                 : "memory");
    return to;
}
__device__ __forceinline__ uint32_t load_fresh(const void* from) {
    uint32_t to;
    asm volatile("ld.global.cg.u32 %0, [%1];" : "=r"(to) : "l"(from) : "memory");
    return to;
}

// (bits & mask) | magic in one instruction.
__device__ __forceinline__ uint32_t and_or(uint32_t bits, uint32_t mask, uint32_t magic) {
    uint32_t to;
    asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(to) : "r"(bits), "r"(mask), "r"(magic));
    return to;
}

// The sum of two pairs of halves, both exact here. As a product with one, which every card has.
template <typename Half>
__device__ __forceinline__ uint32_t add_pairs(uint32_t a, uint32_t b) {
    uint32_t to;
    if constexpr (std::is_same_v<Half, __nv_bfloat16>)
        asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(to) : "r"(a), "r"(0x3f803f80u), "r"(b));
    else
        asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(to) : "r"(a), "r"(0x3c003c00u), "r"(b));
    return to;
}

} // namespace sluice::cuda
