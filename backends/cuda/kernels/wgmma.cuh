// The warpgroup's matrix instruction of sm_90a and the barriers that go with it. Section numbers
// are those of the PTX ISA.
#pragma once

#include "mma.cuh"

#include <cuda.h> // CUtensorMap; nothing of the driver's is called by name

namespace sluice::cuda {

// ---- mbarrier ----

__device__ __forceinline__ void start_barrier(uint32_t barrier, uint32_t arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals)
                 : "memory");
}

__device__ __forceinline__ void arrive(uint32_t barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

// Arrives once all earlier cp.async of this thread are done. noinc: that arrival is one of those
// the barrier was started with ("cp.async.mbarrier.arrive").
__device__ __forceinline__ void arrive_after_copies(uint32_t barrier) {
    asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(barrier) : "memory");
}

// Until the phase of this parity is complete. A fresh barrier is in phase 0, and the phase before
// it, of parity 1, counts as complete ("mbarrier.test_wait", "mbarrier.try_wait").
__device__ __forceinline__ void wait_for_phase(uint32_t barrier, uint32_t parity) {
    asm volatile("{\n"
                 ".reg .pred done;\n"
                 "again:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                 "@done bra finished;\n"
                 "bra again;\n"
                 "finished:\n"
                 "}\n" ::"r"(barrier),
                 "r"(parity)
                 : "memory");
}

// Barriers as started are seen by copies of the async proxy, too ("membar/fence").
__device__ __forceinline__ void fence_started_barriers() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

// Arrives and makes the phase wait for that many bytes more of copies ("mbarrier.arrive"). A copy
// may be done before its bytes are expected, as long as the phase waits for this arrival.
__device__ __forceinline__ void arrive_expecting(uint32_t barrier, uint32_t bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
                 : "memory");
}

// Slots that are used in turn, and how often they all were (as the parity of their barriers).
template <int count>
struct ring {
    int slot = 0;
    uint32_t parity = 0;
    __device__ __forceinline__ void advance() {
        if (++slot == count) {
            slot = 0;
            parity ^= 1;
        }
    }
};

// ---- Copies of boxes by one thread, which tell a barrier ----

// True in one lane of the warp, which the compiler then knows to be alone ("elect.sync"): what is
// the operand of a copy must be the same in all lanes that are there.
__device__ __forceinline__ bool elect_lane() {
    uint32_t elected;
    asm volatile("{\n.reg .pred p;\nelect.sync _|p, 0xFFFFFFFF;\nselp.u32 %0, 1, 0, p;\n}\n"
                 : "=r"(elected));
    return elected != 0;
}

// A box of a matrix whose first element is at (row, column); what lies outside the matrix is zero
// and counts as copied ("cp.async.bulk.tensor").
__device__ __forceinline__ void copy_box(uint32_t target, const CUtensorMap& map, int column,
                                         int row, uint32_t barrier) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%2, %3}], [%4];" ::"r"(target),
                 "l"(&map), "r"(column), "r"(row), "r"(barrier)
                 : "memory");
}

// A box of a tensor of three dimensions: `column` is the innermost.
__device__ __forceinline__ void copy_box(uint32_t target, const CUtensorMap& map, int column,
                                         int row, int plane, uint32_t barrier) {
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%2, %3, %4}], [%5];" ::"r"(target),
                 "l"(&map), "r"(column), "r"(row), "r"(plane), "r"(barrier)
                 : "memory");
}

// What the generic proxy wrote to shared memory (cp.async and stores) and this thread has seen is
// then seen by its wgmma, which reads through the async proxy ("Async proxy", "membar/fence").
__device__ __forceinline__ void fence_for_async_proxy() {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// ---- wgmma ----

// Orders this warp's register accesses before the wgmma that follow ("wgmma.fence").
__device__ __forceinline__ void fence_registers() {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

// Keeps the compiler from moving what makes or takes these values past here.
__device__ __forceinline__ void pin_register(uint32_t& value) {
    asm volatile("" : "+r"(value)::"memory");
}
template <int count>
__device__ __forceinline__ void pin_registers(uint32_t (&values)[count]) {
#pragma unroll
    for (int i = 0; i < count; ++i) asm volatile("" : "+r"(values[i])::"memory");
}
template <int count>
__device__ __forceinline__ void pin_registers(float (&values)[count]) {
#pragma unroll
    for (int i = 0; i < count; ++i) asm volatile("" : "+f"(values[i])::"memory");
}

__device__ __forceinline__ void commit_products() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

template <int allowed>
__device__ __forceinline__ void wait_products() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(allowed) : "memory");
}

