#include "library_matmul.hpp"

#include "kernels/bfloat16.hpp"

#include <algorithm>
#include <cstring>
#include <oneapi/dnnl/dnnl.hpp>

#if DNNL_CPU_THREADING_RUNTIME == DNNL_RUNTIME_OMP
#include <omp.h>
#endif

namespace sluice::onednn {

namespace {

constexpr int64_t rows_per_tile = 16; // what one worker packs at once

// Workers share the work themselves: inside each, oneDNN is told one thread.
void use_one_thread() {
#if DNNL_CPU_THREADING_RUNTIME == DNNL_RUNTIME_OMP
    omp_set_num_threads(1);
#endif
}

dnnl::matmul make_primitive(const dnnl::engine& engine, int64_t m, int64_t k, int64_t n) {
    using tag = dnnl::memory::format_tag;
    using type = dnnl::memory::data_type;
    const dnnl::memory::desc source({m, k}, type::bf16, tag::ab);
    const dnnl::memory::desc weights({k, n}, type::bf16, tag::BA16a32b2a);
    const dnnl::memory::desc target({m, n}, type::f32, tag::ab);
    dnnl::primitive_attr attributes;
    attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
#if DNNL_VERSION_MAJOR >= 3
    return dnnl::matmul({engine, source, weights, target, attributes});
#else
    return dnnl::matmul({dnnl::matmul::desc(source, weights, target), attributes, engine});
#endif
}

} // namespace

struct library_product::primitives {
    struct one {
        dnnl::matmul run;
        dnnl::memory::desc source, weights, target, scratch;
    };
    dnnl::engine engine{dnnl::engine::kind::cpu, 0};
    std::array<std::array<one, column_runs.size()>, row_buckets.size()> of; // [bucket][run]
    size_t scratch_bytes = 0;

    explicit primitives(int64_t k) {
        for (size_t b = 0; b < row_buckets.size(); ++b)
            for (size_t r = 0; r < column_runs.size(); ++r) {
                auto& made = of[b][r];
                made.run = make_primitive(engine, row_buckets[b], k, column_runs[r]);
                const dnnl::matmul::primitive_desc described(
                    const_cast<dnnl_primitive_desc_t>(made.run.get_primitive_desc()));
                made.source = described.src_desc();
                made.weights = described.weights_desc();
                made.target = described.dst_desc();
                made.scratch = described.scratchpad_desc();
                scratch_bytes = std::max(scratch_bytes, made.scratch.get_size());
            }
    }
};

library_product::library_product(int64_t k)
    : k_(k), primitives_([k] {
          use_one_thread();
          return std::make_unique<const primitives>(k);
      }()) {}
library_product::~library_product() = default;

kernels::packed_rows_layout library_product::rows_layout(int64_t m, int64_t k) {
    auto layout =
        kernels::make_packed_rows_layout(kernels::float_type::bfloat16, m, k, rows_per_tile);
    layout.total_bytes = (m + row_bucket_max) * layout.row_bytes();
    return layout;
}

void library_product::pack_rows(const kernels::packed_rows_layout& layout,
                                const kernels::row_source& source, int64_t tile_begin,
                                int64_t tile_end, std::byte* destination) {
    auto* target = reinterpret_cast<uint16_t*>(destination);
    const int64_t first = layout.tile_begin(tile_begin);
    const int64_t last = layout.tile_begin(tile_end - 1) + layout.tile_height(tile_end - 1);
    for (int64_t m = first; m < last; ++m) {
        const int64_t row = source.row_index == nullptr ? m : source.row_index[m];
        uint16_t* to = target + m * layout.k;
        if (source.type == kernels::float_type::bfloat16) {
            const auto* from = static_cast<const uint16_t*>(source.data) + row * source.row_stride;
            std::copy_n(from, layout.k, to);
        } else {
            const auto* from = static_cast<const float*>(source.data) + row * source.row_stride;
            for (int64_t k = 0; k < layout.k; ++k) to[k] = kernels::bfloat16_from_float(from[k]);
        }
    }
}

const library_product& library_products::of(int64_t k) {
    const std::lock_guard lock(mutex_);
    auto& made = made_[k];
    if (made == nullptr) made = std::make_unique<const library_product>(k);
    return *made;
}

int64_t library_product::scratch_bytes() const {
    return row_bucket_max * column_runs[0] * 4 + 64
           + static_cast<int64_t>(primitives_->scratch_bytes);
}

void library_product::multiply(const kernels::packed_matrix_view& weights,
                               const kernels::packed_rows_view& rows, int64_t block_begin,
                               int64_t block_end, float* output, int64_t output_row_stride,
                               std::byte* scratch) const {
    use_one_thread();
    for (int64_t block = block_begin; block < block_end;) {
        const int64_t wide = column_runs[0] / kernels::block_width;
        const size_t run = block_end - block >= wide ? 0 : 1;
        multiply_run(weights, rows, block, run, output, output_row_stride, scratch);
        block += column_runs[run] / kernels::block_width;
    }
}

void library_product::multiply_run(const kernels::packed_matrix_view& weights,
                                   const kernels::packed_rows_view& rows, int64_t block, size_t run,
                                   float* output, int64_t output_row_stride,
                                   std::byte* scratch) const {
    const dnnl::engine& engine = primitives_->engine;
    dnnl::stream stream(engine);
    auto* room = reinterpret_cast<float*>(scratch);
    std::byte* library_scratch = scratch + row_bucket_max * column_runs[0] * 4;
    const int64_t column = block * kernels::block_width;
    const int64_t columns = std::min(column_runs[run], weights.layout.n - column);
    auto* packed = reinterpret_cast<const uint16_t*>(rows.data);
    for (int64_t first = 0; first < rows.layout.m; first += row_bucket_max) {
        const int64_t count = std::min(row_bucket_max, rows.layout.m - first);
        const auto bucket = static_cast<size_t>(
            std::lower_bound(row_buckets.begin(), row_buckets.end(), count) - row_buckets.begin());
        const auto& chosen = primitives_->of[bucket][run];
        // oneDNN takes what it only reads by a pointer that is not const.
        dnnl::memory source(chosen.source, engine,
                            const_cast<uint16_t*>(packed + first * rows.layout.k));
        dnnl::memory weight(chosen.weights, engine, const_cast<std::byte*>(weights.block(block)));
        dnnl::memory target(chosen.target, engine, room);
        dnnl::memory scratchpad(chosen.scratch, engine, library_scratch);
        chosen.run.execute(stream, {{DNNL_ARG_SRC, source},
                                    {DNNL_ARG_WEIGHTS, weight},
                                    {DNNL_ARG_DST, target},
                                    {DNNL_ARG_SCRATCHPAD, scratchpad}});
        stream.wait();
        for (int64_t m = 0; m < count; ++m)
            std::memcpy(output + (first + m) * output_row_stride + column,
                        room + m * column_runs[run], static_cast<size_t>(columns) * sizeof(float));
    }
}

} // namespace sluice::onednn
