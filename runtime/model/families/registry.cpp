#include "model/families/family.hpp"

#include <algorithm>

namespace sluice {

std::span<const model_family* const> model_families() {
    static constexpr const model_family* families[] = {
        &deepseek_v2_family, &deepseek_v3_family, &glm4_moe_family,
        &gpt_oss_family,     &llama_family,       &mixtral_family,
        &olmoe_family,       &qwen3_family,       &qwen3_moe_family,
    };
    return families;
}

const model_family* find_model_family(std::string_view model_type) {
    for (const model_family* family : model_families()) {
        const auto& types = family->model_types;
        if (std::find(types.begin(), types.end(), model_type) != types.end()) return family;
    }
    return nullptr;
}

} // namespace sluice