// A tile of rows of 64 elements along k (128 bytes) in the 128-byte swizzle, from a multiple of
// 1024 bytes on ("Matrix descriptor"): bits 0 to 13 the address, 16 to 29 the leading offset
// (unused with this swizzle: 1), 32 to 45 the distance of eight rows, all over 16; bits 62 and 63
// the swizzle, 1 for 128 bytes. The next 16 columns are 32 bytes on: 2 in the address field, since
// the swizzle acts on the bits of the final address.
__device__ __forceinline__ uint64_t tile_descriptor(uint32_t address) {
    return static_cast<uint64_t>((address & 0x3FFFFu) >> 4) | 1ull << 16 | 64ull << 32 | 1ull << 62;
}

// Where it is B [16, places] with rows along n instead: rows of 64 elements as above, one for each
// k, and the next 64 columns of n `distance` bytes on, which is then the leading offset. The next
// 16 rows are 2048 bytes on.
__device__ __forceinline__ uint64_t tile_descriptor_along_n(uint32_t address, uint32_t distance) {
    return static_cast<uint64_t>((address & 0x3FFFFu) >> 4)
           | static_cast<uint64_t>(distance >> 4) << 16 | 64ull << 32 | 1ull << 62;
}

// d += A B, or d = A B where not `keeps`, with A [64, 16] and B [16, places], A along k, B along k
// or (b_along_n) along n: A by descriptor, or in registers, where warp w of the warpgroup has rows
// 16 w to 16 w + 15 as mma.m16n8k16 has them. Thread (w, g, t) gets in d[4 c + {0, 1}] row 16 w +
// g, columns 8 c + 2 t + {0, 1}, and in d[4 c + {2, 3}] row 16 w + g + 8
// ("Register fragments for wgmma.mma_async.m64nNk16", "Matrix fragments D").
template <int places>
struct warpgroup_product;

