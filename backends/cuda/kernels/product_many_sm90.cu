// The product for many rows with wgmma: bf16, and whether there is such a form at all.
#include "product_many_sm90.cuh"
#include "tensor_map.hpp"

namespace sluice::cuda::many {
namespace {

// A matrix of `rows` rows, `distance` elements from one to the next.
bool encode(CUtensorMap& map, CUtensorMapDataType type, int element_bytes, bool swizzles,
            const void* data, int64_t columns, int64_t rows, int64_t distance, int box_columns,
            int box_rows) {
    const cuuint64_t size[2] = {static_cast<cuuint64_t>(columns), static_cast<cuuint64_t>(rows)};
    const cuuint64_t stride[1] = {static_cast<cuuint64_t>(distance) * element_bytes};
    const cuuint32_t box[2] = {static_cast<cuuint32_t>(box_columns),
                               static_cast<cuuint32_t>(box_rows)};
    const cuuint32_t step[2] = {1, 1};
    return tensor_map_encoder()(&map, type, 2, const_cast<void*>(data), size, stride, box, step,
                                CU_TENSOR_MAP_INTERLEAVE_NONE,
                                swizzles ? CU_TENSOR_MAP_SWIZZLE_128B : CU_TENSOR_MAP_SWIZZLE_NONE,
                                CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                                CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE)
           == CUDA_SUCCESS;
}

bool encode_halves(CUtensorMap& map, const void* data, int64_t columns, int64_t rows,
                   int64_t distance, int box_rows) {
    return encode(map, CU_TENSOR_MAP_DATA_TYPE_UINT16, 2, true, data, columns, rows, distance, 64,
                  box_rows);
}

bool encode_tiles(CUtensorMap& map, CUtensorMapDataType type, int element_bytes, const void* data,
                  int64_t count, int64_t rows, int box_columns) {
    const int64_t columns = count * box_columns;
    return encode(map, type, element_bytes, false, data, columns, rows, columns, box_columns,
                  tile_box_rows);
}

bool encode_all(const arguments& call, tensor_maps& maps, weight_storage storage, bool gated) {
    if (tensor_map_encoder() == nullptr) return false;
    const int64_t columns = call.columns;
    bool done = true;
    if (call.copies == operand_copies::tensor)
        done = encode_halves(maps.x, call.x, columns, call.places, columns, x_box_rows)
               && encode_halves(maps.x_part, call.x, columns, call.places, columns, x_part_rows);
    const bool tiled = is_tiled(storage);
    // Gate and up of a stage come from two matrices, unless they alternate within tiles.
    const int matrices = gated && !(tiled && call.feature_step == 2) ? 2 : 1;
    for (int i = 0; i < matrices && done; ++i) {
        int64_t rows = static_cast<int64_t>(call.matrices) * call.matrix_rows;
        // Up behind the gate in one weight.
        if (i == 1 && call.feature_step == 1 && call.matrix_rows > call.width) rows -= call.width;
        if (!tiled) {
            rows /= call.feature_step;
            done = encode_halves(maps.weights[i], call.data[i], columns, rows,
                                 columns * call.feature_step,
                                 gated ? weight_box_rows<true> : weight_box_rows<false>);
            continue;
        }
        rows /= tile_rows;
        done = storage == weight_storage::int4
                   ? encode_tiles(maps.weights[i], CU_TENSOR_MAP_DATA_TYPE_UINT16, 2, call.data[i],
                                  columns / tile_columns, rows, 256)
                   : encode_tiles(maps.weights[i], CU_TENSOR_MAP_DATA_TYPE_UINT32, 4, call.data[i],
                                  columns / tile_columns, rows, 256);
        const bool wide = call.scale_type == SLUICE_F32;
        done =
            done
            && encode_tiles(maps.scales[i],
                            wide ? CU_TENSOR_MAP_DATA_TYPE_UINT32 : CU_TENSOR_MAP_DATA_TYPE_UINT16,
                            wide ? 4 : 2, call.scales[i], call.groups, rows, 16);
        if (call.zeros[0] != nullptr)
            done = done
                   && encode_tiles(maps.zeros[i], CU_TENSOR_MAP_DATA_TYPE_UINT8, 1, call.zeros[i],
                                   call.groups, rows, 16);
    }
    return done;
}

} // namespace

void prepare_sm90(arguments& call, tensor_maps& maps, weight_storage storage, bool gated) {
    if (call.copies == operand_copies::automatic) call.copies = operand_copies::tensor;
    if (call.copies == operand_copies::tensor && call.row != nullptr)
        call.copies = operand_copies::mixed;
    if (call.copies != operand_copies::copies && !encode_all(call, maps, storage, gated))
        call.copies = operand_copies::copies;
}

void launch_sm90(const arguments& call, weight_storage storage, bool is_bfloat, bool gated,
                 int multiprocessor_count, cudaStream_t stream) {
    if (is_bfloat)
        launch_sm90_half<__nv_bfloat16>(call, storage, gated, multiprocessor_count, stream);
    else
        launch_sm90_f16(call, storage, gated, multiprocessor_count, stream);
}

} // namespace sluice::cuda::many
