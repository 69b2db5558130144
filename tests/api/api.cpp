// The C API's own rules: errors, sizes of structs, lifetimes, threads.
#include <sluice/sluice.h>

#include "api/api_fixture.hpp"

#include <doctest/doctest.h>

#include <atomic>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

using namespace api_test;

namespace {

sluice_text text_of(const std::string& text) { return {text.data(), text.size()}; }

struct runtime_destroyer {
    void operator()(sluice_runtime* runtime) const { sluice_runtime_destroy(runtime); }
};
using owned_runtime = std::unique_ptr<sluice_runtime, runtime_destroyer>;

owned_runtime make(const std::string& toml, const sluice_runtime_options* options = nullptr) {
    sluice_runtime* runtime = nullptr;
    sluice_error error = SLUICE_INIT(sluice_error);
    const auto status = sluice_runtime_create_from_text(text_of(toml), options, &runtime, &error);
    INFO(std::string(error.message));
    REQUIRE(status == SLUICE_OK);
    return owned_runtime(runtime);
}

std::string refusal(const std::string& toml, const sluice_runtime_options* options = nullptr) {
    sluice_runtime* runtime = nullptr;
    sluice_error error = SLUICE_INIT(sluice_error);
    const auto status = sluice_runtime_create_from_text(text_of(toml), options, &runtime, &error);
    CHECK(status != SLUICE_OK);
    CHECK(error.status == status);
    CHECK(runtime == nullptr);
    return error.message;
}

bool has(const std::string& text, const std::string& part) {
    CAPTURE(text);
    return text.find(part) != std::string::npos;
}

struct collected {
    std::vector<int32_t> tokens;
    uint32_t finish = SLUICE_FINISH_NONE;
    uint32_t events_after_end = 0;
    uint32_t completion_tokens = 0;
    std::atomic<bool> cancel_self{false};
    sluice_generation* handle = nullptr;
};

void collect(void* context, const sluice_generation_event* event) {
    auto& target = *static_cast<collected*>(context);
    if (target.finish != SLUICE_FINISH_NONE) ++target.events_after_end;
    target.tokens.insert(target.tokens.end(), event->token_ids,
                         event->token_ids + event->token_count);
    target.finish = event->finish;
    if (event->usage != nullptr) target.completion_tokens = event->usage->completion_tokens;
}

sluice_generation_options options_for(const std::vector<int32_t>& tokens) {
    sluice_generation_options options = SLUICE_INIT(sluice_generation_options);
    options.token_ids = tokens.data();
    options.token_count = tokens.size();
    options.flags = SLUICE_GENERATION_IGNORE_END;
    return options;
}

// Reads everything by polling.
collected& read_all(sluice_generation* generation, collected& target) {
    const sluice_generation_event* event = nullptr;
    do {
        sluice_error error = SLUICE_INIT(sluice_error);
        REQUIRE(sluice_generation_next(generation, 20000, &event, &error) == SLUICE_OK);
        if (event != nullptr) collect(&target, event);
    } while (event != nullptr && event->finish == SLUICE_FINISH_NONE);
    return target;
}

} // namespace

TEST_CASE("errors of creation name the place and the remedy") {
    CHECK(has(refusal("backnd = \"onednn\""), "backend"));
    CHECK(has(refusal("backend = 3"), "backend"));
    CHECK(has(refusal("this is no TOML ["), "configuration"));
    CHECK(has(refusal(toml_for("mixtral", "nobody")), "nobody"));
    CHECK(has(refusal(toml_for("no_such_family", "reference")), "no_such_family"));
    sluice_runtime_options options = SLUICE_INIT(sluice_runtime_options);
    options.log_level = 77;
    CHECK(has(refusal(toml_for("mixtral", "reference"), &options), "log_level"));
    options = SLUICE_INIT(sluice_runtime_options);
    const char* const overrides[] = {"model.pth=x"};
    options.overrides = overrides;
    options.override_count = 1;
    CHECK(has(refusal(toml_for("mixtral", "reference"), &options), "pth"));
    const std::string cycle = toml_for("mixtral", "reference")
                              + "[[pipeline.stage]]\nname = \"a\"\nkind = \"generate\"\n"
                                "input = { prompt = \"b.text\" }\n"
                                "[[pipeline.stage]]\nname = \"b\"\nkind = \"generate\"\n"
                                "input = { prompt = \"a.text\" }\n";
    CHECK(has(refusal(cycle), "cycle"));
}

