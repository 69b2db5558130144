#include "model/model_config.hpp"

#include "base/error.hpp"
#include "base/json.hpp"
#include "base/text.hpp"
#include "model/families/config_reader.hpp"
#include "model/families/family.hpp"
#include "program/route_inline.hpp"

#include <algorithm>

namespace sluice {

namespace {

const model_family& family_of(const json_view& config, const std::string& model_type) {
    if (const model_family* family = find_model_family(model_type)) return *family;
    const std::vector<std::string> supported = supported_model_types();
    config.at("model_type")
        .fail_unsupported(fmt::format("the model type {} is not supported; supported are {}{}",
                                      quote(model_type), join(supported, ", "),
                                      did_you_mean(model_type, supported)));
}

} // namespace

model_config read_model_config(const json_view& config) {
    model_config result;
    result.model_type = config.as_object().text("model_type");
    const model_family& family = family_of(config, result.model_type);
    result.family = family.name;
    if (const auto architectures = config.array_if_present("architectures")) {
        if (architectures->size() != 0) result.architecture = (*architectures)[0].as_text();
    }
    read_common(config, result);
    family.read(config, result);
    if (result.quantization == "mxfp4" && family.name != "gpt_oss") {
        config.at("quantization_config")
            .fail_unsupported("mxfp4 is supported for the model type gpt_oss only");
    }
    if (result.moe.expert_count != 0) {
        check_routing_specification(result.moe.routing, config.source() + ": the routing");
    }
    return result;
}

model_config load_model_config(const std::filesystem::path& config_json) {
    return read_model_config(read_json_file(config_json));
}

model_config parse_model_config(std::string_view text, const std::string& origin) {
    return read_model_config(parse_json(text, origin));
}

std::vector<std::string> supported_model_types() {
    std::vector<std::string> types;
    for (const model_family* family : model_families()) {
        types.insert(types.end(), family->model_types.begin(), family->model_types.end());
    }
    std::sort(types.begin(), types.end());
    return types;
}

} // namespace sluice
