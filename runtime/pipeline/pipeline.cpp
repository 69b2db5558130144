#include "pipeline/pipeline.hpp"

#include "base/error.hpp"
#include "base/text.hpp"
#include "pipeline/pipeline_run.hpp"
#include "pipeline/stages.hpp"

#include <algorithm>
#include <chrono>

namespace sluice {

namespace {

constexpr std::chrono::seconds patience(2); // with stages that were asked to stop

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

pipeline::~pipeline() {
    std::vector<std::shared_ptr<generation>> streams;
    {
        const std::lock_guard lock(open_->mutex);
        for (const auto& [number, stream] : open_->streams)
            if (auto alive = stream.lock()) streams.push_back(std::move(alive));
    }
    for (const auto& stream : streams) stream->cancel();
    std::unique_lock lock(open_->mutex);
    if (!open_->ended.wait_for(lock, patience, [&] { return open_->streams.empty(); }))
        open_->kept = graph_;
}

std::shared_ptr<const pipeline_graph> pipeline::lend(const std::shared_ptr<generation>& stream) {
    uint64_t number = 0;
    {
        const std::lock_guard lock(open_->mutex);
        number = open_->next++;
        open_->streams.emplace(number, stream);
    }
    return {graph_.get(), [open = open_, number](const pipeline_graph*) {
                std::shared_ptr<const pipeline_graph> released; // after the lock
                const std::lock_guard lock(open->mutex);
                open->streams.erase(number);
                if (open->streams.empty()) released = std::move(open->kept);
                open->ended.notify_all();
            }};
}

std::shared_ptr<generation> pipeline::run(pipeline_request request, generation_callback callback) {
    check_fields(*graph_, request.fields);
    auto stream = std::make_shared<generation>(std::move(callback));
    pipeline_run::start(lend(stream), std::move(request), stream);
    return stream;
}

} // namespace sluice
