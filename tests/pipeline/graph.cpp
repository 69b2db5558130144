#include "pipeline/pipeline_graph.hpp"

#include "base/error.hpp"
#include "pipeline/scripted_stage.hpp"

#include <doctest/doctest.h>

using namespace sluice;
using namespace sluice::test;

namespace {

std::unique_ptr<stage> make(const stage_configuration& configured) {
    using fields = std::vector<field_description>;
    if (configured.kind == "generate") {
        return std::make_unique<scripted_stage>(
            fields{text_field("prompt", false), {"token_ids", field_type::token_ids, false}},
            fields{text_field("text"), {"token_ids", field_type::token_ids, true}});
    }
    if (configured.kind == "two") {
        return std::make_unique<scripted_stage>(fields{text_field("a"), text_field("b")},
                                                fields{text_field("text")});
    }
    if (configured.kind == "count") {
        return std::make_unique<scripted_stage>(fields{text_field("prompt")},
                                                fields{{"count", field_type::integer, true}});
    }
    fail(SLUICE_INVALID, "no such kind");
}

std::string refusal(const std::vector<stage_configuration>& stages) {
    try {
        pipeline_graph(stages, make);
    } catch (const error& caught) {
        CHECK(caught.status() == SLUICE_INVALID);
        return caught.what();
    }
    return "accepted";
}

bool has(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

} // namespace

TEST_CASE("no stages mean one that generates") {
    const pipeline_graph graph({}, make);
    REQUIRE(graph.nodes().size() == 1);
    CHECK(graph.nodes()[0].kind == "generate");
    REQUIRE(graph.request_fields().size() == 2);
    CHECK_FALSE(graph.request_fields()[0].required);
}

TEST_CASE("stages may stand in any order, the last one answers") {
    const pipeline_graph graph({configured("join", "two", {{"a", "left.text"}, {"b", "request.x"}}),
                                configured("left", "generate"),
                                configured("last", "generate", {{"prompt", "join.text"}})},
                               make);
    CHECK(graph.answer() == 2);
    CHECK(graph.nodes()[1].successors == std::vector<size_t>{0});
    CHECK(graph.nodes()[0].successors == std::vector<size_t>{2});
    std::vector<std::string> names;
    for (const auto& field : graph.request_fields()) names.push_back(field.name);
    CHECK(names == std::vector<std::string>{"x", "prompt", "token_ids"});
}

TEST_CASE("wrong graphs are refused with place, names and a way out") {
    const auto unknown_stage =
        refusal({configured("answer", "generate", {{"prompt", "anser.text"}})});
    CHECK(has(unknown_stage, "test.toml:9"));
    CHECK(has(unknown_stage, "no stage \"anser\""));
    CHECK(has(unknown_stage, "did you mean \"answer\""));

    const auto unknown_input =
        refusal({configured("answer", "generate", {{"promt", "request.x"}})});
    CHECK(has(unknown_input, "no input \"promt\""));
    CHECK(has(unknown_input, "prompt"));

    const auto unknown_field =
        refusal({configured("first", "generate"),
                 configured("answer", "generate", {{"prompt", "first.tex"}})});
    CHECK(has(unknown_field, "no output \"tex\""));

    const auto wrong_type =
        refusal({configured("first", "count"),
                 configured("answer", "generate", {{"prompt", "first.count"}})});
    CHECK(has(wrong_type, "is text"));
    CHECK(has(wrong_type, "is integer"));

    const auto missing = refusal({configured("answer", "two", {{"a", "request.x"}})});
    CHECK(has(missing, "input \"b\" of stage \"answer\" is not connected"));
    CHECK(has(missing, "test.toml:7"));

    CHECK(has(refusal({configured("a", "generate"), configured("a", "generate")}),
              "two stages named \"a\""));
    CHECK(has(refusal({configured("request", "generate")}), "cannot be named"));
    CHECK(has(refusal({configured("a.b", "generate")}), "cannot be named"));
    CHECK(has(refusal({configured("", "generate")}), "cannot be named"));
    CHECK(has(refusal({configured("answer", "count")}), "no output \"text\""));
    CHECK(has(refusal({configured("lost", "generate"), configured("answer", "generate")}),
              "nothing reads what stage \"lost\" gives"));
    CHECK(has(refusal(std::vector<stage_configuration>(300, configured("x", "generate"))),
              "at most 256"));
}

TEST_CASE("cycles are listed stage by stage") {
    CHECK(
        has(refusal({configured("self", "generate", {{"prompt", "self.text"}})}), "self -> self"));
    const auto three = refusal({configured("a", "generate", {{"prompt", "c.text"}}),
                                configured("b", "generate", {{"prompt", "a.text"}}),
                                configured("c", "generate", {{"prompt", "b.text"}}),
                                configured("end", "generate", {{"prompt", "c.text"}})});
    CHECK(has(three, "cycle: "));
    CHECK((has(three, "a -> b -> c -> a") || has(three, "b -> c -> a -> b")
           || has(three, "c -> a -> b -> c")));
    // A stage behind a cycle is not on it.
    const auto behind = refusal({configured("end", "two", {{"a", "x.text"}, {"b", "request.b"}}),
                                 configured("x", "generate", {{"prompt", "y.text"}}),
                                 configured("y", "generate", {{"prompt", "x.text"}}),
                                 configured("answer", "generate", {{"prompt", "end.text"}})});
    CHECK((has(behind, "x -> y -> x") || has(behind, "y -> x -> y")));
    CHECK_FALSE(has(behind, "end ->"));
}
