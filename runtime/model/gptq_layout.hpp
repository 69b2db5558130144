// How Hugging Face GPTQ checkpoints store a quantized linear layer of K input and N output
// features:
//
//   <prefix>.qweight  int32 [K * bits / 32, N]       32 / bits values of one column in a word, the
//                                                    lowest bits first, consecutive in K
//   <prefix>.qzeros   int32 [groups, N * bits / 32]  likewise, consecutive in N
//   <prefix>.scales   f16, bf16 or f32 [groups, N]
//   <prefix>.g_idx    int32 [K]                      the group of each input feature
//   <prefix>.bias     as in unquantized layers
//
// weight[n, k] = scales[g, n] * (q[n, k] - zero[n, g]) with g = g_idx[k], and groups = K /
// group_size rounded up. Checkpoint format gptq stores zero - 1, gptq_v2 stores zero. The layout
// has linear layers only: embeddings, norms and routers stay in their 16-bit tensors, beside these.
#pragma once

#include "model/checkpoint.hpp"
#include "model/gptq_config.hpp"

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace sluice {

// groups = K / group_size, rounded up; group_size -1 is one group.
int64_t gptq_group_count(int64_t group_size, int64_t input_features);

// One module's tensors as they lie in the file, checked: types, shapes, and every g_idx in range.
struct gptq_module {
    std::string name; // the prefix
    gptq_parameters parameters;
    gptq_format format = gptq_format::gptq;
    int64_t output_features = 0; // N
    int64_t input_features = 0;  // K
    int64_t groups = 0;
    tensor_view qweight, qzeros, scales;
    std::optional<tensor_view> g_idx; // nothing: groups follow position

    int64_t group_of(int64_t k) const;
    uint32_t quantized(int64_t n, int64_t k) const;      // 0 to 2^bits - 1
    uint32_t zero_point(int64_t n, int64_t group) const; // 0 to 2^bits - 1
    float scale(int64_t n, int64_t group) const;
    bool has_sequential_groups() const; // whether g_idx says no more than position does
};

// Whether the module `prefix` ("model.layers.0.mlp.up_proj") is stored quantized.
bool has_gptq_module(const checkpoint& model, std::string_view prefix);

// The module's tensors, whose shapes must be those of N and K. Fails with INVALID, naming file and
// tensor, when they are not, or when the configuration says that the module is not quantized.
gptq_module open_gptq_module(const checkpoint& model, const gptq_config& config,
                             std::string_view prefix, int64_t output_features,
                             int64_t input_features);

// The values apart from their packing.
struct gptq_unpacked {
    std::vector<uint8_t> quantized;   // [N, K]
    std::vector<uint8_t> zeros;       // [N, groups]
    std::vector<float> scales;        // [N, groups]
    std::vector<int32_t> group_index; // [K]
};
gptq_unpacked gptq_unpack(const gptq_module& module);

// The formula above, literally, for rows [row_begin, row_end) of N and columns [column_begin,
// column_end) of K: the oracle for faster readers. `target` [rows, columns] row-major.
void gptq_dequantize(const gptq_module& module, int64_t row_begin, int64_t row_end,
                     int64_t column_begin, int64_t column_end, std::span<float> target);

// A module ready to be written.
struct gptq_packed {
    std::vector<int32_t> qweight;  // [K * bits / 32, N]
    std::vector<int32_t> qzeros;   // [groups, N * bits / 32]
    std::vector<std::byte> scales; // [groups, N]
    std::vector<int32_t> g_idx;    // [K]
};

// Packs `quantized` [N, K], `zeros` [N, groups] and `scales` [N, groups]; scales are rounded to
// `scale_type` (f16, bf16 or f32). `group_index` [K] may be empty: groups by position. N and K must
// be multiples of 32 / bits. Fails with INVALID for values that do not fit: among them scales
// beyond the type, and zero point 0 in format gptq, whose readers disagree on it (use gptq_v2).
gptq_packed gptq_pack(const gptq_parameters& parameters, gptq_format format,
                      int64_t output_features, int64_t input_features,
                      std::span<const uint8_t> quantized, std::span<const uint8_t> zeros,
                      std::span<const float> scales, sluice_element_type scale_type,
                      std::span<const int32_t> group_index = {});

// The packed values as a module, which borrows them.
gptq_module gptq_view(std::string name, const gptq_parameters& parameters, gptq_format format,
                      int64_t output_features, int64_t input_features,
                      sluice_element_type scale_type, const gptq_packed& packed);

// The two steps of writing a module through safetensors_writer.
void declare_gptq_module(safetensors_writer& writer, const std::string& prefix,
                         const gptq_parameters& parameters, int64_t output_features,
                         int64_t input_features, sluice_element_type scale_type);
void append_gptq_module(safetensors_writer& writer, const std::string& prefix,
                        const gptq_packed& packed);

} // namespace sluice
