#include "model/dummy_checkpoint.hpp"

#include "base/element_type.hpp"
#include "base/error.hpp"
#include "base/text.hpp"
#include "model/gptq_config.hpp"

#include <algorithm>
#include <cstring>
#include <mutex>

namespace sluice {
namespace {

constexpr uint64_t tensor_bytes_max = uint64_t(16) << 30;
constexpr float standard_deviation = 0.02f;
// Of embeddings: more than all layers add, so that what a token chooses (experts, the next token)
// depends on the token. Otherwise sequences soon repeat one token, and all rows of a step choose
// the same experts.
constexpr float embedding_deviation = 128.0f;
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

// Values mean + deviation * normal.
struct distribution {
    float mean = 0;
    float deviation = standard_deviation;
};

// `size_bytes` of random values, a pattern repeated.
std::shared_ptr<const buffer> make_buffer(sluice_element_type type, uint64_t size_bytes,
                                          distribution of) {
    size_t element_bytes = element_bits(type) / 8;
    size_t count = std::min<size_t>(pattern_elements, size_bytes / element_bytes + 1);
    std::vector<float> values(count);
    for (size_t i = 0; i < count; ++i) values[i] = of.mean + of.deviation * near_normal(i);
    buffer pattern(count * element_bytes);
    convert_from_f32(type, values.data(), pattern.data(), count);
    auto bytes = std::make_shared<buffer>(size_bytes);
    for (size_t at = 0; at < bytes->size(); at += pattern.size()) {
        std::memcpy(bytes->data() + at, pattern.data(),
                    std::min(pattern.size(), bytes->size() - at));
    }
    return bytes;
}

// `size_bytes` of random bits: codes of quantized weights, every one as likely.
std::shared_ptr<const buffer> make_codes(uint64_t size_bytes) {
    auto bytes = std::make_shared<buffer>((size_bytes + 7) / 8 * 8);
    for (uint64_t at = 0; at < bytes->size(); at += 8) {
        const uint64_t bits = mixed(at);
        std::memcpy(bytes->data() + at, &bits, sizeof bits);
    }
    return bytes;
}

// The middle zero point in every lane, as format gptq (one less) and gptq_v2 store it.
std::shared_ptr<const buffer> make_zero_points(uint64_t size_bytes, uint32_t bits,
                                               gptq_format format) {
    const int middle = (1 << (bits - 1)) - (format == gptq_format::gptq ? 1 : 0);
    const auto byte = static_cast<std::byte>(bits == 4 ? middle * 17 : middle);
    return std::make_shared<buffer>(size_bytes, byte);
}

// The scale that gives evenly likely codes of that many bits the standard deviation.
float scale_of(uint32_t bits) { return standard_deviation * 3.4641016f / float(1u << bits); }

class dummy_checkpoint final : public checkpoint {
  public:
    dummy_checkpoint(const std::filesystem::path& path, sluice_element_type type)
        : checkpoint(path), type_(type) {
        if (type != SLUICE_F32 && type != SLUICE_F16 && type != SLUICE_BF16) {
            fail(SLUICE_INVALID, "{}: dummy weights: expected f32, f16 or bf16, found {}",
                 directory_.string(), element_type_name(type));
        }
        ties_embeddings_ = config().boolean("tie_word_embeddings", false);
        const auto quantization = config().object_if_present("quantization_config");
        if (quantization && quantization->text("quant_method", "") == "gptq") {
            gptq_ = gptq_config::of(*this);
        }
    }

    bool is_dummy() const override { return true; }

    bool contains(std::string_view name) const override {
        const size_t dot = name.rfind('.');
        if (dot == std::string_view::npos) return false;
        const std::string_view module = name.substr(0, dot), part = name.substr(dot + 1);
        if (part == "weight" && module == "lm_head") return !ties_embeddings_;
        return part == "weight"
               || (parameters_of(module)
                   && (part == "qweight" || part == "qzeros" || part == "scales"));
    }

