#include "pipeline/pipeline.hpp"

#include "base/error.hpp"
#include "base/text.hpp"
#include "pipeline/pipeline_run.hpp"
#include "pipeline/stages.hpp"

namespace sluice {

namespace {

void check_fields(const pipeline_graph& graph, const record& fields) {
    std::vector<std::string> known;
    for (const field_description& field : graph.request_fields()) {
        known.push_back(field.name);
        const auto found = fields.find(field.name);
        if (found == fields.end()) {
            if (!field.required) continue;
            fail(SLUICE_INVALID, "the request has no field \"{}\" ({}), which the pipeline reads",
                 field.name, field_type_name(field.type));
        }
        if (type_of(found->second) != field.type) {
            fail(SLUICE_INVALID, "field \"{}\" of the request is {}; the pipeline expects {}",
                 field.name, field_type_name(type_of(found->second)), field_type_name(field.type));
        }
    }
    for (const auto& [name, value] : fields) {
        if (std::find(known.begin(), known.end(), name) != known.end()) continue;
        fail(SLUICE_INVALID, "the pipeline reads no field \"{}\" of a request; it reads {}{}", name,
             join(known, ", "), did_you_mean(name, known));
    }
}

} // namespace

pipeline::pipeline(const configuration& configuration, engine& generator, plugin_host& plugins)
    : graph_(std::make_shared<pipeline_graph>(
        configuration.stages, [&](const stage_configuration& configured) {
            if (configured.kind == "generate") {
                return make_generate_stage(configured, configuration.generation, generator);
            }
            if (configured.kind == "template") return make_template_stage(configured);
            if (!configuration.allow_draft) {
                fail(SLUICE_UNSUPPORTED,
                     "{}: stage \"{}\" is of kind \"{}\"; built in are \"generate\" and "
                     "\"template\", and stage plugins are a draft that needs allow_draft = true",
                     configured.origin.text(), configured.name, configured.kind);
            }
            return make_plugin_stage(configured, plugins);
        })) {}

pipeline::pipeline(std::shared_ptr<const pipeline_graph> graph) : graph_(std::move(graph)) {}

std::shared_ptr<generation> pipeline::run(pipeline_request request, generation_callback callback) {
    check_fields(*graph_, request.fields);
    auto stream = std::make_shared<generation>(std::move(callback));
    pipeline_run::start(graph_, std::move(request), stream);
    return stream;
}

} // namespace sluice
