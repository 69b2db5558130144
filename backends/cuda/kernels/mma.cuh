// The instructions of the matrix units and of the copies that feed them, and the tiles of quantized
// weights as fragments. Section numbers are those of the PTX ISA.
#pragma once

#include "elements.cuh"

#include <cstdint>
#include <type_traits>

namespace sluice::cuda {

template <typename Half>
inline constexpr bool is_bfloat16 = std::is_same_v<Half, __nv_bfloat16>;

template <typename Half>
using pair_of = std::conditional_t<is_bfloat16<Half>, __nv_bfloat162, __half2>;

template <typename Half>
__device__ __forceinline__ uint32_t pack_pair(float low, float high) {
    pair_of<Half> pair;
    if constexpr (is_bfloat16<Half>)
        pair = __floats2bfloat162_rn(low, high);
    else
        pair = __floats2half2_rn(low, high);
    return *reinterpret_cast<uint32_t*>(&pair);
}

template <typename Half>
__device__ __forceinline__ pair_of<Half> as_pair(uint32_t bits) {
    return *reinterpret_cast<pair_of<Half>*>(&bits);
}

template <typename Pair>
__device__ __forceinline__ uint32_t as_bits(Pair pair) {
    return *reinterpret_cast<uint32_t*>(&pair);
}

__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// ---- Shared memory ----

// A tile in shared memory has rows of 64 half-precision elements, 128 bytes, whose eight 16-byte
// pieces are permuted within each run of eight rows, so that eight rows of one column of pieces lie
// in different banks. With the tile at a multiple of 1024 bytes this is the 128-byte swizzle of
// wgmma and of the tensor copies ("Strides", "Swizzling modes": address bits 4 to 6 are
// exclusive-ored with bits 7 to 9).
__host__ __device__ constexpr uint32_t swizzled(uint32_t row, uint32_t piece) {
    return row * 128 + ((piece ^ (row & 7)) << 4);
}

__device__ __forceinline__ uint4 load_shared_16(uint32_t address) {
    uint4 value;
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
                 : "r"(address)
                 : "memory");
    return value;
}

__device__ __forceinline__ uint32_t load_shared_4(uint32_t address) {
    uint32_t value;
    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(value) : "r"(address) : "memory");
    return value;
}

__device__ __forceinline__ uint32_t load_shared_2(uint32_t address) {
    uint16_t value;
    asm volatile("ld.shared.u16 %0, [%1];" : "=h"(value) : "r"(address) : "memory");
    return value;
}

__device__ __forceinline__ uint32_t load_shared_1(uint32_t address) {
    uint32_t value;
    asm volatile("ld.shared.u8 %0, [%1];" : "=r"(value) : "r"(address) : "memory");
    return value;
}

// ---- Asynchronous copies of 16 bytes ("cp.async") ----

// Without `valid` nothing is read and 16 zero bytes are written.
__device__ __forceinline__ void copy_16(uint32_t target, const void* source, bool valid) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :
                 : "r"(target), "l"(source), "r"(valid ? 16 : 0)
                 : "memory");
}

__device__ __forceinline__ void copy_16(uint32_t target, const void* source) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;"
                 :
                 : "r"(target), "l"(source)
                 : "memory");
}

__device__ __forceinline__ void commit_copies() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}

template <int allowed>
__device__ __forceinline__ void wait_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(allowed) : "memory");
}

// ---- Warp-wide matrices ----

// Lane l gives the address of row l % 8 of matrix l / 8 and gets, of each matrix, elements
// 2 (l % 4) and the next of row l / 4 ("ldmatrix").
__device__ __forceinline__ void load_matrices(uint32_t (&out)[4], uint32_t address) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(address)
                 : "memory");
}

// The transpose of an 8x8 matrix of 16-bit elements held like one of ldmatrix ("movmatrix").
__device__ __forceinline__ uint32_t transposed_matrix(uint32_t value) {
    uint32_t out;
    asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(out) : "r"(value));
    return out;
}

