// One element of any type on the device, and the arithmetic that kernels share.
#pragma once

#include "view.hpp"

#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace sluice::cuda {

template <typename Element>
__device__ __forceinline__ float to_float(Element value) {
    if constexpr (sizeof(Element) == 4)
        return static_cast<float>(value);
    else if constexpr (std::is_same_v<Element, __nv_bfloat16>)
        return __bfloat162float(value);
    else
        return __half2float(value);
}

template <typename Element>
__device__ __forceinline__ Element from_float(float value) {
    if constexpr (std::is_same_v<Element, __nv_bfloat16>)
        return __float2bfloat16_rn(value);
    else if constexpr (std::is_same_v<Element, __half>)
        return __float2half_rn(value);
    else
        return static_cast<Element>(value);
}

// Element `index` of a tensor of any type as float32, and back. For kernels whose speed does not
// count; the others are templates over the element.
__device__ __forceinline__ float load_as_float(const void* data, uint32_t type, int64_t index) {
    switch (type) {
    case SLUICE_F32:
        return static_cast<const float*>(data)[index];
    case SLUICE_BF16:
        return __bfloat162float(static_cast<const __nv_bfloat16*>(data)[index]);
    case SLUICE_F16:
        return __half2float(static_cast<const __half*>(data)[index]);
    case SLUICE_I32:
        return static_cast<float>(static_cast<const int32_t*>(data)[index]);
    default:
        return static_cast<float>(static_cast<const uint8_t*>(data)[index]);
    }
}

__device__ __forceinline__ void store_from_float(void* data, uint32_t type, int64_t index,
                                                 float value) {
    switch (type) {
    case SLUICE_F32:
        static_cast<float*>(data)[index] = value;
        break;
    case SLUICE_BF16:
        static_cast<__nv_bfloat16*>(data)[index] = __float2bfloat16_rn(value);
        break;
    case SLUICE_F16:
        static_cast<__half*>(data)[index] = __float2half_rn(value);
        break;
    case SLUICE_I32:
        static_cast<int32_t*>(data)[index] = static_cast<int32_t>(value);
        break;
    default:
        static_cast<uint8_t*>(data)[index] = value != 0.0f;
    }
}

// The real value of element (n, k) of matrix m, by the formula of weight_view: plain and slow.
__device__ __forceinline__ float load_weight(const weight_view& w, int64_t m, int64_t n,
                                             int64_t k) {
    const int64_t flat = (m * w.rows + n) * w.columns + k;
    switch (w.storage) {
    case weight_storage::float32:
        return static_cast<const float*>(w.data)[flat];
    case weight_storage::bfloat16:
        return __bfloat162float(static_cast<const __nv_bfloat16*>(w.data)[flat]);
    case weight_storage::float16:
        return __half2float(static_cast<const __half*>(w.data)[flat]);
    default:
        break;
    }
    const int64_t row_tile = m * (w.rows / tile_rows) + n / tile_rows;
    const int64_t tile = row_tile * (w.columns / tile_columns) + k / tile_columns;
    const int row = static_cast<int>(n % tile_rows), column = static_cast<int>(k % tile_columns);
    const int step = column / 16, within = column % 16;
    const int lane = row % 8 * 4 + within % 8 / 2;
    const int reg = row / 8 + within / 8 * 2, odd = within % 2;
    float code, zero;
    if (w.storage == weight_storage::int4) {
        const auto word = static_cast<const uint32_t*>(w.data)[tile * 128 + lane * 4 + step];
        code = static_cast<float>((word >> ((reg + 4 * odd) * 4)) & 15u);
        zero = 8.0f;
    } else {
        const int64_t at = tile * 1024 + step / 2 * 512 + lane * 16 + step % 2 * 8 + reg / 2 * 4
                           + reg % 2 * 2 + odd;
        code = static_cast<float>(static_cast<const uint8_t*>(w.data)[at]);
        zero = 128.0f;
    }
    const int64_t group = row_tile * (w.columns / w.group_columns) + k / w.group_columns;
    const int64_t scale = group * 16 + row % 8 * 2 + row / 8;
    if (w.zeros != nullptr) zero = static_cast<float>(w.zeros[scale]);
    return (code - zero) * load_as_float(w.scales, w.scale_type, scale);
}

} // namespace sluice::cuda
