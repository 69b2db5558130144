#include "pipeline/pipeline.hpp"

#include "base/error.hpp"
#include "pipeline/scripted_stage.hpp"

#include <doctest/doctest.h>

#include <thread>

using namespace sluice;
using namespace sluice::test;
using namespace std::chrono_literals;

namespace {

// Builds a graph whose stages do what `actions` says for their name; every stage reads the texts it
// is connected to and gives a text.
std::shared_ptr<const pipeline_graph>
graph_of(const std::vector<stage_configuration>& stages,
         const std::map<std::string, scripted_stage::action>& actions) {
    return std::make_shared<pipeline_graph>(stages, [&](const stage_configuration& configured) {
        std::vector<field_description> inputs;
        for (const auto& [port, edge] : configured.input) inputs.push_back(text_field(port));
        if (inputs.empty()) inputs.push_back(text_field("prompt"));
        return std::make_unique<scripted_stage>(inputs,
                                                std::vector<field_description>{text_field("text")},
                                                actions.at(configured.name));
    });
}

std::string text_of(const record& fields, const std::string& name) {
    return std::get<std::string>(fields.at(name));
}

record text_record(std::string text) {
    record made;
    made["text"] = std::move(text);
    return made;
}

pipeline_request prompt(std::string text) {
    pipeline_request request;
    request.fields["prompt"] = std::move(text);
    return request;
}

struct outcome {
    std::string text;
    generation_event last;
    int finished = 0;
};

outcome read_all(generation& stream) {
    outcome result;
    while (auto event = stream.wait(10s)) {
        result.text += event->text;
        if (event->finished) {
            result.last = *event;
            ++result.finished;
        }
    }
    return result;
}

const std::vector<stage_configuration> diamond{
    configured("left", "x", {{"in", "request.prompt"}}),
    configured("right", "x", {{"in", "request.prompt"}}),
    configured("both", "x", {{"a", "left.text"}, {"b", "right.text"}})};

} // namespace

TEST_CASE("branches run side by side and meet once, on whatever threads they end") {
    std::vector<std::thread> threads;
    std::mutex mutex;
    int met = 0;
    const auto later = [&](std::string prefix) {
        return [&, prefix](const record& input, std::shared_ptr<stage_call> call) {
            const std::string text = prefix + text_of(input, "in");
            const std::lock_guard lock(mutex);
            threads.emplace_back([text, call] {
                call->finish(text_record(text), ended_normally());
                call->finish(text_record("twice"), ended_normally()); // ignored
                call->fail(error(SLUICE_INTERNAL, "too late"));       // ignored
            });
        };
    };
    pipeline runs(graph_of(
        diamond, {{"left", later("l")},
                  {"right", later("r")},
                  {"both", [&](const record& input, std::shared_ptr<stage_call> call) {
                       ++met;
                       call->finish(text_record(text_of(input, "a") + "+" + text_of(input, "b")),
                                    ended_normally());
                   }}}));
    for (int i = 0; i < 50; ++i) {
        const auto stream = runs.run(prompt(std::to_string(i)));
        const outcome result = read_all(*stream);
        CHECK(result.text == fmt::format("l{0}+r{0}", i));
        CHECK(result.finished == 1);
    }
    for (std::thread& thread : threads) thread.join();
    CHECK(met == 50);
}

TEST_CASE("a failing branch ends the request once and cancels the others") {
    bool cancelled = false;
    std::shared_ptr<stage_call> open;
    pipeline runs(graph_of(diamond, {{"left",
                                      [&](const record&, std::shared_ptr<stage_call> call) {
                                          call->on_cancel([&] { cancelled = true; });
                                          open = std::move(call);
                                      }},
                                     {"right",
                                      [](const record&, std::shared_ptr<stage_call> call) {
                                          call->fail(error(SLUICE_UNAVAILABLE, "no right today"));
                                      }},
                                     {"both", [](const record&, std::shared_ptr<stage_call>) {
                                          FAIL("must not start");
                                      }}}));
    const outcome result = read_all(*runs.run(prompt("x")));
    CHECK(result.finished == 1);
    CHECK(result.last.reason == finish_reason::failed);
    CHECK(result.last.status == SLUICE_UNAVAILABLE);
    CHECK(result.last.message == "no right today");
    CHECK(cancelled);
    open->finish(text_record("late"), ended_normally());
}

TEST_CASE("a first stage that throws refuses the whole request") {
    bool cancelled = false;
    pipeline runs(graph_of(diamond, {{"left",
                                      [&](const record&, std::shared_ptr<stage_call> call) {
                                          call->on_cancel([&] { cancelled = true; });
                                      }},
                                     {"right",
                                      [](const record&, std::shared_ptr<stage_call>) {
                                          fail(SLUICE_INVALID, "not like this");
                                      }},
                                     {"both", {}}}));
    CHECK_THROWS_WITH_AS(runs.run(prompt("x")), "not like this", error);
    CHECK(cancelled);
}

TEST_CASE("the last stage's parts are streamed, others' are not, and nothing comes twice") {
    pipeline runs(
        graph_of({configured("first", "x"), configured("last", "x", {{"in", "first.text"}})},
                 {{"first",
                   [](const record& input, std::shared_ptr<stage_call> call) {
                       generation_event part;
                       part.text = "hidden";
                       call->stream(part);
                       call->finish(text_record(text_of(input, "prompt") + "!"), ended_normally());
                   }},
                  {"last", [](const record& input, std::shared_ptr<stage_call> call) {
                       for (const char c : text_of(input, "in")) {
                           generation_event part;
                           part.text = c;
                           call->stream(part);
                       }
                       call->finish(text_record(text_of(input, "in")), ended_normally());
                       generation_event part;
                       part.text = "late";
                       call->stream(part);
                   }}}));
    CHECK(read_all(*runs.run(prompt("abc"))).text == "abc!");
}

TEST_CASE("cancelling reaches the open stage, before and after it has asked") {
    std::shared_ptr<stage_call> open;
    int told = 0;
    pipeline runs(graph_of({configured("only", "x")},
                           {{"only", [&](const record&, std::shared_ptr<stage_call> call) {
                                 call->on_cancel([&] { ++told; });
                                 open = std::move(call);
                             }}}));
    const auto stream = runs.run(prompt("x"));
    CHECK_FALSE(open->cancelled());
    stream->cancel();
    stream->cancel();
    CHECK(told == 1);
    CHECK(open->cancelled());
    open->on_cancel([&] { ++told; });
    CHECK(told == 2);
    generation_event last = ended_normally();
    last.reason = finish_reason::cancelled;
    open->finish(text_record("part"), last);
    const outcome result = read_all(*stream);
    CHECK(result.last.reason == finish_reason::cancelled);
    CHECK(result.finished == 1);
}
