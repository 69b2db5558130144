#include "pipeline/pipeline_graph.hpp"

#include "base/error.hpp"
#include "base/text.hpp"

#include <algorithm>

namespace sluice {

namespace {

constexpr size_t stages_max = 256;

const field_description* find_field(const std::vector<field_description>& fields,
                                    std::string_view name) {
    const auto found = std::find_if(fields.begin(), fields.end(),
                                    [&](const auto& field) { return field.name == name; });
    return found == fields.end() ? nullptr : &*found;
}

std::vector<std::string> names_of(const std::vector<field_description>& fields) {
    std::vector<std::string> names;
    for (const field_description& field : fields) names.push_back(field.name);
    return names;
}

std::vector<std::string> names_of(const std::vector<stage_configuration>& stages) {
    std::vector<std::string> names{"request"};
    for (const stage_configuration& stage : stages) names.push_back(stage.name);
    return names;
}

std::string list_or_none(const std::vector<std::string>& names) {
    return names.empty() ? "none" : join(names, ", ");
}

} // namespace

pipeline_graph::pipeline_graph(const std::vector<stage_configuration>& configured,
                               const stage_factory& factory) {
    std::vector<stage_configuration> stages = configured;
    if (stages.empty()) {
        stage_configuration only;
        only.name = "answer";
        only.kind = "generate";
        only.origin.file = "the default pipeline";
        stages.push_back(std::move(only));
    }
    check_names(stages);
    for (const stage_configuration& stage : stages) {
        nodes_.push_back({stage.name, stage.kind, factory(stage), {}, {}});
    }
    for (size_t i = 0; i < stages.size(); ++i) connect(i, stages[i], stages);
    check_cycles(stages);
    check_reached(stages);
    if (find_field(nodes_.back().runs->outputs(), "text") == nullptr) {
        fail(SLUICE_INVALID,
             "{}: stage \"{}\" comes last and so gives the pipeline's answer, but it has no "
             "output \"text\" (it has {})",
             stages.back().origin.text(), stages.back().name,
             list_or_none(names_of(nodes_.back().runs->outputs())));
    }
}

void pipeline_graph::check_names(const std::vector<stage_configuration>& configured) const {
    if (configured.size() > stages_max) {
        fail(SLUICE_INVALID, "{}: the pipeline has {} stages; at most {} are allowed",
             configured.back().origin.text(), configured.size(), stages_max);
    }
    for (size_t i = 0; i < configured.size(); ++i) {
        const stage_configuration& stage = configured[i];
        if (stage.name.empty() || stage.name == "request"
            || stage.name.find('.') != std::string::npos) {
            fail(SLUICE_INVALID,
                 "{}: a stage cannot be named {}; expected a name without dots that is not "
                 "\"request\"",
                 stage.origin.text(), quote(stage.name));
        }
        for (size_t j = 0; j < i; ++j) {
            if (configured[j].name != stage.name) continue;
            fail(SLUICE_INVALID, "{}: there are two stages named \"{}\"; the other one is at {}",
                 stage.origin.text(), stage.name, configured[j].origin.text());
        }
    }
}

void pipeline_graph::add_request_field(const field_description& field) {
    for (field_description& known : request_fields_) {
        if (known.name != field.name) continue;
        known.required = known.required || field.required;
        return;
    }
    request_fields_.push_back(field);
}

void pipeline_graph::connect(size_t node, const stage_configuration& configured,
                             const std::vector<stage_configuration>& all) {
    const std::vector<field_description>& inputs = nodes_[node].runs->inputs();
    for (const auto& [input, edge] : configured.input) {
        if (find_field(inputs, input) == nullptr) {
            fail(SLUICE_INVALID, "{}: stage \"{}\" ({}) has no input \"{}\"; it has {}{}",
                 edge.origin.text(), configured.name, configured.kind, input,
                 list_or_none(names_of(inputs)), did_you_mean(input, names_of(inputs)));
        }
        connect_one(node, input, edge, all);
    }
    const bool generate = configured.kind == "generate";
    for (const field_description& field : inputs) {
        if (configured.input.contains(field.name)) continue;
        // What a prompt is needs no saying; and the plain pipeline takes tokens as well.
        const bool of_request = field.name == "prompt" ? !configured.input.contains("token_ids")
                                                       : generate && configured.input.empty();
        if (of_request) {
            nodes_[node].edges.push_back({field.name, request, field.name, field.required});
            add_request_field(field);
        } else if (field.required) {
            fail(SLUICE_INVALID,
                 "{}: input \"{}\" of stage \"{}\" is not connected; write input = {{ {} = "
                 "\"<stage>.<field>\" }}, with \"request.<field>\" for what the request brings",
                 configured.origin.text(), field.name, configured.name, field.name);
        }
    }
}

void pipeline_graph::connect_one(size_t node, const std::string& input,
                                 const stage_configuration::edge& edge,
                                 const std::vector<stage_configuration>& all) {
    const field_description& target = *find_field(nodes_[node].runs->inputs(), input);
    if (edge.stage == "request") {
        nodes_[node].edges.push_back({input, request, edge.field, true});
        add_request_field({edge.field, target.type, true});
        return;
    }
    const auto found = std::find_if(all.begin(), all.end(),
                                    [&](const auto& stage) { return stage.name == edge.stage; });
    if (found == all.end()) {
        fail(SLUICE_INVALID,
             "{}: input \"{}\" of stage \"{}\" comes from \"{}.{}\", but there is "
             "no stage \"{}\"{}",
             edge.origin.text(), input, all[node].name, edge.stage, edge.field, edge.stage,
             did_you_mean(edge.stage, names_of(all)));
    }
    const auto source = size_t(found - all.begin());
    const std::vector<field_description>& outputs = nodes_[source].runs->outputs();
    const field_description* given = find_field(outputs, edge.field);
    if (given == nullptr) {
        fail(SLUICE_INVALID, "{}: stage \"{}\" ({}) has no output \"{}\"; it has {}{}",
             edge.origin.text(), edge.stage, found->kind, edge.field,
             list_or_none(names_of(outputs)), did_you_mean(edge.field, names_of(outputs)));
    }
    if (given->type != target.type) {
        fail(SLUICE_INVALID, "{}: input \"{}\" of stage \"{}\" is {}, but \"{}.{}\" is {}",
             edge.origin.text(), input, all[node].name, field_type_name(target.type), edge.stage,
             edge.field, field_type_name(given->type));
    }
    nodes_[node].edges.push_back({input, source, edge.field, true});
    std::vector<size_t>& successors = nodes_[source].successors;
    if (std::find(successors.begin(), successors.end(), node) == successors.end()) {
        successors.push_back(node);
    }
}

// Kahn's algorithm: what is left when no stage has all its sources done lies on or behind a cycle.
void pipeline_graph::check_cycles(const std::vector<stage_configuration>& configured) const {
    std::vector<size_t> sources(nodes_.size(), 0);
    for (const pipeline_node& node : nodes_) {
        for (const size_t successor : node.successors) ++sources[successor];
    }
    std::vector<size_t> ready;
    for (size_t i = 0; i < nodes_.size(); ++i) {
        if (sources[i] == 0) ready.push_back(i);
    }
    size_t done = 0;
    for (; !ready.empty(); ++done) {
        const size_t node = ready.back();
        ready.pop_back();
        for (const size_t successor : nodes_[node].successors) {
            if (--sources[successor] == 0) ready.push_back(successor);
        }
    }
    if (done == nodes_.size()) return;

    // From any stage that is left, walking backwards over such stages must come round.
    auto at =
        size_t(std::find_if(sources.begin(), sources.end(), [](size_t count) { return count > 0; })
               - sources.begin());
    std::vector<size_t> path;
    while (std::find(path.begin(), path.end(), at) == path.end()) {
        path.push_back(at);
        const auto back = std::find_if(
            nodes_[at].edges.begin(), nodes_[at].edges.end(), [&](const pipeline_edge& edge) {
                return edge.source != request && sources[edge.source] > 0;
            });
        at = back->source;
    }
    std::string cycle = nodes_[at].name;
    for (size_t i = path.size(); i-- > 0;) {
        cycle += " -> " + nodes_[path[i]].name;
        if (path[i] == at) break;
    }
    fail(SLUICE_INVALID, "{}: the pipeline goes round in a cycle: {}; take one of these edges away",
         configured[at].origin.text(), cycle);
}

void pipeline_graph::check_reached(const std::vector<stage_configuration>& configured) const {
    for (size_t i = 0; i + 1 < nodes_.size(); ++i) {
        if (!nodes_[i].successors.empty()) continue;
        fail(SLUICE_INVALID,
             "{}: nothing reads what stage \"{}\" gives, and the answer is that of the last stage, "
             "\"{}\"; connect the stage or take it out",
             configured[i].origin.text(), nodes_[i].name, nodes_.back().name);
    }
}

} // namespace sluice
