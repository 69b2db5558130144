// A unit of the products for few rows: 64 columns of 16 rows of a weight, spread over a warp, and
// its product with the same columns of up to eight rows of x in shared memory.
//
// Quantized tiles are units as they are stored. Float matrices stay row-major: lane l (g = l / 4, t
// = l % 4) takes 16 bytes of rows g and g + 8, columns 8t to 8t + 7 of each 32. The matrix unit
// sums over columns in any order as long as both sides agree, so x is read in the same order.
#pragma once

#include "elements.cuh"
#include "matrix_unit.cuh"

namespace sluice::cuda {

// `bits` of a code: 4, 8, or 16 for the float types.
template <int bits>
struct weight_unit {
    uint4 codes[bits / 4];
    uint32_t scale[2]; // of rows g and g + 8: one word of two halves, or two floats (int8 only)
    uint32_t zero;     // two bytes
};

// The units of one tile of 16 rows, for one lane.
struct unit_cursor {
    const char* data;
    int scale; // the number of the first scale of row g; row g + 8 has the next
};

// What every unit of a launch has in common.
struct unit_shape {
    int units;       // of a row: columns / 64
    int groups;      // of a row
    int group_shift; // a group has 1 << group_shift units; 31: a row is one group
    uint32_t scale_type;
    bool has_zeros;
};

template <int bits>
__device__ __forceinline__ unit_cursor cursor_of(const weight_view& w, const unit_shape& shape,
                                                 int64_t row_tile, int lane) {
    unit_cursor at{};
    const auto* data = static_cast<const char*>(w.data);
    if constexpr (bits == 16) {
        const int64_t row = row_tile * 16 + lane / 4;
        at.data = data + (row * shape.units * 64 + lane % 4 * 8) * 2;
    } else {
        at.data = data + row_tile * shape.units * (bits * 128) + lane * 16;
        at.scale = static_cast<int>(row_tile) * shape.groups * 16 + lane / 4 * 2;
    }
    return at;
}

template <int bits>
__device__ __forceinline__ void load_unit(weight_unit<bits>& to, const unit_cursor& at,
                                          const weight_view& w, const unit_shape& shape, int unit) {
    if constexpr (bits == 16) {
        const int64_t row_bytes = static_cast<int64_t>(shape.units) * 128;
        const char* data = at.data + unit * 128;
        to.codes[0] = load_stream(data);
        to.codes[1] = load_stream(data + 8 * row_bytes);
        to.codes[2] = load_stream(data + 64);
        to.codes[3] = load_stream(data + 8 * row_bytes + 64);
    } else {
        const char* data = at.data + static_cast<int64_t>(unit) * (bits * 128);
        to.codes[0] = load_stream(data);
        if constexpr (bits == 8) to.codes[1] = load_stream(data + 512);
        const int scale = at.scale + (unit >> shape.group_shift) * 16;
        if (bits == 8 && shape.scale_type == SLUICE_F32) {
            to.scale[0] = load_word(static_cast<const float*>(w.scales) + scale);
            to.scale[1] = load_word(static_cast<const float*>(w.scales) + scale + 1);
        } else {
            to.scale[0] = load_word(static_cast<const uint16_t*>(w.scales) + scale);
        }
        if (shape.has_zeros) to.zero = load_short(w.zeros + scale);
    }
}

// The scales of rows g and g + 8.
template <int bits>
__device__ __forceinline__ float2 scales_of(const weight_unit<bits>& unit, uint32_t type) {
    if (bits == 8 && type == SLUICE_F32)
        return {__uint_as_float(unit.scale[0]), __uint_as_float(unit.scale[1])};
    if (type == SLUICE_BF16)
        return {__uint_as_float(unit.scale[0] << 16), __uint_as_float(unit.scale[0] & 0xffff0000u)};
    return __half22float2(*reinterpret_cast<const __half2*>(&unit.scale[0]));
}

// Pairs of codes less their zero points as halves, exactly: a code in the low bits of a half of 128
// (bfloat16) or 1024 (float16) is that much more than itself.
template <typename Half>
struct code_offset {
    static constexpr bool is_bfloat = std::is_same_v<Half, __nv_bfloat16>;
    static constexpr uint32_t pair = is_bfloat ? 0x43004300u : 0x64006400u;
    uint32_t minus[2]; // of rows g and g + 8: -(128 + zero), twice

