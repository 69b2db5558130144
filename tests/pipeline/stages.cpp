#include "pipeline/stages.hpp"

#include "base/error.hpp"
#include "engine/fake_executor.hpp"
#include "engine/letter_tokenizer.hpp"
#include "pipeline/pipeline.hpp"
#include "pipeline/scripted_stage.hpp"

#include <doctest/doctest.h>

using namespace sluice;
using namespace sluice::test;

namespace {

std::unique_ptr<engine> make_engine() {
    engine_options options;
    options.pool = {4, {{64, 0}}, true};
    options.limits = {16, 4};
    options.context = {letter_tokenizer(), {letter_end}, letter_count, 256};
    auto executor = std::make_unique<fake_executor>(letter_count, options.pool);
    return std::make_unique<engine>(std::move(executor), std::move(options));
}

stage_configuration template_stage(const std::string& text,
                                   std::vector<std::pair<std::string, std::string>> input = {}) {
    stage_configuration made = configured("shape", "template", std::move(input));
    made.settings.values["text"] = {text, {"test.toml", 8, 1}};
    return made;
}

std::string refusal(const std::function<void()>& function) {
    try {
        function();
    } catch (const error& caught) {
        return caught.what();
    }
    return "accepted";
}

bool has(const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
}

std::string read_all(generation& stream, generation_event& last) {
    std::string text;
    while (auto event = stream.wait(std::chrono::seconds(10))) {
        text += event->text;
        if (event->finished) last = *event;
    }
    return text;
}

std::string expected_text(const std::string& prompt, uint32_t count) {
    const auto tokens =
        fake_executor::expected(letter_tokenizer()->encode(prompt, true), count, letter_count);
    return letter_tokenizer()->decode(tokens, true);
}

std::shared_ptr<const pipeline_graph> graph_of(const std::vector<stage_configuration>& stages,
                                               engine& generator) {
    generation_configuration defaults;
    defaults.tokens_max = 6;
    return std::make_shared<pipeline_graph>(stages, [&](const stage_configuration& configured) {
        return configured.kind == "generate" ? make_generate_stage(configured, defaults, generator)
                                             : make_template_stage(configured);
    });
}

} // namespace

TEST_CASE("a template names its fields") {
    const auto made = make_template_stage(template_stage("{a}-{{x}}-{b_2}{a}"));
    REQUIRE(made->inputs().size() == 2);
    CHECK(made->inputs()[0].name == "a");
    CHECK(made->inputs()[1].name == "b_2");
}

TEST_CASE("malformed templates are refused") {
    const auto refused = [](const std::string& text) {
        return refusal([&] { make_template_stage(template_stage(text)); });
    };
    CHECK(has(refused("{"), "expected a field"));
    CHECK(has(refused("a {b c}"), "expected a field"));
    CHECK(has(refused("{}"), "expected a field"));
    CHECK(has(refused("x}"), "closes nothing"));
    CHECK(refused("{{}}") == "accepted");
    CHECK(has(refusal([] { make_template_stage(configured("s", "template")); }), "no `text`"));
    stage_configuration extra = template_stage("x");
    extra.settings.values["txt"] = {std::string("y"), {"test.toml", 9, 1}};
    CHECK(has(refusal([&] { make_template_stage(extra); }), "no setting \"txt\""));
}

TEST_CASE("settings of a generate stage are checked by name, type and range") {
    const auto engine = make_engine();
    const auto refused = [&](const std::string& key, auto value) {
        stage_configuration made = configured("answer", "generate");
        made.settings.values[key] = {value, {"test.toml", 12, 1}};
        return refusal([&] { make_generate_stage(made, {}, *engine); });
    };
    CHECK(has(refused("temprature", 0.5), "did you mean \"temperature\""));
    CHECK(has(refused("temprature", 0.5), "test.toml:12"));
    CHECK(has(refused("tokens_max", std::string("many")), "whole number"));
    CHECK(has(refused("tokens_max", int64_t(0)), "whole number from 1"));
    CHECK(has(refused("tokens_max", int64_t(1) << 40), "whole number"));
    CHECK(has(refused("top_p", 3.0), "top_p"));
    CHECK(has(refused("stop", std::string("x")), "list of texts"));
    CHECK(refused("temperature", int64_t(1)) == "accepted");
}

TEST_CASE("the default pipeline streams the engine's answer") {
    const auto engine = make_engine();
    pipeline runs(graph_of({}, *engine));
    pipeline_request request;
    request.fields["prompt"] = std::string("hello");
    request.options.generation.tokens_max = 9;
    request.options.generation.end_tokens_stop = false;
    generation_event last;
    CHECK(read_all(*runs.run(request), last) == expected_text("hello", 9));
    CHECK(last.reason == finish_reason::tokens_max);
    CHECK(last.usage.completion_tokens == 9);
    CHECK(last.usage.time_to_first_token_s > 0);

    pipeline_request tokens;
    tokens.fields["token_ids"] = std::vector<int32_t>{7, 4, 11, 11, 14};
    tokens.options.generation = request.options.generation;
    CHECK(read_all(*runs.run(tokens), last) == expected_text("hello", 9));
}

TEST_CASE("a chain of template, generation and template") {
    const auto engine = make_engine();
    stage_configuration ask = template_stage("say {prompt} to {name}", {{"name", "request.name"}});
    ask.name = "ask";
    stage_configuration frame =
        template_stage("<{text}> said {who}", {{"text", "model.text"}, {"who", "request.name"}});
    frame.name = "frame";
    stage_configuration model = configured("model", "generate", {{"prompt", "ask.text"}});
    pipeline runs(graph_of({ask, model, frame}, *engine));
    pipeline_request request;
    request.fields["prompt"] = std::string("hello");
    request.fields["name"] = std::string("bob");
    request.options.generation.end_tokens_stop = false;
    generation_event last;
    CHECK(read_all(*runs.run(request), last)
          == "<" + expected_text("say hello to bob", 6) + "> said bob");
    CHECK(last.reason == finish_reason::end_token);
    CHECK(last.usage.completion_tokens == 6);

    pipeline_request incomplete = request;
    incomplete.fields.erase("name");
    CHECK(has(refusal([&] { runs.run(incomplete); }), "no field \"name\""));
    incomplete = request;
    incomplete.fields["name"] = int64_t(3);
    CHECK(has(refusal([&] { runs.run(incomplete); }), "expects text"));
    incomplete = request;
    incomplete.fields["nam"] = std::string("x");
    CHECK(has(refusal([&] { runs.run(incomplete); }), "did you mean \"name\""));
}

TEST_CASE("what the engine refuses comes at once, or ends the stream behind another stage") {
    const auto engine = make_engine();
    pipeline direct(graph_of({}, *engine));
    pipeline_request request;
    request.fields["prompt"] = std::string(5000, 'a');
    CHECK(has(refusal([&] { direct.run(request); }), "5000 tokens"));

    stage_configuration shape = template_stage("{prompt}{prompt}");
    pipeline behind(
        graph_of({shape, configured("model", "generate", {{"prompt", "shape.text"}})}, *engine));
    request.fields["prompt"] = std::string(200, 'a');
    generation_event last;
    CHECK(read_all(*behind.run(request), last).empty());
    CHECK(last.reason == finish_reason::failed);
    CHECK(last.status == SLUICE_INVALID);
    CHECK(has(last.message, "400 tokens"));
}
