// The `quantization_config` of Hugging Face GPTQ checkpoints, as GPTQModel and transformers write
// it: one set of parameters for the model, and the `dynamic` map of regular expressions that
// changes them for some modules or leaves modules unquantized.
#pragma once

#include "base/json.hpp"

#include <nlohmann/json_fwd.hpp>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace sluice {

class checkpoint;

// How one module's weight is stored.
struct gptq_parameters {
    uint32_t bits = 4;             // 4 or 8
    int64_t group_size = 128;      // input features that share a scale; -1: the whole row
    bool symmetric = true;         // zero points all in the middle (8 or 128); informative
    bool activation_order = false; // `desc_act`: groups follow g_idx, not position

    bool operator==(const gptq_parameters&) const = default;
};

// `checkpoint_format`: gptq stores each zero point minus one, gptq_v2 stores it as it is. Other
// engines read asymmetric weights reliably only as gptq_v2, so writers choose that for them.
enum class gptq_format { gptq, gptq_v2 };

// One entry of `dynamic`. The pattern is matched as Python's re.match does: from the beginning of
// the module's name, not necessarily to its end.
struct gptq_override {
    std::string pattern;
    bool is_quantized = true; // false: "-:", the module keeps its 16-bit weight
    std::optional<uint32_t> bits;
    std::optional<int64_t> group_size;
    std::optional<bool> symmetric;
    std::optional<bool> activation_order;
};

// Immutable once built; then safe to use from several threads.
class gptq_config {
  public:
    gptq_config(gptq_parameters defaults, gptq_format format);

    // Fails with UNSUPPORTED for other methods, 2 and 3 bits and repacked formats (marlin, ...),
    // and with INVALID for what no GPTQ configuration can say, naming the key.
    static gptq_config parse(const json_view& quantization_config);

    // From `quantization_config` of the checkpoint's config.json; nothing when there is none.
    static std::optional<gptq_config> of(const checkpoint& model);

    // Fails with INVALID when the pattern is no regular expression or a value is out of range.
    void add_override(gptq_override override_entry);
    void set_lm_head(bool is_quantized) { lm_head_ = is_quantized; }
    // Ends of module names ("self_attn.q_proj"). When not empty, only modules with such an end are
    // quantized. transformers needs it to know what is not quantized; GPTQModel reads `dynamic`.
    void set_modules_in_block(std::vector<std::string> name_ends);

    const gptq_parameters& defaults() const { return defaults_; }
    gptq_format format() const { return format_; }
    bool lm_head() const { return lm_head_; }

    // What the configuration says of a module by its full name ("model.layers.0.mlp.up_proj"), or
    // nothing when it leaves it unquantized: negative patterns first, then the first that matches.
    // Whether a module really is quantized, only its tensors tell: norms and embeddings never are
    // in this layout, whatever the patterns match. Fails with INVALID when a pattern runs away.
    std::optional<gptq_parameters> resolve(std::string_view module_name) const;

    // `quantization_config` for config.json; `producer` is "name:version".
    nlohmann::ordered_json to_json(std::string_view producer) const;

    // A pattern that matches exactly this module.
    static std::string exact_pattern(std::string_view module_name);

  private:
    struct compiled_override;

    gptq_parameters defaults_;
    gptq_format format_;
    bool lm_head_ = false;
    std::vector<std::string> modules_in_block_;
    std::vector<std::shared_ptr<const compiled_override>> overrides_; // negative ones first
};

} // namespace sluice