    __device__ __forceinline__ code_offset(bool has_zeros, uint32_t zeros, uint32_t middle) {
        const uint32_t low = has_zeros ? zeros & 255u : middle;
        const uint32_t high = has_zeros ? zeros >> 8 : middle;
        minus[0] = (pair | 0x80008000u) + low * 0x00010001u;
        minus[1] = (pair | 0x80008000u) + high * 0x00010001u;
    }
};

// Fragment a of step s of a unit.
template <typename Half>
__device__ __forceinline__ void decode_step(uint32_t (&a)[4], const weight_unit<4>& unit, int s,
                                            const code_offset<Half>& offset) {
    const uint32_t words[4] = {unit.codes[0].x, unit.codes[0].y, unit.codes[0].z, unit.codes[0].w};
#pragma unroll
    for (int i = 0; i < 4; ++i)
        a[i] = add_pairs<Half>(and_or(words[s] >> (4 * i), 0x000f000fu, code_offset<Half>::pair),
                               offset.minus[i % 2]);
}

template <typename Half>
__device__ __forceinline__ void decode_step(uint32_t (&a)[4], const weight_unit<8>& unit, int s,
                                            const code_offset<Half>& offset) {
    const uint4 codes = unit.codes[s / 2];
    const uint32_t words[2] = {s % 2 == 0 ? codes.x : codes.z, s % 2 == 0 ? codes.y : codes.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const uint32_t word = words[i / 2];
        if constexpr (!code_offset<Half>::is_bfloat) {
            const uint32_t pair =
                __byte_perm(word, code_offset<Half>::pair, i % 2 == 0 ? 0x5150 : 0x5352);
            a[i] = add_pairs<Half>(pair, offset.minus[i % 2]);
        } else {
            // Eight bits are too many for the trick in bfloat16: in float32 2^23 takes them. The
            // zero point is the low byte of `minus`, whose other bits are the same for all.
            const float minus = __uint_as_float(0x4b000000u | (offset.minus[i % 2] & 0xffu));
            const uint32_t low = __byte_perm(word, 0x4b000000u, i % 2 == 0 ? 0x7440 : 0x7442);
            const uint32_t high = __byte_perm(word, 0x4b000000u, i % 2 == 0 ? 0x7441 : 0x7443);
            const __nv_bfloat162 pair =
                __floats2bfloat162_rn(__uint_as_float(low) - minus, __uint_as_float(high) - minus);
            a[i] = *reinterpret_cast<const uint32_t*>(&pair);
        }
    }
}

// Where a lane reads x: of eight rows, the address for the first unit and the bytes from one unit
// to the next (0 for rows that are not there, which are zeros).
struct x_cursor {
    const char* at;
    int step;
};

// A row is `pitch` bytes; eight rows of 16 bytes (quantized) or two of 64 (float) must lie in
// different banks.
template <int bits>
__host__ __device__ constexpr int x_pitch(int units) {
    return units * 128 + (bits == 16 ? 64 : 16);
}

// `rows`: how many of the eight are there. `zeros`: 16 bytes of them.
template <int bits>
__device__ __forceinline__ x_cursor x_cursor_of(const char* area, const char* zeros, int pitch,
                                                int rows, int lane) {
    const int row = bits == 16 ? lane / 4 : lane % 8;
    const int column = bits == 16 ? lane % 4 : lane / 8;
    if (row >= rows) return {zeros, 0};
    return {area + row * pitch + column * 16, 128};
}

// sums [16 rows of the weight, 8 rows of x] += unit * x. `unit_number`: from the first unit in x.
template <int bits, typename Half, int tiles>
__device__ __forceinline__ void
multiply_unit(float (&sums)[tiles][4], const weight_unit<bits>& unit, const unit_shape& shape,
              const x_cursor (&x)[tiles], int unit_number) {
    if constexpr (bits == 16) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            const uint4 upper = unit.codes[2 * half], lower = unit.codes[2 * half + 1];
            const uint32_t a[2][4] = {{upper.x, lower.x, upper.y, lower.y},
                                      {upper.z, lower.z, upper.w, lower.w}};
#pragma unroll
            for (int i = 0; i < tiles; ++i) {
                const uint4 b = *reinterpret_cast<const uint4*>(x[i].at + unit_number * x[i].step
                                                                + half * (x[i].step / 2));
                multiply_add<Half>(sums[i], a[0], b.x, b.y);
                multiply_add<Half>(sums[i], a[1], b.z, b.w);
            }
        }
    } else {
        const code_offset<Half> offset(shape.has_zeros, unit.zero, bits == 4 ? 8u : 128u);
        const float2 scale = scales_of<bits>(unit, shape.scale_type);
        if constexpr (tiles == 1) { // few registers: decoded as it is used
            const char* at = x[0].at + unit_number * x[0].step;
            float part[4] = {};
#pragma unroll
            for (int pair = 0; pair < 2; ++pair) {
                uint32_t b[4];
                load_matrices(b, at + pair * (x[0].step / 2));
#pragma unroll
                for (int s = 0; s < 2; ++s) {
                    uint32_t a[4];
                    decode_step<Half>(a, unit, 2 * pair + s, offset);
                    multiply_add<Half>(part, a, b[2 * s], b[2 * s + 1]);
                }
            }
            sums[0][0] += scale.x * part[0];
            sums[0][1] += scale.x * part[1];
            sums[0][2] += scale.y * part[2];
            sums[0][3] += scale.y * part[3];
        } else {
            uint32_t a[4][4];
#pragma unroll
            for (int s = 0; s < 4; ++s) decode_step<Half>(a[s], unit, s, offset);
#pragma unroll
            for (int i = 0; i < tiles; ++i) {
                const char* at = x[i].at + unit_number * x[i].step;
                uint32_t b[2][4];
                load_matrices(b[0], at);
                load_matrices(b[1], at + x[i].step / 2);
                float part[4] = {};
                multiply_add<Half>(part, a[0], b[0][0], b[0][1]);
                multiply_add<Half>(part, a[1], b[0][2], b[0][3]);
                multiply_add<Half>(part, a[2], b[1][0], b[1][1]);
                multiply_add<Half>(part, a[3], b[1][2], b[1][3]);
                sums[i][0] += scale.x * part[0];
                sums[i][1] += scale.x * part[1];
                sums[i][2] += scale.y * part[2];
                sums[i][3] += scale.y * part[3];
            }
        }
    }
}

