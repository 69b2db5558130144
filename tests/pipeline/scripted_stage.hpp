// Stages of tests: their ports are given, and so is what they do.
#pragma once

#include "pipeline/pipeline_graph.hpp"

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace sluice::test {

class scripted_stage final : public stage {
  public:
    using action = std::function<void(const record&, std::shared_ptr<stage_call>)>;

    scripted_stage(std::vector<field_description> inputs, std::vector<field_description> outputs,
                   action run = {})
        : inputs_(std::move(inputs)), outputs_(std::move(outputs)), run_(std::move(run)) {}

    const std::vector<field_description>& inputs() const override { return inputs_; }
    const std::vector<field_description>& outputs() const override { return outputs_; }
    void start(const record& input, std::shared_ptr<stage_call> call) override {
        run_(input, std::move(call));
    }

  private:
    std::vector<field_description> inputs_;
    std::vector<field_description> outputs_;
    action run_;
};

inline field_description text_field(std::string name, bool required = true) {
    return {std::move(name), field_type::text, required};
}

// "answer": a, b of text -> text.  "numbers": no input but a prompt -> count, an integer.
inline stage_configuration configured(std::string name, std::string kind,
                                      std::vector<std::pair<std::string, std::string>> input = {}) {
    stage_configuration made;
    made.name = std::move(name);
    made.kind = std::move(kind);
    made.origin = {"test.toml", 7, 1};
    made.settings.origin = made.origin;
    for (const auto& [port, source] : input) {
        const size_t dot = source.find('.');
        made.input[port] = {source.substr(0, dot), source.substr(dot + 1), {"test.toml", 9, 1}};
    }
    return made;
}

} // namespace sluice::test
