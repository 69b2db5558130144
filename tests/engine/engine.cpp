#include "engine/engine.hpp"

#include "engine/engine_fixture.hpp"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <future>
#include <random>

using namespace sluice;
using namespace sluice::test;
using namespace std::chrono_literals;

namespace {

std::string message_of(const std::function<void()>& function) {
    try {
        function();
    } catch (const error& caught) {
        return caught.what();
    }
    return "";
}

} // namespace

TEST_CASE("a greedy answer is the model's own, in tokens and text") {
    engine_fixture engine;
    const std::vector<int32_t> prompt{7, 4, 11, 11, 14};
    const auto expected = fake_executor::expected(prompt, 40, letter_count);
    const answer whole = read_all(*engine->submit(request_for(prompt, 40)));
    CHECK(whole.tokens == expected);
    CHECK(whole.text == letters(expected));
    CHECK(whole.log_probabilities.size() == 40);
    for (const float value : whole.log_probabilities) CHECK(value <= 0.0f);
    CHECK(whole.last.reason == finish_reason::tokens_max);
    CHECK(whole.last.usage.prompt_tokens == 5);
    CHECK(whole.last.usage.completion_tokens == 40);
    CHECK(whole.last.usage.time_to_first_token_s > 0);
    CHECK(whole.last.usage.duration_s >= whole.last.usage.time_to_first_token_s);
}

TEST_CASE("all logits are read only where a row needs more of them than the backend's choice") {
    engine_fixture engine;
    engine.executor->samples = true;
    const std::vector<int32_t> prompt{7, 4, 11, 11, 14};
    const answer greedy = read_all(*engine->submit(request_for(prompt, 40)));
    CHECK(greedy.tokens == fake_executor::expected(prompt, 40, letter_count));
    CHECK(engine.executor->logits_read == 0);
    engine.executor->samples = false;
    const answer by_host = read_all(*engine->submit(request_for(prompt, 40)));
    CHECK(by_host.tokens == greedy.tokens);
    CHECK(by_host.log_probabilities == greedy.log_probabilities);
    CHECK(engine.executor->logits_read == 40);

    // A row that draws beside one that does not: each gets what it would alone.
    engine.executor->samples = true;
    generation_request drawn = request_for(prompt, 20);
    drawn.parameters.sampling.temperature = 0.8;
    drawn.parameters.sampling.seed = 5;
    generation_request penalised = request_for(prompt, 20);
    penalised.parameters.sampling.repetition_penalty = 1.5;
    const auto first = engine->submit(drawn);
    const auto second = engine->submit(request_for(prompt, 40));
    const auto third = engine->submit(penalised);
    CHECK(read_all(*first).tokens
          == fake_executor::expected(prompt, 20, letter_count, drawn.parameters.sampling));
    CHECK(read_all(*second).tokens == greedy.tokens);
    CHECK(read_all(*third).tokens
          == fake_executor::expected(prompt, 20, letter_count, penalised.parameters.sampling));
    CHECK(engine.executor->logits_read > 40);
}

TEST_CASE("time between decode steps is counted apart from theirs") {
    engine_fixture engine;
    read_all(*engine->submit(request_for({7, 4, 11, 11, 14}, 40)));
    const engine_statistics first = engine->statistics();
    // The prompt's step is none of them, and the first after it does not follow one.
    CHECK(first.decode_steps == 38);
    CHECK(first.decode_s == doctest::Approx(38 * 0.004));
    CHECK(first.decode_host_s == doctest::Approx(38 * 0.001));
    // Nor does one after a pause.
    read_all(*engine->submit(request_for({1, 2, 3, 4, 5}, 3)));
    CHECK(engine->statistics().decode_steps == 39);
}

TEST_CASE("what a step made is sent while the next one runs") {
    std::string log;
    engine_fixture engine(64, {16, 4}, [&](const step_plan&) { log += 's'; });
    const auto stream = engine->submit(
        request_for({7, 4, 11}, 3), [&](const auto& event) { log += event.finished ? 'f' : 'e'; });
    stream->join();
    CHECK(log == "sseseef");
}