// Lane t of each four holds word t of four vectors of four words; afterwards it holds vector t.
__device__ __forceinline__ uint4 gather_vector(const uint32_t (&word)[4], int lane) {
    const bool odd = lane & 1, high = lane & 2;
    const uint32_t first = __shfl_xor_sync(0xFFFFFFFFu, odd ? word[0] : word[1], 1);
    const uint32_t second = __shfl_xor_sync(0xFFFFFFFFu, odd ? word[2] : word[3], 1);
    // Words (t & ~1) and (t | 1) of vector t & 1, then of vector 2 + (t & 1).
    const uint32_t a0 = odd ? first : word[0], a1 = odd ? word[1] : first;
    const uint32_t a2 = odd ? second : word[2], a3 = odd ? word[3] : second;
    const uint32_t third = __shfl_xor_sync(0xFFFFFFFFu, high ? a0 : a2, 2);
    const uint32_t fourth = __shfl_xor_sync(0xFFFFFFFFu, high ? a1 : a3, 2);
    return high ? make_uint4(third, fourth, a2, a3) : make_uint4(a0, a1, third, fourth);
}

// d += A B for m16n8k16. Lane (g, t): a[i] holds row g + 8 (i % 2), columns 2t + 8 (i / 2) and the
// next; b0 and b1 column g, rows 2t and 2t + 8 and the next; d[0..1] row g and d[2..3] row g + 8,
// columns 2t and 2t + 1 ("Matrix Fragments for mma.m16n8k16 with floating point type").
template <typename Half>
__device__ __forceinline__ void multiply_16x8(float (&d)[4], const uint32_t (&a)[4], uint32_t b0,
                                              uint32_t b1) {
    if constexpr (is_bfloat16<Half>)
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, "
                     "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
    else
        asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, "
                     "{%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                     : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// (value & mask) | bits in one instruction ("lop3": 0xEA is that function of 0xF0, 0xCC and 0xAA),
// which the compiler would split where both are constants.
__device__ __forceinline__ uint32_t masked_or(uint32_t value, uint32_t mask, uint32_t bits) {
    uint32_t out;
    asm("lop3.b32 %0, %1, %2, %3, 0xEA;" : "=r"(out) : "r"(value), "r"(mask), "r"(bits));
    return out;
}

// ---- Tiles of codes as fragments ----

__host__ __device__ constexpr bool is_tiled(weight_storage storage) {
    return storage == weight_storage::int4 || storage == weight_storage::int8;
}

// Bytes of the codes of one tile of 16 rows and 64 columns.
__host__ __device__ constexpr int code_tile_bytes(weight_storage storage) {
    return storage == weight_storage::int4 ? 512 : 1024;
}

// One lane's share of a slice of 16 rows and 64 columns of A, made of tiles of codes (view.hpp) in
// shared memory. Plain: row r of the slice is row r of the tile. Paired: rows 0 to 7 are eight rows
// of one tile and rows 8 to 15 eight rows of another (or of the same one); the caller says where
// each lies.
// Own scales: they are of type Half.
template <typename Half, weight_storage storage, bool paired, bool own_scales = false>
struct code_fragments {
    static_assert(is_tiled(storage));
    static constexpr int words = storage == weight_storage::int4 ? 4 : 8;
    // bf16 has too few bits for an 8-bit code over a power of two, so that int8 goes through
    // float32.
    static constexpr bool by_float = storage == weight_storage::int8 && is_bfloat16<Half>;
    // A scale that is no bf16 number is the sum of two.
    static constexpr bool two_scales = is_bfloat16<Half> && !by_float && !own_scales;
    // A code or zero point in the last bits of this is the magic number plus it: 2^23 in float32,
    // 128 in bf16, 1024 in f16, twice.
    static constexpr uint32_t magic = by_float            ? 0x4B000000u
                                      : is_bfloat16<Half> ? 0x43004300u
                                                          : 0x64006400u;
    static constexpr uint32_t middle = storage == weight_storage::int4 ? 8 : 128;

    static constexpr int tiles = paired ? 2 : 1;

    uint32_t code[tiles][words];
    uint32_t scale[2];                 // of rows g and g + 8: a pair of equal ones, or float32
    uint32_t rest[two_scales ? 2 : 1]; // what is missing from `scale`
    uint32_t zero[2];                  // magic number + zero point, likewise

    // This lane's 16 bytes of the tile that gives rows 8 i to 8 i + 7; addresses are in shared
    // memory.
    __device__ __forceinline__ void load_codes(const uint32_t (&codes)[2]) {
#pragma unroll
        for (int i = 0; i < tiles; ++i) {
#pragma unroll
            for (int part = 0; part < words / 4; ++part) {
                const uint4 value = load_shared_16(codes[i] + part * 512);
                code[i][4 * part] = value.x;
                code[i][4 * part + 1] = value.y;
                code[i][4 * part + 2] = value.z;
                code[i][4 * part + 3] = value.w;
            }
        }
    }

    // Paired: which half of the tiles' rows is wanted. Register i of a step has row half i % 2: its
    // codes move to where those of half 0 are.
    __device__ __forceinline__ void take_half(int half) {
        if constexpr (paired) {
            const int shift = storage == weight_storage::int4 ? 4 * half : 16 * half;
#pragma unroll
            for (int i = 0; i < tiles; ++i) {
#pragma unroll
                for (int word = 0; word < words; ++word) code[i][word] >>= shift;
            }
        }
    }

    // Of row g + 8 i of the slice; zeros only where there are any.
    __device__ __forceinline__ void load_scales(const uint32_t (&scales)[2],
                                                const uint32_t (&zeros)[2], bool has_zeros,
                                                uint32_t scale_type) {
        zero[0] = zero[1] = magic + (by_float ? middle : middle * 0x00010001u);
        if (has_zeros) {
#pragma unroll
            for (int i = 0; i < 2; ++i)
                zero[i] = magic + load_shared_1(zeros[i]) * (by_float ? 1u : 0x00010001u);
        }
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            if constexpr (own_scales && !by_float) {
                scale[i] = load_shared_2(scales[i]) * 0x00010001u;
            } else {
                const float real = load_scale(scales[i], scale_type);
                scale[i] = by_float ? __float_as_uint(real) : pack_pair<Half>(real, real);
                if constexpr (two_scales) {
                    const float missing = real - __uint_as_float(scale[i] & 0xFFFF0000u);
                    rest[i] = pack_pair<Half>(missing, missing);
                }
            }
        }
    }

    static __device__ __forceinline__ float load_scale(uint32_t address, uint32_t type) {
        if (type == SLUICE_F32) return __uint_as_float(load_shared_4(address));
        const uint32_t bits = load_shared_2(address);
        return type == SLUICE_BF16 ? __uint_as_float(bits << 16)
                                   : __half2float(__ushort_as_half(static_cast<uint16_t>(bits)));
    }

    // (code - zero) * scale for two codes that lie as half-precision numbers magic + code.
    __device__ __forceinline__ uint32_t scaled(uint32_t magic_codes, int row) const {
        const auto exact = __hsub2(as_pair<Half>(magic_codes), as_pair<Half>(zero[row]));
        if constexpr (two_scales)
            return as_bits(__hfma2(exact, as_pair<Half>(scale[row]),
                                   __hmul2(exact, as_pair<Half>(rest[row]))));
        else
            return as_bits(__hmul2(exact, as_pair<Half>(scale[row])));
    }

    // A fragment of step `step` of 4; see multiply_16x8.
    __device__ __forceinline__ void fragment(int step, uint32_t (&a)[4]) const {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const int row = i % 2, columns = i / 2;
            if constexpr (storage == weight_storage::int4) {
                const uint32_t word = code[paired ? row : 0][step];
                const int shift = paired ? 8 * columns : 4 * i;
                a[i] = scaled(masked_or(word >> shift, 0x000F000Fu, magic), row);
            } else {
                const uint32_t word = code[paired ? row : 0][2 * step + columns];
                const int first = paired ? 0 : 2 * row;
                if constexpr (by_float) {
                    // A byte under 0x4B0000 is 2^23 + byte.
                    const float low = __uint_as_float(__byte_perm(word, magic, 0x7440 + first));
                    const float high = __uint_as_float(__byte_perm(word, magic, 0x7441 + first));
                    const float point = __uint_as_float(zero[row]);
                    const float factor = __uint_as_float(scale[row]);
                    a[i] = pack_pair<Half>((low - point) * factor, (high - point) * factor);
                } else {
                    a[i] = scaled(__byte_perm(word, 0x64646464u, 0x4140 + first * 0x0101), row);
                }
            }
        }
    }
};

} // namespace sluice::cuda
