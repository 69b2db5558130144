// An engine on the fake model, whose tokens are letters, and what tests ask of it.
#pragma once

#include "engine/engine.hpp"
#include "engine/fake_executor.hpp"
#include "engine/letter_tokenizer.hpp"

#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace sluice::test {

struct engine_fixture {
    fake_executor* executor = nullptr;
    std::unique_ptr<engine> made;

    explicit engine_fixture(uint32_t blocks = 64, scheduler_limits limits = {16, 4},
                            std::function<void(const step_plan&)> before_step = {},
                            std::shared_ptr<result_store> results = nullptr,
                            speculation_options speculation = {}) {
        engine_options options;
        options.pool = {4, {{blocks, 0}}, true};
        options.limits = limits;
        options.context = {letter_tokenizer(), {letter_end}, letter_count, blocks * 4};
        options.results = std::move(results);
        options.speculation = std::move(speculation);
        options.root_key = [](std::string_view tenant) {
            return block_key_root({"fake", "", "", "", tenant}, 4);
        };
        auto owned = std::make_unique<fake_executor>(letter_count, options.pool);
        executor = owned.get();
        executor->before_step = std::move(before_step);
        made = std::make_unique<engine>(std::move(owned), std::move(options));
    }
    engine* operator->() const { return made.get(); }
};

inline generation_request request_for(std::vector<int32_t> tokens, uint32_t tokens_max) {
    generation_request request;
    request.token_ids = std::move(tokens);
    request.parameters.tokens_max = tokens_max;
    request.parameters.end_tokens_stop = false;
    return request;
}

struct answer {
    std::string text;
    std::vector<int32_t> tokens;
    std::vector<float> log_probabilities;
    generation_event last;
};

inline void add(answer& whole, const generation_event& event) {
    if (event.finished) {
        whole.last = event;
        return;
    }
    whole.text += event.text;
    whole.tokens.insert(whole.tokens.end(), event.token_ids.begin(), event.token_ids.end());
    whole.log_probabilities.insert(whole.log_probabilities.end(), event.log_probabilities.begin(),
                                   event.log_probabilities.end());
}

inline answer read_all(generation& stream) {
    answer whole;
    while (const auto event = stream.wait(std::chrono::seconds(10))) add(whole, *event);
    return whole;
}

inline std::string letters(const std::vector<int32_t>& tokens) {
    return letter_tokenizer()->decode(tokens, true);
}

} // namespace sluice::test
