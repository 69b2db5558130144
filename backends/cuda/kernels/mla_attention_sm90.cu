// Multi-head latent attention of many rows of a sequence in the expanded form, with wgmma: keys and
// values of each head are made from the latents once, then attended to like any others. A key's
// rotated part, which all heads share, stays in the cache.
#include "attention_prefill_sm90.cuh"
#include "launch.cuh"
#include "mla_attention.hpp"
#include "product.hpp"
#include "tensor_map.hpp"

namespace sluice::cuda {

namespace {

constexpr int nope = 128, rope = 64, value_width = 128, latent = 512;
// Sequences get room for whole turns of places.
using expanded_form = prefill::form<nope + rope, value_width, 2, 128, 2, rope>;
constexpr int step_places = expanded_form::places;
// From about so many rows on, expanding a sequence's places costs less than it saves.
constexpr int32_t rows_min = 64;
constexpr uint64_t scratch_bytes_max = uint64_t{256} << 20;
constexpr int64_t places_wanted = 16384;
constexpr int gather_threads = 256;

struct gather_arguments {
    mla_attention_call call;
    int32_t places;     // that there is room for
    int32_t* begin;     // [sequences]
    int32_t* offset;    // [2]: 0 and how many places there are
    int32_t* rows_left; // rows of sequences that are not chosen
    uint4* gathered;    // [places, latent] halves
};

// Chooses the sequences, as many as there is room for, and brings their latents together. Each
// block finds out for itself where sequences begin.
__global__ void __launch_bounds__(gather_threads) gather_latents_kernel(gather_arguments a) {
    extern __shared__ int32_t gather_room[]; // [sequences + 1]: where each begins if all fit
    const attended_rows& rows = a.call.rows;
    const int thread = static_cast<int>(threadIdx.x), lane = thread % 32;
    const int32_t capacity = rows.block_columns * rows.tokens_per_block;
    if (thread < 32) {
        int32_t before = 0, rows_left = 0;
        for (int32_t from = 0; from < rows.sequences; from += 32) {
            const int32_t s = from + lane;
            int32_t count = 0, sum = 0; // rows, places
            if (s < rows.sequences)
                count = __ldg(rows.query_start + s + 1) - __ldg(rows.query_start + s);
            if (count >= rows_min)
                sum = (min(__ldg(rows.kv_length + s), capacity) + step_places - 1) / step_places
                      * step_places;
            const int32_t own = sum;
            for (int distance = 1; distance < 32; distance *= 2) {
                const int32_t other = __shfl_up_sync(0xFFFFFFFFu, sum, distance);
                if (lane >= distance) sum += other;
            }
            if (s < rows.sequences) {
                gather_room[s] = before + sum - own;
                const bool is_chosen = own > 0 && before + sum <= a.places;
                if (!is_chosen) rows_left += count;
                if (blockIdx.x == 0) a.begin[s] = is_chosen ? before + sum - own : -1;
            }
            before += __shfl_sync(0xFFFFFFFFu, sum, 31);
        }
        rows_left = __reduce_add_sync(0xFFFFFFFFu, rows_left);
        if (lane == 0) {
            gather_room[rows.sequences] = before;
            if (blockIdx.x == 0) *a.rows_left = rows_left;
        }
    }
    __syncthreads();
    // The sequences that fit are the first ones; the places of those end where the next begins.
    const auto sequence_at = [&](int32_t place) { // the last that begins there or before
        int32_t low = 0, high = rows.sequences;
        while (high - low > 1) {
            const int32_t middle = (low + high) / 2;
            if (gather_room[middle] <= place)
                low = middle;
            else
                high = middle;
        }
        return low;
    };
    const int32_t whole = gather_room[rows.sequences];
    const int32_t count = whole <= a.places ? whole : gather_room[sequence_at(a.places)];
    if (blockIdx.x == 0 && thread == 0) {
        a.offset[0] = 0;
        a.offset[1] = count;
    }
    constexpr int vectors = latent / 8;
    const auto warps = static_cast<int32_t>(gridDim.x * gather_threads / 32);
    for (auto place = static_cast<int32_t>(blockIdx.x * gather_threads / 32) + thread / 32;
         place < count; place += warps) {
        const int32_t s = sequence_at(place), at = place - gather_room[s];
        const int32_t length = min(__ldg(rows.kv_length + s), capacity);
        const int32_t slot =
            at < length
                ? slot_of(rows, rows.block_table + static_cast<int64_t>(s) * rows.block_columns, at)
                : -1;
#pragma unroll
        for (int i = lane; i < vectors; i += 32)
            a.gathered[static_cast<int64_t>(place) * vectors + i] =
                slot >= 0 ? __ldg(static_cast<const uint4*>(a.call.latents)
                                  + static_cast<int64_t>(slot) * vectors + i)
                          : make_uint4(0, 0, 0, 0);
    }
}

product_call expansion(const mla_attention_call& call, const weight_view& up,
                       const mla_expanded_plan& plan, std::byte* scratch, uint64_t to) {
    product_call product;
    product.x = scratch + plan.gathered_at;
    product.x_type = product.y_type = call.latent_type;
    product.offset = reinterpret_cast<const int32_t*>(scratch + plan.offset_at);
    product.places = plan.places;
    product.weight = up;
    product.weight.matrices = 1; // the heads' rows one after another
    product.weight.rows = up.rows * up.matrices;
    product.y = scratch + to;
    return product;
}

} // namespace

mla_expanded_plan plan_mla_expanded(const mla_attention_call& call, int64_t context_max,
                                    int multiprocessor_count) {
    mla_expanded_plan plan;
    if (tensor_map_encoder() == nullptr || !fits_mla_attention_matrix(call) || call.nope != nope
        || call.rope != rope || call.value_width != value_width || call.latent != latent
        || call.rows.tokens_per_block % 8 != 0 || call.rows.rows < 2 * rows_min
        || (call.o_type != call.q_nope_type && call.o_type != SLUICE_F32))
        return plan;
    const uint64_t place_bytes = 2 * (latent + uint64_t(call.heads) * (nope + value_width));
    // Rows of earlier steps are places too: some more than the rows of this one.
    int64_t places = std::max(4 * int64_t{call.rows.rows}, places_wanted);
    if (context_max > 0) places = std::min(places, context_max * call.rows.sequences);
    places = std::min<int64_t>(places, scratch_bytes_max / place_bytes);
    places = round_up(std::max<int64_t>(places, call.rows.rows), step_places);
    plan.places = static_cast<int32_t>(places);
    uint64_t at = 0;
    const auto take = [&](uint64_t bytes) {
        const uint64_t begin = at;
        at = static_cast<uint64_t>(round_up(static_cast<int64_t>(at + bytes), 256));
        return begin;
    };
    const auto count = static_cast<uint64_t>(places);
    plan.begin_at = take(sizeof(int32_t) * static_cast<uint64_t>(call.rows.sequences));
    plan.offset_at = take(2 * sizeof(int32_t));
    plan.rows_left_at = take(sizeof(int32_t));
    plan.gathered_at = take(count * latent * 2);
    plan.keys_at = take(count * static_cast<uint64_t>(call.heads) * nope * 2);
    plan.values_at = take(count * static_cast<uint64_t>(call.heads) * value_width * 2);
    plan.attention = prefill::plan_form<expanded_form>(call.rows, call.heads, call.heads,
                                                       context_max, multiprocessor_count);
    plan.partial_at = take(plan.attention.partial_floats * sizeof(float));
    plan.scratch_bytes = at;
    if (!fits_product_many(expansion(call, call.key_up, plan, nullptr, plan.keys_at))
        || !fits_product_many(expansion(call, call.value_up, plan, nullptr, plan.values_at)))
        return {};
    return plan;
}

expanded_rows expanded_rows_of(const mla_expanded_plan& plan, const std::byte* scratch) {
    return {reinterpret_cast<const int32_t*>(scratch + plan.begin_at),
            reinterpret_cast<const int32_t*>(scratch + plan.rows_left_at)};
}

void launch_mla_gather(const mla_attention_call& call, const mla_expanded_plan& plan,
                       std::byte* scratch, int multiprocessor_count, cudaStream_t stream) {
    gather_arguments a{call,
                       plan.places,
                       reinterpret_cast<int32_t*>(scratch + plan.begin_at),
                       reinterpret_cast<int32_t*>(scratch + plan.offset_at),
                       reinterpret_cast<int32_t*>(scratch + plan.rows_left_at),
                       reinterpret_cast<uint4*>(scratch + plan.gathered_at)};
    launch_kernel("bringing latents together", gather_latents_kernel,
                  dim3(static_cast<unsigned>(2 * multiprocessor_count)), dim3(gather_threads),
                  sizeof(int32_t) * static_cast<size_t>(call.rows.sequences + 1), stream, a);
}

void launch_mla_attention_expanded(const mla_attention_call& call, const mla_expanded_plan& plan,
                                   std::byte* scratch, int32_t* counters, int multiprocessor_count,
                                   cudaStream_t stream) {
    launch_product_many(expansion(call, call.key_up, plan, scratch, plan.keys_at), true,
                        multiprocessor_count, stream);
    launch_product_many(expansion(call, call.value_up, plan, scratch, plan.values_at), true,
                        multiprocessor_count, stream);
    check(cudaGetLastError(), "expanding latents");
    attention_call attention;
    attention.rows = call.rows;
    attention.q = call.q_nope;
    attention.keys = scratch + plan.keys_at;
    attention.values = scratch + plan.values_at;
    attention.q_type = attention.key_type = attention.value_type = call.q_nope_type;
    attention.o = call.o;
    attention.o_type = call.o_type;
    attention.heads = attention.kv_heads = call.heads;
    attention.key_width = nope + rope;
    attention.value_width = value_width;
    attention.scale = call.scale;
    const prefill::expanded_source source{call.q_pe, call.rope_keys,
                                          expanded_rows_of(plan, scratch).begin};
    auto* partial = reinterpret_cast<float*>(scratch + plan.partial_at);
    const auto launch = call.q_nope_type == SLUICE_BF16
                            ? prefill::launch_form<expanded_form, __nv_bfloat16>
                            : prefill::launch_form<expanded_form, __half>;
    launch(attention, 0, plan.attention, partial, counters, multiprocessor_count, stream, source);
}

} // namespace sluice::cuda