TEST_CASE("requests that are submitted together begin together") {
    std::vector<size_t> parts;
    engine_fixture engine(64, {16, 4},
                          [&](const step_plan& plan) { parts.push_back(plan.parts.size()); });
    CHECK_THROWS_AS(engine->submit({request_for({1, 2}, 4), request_for({}, 4)}), error);
    const auto streams =
        engine->submit({request_for({1, 2, 3}, 4), request_for({4, 5}, 4), request_for({6}, 4)});
    REQUIRE(streams.size() == 3);
    CHECK(read_all(*streams[0]).tokens == fake_executor::expected({1, 2, 3}, 4, letter_count));
    CHECK(read_all(*streams[1]).tokens == fake_executor::expected({4, 5}, 4, letter_count));
    CHECK(read_all(*streams[2]).tokens == fake_executor::expected({6}, 4, letter_count));
    CHECK(parts == std::vector<size_t>(4, 3));
}

TEST_CASE("a text prompt is the tokens it is made of") {
    engine_fixture engine;
    generation_request request;
    request.prompt = "hello";
    request.parameters.tokens_max = 12;
    request.parameters.end_tokens_stop = false;
    const auto expected = fake_executor::expected({7, 4, 11, 11, 14}, 12, letter_count);
    CHECK(read_all(*engine->submit(request)).tokens == expected);
}

TEST_CASE("the end token ends the text and is not part of it") {
    engine_fixture engine;
    // A prompt whose greedy answer comes to the end token after some letters.
    for (int32_t first = 0; first < 26; ++first) {
        const auto expected = fake_executor::expected({first}, 60, letter_count);
        const auto end = std::find(expected.begin(), expected.end(), letter_end);
        if (end == expected.end() || end - expected.begin() < 3) continue;
        generation_request request = request_for({first}, 60);
        request.parameters.end_tokens_stop = true;
        const answer whole = read_all(*engine->submit(request));
        CHECK(whole.last.reason == finish_reason::end_token);
        CHECK(whole.tokens == std::vector<int32_t>(expected.begin(), end + 1));
        CHECK(whole.text == letters({expected.begin(), end}));
        return;
    }
    FAIL("no prompt leads to the end token");
}

TEST_CASE("stop strings end the text across tokens, wherever they are") {
    engine_fixture engine;
    int tried = 0;
    for (int32_t first = 0; first < 26; ++first) {
        const auto expected = fake_executor::expected({first}, 40, letter_count);
        const std::string text = letters(expected);
        for (const size_t length : {1u, 2u, 3u}) {
            const std::string stop = text.substr(9, length);
            if (!std::all_of(stop.begin(), stop.end(), [](char c) { return c >= 'a'; })) continue;
            generation_request request = request_for({first}, 40);
            request.parameters.stop = {"never-in-the-text", stop};
            const answer whole = read_all(*engine->submit(request));
            CHECK(whole.text == text.substr(0, text.find(stop)));
            CHECK(whole.last.reason == finish_reason::stop_text);
            CHECK(whole.last.stop == stop);
            ++tried;
        }
    }
    CHECK(tried > 20);
}

TEST_CASE("requests that run together get the texts they get alone") {
    std::mt19937 random(8);
    for (const uint32_t blocks :
         {20u, 64u}) { // a pool that is too small for all, and one that is not
        engine_fixture engine(blocks, {12, 5});
        std::vector<std::vector<int32_t>> expected;
        std::vector<std::shared_ptr<generation>> streams;
        for (int i = 0; i < 40; ++i) {
            std::vector<int32_t> prompt(1 + random() % 24);
            for (int32_t& token : prompt) token = int32_t(random() % 4 == 0);
            generation_request request = request_for(prompt, 1 + uint32_t(random() % 30));
            if (i % 2 == 0) {
                request.parameters.sampling = {.temperature = 0.8,
                                               .top_k = 12,
                                               .top_p = 0.9,
                                               .repetition_penalty = 1.1,
                                               .seed = uint64_t(i)};
            }
            expected.push_back(fake_executor::expected(prompt, request.parameters.tokens_max,
                                                       letter_count, request.parameters.sampling));
            streams.push_back(engine->submit(request));
        }
        for (size_t i = 0; i < streams.size(); ++i) {
            CAPTURE(i);
            CHECK(read_all(*streams[i]).tokens == expected[i]);
        }
        const engine_statistics statistics = engine->statistics();
        CHECK(statistics.requests == 40);
        CHECK(statistics.requests_failed == 0);
        CHECK(statistics.prompt_tokens_reused > 0);
        if (blocks == 20) CHECK(statistics.preemptions > 0);
    }
}