// Four accumulators for every eight places.
#define SLUICE_WGMMA_NAMES_0    "%0, %1, %2, %3"
#define SLUICE_WGMMA_NAMES_1    "%4, %5, %6, %7"
#define SLUICE_WGMMA_NAMES_2    "%8, %9, %10, %11"
#define SLUICE_WGMMA_NAMES_3    "%12, %13, %14, %15"
#define SLUICE_WGMMA_NAMES_4    "%16, %17, %18, %19"
#define SLUICE_WGMMA_NAMES_5    "%20, %21, %22, %23"
#define SLUICE_WGMMA_NAMES_6    "%24, %25, %26, %27"
#define SLUICE_WGMMA_NAMES_7    "%28, %29, %30, %31"
#define SLUICE_WGMMA_NAMES_8    "%32, %33, %34, %35"
#define SLUICE_WGMMA_NAMES_9    "%36, %37, %38, %39"
#define SLUICE_WGMMA_NAMES_10   "%40, %41, %42, %43"
#define SLUICE_WGMMA_NAMES_11   "%44, %45, %46, %47"
#define SLUICE_WGMMA_NAMES_12   "%48, %49, %50, %51"
#define SLUICE_WGMMA_NAMES_13   "%52, %53, %54, %55"
#define SLUICE_WGMMA_NAMES_14   "%56, %57, %58, %59"
#define SLUICE_WGMMA_NAMES_15   "%60, %61, %62, %63"
#define SLUICE_WGMMA_NAMES_16   "%64, %65, %66, %67"
#define SLUICE_WGMMA_NAMES_17   "%68, %69, %70, %71"
#define SLUICE_WGMMA_NAMES_18   "%72, %73, %74, %75"
#define SLUICE_WGMMA_NAMES_19   "%76, %77, %78, %79"
#define SLUICE_WGMMA_NAMES_20   "%80, %81, %82, %83"
#define SLUICE_WGMMA_NAMES_21   "%84, %85, %86, %87"
#define SLUICE_WGMMA_NAMES_22   "%88, %89, %90, %91"
#define SLUICE_WGMMA_NAMES_23   "%92, %93, %94, %95"
#define SLUICE_WGMMA_LIST_8     SLUICE_WGMMA_NAMES_0
#define SLUICE_WGMMA_LIST_16    SLUICE_WGMMA_LIST_8 ", " SLUICE_WGMMA_NAMES_1
#define SLUICE_WGMMA_LIST_24    SLUICE_WGMMA_LIST_16 ", " SLUICE_WGMMA_NAMES_2
#define SLUICE_WGMMA_LIST_32    SLUICE_WGMMA_LIST_24 ", " SLUICE_WGMMA_NAMES_3
#define SLUICE_WGMMA_LIST_40    SLUICE_WGMMA_LIST_32 ", " SLUICE_WGMMA_NAMES_4
#define SLUICE_WGMMA_LIST_48    SLUICE_WGMMA_LIST_40 ", " SLUICE_WGMMA_NAMES_5
#define SLUICE_WGMMA_LIST_56    SLUICE_WGMMA_LIST_48 ", " SLUICE_WGMMA_NAMES_6
#define SLUICE_WGMMA_LIST_64    SLUICE_WGMMA_LIST_56 ", " SLUICE_WGMMA_NAMES_7
#define SLUICE_WGMMA_LIST_72    SLUICE_WGMMA_LIST_64 ", " SLUICE_WGMMA_NAMES_8
#define SLUICE_WGMMA_LIST_80    SLUICE_WGMMA_LIST_72 ", " SLUICE_WGMMA_NAMES_9
#define SLUICE_WGMMA_LIST_88    SLUICE_WGMMA_LIST_80 ", " SLUICE_WGMMA_NAMES_10
#define SLUICE_WGMMA_LIST_96    SLUICE_WGMMA_LIST_88 ", " SLUICE_WGMMA_NAMES_11
#define SLUICE_WGMMA_LIST_104   SLUICE_WGMMA_LIST_96 ", " SLUICE_WGMMA_NAMES_12
#define SLUICE_WGMMA_LIST_112   SLUICE_WGMMA_LIST_104 ", " SLUICE_WGMMA_NAMES_13
#define SLUICE_WGMMA_LIST_120   SLUICE_WGMMA_LIST_112 ", " SLUICE_WGMMA_NAMES_14
#define SLUICE_WGMMA_LIST_128   SLUICE_WGMMA_LIST_120 ", " SLUICE_WGMMA_NAMES_15
#define SLUICE_WGMMA_LIST_136   SLUICE_WGMMA_LIST_128 ", " SLUICE_WGMMA_NAMES_16
#define SLUICE_WGMMA_LIST_144   SLUICE_WGMMA_LIST_136 ", " SLUICE_WGMMA_NAMES_17
#define SLUICE_WGMMA_LIST_152   SLUICE_WGMMA_LIST_144 ", " SLUICE_WGMMA_NAMES_18
#define SLUICE_WGMMA_LIST_160   SLUICE_WGMMA_LIST_152 ", " SLUICE_WGMMA_NAMES_19
#define SLUICE_WGMMA_LIST_168   SLUICE_WGMMA_LIST_160 ", " SLUICE_WGMMA_NAMES_20
#define SLUICE_WGMMA_LIST_176   SLUICE_WGMMA_LIST_168 ", " SLUICE_WGMMA_NAMES_21
#define SLUICE_WGMMA_LIST_184   SLUICE_WGMMA_LIST_176 ", " SLUICE_WGMMA_NAMES_22
#define SLUICE_WGMMA_LIST_192   SLUICE_WGMMA_LIST_184 ", " SLUICE_WGMMA_NAMES_23
#define SLUICE_WGMMA_OUT(d, i)  "+f"(d[i + 0]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define SLUICE_WGMMA_OUT_8(d)   SLUICE_WGMMA_OUT(d, 0)
#define SLUICE_WGMMA_OUT_16(d)  SLUICE_WGMMA_OUT_8(d), SLUICE_WGMMA_OUT(d, 4)
#define SLUICE_WGMMA_OUT_24(d)  SLUICE_WGMMA_OUT_16(d), SLUICE_WGMMA_OUT(d, 8)
#define SLUICE_WGMMA_OUT_32(d)  SLUICE_WGMMA_OUT_24(d), SLUICE_WGMMA_OUT(d, 12)
#define SLUICE_WGMMA_OUT_40(d)  SLUICE_WGMMA_OUT_32(d), SLUICE_WGMMA_OUT(d, 16)
#define SLUICE_WGMMA_OUT_48(d)  SLUICE_WGMMA_OUT_40(d), SLUICE_WGMMA_OUT(d, 20)
#define SLUICE_WGMMA_OUT_56(d)  SLUICE_WGMMA_OUT_48(d), SLUICE_WGMMA_OUT(d, 24)
#define SLUICE_WGMMA_OUT_64(d)  SLUICE_WGMMA_OUT_56(d), SLUICE_WGMMA_OUT(d, 28)
#define SLUICE_WGMMA_OUT_72(d)  SLUICE_WGMMA_OUT_64(d), SLUICE_WGMMA_OUT(d, 32)
#define SLUICE_WGMMA_OUT_80(d)  SLUICE_WGMMA_OUT_72(d), SLUICE_WGMMA_OUT(d, 36)
#define SLUICE_WGMMA_OUT_88(d)  SLUICE_WGMMA_OUT_80(d), SLUICE_WGMMA_OUT(d, 40)
#define SLUICE_WGMMA_OUT_96(d)  SLUICE_WGMMA_OUT_88(d), SLUICE_WGMMA_OUT(d, 44)
#define SLUICE_WGMMA_OUT_104(d) SLUICE_WGMMA_OUT_96(d), SLUICE_WGMMA_OUT(d, 48)
#define SLUICE_WGMMA_OUT_112(d) SLUICE_WGMMA_OUT_104(d), SLUICE_WGMMA_OUT(d, 52)
#define SLUICE_WGMMA_OUT_120(d) SLUICE_WGMMA_OUT_112(d), SLUICE_WGMMA_OUT(d, 56)
#define SLUICE_WGMMA_OUT_128(d) SLUICE_WGMMA_OUT_120(d), SLUICE_WGMMA_OUT(d, 60)
#define SLUICE_WGMMA_OUT_136(d) SLUICE_WGMMA_OUT_128(d), SLUICE_WGMMA_OUT(d, 64)
#define SLUICE_WGMMA_OUT_144(d) SLUICE_WGMMA_OUT_136(d), SLUICE_WGMMA_OUT(d, 68)
#define SLUICE_WGMMA_OUT_152(d) SLUICE_WGMMA_OUT_144(d), SLUICE_WGMMA_OUT(d, 72)
#define SLUICE_WGMMA_OUT_160(d) SLUICE_WGMMA_OUT_152(d), SLUICE_WGMMA_OUT(d, 76)
#define SLUICE_WGMMA_OUT_168(d) SLUICE_WGMMA_OUT_160(d), SLUICE_WGMMA_OUT(d, 80)
#define SLUICE_WGMMA_OUT_176(d) SLUICE_WGMMA_OUT_168(d), SLUICE_WGMMA_OUT(d, 84)
#define SLUICE_WGMMA_OUT_184(d) SLUICE_WGMMA_OUT_176(d), SLUICE_WGMMA_OUT(d, 88)
#define SLUICE_WGMMA_OUT_192(d) SLUICE_WGMMA_OUT_184(d), SLUICE_WGMMA_OUT(d, 92)