TEST_CASE("polling and calling back give the same answer") {
    const auto runtime = make(toml_for("qwen3_moe", "onednn"));
    const auto tokens = prompt(3);
    sluice_generation_options options = options_for(tokens);
    sluice_generation* polled = nullptr;
    REQUIRE(sluice_runtime_submit(runtime.get(), &options, &polled, nullptr) == SLUICE_OK);
    collected by_poll;
    read_all(polled, by_poll);
    CHECK(by_poll.finish == SLUICE_FINISH_TOKENS_MAX);
    CHECK(by_poll.tokens.size() == 12);
    CHECK(by_poll.completion_tokens == 12);
    CHECK(sluice_generation_finished(polled) == 1);
    const sluice_generation_event* none = nullptr;
    CHECK(sluice_generation_next(polled, SLUICE_WAIT_FOREVER, &none, nullptr) == SLUICE_OK);
    CHECK(none == nullptr);
    sluice_generation_destroy(polled);

    collected by_callback;
    options.on_event = collect;
    options.context = &by_callback;
    sluice_generation* called = nullptr;
    REQUIRE(sluice_runtime_submit(runtime.get(), &options, &called, nullptr) == SLUICE_OK);
    sluice_generation_wait(called);
    CHECK(by_callback.tokens == by_poll.tokens);
    CHECK(by_callback.events_after_end == 0);
    CHECK(sluice_generation_next(called, 0, &none, nullptr) == SLUICE_INVALID);
    sluice_generation_destroy(called);
}

TEST_CASE("requests that cannot run are refused with a reason") {
    const auto runtime = make(toml_for("mixtral", "reference"));
    const auto refused = [&](const sluice_generation_options& options) -> std::string {
        sluice_generation* generation = nullptr;
        sluice_error error = SLUICE_INIT(sluice_error);
        CHECK(sluice_runtime_submit(runtime.get(), &options, &generation, &error) != SLUICE_OK);
        CHECK(generation == nullptr);
        return error.message;
    };
    sluice_generation_options text = SLUICE_INIT(sluice_generation_options);
    text.prompt = {"hello", 5};
    CHECK(has(refused(text), "tokenizer.json"));
    const std::vector<int32_t> outside{1, 100000};
    CHECK(has(refused(options_for(outside)), "token 100000"));
    const auto tokens = prompt(1);
    sluice_generation_options options = options_for(tokens);
    options.set = SLUICE_SET_TOP_P;
    options.top_p = 7;
    CHECK(has(refused(options), "top_p"));
    options = options_for(tokens);
    options.set = 0x8000;
    CHECK(has(refused(options), "set"));
    options = options_for(tokens);
    options.flags = 0x8000;
    CHECK(has(refused(options), "flags"));
    options = options_for(tokens);
    options.struct_size = 2;
    CHECK(has(refused(options), "SLUICE_INIT"));
    options = options_for(tokens);
    options.token_ids = nullptr;
    CHECK(has(refused(options), "token_ids"));
    const sluice_named_text field{{"other", 5}, {"x", 1}};
    options = options_for(tokens);
    options.fields = &field;
    options.field_count = 1;
    CHECK(has(refused(options), "other"));
}