// Copies some units of rows of x into a warp's area, `at_once` rows at a time. row_of(n) is the row
// of x to take, -1 for zeros; scale_of(n) multiplies it where has_scale.
template <int at_once, typename Half, typename RowOf, typename ScaleOf>
__device__ __forceinline__ void copy_rows(char* area, int pitch, const void* x, int64_t columns,
                                          int unit_begin, int unit_end, int rows, int lane,
                                          RowOf&& row_of, bool has_scale, ScaleOf&& scale_of) {
    const int vectors = (unit_end - unit_begin) * 8;
    const auto* source = static_cast<const char*>(x) + static_cast<int64_t>(unit_begin) * 128;
    for (int first = 0; first < rows; first += at_once) {
        int row[at_once];
#pragma unroll
        for (int n = 0; n < at_once; ++n) row[n] = first + n < rows ? row_of(first + n) : -1;
        // Of one row four vectors are on the way together.
        constexpr int deep = at_once == 1 ? 4 : 1;
        for (int v_first = lane; v_first < vectors; v_first += 32 * deep) {
            uint4 taken[deep][at_once];
#pragma unroll
            for (int d = 0; d < deep; ++d) {
                const int v = v_first + 32 * d;
#pragma unroll
                for (int n = 0; n < at_once; ++n) {
                    taken[d][n] = make_uint4(0, 0, 0, 0);
                    if (row[n] >= 0 && v < vectors)
                        taken[d][n] = *reinterpret_cast<const uint4*>(
                            source + row[n] * (columns * 2) + v * 16);
                }
            }
            if (has_scale) {
#pragma unroll
                for (int n = 0; n < at_once; ++n) {
                    if (row[n] < 0) continue;
                    const float scale = scale_of(first + n);
#pragma unroll
                    for (int d = 0; d < deep; ++d) {
                        auto* halves = reinterpret_cast<Half*>(&taken[d][n]);
#pragma unroll
                        for (int i = 0; i < 8; ++i)
                            halves[i] = from_float<Half>(to_float(halves[i]) * scale);
                    }
                }
            }
#pragma unroll
            for (int d = 0; d < deep; ++d) {
                const int v = v_first + 32 * d;
#pragma unroll
                for (int n = 0; n < at_once; ++n)
                    if (first + n < rows && v < vectors)
                        *reinterpret_cast<uint4*>(area + (first + n) * pitch + v * 16) =
                            taken[d][n];
            }
        }
    }
}

// The matrix of a choice; -1 where it has none here.
__device__ __forceinline__ int matrix_of_choice(int index, const int32_t* map, int map_size,
                                                int matrices) {
    if (map != nullptr && index >= 0) index = index < map_size ? map[index] : -1;
    return index >= 0 && index < matrices ? index : -1;
}

template <typename Count>
__host__ __device__ constexpr Count ceil_divide(Count a, Count b) {
    return (a + b - 1) / b;
}

inline unit_shape unit_shape_of(const weight_view& w) {
    unit_shape shape{};
    shape.units = static_cast<int>(w.columns / 64);
    shape.groups = w.group_columns > 0 ? static_cast<int>(w.columns / w.group_columns) : 1;
    const int group_units = shape.units / shape.groups;
    while (shape.group_shift < 31 && 1 << shape.group_shift < group_units) ++shape.group_shift;
    if (shape.groups == 1) shape.group_shift = 31;
    shape.scale_type = w.scale_type;
    shape.has_zeros = w.zeros != nullptr;
    return shape;
}

} // namespace sluice::cuda