TEST_CASE("a second request reuses the first one's prefix and says so") {
    engine_fixture engine;
    const std::vector<int32_t> prompt(22, 3);
    const answer first = read_all(*engine->submit(request_for(prompt, 5)));
    const answer second = read_all(*engine->submit(request_for(prompt, 5)));
    CHECK(first.last.usage.prompt_tokens_reused == 0);
    CHECK(second.last.usage.prompt_tokens_reused == 20);
    CHECK(second.tokens == first.tokens);
    generation_request foreign = request_for(prompt, 5);
    foreign.tenant = "other";
    CHECK(read_all(*engine->submit(foreign)).last.usage.prompt_tokens_reused == 0);
}

TEST_CASE("cancelling ends one request and no other") {
    engine_fixture engine(256, {16, 4}, [](const step_plan&) { std::this_thread::sleep_for(1ms); });
    auto endless = engine->submit(request_for({1, 2}, 1000));
    auto other = engine->submit(request_for({1, 3}, 20));
    REQUIRE(endless->wait(10s).has_value());
    endless->cancel();
    const answer cut = read_all(*endless);
    CHECK(cut.last.reason == finish_reason::cancelled);
    CHECK(cut.last.usage.completion_tokens < 1000);
    CHECK(read_all(*other).last.reason == finish_reason::tokens_max);
    endless->cancel(); // again, after the end: nothing
    CHECK(endless->finished());
    CHECK_FALSE(endless->poll().has_value());
}

TEST_CASE("a deadline ends a request with what there is") {
    engine_fixture engine(256, {16, 4}, [](const step_plan&) { std::this_thread::sleep_for(1ms); });
    generation_request request = request_for({1, 2}, 1000);
    request.deadline = std::chrono::steady_clock::now() + 60ms;
    const answer whole = read_all(*engine->submit(request));
    CHECK(whole.last.reason == finish_reason::deadline);
    CHECK(whole.last.usage.completion_tokens > 0);
    CHECK(whole.last.usage.completion_tokens < 1000);
}

TEST_CASE("the context ends what no other limit ends") {
    engine_fixture engine(4); // 16 tokens
    const answer whole = read_all(*engine->submit(request_for({1, 2, 3}, 1000)));
    CHECK(whole.last.reason == finish_reason::context_full);
    CHECK(whole.last.usage.completion_tokens == 13);
}

TEST_CASE("a step that fails takes its own requests, and the engine goes on") {
    std::atomic<int> failures{0};
    engine_fixture engine(64, {16, 4}, [&](const step_plan& plan) {
        // A poisoned token: whatever shares its step is lost with it.
        for (const int32_t token : plan.token_ids) {
            if (token == 25) {
                ++failures;
                fail(SLUICE_DEVICE_LOST, "the test's device failed");
            }
        }
    });
    const answer lost = read_all(*engine->submit(request_for({25}, 5)));
    CHECK(lost.last.reason == finish_reason::failed);
    CHECK(lost.last.status == SLUICE_DEVICE_LOST);
    CHECK(lost.last.message == "the test's device failed");
    CHECK(failures == 1);
    const auto expected = fake_executor::expected({1, 1}, 3, letter_count);
    const answer fine = read_all(*engine->submit(request_for({1, 1}, 3)));
    CHECK(fine.last.reason != finish_reason::failed);
    CHECK(fine.tokens == expected);
    CHECK(engine->statistics().steps_failed == 1);
    CHECK(engine->statistics().requests_failed == 1);
}

