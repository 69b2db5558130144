// Any bytes as a configuration, and as an override: an error or a configuration within its bounds.
#include "config/configuration.hpp"
#include "base/error.hpp"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

namespace {

// What every accepted configuration holds; whoever reads it later relies on that.
void require_bounds(const sluice::configuration& configuration) {
    const sluice::engine_configuration& engine = configuration.engine;
    const bool good =
        engine.tokens_per_step_max >= 1 && engine.tokens_per_step_max <= 65536
        && engine.sequences_max >= 1 && engine.sequences_max <= engine.tokens_per_step_max
        && engine.tokens_per_block >= 1
        && (engine.cache_tokens == 0 || engine.cache_tokens >= engine.tokens_per_block)
        && engine.worker_count <= 1024 && configuration.generation.tokens_max >= 1
        && configuration.generation.top_p > 0 && configuration.generation.top_p <= 1
        && !configuration.backend.empty() && configuration.backend.find('/') == std::string::npos;
    if (!good) std::abort();
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    try {
        require_bounds(sluice::configuration_from_text(text, "/etc/sluice", "fuzz.toml"));
    } catch (const sluice::error& problem) {
        if (std::string_view(problem.what()).find("fuzz.toml") == std::string_view::npos) {
            std::abort(); // every message names the file
        }
    }
    try {
        require_bounds(sluice::configuration_from_text("", "/", "fuzz.toml", {std::string(text)}));
    } catch (const sluice::error&) {
    }
    return 0;
}
