#include "weights.hpp"

#include "plain/stored_matrix.hpp"

#include <atomic>
#include <cstring>

namespace sluice::cuda {

namespace {

constexpr uint32_t matrix_roles =
    SLUICE_ROLE_LINEAR | SLUICE_ROLE_GROUPED | SLUICE_ROLE_EMBEDDING | SLUICE_ROLE_LATENT;

bool is_signed_code(sluice_element_type type) { return type == SLUICE_I4 || type == SLUICE_I8; }
bool is_code(sluice_element_type type) {
    return is_signed_code(type) || type == SLUICE_U4 || type == SLUICE_U8;
}
bool is_float(sluice_element_type type) {
    return type == SLUICE_F32 || type == SLUICE_F16 || type == SLUICE_BF16;
}

// Whether the codes fit the tiles: whole tiles, groups of whole tiles in order, one scale a row.
bool fits_tiles(const sluice_weight_source& source, int64_t group_columns) {
    const auto& format = *source.format;
    if (!is_code(format.element_type) || !is_float(format.scale_type)
        || format.global_scale_type != SLUICE_ELEMENT_UNKNOWN || format.group_index != 0
        || format.group_rows > 1)
        return false;
    if (is_signed_code(format.element_type) && format.zero_point == SLUICE_ZERO_MIDDLE)
        return false;
    if (source.row_count % tile_rows != 0 || source.column_count % tile_columns != 0
        || group_columns % tile_columns != 0 || source.column_count % group_columns != 0)
        return false;
    for (uint64_t i = 0; i < source.slice_count; ++i)
        if (plugin::read(source.slices[i], "sluice_weight_slice").column_begin != 0) return false;
    return true;
}

// Codes are kept unsigned.
float code_shift(const sluice_weight_format& format) {
    if (format.element_type == SLUICE_I4) return 8;
    return format.element_type == SLUICE_I8 ? 128 : 0;
}

uint64_t element_bytes(weight_storage storage) {
    return storage == weight_storage::float32 ? 4 : 2;
}

// Rows of float elements, as they are stored or decoded to float32.
void fill_float_rows(const sluice_weight_source& source, const plain::source_rows& rows,
                     weight_storage storage, int64_t first, int64_t count, std::byte* target,
                     const plugin::host& host) {
    const bool converts = storage == weight_storage::float32
                          && (source.format->element_type != SLUICE_F32
                              || source.format->scale_type != SLUICE_ELEMENT_UNKNOWN);
    const uint64_t size = element_bytes(storage);
    const auto row_bytes = static_cast<uint64_t>(source.column_count) * size;
    host.run([&](const plugin::worker& self) {
        const auto range = self.share(count);
        for (int64_t i = range.begin; i < range.end; ++i) {
            std::byte* row = target + static_cast<uint64_t>(i) * row_bytes;
            const auto at = rows.find(first + i);
            const std::byte* stored = at.stored.float_row(at.row);
            if (converts || stored == nullptr)
                rows.read(first + i, reinterpret_cast<float*>(row));
            else
                std::memcpy(row, stored + static_cast<uint64_t>(at.column_begin) * size, row_bytes);
        }
    });
}

// One row tile's codes for all columns, in the order of view.hpp.
void fill_tile_row(const sluice_weight_source& source, const plain::source_rows& rows,
                   weight_storage storage, int64_t first_row, std::byte* target) {
    const auto shift = static_cast<int>(code_shift(*source.format));
    std::vector<uint8_t> codes(static_cast<size_t>(tile_rows * source.column_count));
    for (int64_t r = 0; r < tile_rows; ++r) {
        const auto at = rows.find(first_row + r);
        uint8_t* row = codes.data() + r * source.column_count;
        at.stored.codes(at.row, at.column_begin, source.column_count, shift, row);
    }
    auto* words = reinterpret_cast<uint32_t*>(target);
    for (int64_t k0 = 0; k0 < source.column_count; k0 += tile_columns)
        for (int64_t lane = 0; lane < 32; ++lane)
            for (int64_t step = 0; step < 4; ++step) {
                const uint8_t* base =
                    codes.data() + lane / 4 * source.column_count + k0 + 16 * step + lane % 4 * 2;
                const int64_t tile = k0 / tile_columns;
                uint8_t pair[4][2];
                for (int64_t i = 0; i < 4; ++i)
                    for (int64_t odd = 0; odd < 2; ++odd)
                        pair[i][odd] = base[i % 2 * 8 * source.column_count + i / 2 * 8 + odd];
                if (storage == weight_storage::int4) {
                    uint32_t word = 0;
                    for (int64_t i = 0; i < 4; ++i)
                        word |= static_cast<uint32_t>(pair[i][0]) << (4 * i)
                                | static_cast<uint32_t>(pair[i][1]) << (4 * i + 16);
                    words[tile * 128 + lane * 4 + step] = word;
                } else {
                    std::byte* at =
                        target + tile * 1024 + step / 2 * 512 + lane * 16 + step % 2 * 8;
                    std::memcpy(at, pair, 8);
                }
            }
}

void fill_tiles(const sluice_weight_source& source, const plain::source_rows& rows,
                weight_storage storage, int64_t first_tile_row, int64_t count, std::byte* target,
                const plugin::host& host) {
    const int64_t row_bytes =
        source.column_count * tile_rows / (storage == weight_storage::int4 ? 2 : 1);
    host.run([&](const plugin::worker& self) {
        const auto range = self.share(count);
        for (int64_t i = range.begin; i < range.end; ++i)
            fill_tile_row(source, rows, storage, (first_tile_row + i) * tile_rows,
                          target + i * row_bytes);
    });
}

void put_scale(sluice_element_type type, std::byte* target, int64_t index, float value) {
    plugin::tensor one;
    one.data = target;
    one.type = type;
    plain::put(one, index, value);
}

// visit(stored matrix, its row, group, place) for every scale of a row tile, places as in view.hpp.
template <typename Visit>
void each_scale(const plain::source_rows& rows, int64_t tile_row, int64_t group_count,
                Visit&& visit) {
    for (int64_t r = 0; r < tile_rows; ++r) {
        const auto at = rows.find(tile_row * tile_rows + r);
        for (int64_t group = 0; group < group_count; ++group)
            visit(at.stored, at.row, group, group * tile_rows + r % 8 * 2 + r / 8);
    }
}

} // namespace

weight_plan plan_weight(const sluice_weight_source& source, uint32_t roles) {
    const auto& format = *source.format;
    weight_plan plan;
    plan.keeps_matrix = (roles & matrix_roles) != 0;
    plan.keeps_values = (roles & ~matrix_roles) != 0 || roles == 0;
    const auto rows = static_cast<uint64_t>(source.row_count) * source.matrix_count;
    const auto elements = rows * static_cast<uint64_t>(source.column_count);
    if (plan.keeps_values) plan.value_bytes = elements * 4;
    if (!plan.keeps_matrix) return plan;
    plan.group_columns = format.group_columns == 0 ? source.column_count : format.group_columns;
    const bool is_latent = (roles & SLUICE_ROLE_LATENT) != 0;
    if (!is_latent && fits_tiles(source, plan.group_columns)) {
        const bool four = plugin::element_bits(format.element_type) == 4;
        plan.storage = four ? weight_storage::int4 : weight_storage::int8;
        plan.scale_type = format.scale_type;
        plan.has_zeros = is_signed_code(format.element_type)
                             ? format.zero_point != SLUICE_ZERO_NONE
                             : format.zero_point != SLUICE_ZERO_MIDDLE;
        const uint64_t scales =
            rows * static_cast<uint64_t>(source.column_count / plan.group_columns);
        plan.data_bytes = four ? elements / 2 : elements;
        plan.scale_bytes = scales * plugin::element_bits(format.scale_type) / 8;
        plan.zero_bytes = plan.has_zeros ? scales : 0;
        return plan;
    }
    plan.group_columns = 0;
    if (is_float(format.element_type) && format.scale_type == SLUICE_ELEMENT_UNKNOWN)
        plan.storage = format.element_type == SLUICE_F32    ? weight_storage::float32
                       : format.element_type == SLUICE_BF16 ? weight_storage::bfloat16
                                                            : weight_storage::float16;
    plan.data_bytes = elements * element_bytes(plan.storage);
    return plan;
}

std::string device_weight::describe() const {
    std::string text;
    if (view.data != nullptr) {
        switch (view.storage) {
        case weight_storage::float32:
            text = "f32 row-major";
            break;
        case weight_storage::bfloat16:
            text = "bf16 row-major";
            break;
        case weight_storage::float16:
            text = "f16 row-major";
            break;
        default:
            text = std::string(view.storage == weight_storage::int4 ? "int4" : "int8")
                   + " in tiles of 16 x 64, groups of " + std::to_string(view.group_columns);
            if (view.zeros != nullptr) text += ", zero points";
        }
    }
    if (values) text += text.empty() ? "f32 row-major" : ", and f32 row-major";
    return text;
}

// ---- Uploading ----

uploader::uploader(const device& owner) : owner_(owner) {
    for (auto& piece : staging_) piece = pinned_memory(owner, piece_bytes);
    for (auto& event : arrived_)
        check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "creating an event");
}