TEST_CASE("structs of older and newer callers") {
    const auto runtime = make(toml_for("mixtral", "reference"));
    const auto tokens = prompt(1);
    // An older caller, whose struct ends before `fields`.
    sluice_generation_options older = options_for(tokens);
    older.struct_size = uint32_t(offsetof(sluice_generation_options, fields));
    older.fields = reinterpret_cast<const sluice_named_text*>(8); // must not be looked at
    older.field_count = 9;
    sluice_generation* generation = nullptr;
    REQUIRE(sluice_runtime_submit(runtime.get(), &older, &generation, nullptr) == SLUICE_OK);
    sluice_generation_destroy(generation);

    // A newer one, with a field that this library does not know.
    struct {
        sluice_generation_options known;
        uint64_t unknown;
    } newer{options_for(tokens), 0};
    newer.known.struct_size = uint32_t(sizeof newer);
    REQUIRE(sluice_runtime_submit(runtime.get(), &newer.known, &generation, nullptr) == SLUICE_OK);
    sluice_generation_destroy(generation);
    newer.unknown = 1;
    CHECK(sluice_runtime_submit(runtime.get(), &newer.known, &generation, nullptr)
          == SLUICE_UNSUPPORTED);

    sluice_model_info info = SLUICE_INIT(sluice_model_info);
    info.struct_size = uint32_t(offsetof(sluice_model_info, layer_count));
    info.layer_count = 12345;
    REQUIRE(sluice_runtime_model_info(runtime.get(), &info, nullptr) == SLUICE_OK);
    CHECK(info.vocabulary_size == 512);
    CHECK(info.layer_count == 12345); // beyond what the caller said it has
    CHECK(info.struct_size == offsetof(sluice_model_info, layer_count));
}

TEST_CASE("two runtimes in one process, used and destroyed by several threads") {
    auto first = make(toml_for("mixtral", "onednn"));
    auto second = make(toml_for("deepseek_v3", "reference"));
    std::vector<std::vector<int32_t>> expected(2);
    for (size_t i = 0; i < 2; ++i) {
        const auto tokens = prompt(5);
        const sluice_generation_options options = options_for(tokens);
        sluice_generation* generation = nullptr;
        REQUIRE(
            sluice_runtime_submit((i == 0 ? first : second).get(), &options, &generation, nullptr)
            == SLUICE_OK);
        collected target;
        expected[i] = read_all(generation, target).tokens;
        sluice_generation_destroy(generation);
    }
    CHECK(expected[0] != expected[1]);
    std::atomic<int> wrong{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back([&, t] {
            const auto& runtime = t % 2 == 0 ? first : second;
            for (int i = 0; i < 4; ++i) {
                const auto tokens = prompt(t * 50 + i * 9);
                collected target;
                sluice_generation_options options = options_for(tokens);
                options.on_event = collect;
                options.context = &target;
                sluice_generation* generation = nullptr;
                if (sluice_runtime_submit(runtime.get(), &options, &generation, nullptr)
                    != SLUICE_OK) {
                    ++wrong;
                    continue;
                }
                if (i == 3) sluice_generation_cancel(generation);
                sluice_generation_wait(generation);
                sluice_generation_destroy(generation);
                if (i != 3 && target.tokens.size() != 12) ++wrong;
                if (target.finish == SLUICE_FINISH_NONE) ++wrong;
            }
        });
    }
    for (std::thread& thread : threads) thread.join();
    CHECK(wrong == 0);
    std::thread destroyer([&] { first.reset(); });
    destroyer.join();
}

TEST_CASE("destroying a runtime ends its generations, whose handles stay good") {
    auto runtime = make(toml_for("deepseek_v2", "reference"));
    const auto tokens = prompt(1);
    sluice_generation_options options = options_for(tokens);
    options.set = SLUICE_SET_TOKENS_MAX;
    options.tokens_max = 240;
    sluice_generation* polled = nullptr;
    REQUIRE(sluice_runtime_submit(runtime.get(), &options, &polled, nullptr) == SLUICE_OK);
    collected target;
    options.on_event = collect;
    options.context = &target;
    sluice_generation* called = nullptr;
    REQUIRE(sluice_runtime_submit(runtime.get(), &options, &called, nullptr) == SLUICE_OK);
    runtime.reset();
    CHECK(target.finish != SLUICE_FINISH_NONE);
    collected rest;
    CHECK(read_all(polled, rest).finish != SLUICE_FINISH_NONE);
    sluice_generation_destroy(called);
    sluice_generation_destroy(polled);
}