// The predicate is scale-d: the accumulators are kept. Then the signs of A and B and, for operands
// in shared memory, whether they are transposed.
#define SLUICE_WGMMA_SHARED(PLACES, TYPE, A, B, KEEP, ALONG_N)                                     \
    asm volatile("{\n.reg .pred keep;\nsetp.ne.b32 keep, %" #KEEP ", 0;\n"                         \
                 "wgmma.mma_async.sync.aligned.m64n" #PLACES "k16.f32." TYPE "." TYPE              \
                 " {" SLUICE_WGMMA_LIST_##PLACES "}, %" #A ", %" #B ", keep, 1, 1, 0, %" #ALONG_N  \
                                                 ";\n}\n"                                          \
                 : SLUICE_WGMMA_OUT_##PLACES(d)                                                    \
                 : "l"(a), "l"(b), "r"(keeps), "n"(b_along_n)                                      \
                 : "memory")

#define SLUICE_WGMMA_REGISTERS(PLACES, TYPE, A0, A1, A2, A3, B, KEEP, ALONG_N)                     \
    asm volatile("{\n.reg .pred keep;\nsetp.ne.b32 keep, %" #KEEP ", 0;\n"                         \
                 "wgmma.mma_async.sync.aligned.m64n" #PLACES "k16.f32." TYPE "." TYPE              \
                 " {" SLUICE_WGMMA_LIST_##PLACES "}, {%" #A0 ", %" #A1 ", %" #A2 ", %" #A3         \
                                                 "}, %" #B ", keep, 1, 1, %" #ALONG_N ";\n}\n"     \
                 : SLUICE_WGMMA_OUT_##PLACES(d)                                                    \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(keeps), "n"(b_along_n)  \
                 : "memory")

