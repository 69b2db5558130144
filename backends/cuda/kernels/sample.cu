// A row of a vocabulary is long and rows are few: many blocks read pieces of each row once, and a
// warp for each row puts their results together.
#include "sample.hpp"

#include "launch.cuh"
#include "reduce.cuh"
#include "vectors.cuh"

#include <sluice/abi/tensor.h>

namespace sluice::cuda {

namespace {

constexpr int threads = 256;
constexpr int logits_per_thread = 8;
constexpr int piece_width = threads * logits_per_thread;
constexpr unsigned rows_per_block = 4; // of the second kernel

// What one block found in its piece of a row.
struct piece {
    unsigned long long best; // rank_of() of the largest logit; 0 where none is finite
    float sum;               // of exp(logit - largest)
};

// Larger for what comes first; 0 for what is not finite.
__device__ __forceinline__ unsigned long long rank_of(float logit, int64_t place) {
    if (!isfinite(logit)) return 0;
    const uint32_t bits = __float_as_uint(logit == 0.0f ? 0.0f : logit); // one zero
    const uint32_t rising = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
    return static_cast<unsigned long long>(rising) << 32
           | (0xffffffffu - static_cast<uint32_t>(place));
}
__device__ __forceinline__ float logit_of(unsigned long long rank) {
    const auto rising = static_cast<uint32_t>(rank >> 32);
    return __uint_as_float((rising & 0x80000000u) != 0 ? rising & 0x7fffffffu : ~rising);
}
__device__ __forceinline__ int32_t place_of(unsigned long long rank) {
    return static_cast<int32_t>(0xffffffffu - static_cast<uint32_t>(rank));
}

// One block for each piece. in_fours: float32 in rows that begin at multiples of 16 bytes.
template <bool in_fours>
__global__ void __launch_bounds__(threads) find_pieces(sample_call call, piece* pieces) {
    constexpr int step = in_fours ? 4 : 1; // neighbouring logits that a thread reads at once
    const int64_t row = blockIdx.y;
    const int64_t begin = static_cast<int64_t>(blockIdx.x) * piece_width;
    float logits[logits_per_thread];
    unsigned long long best = 0;
#pragma unroll
    for (int i = 0; i < logits_per_thread; i += step) {
        const int64_t place = begin + (i / step * threads + static_cast<int>(threadIdx.x)) * step;
        const int64_t at = row * call.width + place;
        if constexpr (in_fours) {
            float4 four = make_float4(NAN, NAN, NAN, NAN);
            if (place < call.width)
                four =
                    *reinterpret_cast<const float4*>(static_cast<const float*>(call.logits) + at);
            logits[i] = four.x;
            logits[i + 1] = four.y;
            logits[i + 2] = four.z;
            logits[i + 3] = four.w;
        } else {
            logits[i] = place < call.width ? load_as_float(call.logits, call.logits_type, at) : NAN;
        }
#pragma unroll
        for (int j = 0; j < step; ++j) best = max(best, rank_of(logits[i + j], place + j));
    }
    best = reduce_block(best, larger_number{});
    const float largest = logit_of(best);
    float sum = 0;
#pragma unroll
    for (const float logit : logits) sum += isfinite(logit) ? expf(logit - largest) : 0.0f;
    sum = reduce_block(sum, add_numbers{});
    if (threadIdx.x == 0) pieces[row * gridDim.x + blockIdx.x] = {best, sum};
}

// One warp for each row.
__global__ void join_pieces(sample_call call, const piece* pieces, int64_t count) {
    const int64_t row = row_index();
    if (row >= call.rows) return;
    pieces += row * count;
    unsigned long long best = 0;
    for (int64_t i = threadIdx.x; i < count; i += 32) best = max(best, pieces[i].best);
    best = reduce_warp(best, larger_number{});
    const float largest = logit_of(best);
    double sum = 0;
    for (int64_t i = threadIdx.x; i < count; i += 32)
        if (pieces[i].best != 0)
            sum += static_cast<double>(pieces[i].sum * expf(logit_of(pieces[i].best) - largest));
    sum = reduce_warp(sum, add_numbers{});
    if (threadIdx.x != 0) return;
    call.token[row] = best == 0 ? -1 : place_of(best);
    if (call.log_probability != nullptr)
        call.log_probability[row] = best == 0 ? 0.0f : static_cast<float>(-log(sum));
}

int64_t piece_count(int64_t width) { return divide_up(width, piece_width); }

} // namespace

uint64_t sample_scratch_bytes(int64_t rows, int64_t width) {
    return static_cast<uint64_t>(rows * piece_count(width)) * sizeof(piece);
}

void launch_sample(const sample_call& call, cudaStream_t stream) {
    if (call.rows == 0) return;
    auto* pieces = static_cast<piece*>(call.scratch);
    const int64_t count = piece_count(call.width);
    const bool in_fours =
        call.logits_type == SLUICE_F32 && call.width % 4 == 0 && is_aligned(call.logits);
    launch_kernel("launching sample", in_fours ? find_pieces<true> : find_pieces<false>,
                  dim3(static_cast<unsigned>(count), static_cast<unsigned>(call.rows)),
                  dim3(threads), 0, stream, call, pieces);
    launch_kernel("launching sample", join_pieces,
                  dim3(static_cast<unsigned>(divide_up(call.rows, rows_per_block))),
                  dim3(32, rows_per_block), 0, stream, call, pieces, count);
}

} // namespace sluice::cuda