uploader::~uploader() {
    for (auto& event : arrived_) cudaEventDestroy(event);
}

std::byte* uploader::next(uint64_t size_bytes) {
    turn_ ^= 1;
    check(cudaEventSynchronize(arrived_[turn_]), "uploading a weight");
    if (size_bytes > staging_[turn_].size()) staging_[turn_] = pinned_memory(owner_, size_bytes);
    return staging_[turn_].as();
}

void uploader::send(std::byte* target, uint64_t size_bytes) {
    check(cudaMemcpyAsync(target, staging_[turn_].as(), size_bytes, cudaMemcpyHostToDevice,
                          owner_.setup_stream()),
          "uploading a weight");
    check(cudaEventRecord(arrived_[turn_], owner_.setup_stream()), "uploading a weight");
}

void uploader::finish() {
    check(cudaStreamSynchronize(owner_.setup_stream()), "uploading a weight");
}

namespace {

// Scales and, where they are not all in the middle, zero points.
void upload_groups(const device& owner, uploader& by, const plugin::host& host,
                   const sluice_weight_source& source, const plain::source_rows& rows,
                   const weight_plan& plan, device_weight& made) {
    const int64_t groups = source.column_count / plan.group_columns;
    const uint64_t scale_size = plugin::element_bits(plan.scale_type) / 8;
    const auto places = static_cast<uint64_t>(groups * tile_rows); // of one row tile
    made.scales = device_memory(owner, plan.scale_bytes, "weight scales");
    by.upload(made.scales.as(), plan.scale_bytes, places * scale_size,
              [&](std::byte* target, uint64_t at, uint64_t size) {
                  const auto first = static_cast<int64_t>(at / (places * scale_size));
                  const auto count = static_cast<int64_t>(size / (places * scale_size));
                  host.run([&](const plugin::worker& self) {
                      const auto range = self.share(count);
                      for (int64_t i = range.begin; i < range.end; ++i)
                          each_scale(
                              rows, first + i, groups,
                              [&](const auto& stored, int64_t row, int64_t group, int64_t place) {
                                  put_scale(plan.scale_type, target,
                                            i * static_cast<int64_t>(places) + place,
                                            stored.scale(row, group));
                              });
                  });
              });
    made.view.scales = made.scales.as();
    made.view.scale_type = plan.scale_type;
    if (!plan.has_zeros) return;
    const float shift = code_shift(*source.format);
    const uint8_t middle = plan.storage == weight_storage::int4 ? 8 : 128;
    std::vector<uint8_t> zeros(plan.zero_bytes);
    std::atomic<bool> all_in_the_middle{true};
    host.run([&](const plugin::worker& self) {
        const auto range = self.share(static_cast<int64_t>(plan.zero_bytes / places));
        for (int64_t tile = range.begin; tile < range.end; ++tile)
            each_scale(
                rows, tile, groups,
                [&](const auto& stored, int64_t row, int64_t group, int64_t place) {
                    const auto zero = static_cast<uint8_t>(stored.zero(row, group) + shift);
                    if (zero != middle) all_in_the_middle = false;
                    zeros[static_cast<uint64_t>(tile) * places + static_cast<uint64_t>(place)] =
                        zero;
                });
    });
    if (all_in_the_middle) return; // symmetric codes in a layout that has to write zero points
    made.zeros = device_memory(owner, plan.zero_bytes, "weight zero points");
    by.upload(made.zeros.as(), plan.zero_bytes, 1,
              [&](std::byte* target, uint64_t at, uint64_t size) {
                  std::memcpy(target, zeros.data() + at, size);
              });
    made.view.zeros = made.zeros.as<uint8_t>();
}

} // namespace