// The numbers are those of the operands after the PLACES / 2 accumulators.
#define SLUICE_WGMMA(PLACES, I0, I1, I2, I3, I4, I5, I6)                                           \
    template <>                                                                                    \
    struct warpgroup_product<PLACES> {                                                             \
        template <typename Half, bool b_along_n = false>                                           \
        static __device__ __forceinline__ void add(float (&d)[PLACES / 2], uint64_t a, uint64_t b, \
                                                   int keeps = 1) {                                \
            if constexpr (is_bfloat16<Half>)                                                       \
                SLUICE_WGMMA_SHARED(PLACES, "bf16", I0, I1, I2, I3);                               \
            else                                                                                   \
                SLUICE_WGMMA_SHARED(PLACES, "f16", I0, I1, I2, I3);                                \
        }                                                                                          \
        template <typename Half, bool b_along_n = false>                                           \
        static __device__ __forceinline__ void add(float (&d)[PLACES / 2], const uint32_t* a,      \
                                                   uint64_t b, int keeps = 1) {                    \
            if constexpr (is_bfloat16<Half>)                                                       \
                SLUICE_WGMMA_REGISTERS(PLACES, "bf16", I0, I1, I2, I3, I4, I5, I6);                \
            else                                                                                   \
                SLUICE_WGMMA_REGISTERS(PLACES, "f16", I0, I1, I2, I3, I4, I5, I6);                 \
        }                                                                                          \
    }

SLUICE_WGMMA(16, 8, 9, 10, 11, 12, 13, 14);
SLUICE_WGMMA(32, 16, 17, 18, 19, 20, 21, 22);
SLUICE_WGMMA(48, 24, 25, 26, 27, 28, 29, 30);
SLUICE_WGMMA(64, 32, 33, 34, 35, 36, 37, 38);
SLUICE_WGMMA(72, 36, 37, 38, 39, 40, 41, 42);
SLUICE_WGMMA(80, 40, 41, 42, 43, 44, 45, 46);
SLUICE_WGMMA(88, 44, 45, 46, 47, 48, 49, 50);
SLUICE_WGMMA(96, 48, 49, 50, 51, 52, 53, 54);
SLUICE_WGMMA(104, 52, 53, 54, 55, 56, 57, 58);
SLUICE_WGMMA(112, 56, 57, 58, 59, 60, 61, 62);
SLUICE_WGMMA(120, 60, 61, 62, 63, 64, 65, 66);
SLUICE_WGMMA(128, 64, 65, 66, 67, 68, 69, 70);
SLUICE_WGMMA(136, 68, 69, 70, 71, 72, 73, 74);
SLUICE_WGMMA(144, 72, 73, 74, 75, 76, 77, 78);
SLUICE_WGMMA(192, 96, 97, 98, 99, 100, 101, 102);

#undef SLUICE_WGMMA
#undef SLUICE_WGMMA_SHARED
#undef SLUICE_WGMMA_REGISTERS

// ---- Others of sm_90 ----

// Writes four 8x8 matrices held as ldmatrix gives them, transposed: lane l gives the address of
// column l % 8 of matrix l / 8 ("stmatrix").
__device__ __forceinline__ void store_transposed(uint32_t address, const uint32_t (&value)[4]) {
    asm volatile(
        "stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address),
        "r"(value[0]), "r"(value[1]), "r"(value[2]), "r"(value[3])
        : "memory");
}

template <int registers>
__device__ __forceinline__ void take_registers() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(registers));
}

template <int registers>
__device__ __forceinline__ void give_registers() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(registers));
}

} // namespace sluice::cuda
