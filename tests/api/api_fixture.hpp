// Configurations for tests through the C API, on the small golden models.
#pragma once

#include <sluice/sluice.hpp>

#include <string>
#include <vector>

namespace api_test {

// `more`: keys of the top table.
inline std::string toml_for(const std::string& family, const std::string& backend,
                            const std::string& more = {}) {
    return "backend = \"" + backend + "\"\nplugin_folders = [\"" SLUICE_PLUGIN_BUILD_DIR "\"]\n"
           + more + "[model]\npath = \"" SLUICE_TEST_DATA_DIR "/models/" + family
           + "\"\n[engine]\ntokens_per_step_max = 32\nsequences_max = 4\ncontext_tokens_max = 256\n"
             "cache_tokens = 1024\ntokens_per_block = 8\nworker_count = 2\n"
             "[generation]\ntokens_max = 12\n";
}

inline std::vector<int32_t> prompt(int32_t first, size_t count = 10) {
    std::vector<int32_t> tokens;
    for (size_t i = 0; i < count; ++i) tokens.push_back((first + int32_t(i) * 37) % 500 + 2);
    return tokens;
}

inline sluice::embed::request request_for(std::vector<int32_t> tokens) {
    sluice::embed::request request;
    request.token_ids = std::move(tokens);
    request.flags = SLUICE_GENERATION_IGNORE_END;
    return request;
}

} // namespace api_test
