// A pipeline's stages and edges, checked.
#pragma once

#include "config/configuration.hpp"
#include "pipeline/record.hpp"
#include "pipeline/stage.hpp"

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace sluice {

// Where an input of a stage comes from.
struct pipeline_edge {
    std::string input;
    size_t source = 0; // index of the stage, or pipeline_graph::request
    std::string field; // of the source's output
    bool required = true;
};

struct pipeline_node {
    std::string name;
    std::string kind;
    std::unique_ptr<stage> runs;
    std::vector<pipeline_edge> edges;
    std::vector<size_t> successors; // stages that read its outputs, each once
};

class pipeline_graph {
  public:
    static constexpr size_t request = SIZE_MAX;
    using stage_factory =
        std::function<std::unique_ptr<stage>(const stage_configuration& configured)>;

    // Makes and checks the stages; none given means one "generate" stage. Fails with
    // SLUICE_INVALID, naming file and line, for two stages of one name, an edge from or to
    // something that is not there, types that differ, inputs without an edge, cycles (listed stage
    // by stage), and stages that the answer does not depend on. The last stage gives the answer and
    // must have a `text`.
    pipeline_graph(const std::vector<stage_configuration>& configured,
                   const stage_factory& factory);

    const std::vector<pipeline_node>& nodes() const { return nodes_; }
    size_t answer() const { return nodes_.size() - 1; }
    // Fields that a request must, or may, have.
    const std::vector<field_description>& request_fields() const { return request_fields_; }

  private:
    void check_names(const std::vector<stage_configuration>& configured) const;
    void connect(size_t node, const stage_configuration& configured,
                 const std::vector<stage_configuration>& all);
    void connect_one(size_t node, const std::string& input, const stage_configuration::edge& edge,
                     const std::vector<stage_configuration>& all);
    void add_request_field(const field_description& field);
    void check_cycles(const std::vector<stage_configuration>& configured) const;
    void check_reached(const std::vector<stage_configuration>& configured) const;

    std::vector<pipeline_node> nodes_;
    std::vector<field_description> request_fields_;
};

} // namespace sluice
