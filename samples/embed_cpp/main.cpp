// Embeds sluice in a C++ program: asks for one text as it comes, then for two at once by callback.
//
//     embed_cpp CONFIG.toml PROMPT [TOKENS_MAX]
#include <sluice/sluice.hpp>

#include <cstdio>
#include <iostream>
#include <string>

namespace {

// The prompt once greedily, streamed.
void stream(sluice::embed::runtime& runtime, const sluice::embed::request& request) {
    for (const auto& event : runtime.submit(request)) {
        if (event.finish == SLUICE_FINISH_FAILED) {
            throw sluice::embed::error(event.status, event.message);
        }
        std::cout << event.text << std::flush;
        if (!event.finished()) continue;
        std::fprintf(stderr,
                     "\n%u prompt tokens, %u generated, first after %.3f s, "
                     "then %.1f per second\n",
                     event.usage.prompt_tokens, event.usage.completion_tokens,
                     event.usage.time_to_first_token_s, event.usage.tokens_per_second);
    }
    std::cout << '\n';
}

// Two variations at the same time: the engine computes both in one batch.
void compare(sluice::embed::runtime& runtime, sluice::embed::request request) {
    std::string first_text, second_text;
    request.temperature = 0.8;
    request.seed = 1;
    auto first = runtime.submit(
        request, [&](const sluice::embed::event& event) { first_text += event.text; });
    request.seed = 2;
    auto second = runtime.submit(
        request, [&](const sluice::embed::event& event) { second_text += event.text; });
    first.wait();
    second.wait();
    std::cout << "seed 1:" << first_text << "\nseed 2:" << second_text << '\n';
}

} // namespace

int main(int argument_count, char** arguments) {
    if (argument_count < 3 || argument_count > 4) {
        std::cerr << "usage: " << arguments[0] << " CONFIG.toml PROMPT [TOKENS_MAX]\n";
        return 2;
    }
    try {
        auto runtime = sluice::embed::runtime::from_file(arguments[1]);
        sluice::embed::request request(arguments[2]);
        if (argument_count == 4) request.tokens_max = uint32_t(std::stoul(arguments[3]));
        stream(runtime, request);
        compare(runtime, request);
        return 0;
    } catch (const std::exception& caught) {
        std::cerr << "embed_cpp: " << caught.what() << '\n';
        return 1;
    }
}
