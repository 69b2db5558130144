// Attention of many rows of a sequence with wgmma: which forms there are.
#include "attention_prefill_sm90.cuh"
#include "tensor_map.hpp"

namespace sluice::cuda {
namespace prefill {

namespace {

// Elements of 16 bits in boxes of 64 columns, 128 bytes, in the swizzle of that width. Sizes are
// those of [plane, row, column], with `planes` 0 for a matrix.
bool encode(CUtensorMap& map, const void* data, int64_t planes, int64_t rows, int64_t columns,
            int box_planes, int box_rows) {
    const cuuint64_t size[3] = {static_cast<cuuint64_t>(columns), static_cast<cuuint64_t>(rows),
                                static_cast<cuuint64_t>(planes)};
    const cuuint64_t stride[2] = {size[0] * 2, size[0] * size[1] * 2};
    const cuuint32_t box[3] = {64, static_cast<cuuint32_t>(box_rows),
                               static_cast<cuuint32_t>(box_planes)};
    const cuuint32_t step[3] = {1, 1, 1};
    return tensor_map_encoder()(
               &map, CU_TENSOR_MAP_DATA_TYPE_UINT16, planes > 0 ? 3 : 2, const_cast<void*>(data),
               size, stride, box, step, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
               CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE)
           == CUDA_SUCCESS;
}

// The cache's size is not asked for: only slots of its blocks are copied.
constexpr int64_t slots_at_most = INT32_MAX;

} // namespace

bool encode_maps(const arguments& a, const expanded_source& expanded, int places, int rope_width,
                 tensor_maps& maps) {
    const attention_call& call = a.call;
    const int group = call.heads / call.kv_heads;
    const int key_width = call.key_width - rope_width;
    const int64_t key_columns = int64_t{call.kv_heads} * key_width;
    const int64_t value_columns = int64_t{call.kv_heads} * call.value_width;
    const int box_rows = rope_width > 0 ? places : a.box_rows;
    if (tensor_map_encoder() == nullptr
        || !encode(maps.queries, call.q, call.rows.rows, call.heads, key_width, a.tile_tokens,
                   group)
        || !encode(maps.keys, call.keys, 0, slots_at_most, key_columns, 1, box_rows)
        || !encode(maps.values, call.values, 0, slots_at_most, value_columns, 1, box_rows)
        || !encode(maps.value_rows, call.values, 0, slots_at_most, value_columns, 1, 1))
        return false;
    return rope_width == 0
           || (encode(maps.rope_queries, expanded.rope_queries, call.rows.rows, call.heads,
                      rope_width, a.tile_tokens, group)
               && encode(maps.rope_keys, expanded.rope_keys, 0, slots_at_most, rope_width, 1,
                         a.box_rows));
}

} // namespace prefill

namespace {

// Tiles of 192 rows and of 128.
template <int width>
using large_form = std::conditional_t<width == 64, prefill::form<64, 64, 3, 192, 3>,
                                      prefill::form<128, 128, 3, 128, 2>>;
template <int width>
using small_form = prefill::form<width, width, 2, 128, width == 64 ? 4 : 3>;

template <int width>
attention_prefill_plan plan_width(const attention_call& call, int64_t context_max,
                                  int multiprocessor_count) {
    // Few tiles, of very different lengths, do better when they are small.
    const int64_t tokens = large_form<width>::rows / (call.heads / call.kv_heads);
    if (call.rows.rows / tokens * call.kv_heads >= 4 * multiprocessor_count) {
        attention_prefill_plan plan;
        plan.has_large_tiles = true;
        return plan;
    }
    if (call.rows.window > 0) context_max = std::min<int64_t>(context_max, call.rows.window);
    return prefill::plan_form<small_form<width>>(call.rows, call.heads, call.kv_heads, context_max,
                                                 multiprocessor_count);
}

template <typename Half, typename... Rest>
void launch_for(const attention_call& call, int32_t decode_rows, const attention_prefill_plan& plan,
                Rest... rest) {
    if (call.key_width == 64)
        plan.has_large_tiles
            ? prefill::launch_form<large_form<64>, Half>(call, decode_rows, plan, rest...)
            : prefill::launch_form<small_form<64>, Half>(call, decode_rows, plan, rest...);
    else
        plan.has_large_tiles
            ? prefill::launch_form<large_form<128>, Half>(call, decode_rows, plan, rest...)
            : prefill::launch_form<small_form<128>, Half>(call, decode_rows, plan, rest...);
}

} // namespace

bool fits_attention_prefill_sm90(const attention_call& call) {
    return tensor_map_encoder() != nullptr && fits_attention_matrix(call)
           && (call.key_width == 64 || call.key_width == 128) && call.softcap == 0
           && call.rows.tokens_per_block % 8 == 0;
}

attention_prefill_plan plan_attention_prefill_sm90(const attention_call& call, int64_t context_max,
                                                   int multiprocessor_count) {
    return call.key_width == 64 ? plan_width<64>(call, context_max, multiprocessor_count)
                                : plan_width<128>(call, context_max, multiprocessor_count);
}

void launch_attention_prefill_sm90(const attention_call& call, int32_t decode_rows,
                                   const attention_prefill_plan& plan, float* partial,
                                   int32_t* counters, int multiprocessor_count,
                                   cudaStream_t stream) {
    if (call.rows.rows == 0) return;
    if (call.q_type == SLUICE_BF16)
        launch_for<__nv_bfloat16>(call, decode_rows, plan, partial, counters, multiprocessor_count,
                                  stream);
    else
        launch_for<__half>(call, decode_rows, plan, partial, counters, multiprocessor_count,
                           stream);
}

} // namespace sluice::cuda