std::unique_ptr<device_weight> upload_weight(const device& owner, uploader& by,
                                             const plugin::host& host,
                                             const sluice_weight_source& source, uint32_t roles) {
    const weight_plan plan = plan_weight(source, roles);
    const plain::source_rows rows(source);
    owner.use();
    auto made = std::make_unique<device_weight>();
    made->matrix_count = source.matrix_count;
    made->row_count = source.row_count;
    made->column_count = source.column_count;
    const std::string purpose = "weight '" + std::string(plugin::view(source.name)) + "'";
    const auto upload_floats = [&](device_memory& target, weight_storage storage, uint64_t bytes) {
        target = device_memory(owner, bytes, purpose);
        const uint64_t row_bytes =
            static_cast<uint64_t>(source.column_count) * element_bytes(storage);
        by.upload(target.as(), bytes, row_bytes,
                  [&](std::byte* staging, uint64_t at, uint64_t size) {
                      fill_float_rows(source, rows, storage, static_cast<int64_t>(at / row_bytes),
                                      static_cast<int64_t>(size / row_bytes), staging, host);
                  });
    };
    if (plan.keeps_values) upload_floats(made->values, weight_storage::float32, plan.value_bytes);
    if (!plan.keeps_matrix) return made;

    made->view.storage = plan.storage;
    made->view.matrices = static_cast<int32_t>(source.matrix_count);
    made->view.rows = source.row_count;
    made->view.columns = source.column_count;
    made->view.group_columns = static_cast<int32_t>(plan.group_columns);
    if (plan.storage == weight_storage::int4 || plan.storage == weight_storage::int8) {
        made->data = device_memory(owner, plan.data_bytes, purpose);
        const auto tile_row_bytes = static_cast<uint64_t>(
            source.column_count * tile_rows / (plan.storage == weight_storage::int4 ? 2 : 1));
        by.upload(made->data.as(), plan.data_bytes, tile_row_bytes,
                  [&](std::byte* staging, uint64_t at, uint64_t size) {
                      fill_tiles(source, rows, plan.storage,
                                 static_cast<int64_t>(at / tile_row_bytes),
                                 static_cast<int64_t>(size / tile_row_bytes), staging, host);
                  });
        upload_groups(owner, by, host, source, rows, plan, *made);
    } else {
        upload_floats(made->data, plan.storage, plan.data_bytes);
    }
    made->view.data = made->data.as();
    return made;
}

} // namespace sluice::cuda