    tensor_view tensor(std::string_view name,
                       std::span<const int64_t> expected_shape) const override {
        const sluice_element_type type = type_of(name);
        std::optional<uint64_t> size_bytes = tensor_bytes(type, expected_shape);
        if (!size_bytes || *size_bytes > tensor_bytes_max) {
            fail(SLUICE_EXHAUSTED,
                 "{}: dummy tensor {}: expected at most {}, found the shape {}; check config.json",
                 directory_.string(), quote(name, 160), bytes_text(tensor_bytes_max),
                 shape_text(expected_shape));
        }
        uint64_t offset = hash_of(name) % offset_steps * offset_step_bytes;
        std::shared_ptr<const buffer> source =
            source_of(name, type, expected_shape.size() <= 1, offset + *size_bytes);
        tensor_view view;
        view.name = name;
        view.element_type = type;
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
    // How a module's matrix is quantized; nothing for what the layout never quantizes.
    std::optional<gptq_parameters> parameters_of(std::string_view module) const {
        if (!gptq_ || module.ends_with("norm") || module.ends_with("embed_tokens")) {
            return std::nullopt;
        }
        return gptq_->resolve(module);
    }

    sluice_element_type type_of(std::string_view name) const {
        if (name.ends_with(".qweight") || name.ends_with(".qzeros")) return SLUICE_I32;
        return name.ends_with(".scales") ? SLUICE_F16 : type_;
    }

    std::shared_ptr<const buffer> source_of(std::string_view name, sluice_element_type type,
                                            bool is_vector, uint64_t size_bytes) const {
        const std::string_view module = name.substr(0, name.rfind('.'));
        if (name.ends_with(".qweight")) {
            return buffer_of("codes", size_bytes, [](uint64_t size) { return make_codes(size); });
        }
        if (name.ends_with(".qzeros") || name.ends_with(".scales")) {
            const uint32_t bits = parameters_of(module)->bits;
            const gptq_format format = gptq_->format();
            if (name.ends_with(".qzeros")) {
                return buffer_of(
                    bits == 4 ? "zeros of 4" : "zeros of 8", size_bytes,
                    [&](uint64_t size) { return make_zero_points(size, bits, format); });
            }
            const float scale = scale_of(bits);
            return buffer_of(bits == 4 ? "scales of 4" : "scales of 8", size_bytes,
                             [&](uint64_t size) {
                                 return make_buffer(type, size, {scale, 0.1f * scale});
                             });
        }
        if (name.ends_with("embed_tokens.weight")) {
            return buffer_of("embeddings", size_bytes, [&](uint64_t size) {
                return make_buffer(type, size, {0.0f, embedding_deviation});
            });
        }
        const bool is_norm = is_vector && name.find("norm") != std::string_view::npos;
        return buffer_of(is_norm ? "norms" : "weights", size_bytes, [&](uint64_t size) {
            return make_buffer(type, size, {is_norm ? 1.0f : 0.0f});
        });
    }

    // The buffer of that kind, replaced by a larger one when it is too small. Views of the old one
    // keep it alive; at least doubling bounds what all of them take to twice the largest.
    template <typename Make>
    std::shared_ptr<const buffer> buffer_of(const char* kind, uint64_t size_bytes,
                                            Make&& make) const {
        std::lock_guard lock(mutex_);
        std::shared_ptr<const buffer>& held = buffers_[kind];
        uint64_t held_bytes = held ? held->size() : 0;
        if (held_bytes < size_bytes) {
            held = make(std::max(size_bytes, std::min(held_bytes * 2, tensor_bytes_max)));
        }
        return held;
    }

    sluice_element_type type_;
    bool ties_embeddings_ = false;
    std::optional<gptq_config> gptq_;
    mutable std::mutex mutex_;
    mutable std::map<std::string_view, std::shared_ptr<const buffer>> buffers_;
};

} // namespace

std::shared_ptr<const checkpoint> make_dummy_checkpoint(const std::filesystem::path& path,
                                                        sluice_element_type element_type) {
    return std::make_shared<dummy_checkpoint>(path, element_type);
}

} // namespace sluice
