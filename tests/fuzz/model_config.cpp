// Any text as config.json or as the index of a sharded checkpoint: typed getters, the path of every
// value, the copy, the quantization configuration with its patterns, the shard map.
#include "base/error.hpp"
#include "base/json.hpp"
#include "model/checkpoint.hpp"
#include "model/gptq_config.hpp"

#include <nlohmann/json.hpp>

#include <cstdlib>
#include <functional>
#include <string_view>

namespace {

void attempt(const std::function<void()>& action) {
    try {
        action();
    } catch (const sluice::error&) {
    }
}

void visit(const sluice::json_view& view, int& budget) {
    if (--budget < 0) return;
    (void)view.where();
    (void)view.describe();
    attempt([&] { (void)view.as_integer(0, 100); });
    attempt([&] { (void)view.as_number(); });
    attempt([&] { (void)view.as_text(); });
    for (sluice::json_view child : view) visit(child, budget);
    if (view.is_object()) {
        attempt([&] { (void)view.integer("hidden_size", 1, 1 << 20); });
        for (const std::string& key : view.keys()) {
            if (!view.contains(key)) std::abort();
        }
    }
}

void read_quantization(const sluice::json_view& root) {
    sluice::gptq_config config = sluice::gptq_config::parse(root);
    attempt([&] { (void)config.resolve("model.layers.0.mlp.experts.10.up_proj"); });
    attempt([&] { (void)config.resolve("lm_head"); });
    // What was read can be written, and means the same when read again.
    std::string text = config.to_json("fuzz:1").dump();
    auto again = sluice::gptq_config::parse(sluice::parse_json(text, "again"));
    if (again.to_json("fuzz:1").dump() != text) std::abort();
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    std::string_view text(reinterpret_cast<const char*>(data), size);
    attempt([&] {
        sluice::json_view root = sluice::parse_json(text, "fuzz");
        int budget = 200;
        visit(root, budget);
        auto copy = root.to_json();
        if (copy.size()
            != (root.is_null()                        ? 0
                : root.is_array() || root.is_object() ? root.size()
                                                      : 1)) {
            std::abort();
        }
        attempt([&] { (void)sluice::parse_safetensors_index(root); });
        attempt([&] { read_quantization(root); });
    });
    return 0;
}