TEST_CASE("requests that cannot run are refused at once") {
    engine_fixture engine(8);
    const auto refused = [&](generation_request request) {
        return message_of([&] { engine->submit(std::move(request)); });
    };
    CHECK(refused(request_for({1, 99}, 5)).find("token 99 at place 1") != std::string::npos);
    CHECK(refused(request_for({-1}, 5)).find("vocabulary") != std::string::npos);
    CHECK(refused(request_for({1}, 0)).find("tokens_max") != std::string::npos);
    CHECK(refused(request_for(std::vector<int32_t>(32, 1), 5)).find("32 tokens")
          != std::string::npos);
    CHECK(refused(request_for({}, 5)).find("prompt is empty") != std::string::npos);
    generation_request bad = request_for({1}, 5);
    bad.parameters.sampling.top_p = 2;
    CHECK(refused(bad).find("top_p") != std::string::npos);
    bad = request_for({1}, 5);
    bad.parameters.stop = {""};
    CHECK(refused(bad).find("stop string") != std::string::npos);
    CHECK(engine->statistics().requests == 0);
}

TEST_CASE("callbacks see every event in order, and may submit and cancel") {
    engine_fixture engine;
    std::promise<answer> first_done, second_done;
    answer first, second;
    auto stream = engine->submit(request_for({5}, 8), [&](const generation_event& event) {
        add(first, event);
        if (!event.finished) return;
        engine->submit(request_for({6}, 4), [&](const generation_event& inner) {
            add(second, inner);
            if (inner.finished) second_done.set_value(second);
        });
        first_done.set_value(first);
    });
    CHECK(first_done.get_future().get().tokens == fake_executor::expected({5}, 8, letter_count));
    CHECK(second_done.get_future().get().tokens == fake_executor::expected({6}, 4, letter_count));
    stream->join();
    CHECK_FALSE(stream->poll().has_value());
}

TEST_CASE("a callback that throws cancels its own request") {
    engine_fixture engine;
    std::atomic<int> events{0};
    auto stream = engine->submit(request_for({5}, 50), [&](const generation_event&) {
        ++events;
        throw std::runtime_error("reader gone");
    });
    stream->join();
    CHECK(events >= 2);
    CHECK(events < 50);
    CHECK(read_all(*engine->submit(request_for({5}, 3))).tokens.size() == 3);
}

TEST_CASE("destroying the engine ends what still runs") {
    std::shared_ptr<generation> running, waiting;
    {
        engine_fixture engine(256, {16, 1},
                              [](const step_plan&) { std::this_thread::sleep_for(1ms); });
        running = engine->submit(request_for({1}, 900));
        waiting = engine->submit(request_for({2}, 900));
        REQUIRE(running->wait(10s).has_value());
    }
    CHECK(read_all(*running).last.reason == finish_reason::cancelled);
    CHECK(read_all(*waiting).last.reason == finish_reason::cancelled);
}

TEST_CASE("characters that span tokens come whole, and the pieces make up the decoded text") {
    engine_fixture engine;
    int split = 0;
    for (int32_t first = 0; first < 28; ++first) {
        const auto expected = fake_executor::expected({first}, 60, letter_count);
        for (size_t i = 0; i + 1 < expected.size(); ++i) {
            split += expected[i] == letter_first_byte && expected[i + 1] == letter_second_byte;
        }
        auto stream = engine->submit(request_for({first}, 60));
        std::string text;
        while (const auto event = stream->wait(10s)) {
            if (event->finished) break;
            // A cut character would show as a lone first byte.
            if (!event->text.empty()) CHECK(uint8_t(event->text.back()) != 0xC3);
            text += event->text;
        }
        CHECK(text == letters(expected));
    }
    CHECK(split > 0);
}

TEST_CASE("many threads submit, read and cancel") {
    engine_fixture engine(128, {24, 6});
    std::vector<std::thread> threads;
    std::atomic<int> wrong{0};
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back([&, t] {
            std::mt19937 random{uint32_t(t)};
            for (int i = 0; i < 25; ++i) {
                const std::vector<int32_t> prompt{t, int32_t(random() % 26), 3};
                const auto stream = engine->submit(request_for(prompt, 12));
                if (i % 5 == 4) {
                    stream->cancel();
                    read_all(*stream);
                    continue;
                }
                const auto expected = fake_executor::expected(prompt, 12, letter_count);
                if (read_all(*stream).tokens != expected) ++wrong;
                engine->statistics();
            }
        });
    }
    for (std::thread& thread : threads) thread.join();
    CHECK(wrong == 0);
    CHECK(engine->statistics().requests == 100);
}
