#include "model/dummy_checkpoint.hpp"

#include "base/element_type.hpp"
#include "base/error.hpp"
#include "base/text.hpp"

#include <algorithm>
#include <cstring>
#include <mutex>

namespace sluice {
namespace {

constexpr uint64_t tensor_bytes_max = uint64_t(16) << 30;
constexpr float standard_deviation = 0.02f;
constexpr uint64_t offset_step_bytes = 64;     // a cache line, and aligned for every element type
constexpr uint64_t offset_steps = 1024;        // so that tensors of one shape differ
constexpr size_t pattern_elements = 1'048'573; // a prime: the repeats line up with no row length

// SplitMix64 (Steele, Lea and Flood, 2014): one independent value per counter.
uint64_t mixed(uint64_t counter) {
    uint64_t value = counter + 0x9e3779b97f4a7c15u;
    value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9u;
    value = (value ^ (value >> 27)) * 0x94d049bb133111ebu;
    return value ^ (value >> 31);
}

// Near normal with mean 0 and deviation 1: the sum of four 16-bit uniforms (variance 1/3).
float near_normal(uint64_t counter) {
    uint64_t bits = mixed(counter);
    int64_t sum = 0;
    for (int i = 0; i < 4; ++i) sum += int64_t((bits >> (16 * i)) & 0xffff);
    return (float(sum) / 65536.0f - 2.0f) * 1.7320508f;
}

uint64_t hash_of(std::string_view name) {
    uint64_t hash = 0xcbf29ce484222325u; // FNV-1a
    for (char character : name) {
        hash = (hash ^ static_cast<unsigned char>(character)) * 0x100000001b3u;
    }
    return mixed(hash);
}

using buffer = std::vector<std::byte>;

// `size_bytes` of values mean + deviation * normal, a pattern repeated.
std::shared_ptr<const buffer> make_buffer(sluice_element_type type, uint64_t size_bytes,
                                          float mean) {
    size_t element_bytes = element_bits(type) / 8;
    size_t count = std::min<size_t>(pattern_elements, size_bytes / element_bytes + 1);
    std::vector<float> values(count);
    for (size_t i = 0; i < count; ++i) values[i] = mean + standard_deviation * near_normal(i);
    buffer pattern(count * element_bytes);
    convert_from_f32(type, values.data(), pattern.data(), count);
    auto bytes = std::make_shared<buffer>(size_bytes);
    for (size_t at = 0; at < bytes->size(); at += pattern.size()) {
        std::memcpy(bytes->data() + at, pattern.data(),
                    std::min(pattern.size(), bytes->size() - at));
    }
    return bytes;
}

class dummy_checkpoint final : public checkpoint {
  public:
    dummy_checkpoint(const std::filesystem::path& path, sluice_element_type type)
        : checkpoint(path), type_(type) {
        if (type != SLUICE_F32 && type != SLUICE_F16 && type != SLUICE_BF16) {
            fail(SLUICE_INVALID, "{}: dummy weights: expected f32, f16 or bf16, found {}",
                 directory_.string(), element_type_name(type));
        }
        ties_embeddings_ = config().boolean("tie_word_embeddings", false);
    }

    bool is_dummy() const override { return true; }

    bool contains(std::string_view name) const override {
        if (name == "lm_head.weight") return !ties_embeddings_;
        return name.ends_with(".weight");
    }

    tensor_view tensor(std::string_view name,
                       std::span<const int64_t> expected_shape) const override {
        std::optional<uint64_t> size_bytes = tensor_bytes(type_, expected_shape);
        if (!size_bytes || *size_bytes > tensor_bytes_max) {
            fail(SLUICE_EXHAUSTED,
                 "{}: dummy tensor {}: expected at most {}, found the shape {}; check config.json",
                 directory_.string(), quote(name, 160), bytes_text(tensor_bytes_max),
                 shape_text(expected_shape));
        }
        bool is_norm = expected_shape.size() <= 1 && name.find("norm") != std::string_view::npos;
        uint64_t offset = hash_of(name) % offset_steps * offset_step_bytes;
        std::shared_ptr<const buffer> source = buffer_of(is_norm ? around_one_ : around_zero_,
                                                         offset + *size_bytes, is_norm ? 1.f : 0.f);
        tensor_view view;
        view.name = name;
        view.element_type = type_;
        view.shape.assign(expected_shape.begin(), expected_shape.end());
        view.bytes = std::span<const std::byte>(*source).subspan(offset, *size_bytes);
        view.file = "dummy weights";
        view.owner = std::move(source);
        return view;
    }

    std::optional<tensor_view> find(std::string_view) const override { return std::nullopt; }
    std::vector<std::string> names() const override { return {}; }
    std::map<std::string, element_type_total> totals() const override { return {}; }

  private:
    // The buffer, replaced by a larger one when it is too small. Views of the old one keep it
    // alive; at least doubling bounds what all of them take to twice the largest.
    std::shared_ptr<const buffer> buffer_of(std::shared_ptr<const buffer>& held,
                                            uint64_t size_bytes, float mean) const {
        std::lock_guard lock(mutex_);
        uint64_t held_bytes = held ? held->size() : 0;
        if (held_bytes < size_bytes) {
            uint64_t wanted = std::max(size_bytes, std::min(held_bytes * 2, tensor_bytes_max));
            held = make_buffer(type_, wanted, mean);
        }
        return held;
    }

    sluice_element_type type_;
    bool ties_embeddings_ = false;
    mutable std::mutex mutex_;
    mutable std::shared_ptr<const buffer> around_zero_, around_one_;
};

} // namespace

std::shared_ptr<const checkpoint> make_dummy_checkpoint(const std::filesystem::path& path,
                                                        sluice_element_type element_type) {
    return std::make_shared<dummy_checkpoint>(path, element_type);
}

} // namespace sluice