TEST_CASE("log and progress go where the caller wants them") {
    struct seen {
        std::mutex mutex;
        std::vector<std::string> lines;
        uint64_t done = 0, total = 0;
    } heard;
    sluice_runtime_options options = SLUICE_INIT(sluice_runtime_options);
    options.log_level = SLUICE_RUNTIME_LOG_DEBUG;
    options.on_log = [](void* context, uint32_t level, sluice_text line) {
        auto& target = *static_cast<seen*>(context);
        const std::lock_guard lock(target.mutex);
        CHECK(level >= SLUICE_RUNTIME_LOG_DEBUG);
        CHECK(line.data[line.size] == '\0');
        target.lines.emplace_back(line.data, line.size);
    };
    options.log_context = &heard;
    options.on_progress = [](void* context, uint64_t done, uint64_t total) {
        auto& target = *static_cast<seen*>(context);
        CHECK(done >= target.done);
        target.done = done;
        target.total = total;
    };
    options.progress_context = &heard;
    // Longer than the model was made for: a warning.
    const char* const overrides[] = {"engine.context_tokens_max=6000", "engine.cache_tokens=6000"};
    options.overrides = overrides;
    options.override_count = 2;
    const auto runtime = make(toml_for("mixtral", "reference"), &options);
    CHECK(heard.total > 0);
    CHECK(heard.done == heard.total);
    bool warned = false;
    for (const std::string& line : heard.lines) warned = warned || has(line, "positions");
    CHECK(warned);
}

TEST_CASE("the result cache answers the second time, and tells models apart") {
    const auto runtime = make(toml_for("mixtral", "onednn", "result_cache = \"memory\"\n"));
    const auto tokens = prompt(9);
    std::vector<std::vector<int32_t>> answers;
    for (const bool cached : {false, true}) {
        const sluice_generation_options options = options_for(tokens);
        sluice_generation* generation = nullptr;
        REQUIRE(sluice_runtime_submit(runtime.get(), &options, &generation, nullptr) == SLUICE_OK);
        const sluice_generation_event* event = nullptr;
        std::vector<int32_t> answer;
        do {
            REQUIRE(sluice_generation_next(generation, 20000, &event, nullptr) == SLUICE_OK);
            REQUIRE(event != nullptr);
            answer.insert(answer.end(), event->token_ids, event->token_ids + event->token_count);
        } while (event->finish == SLUICE_FINISH_NONE);
        CHECK(event->usage->from_result_cache == (cached ? 1 : 0));
        CHECK(event->finish == SLUICE_FINISH_TOKENS_MAX);
        answers.push_back(answer);
        sluice_generation_destroy(generation);
    }
    CHECK(answers[0] == answers[1]);
    sluice_generation_options other = options_for(tokens);
    other.flags |= SLUICE_GENERATION_NO_RESULT_CACHE;
    sluice_generation* generation = nullptr;
    REQUIRE(sluice_runtime_submit(runtime.get(), &other, &generation, nullptr) == SLUICE_OK);
    collected fresh;
    CHECK(read_all(generation, fresh).tokens == answers[0]);
    sluice_generation_destroy(generation);
}

TEST_CASE("a pipeline that reads other fields than a prompt") {
    const auto runtime =
        make(toml_for("mixtral", "reference")
             + "[[pipeline.stage]]\nname = \"join\"\nkind = \"template\"\n"
               "settings = { text = \"{a} and {b}\" }\n"
               "input = { a = \"request.left\", b = \"request.right\" }\n");
    const sluice_named_text fields[] = {{{"left", 4}, {"one", 3}}, {{"right", 5}, {"two", 3}}};
    sluice_generation_options options = SLUICE_INIT(sluice_generation_options);
    options.fields = fields;
    options.field_count = 2;
    sluice_generation* generation = nullptr;
    REQUIRE(sluice_runtime_submit(runtime.get(), &options, &generation, nullptr) == SLUICE_OK);
    const sluice_generation_event* event = nullptr;
    REQUIRE(sluice_generation_next(generation, 20000, &event, nullptr) == SLUICE_OK);
    REQUIRE(event != nullptr);
    CHECK(std::string(event->text.data, event->text.size) == "one and two");
    REQUIRE(sluice_generation_next(generation, 20000, &event, nullptr) == SLUICE_OK);
    REQUIRE(event != nullptr);
    CHECK(event->finish == SLUICE_FINISH_END_TOKEN);
    sluice_generation_destroy(generation);
    options.field_count = 1;
    sluice_error error = SLUICE_INIT(sluice_error);
    CHECK(sluice_runtime_submit(runtime.get(), &options, &generation, &error) == SLUICE_INVALID);
    CHECK(has(error.message, "\"right\""));
}
