// The product for many rows with wgmma: bf16, and whether there is such a form at all.
#include "product_many_sm90.cuh"

namespace sluice::cuda::many {
namespace {

// The driver's function, found without linking the driver; NULL if it has none.
decltype(&cuTensorMapEncodeTiled) encoder() {
    static const auto found = [] {
        void* function = nullptr;
        cudaDriverEntryPointQueryResult result{};
#if CUDART_VERSION >= 12050
        const cudaError_t status = cudaGetDriverEntryPointByVersion(
            "cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &result);
#else
        const cudaError_t status = cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &function,
                                                           cudaEnableDefault, &result);
#endif
        if (status != cudaSuccess || result != cudaDriverEntryPointSuccess) function = nullptr;
        return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(function);
    }();
    return found;
}

// Rows of `columns` halves, `distance` of them from one to the next.
bool encode(CUtensorMap& map, const void* data, int64_t columns, int64_t rows, int64_t distance,
            int box_rows) {
    const cuuint64_t size[2] = {static_cast<cuuint64_t>(columns), static_cast<cuuint64_t>(rows)};
    const cuuint64_t stride[1] = {static_cast<cuuint64_t>(distance) * 2};
    const cuuint32_t box[2] = {64, static_cast<cuuint32_t>(box_rows)};
    const cuuint32_t step[2] = {1, 1};
    return encoder()(&map, CU_TENSOR_MAP_DATA_TYPE_UINT16, 2, const_cast<void*>(data), size, stride,
                     box, step, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                     CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE)
           == CUDA_SUCCESS;
}

bool encode_all(const arguments& call, tensor_maps& maps, bool tiled, bool gated) {
    if (encoder() == nullptr) return false;
    const int64_t columns = call.columns;
    if (call.copies == operand_copies::rows) {
        // How many rows x has is not known; -1, no row, is outside of any number of them.
        if (!encode(maps.x, call.x, columns, INT32_MAX, columns, 1)) return false;
    } else if (call.copies == operand_copies::tensor) {
        if (!encode(maps.x, call.x, columns, call.places, columns, x_box_rows)) return false;
    }
    if (tiled) return true;
    for (int i = 0; i < (gated ? 2 : 1); ++i) {
        int64_t rows = static_cast<int64_t>(call.matrices) * call.matrix_rows / call.feature_step;
        // Up behind the gate in one weight.
        if (i == 1 && call.feature_step == 1 && call.matrix_rows > call.width) rows -= call.width;
        if (!encode(maps.weights[i], call.data[i], columns, rows, columns * call.feature_step,
                    gated ? weight_box_rows<true> : weight_box_rows<false>))
            return false;
    }
    return true;
}

// One warp a row.
__global__ void gather_kernel(const uint4* x, const int32_t* row, int32_t places, int32_t pieces,
                              uint4* out) {
    const int place = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
    if (place >= places) return;
    const int from = row[place];
    for (int i = threadIdx.x % 32; i < pieces; i += 32)
        out[static_cast<int64_t>(place) * pieces + i] =
            from < 0 ? make_uint4(0, 0, 0, 0) : x[static_cast<int64_t>(from) * pieces + i];
}

} // namespace

void prepare_sm90(arguments& call, tensor_maps& maps, bool tiled, bool gated, cudaStream_t stream) {
    if (call.copies == operand_copies::automatic)
        call.copies = call.row == nullptr || call.gathered != nullptr ? operand_copies::tensor
                                                                      : operand_copies::mixed;
    if (call.copies == operand_copies::tensor && call.row != nullptr) {
        if (call.gathered == nullptr) {
            call.copies = operand_copies::mixed;
        } else {
            gather_kernel<<<(call.places + 7) / 8, 256, 0, stream>>>(
                static_cast<const uint4*>(call.x), call.row, call.places, call.columns / 8,
                static_cast<uint4*>(call.gathered));
            call.x = call.gathered;
            call.row = nullptr;
        }
    }
    if (call.copies != operand_copies::copies && !encode_all(call, maps, tiled, gated))
        call.copies = operand_copies::copies;
}

bool has_sm90() {
    static const bool has = [] {
        cudaFuncAttributes attributes{};
        return cudaFuncGetAttributes(&attributes,
                                     product_kernel<__nv_bfloat16, weight_storage::bfloat16, false>)
                   == cudaSuccess
               && attributes.maxThreadsPerBlock >= threads;
    }();
    return has;
}

void launch_sm90(const arguments& call, weight_storage storage, bool is_bfloat, bool gated,
                 int multiprocessor_count, cudaStream_t stream) {
    if (is_bfloat)
        launch_sm90_half<__nv_bfloat16>(call, storage, gated, multiprocessor_count, stream);
    else
        launch_sm90_f16(call, storage, gated, multiprocessor_count, stream);
}

} // namespace sluice::cuda::many
