// Whole answers by what they follow from: the runtime's side of a result cache plugin.
#pragma once

#include "engine/generation.hpp"
#include "plugin/plugin_host.hpp"

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace sluice {

struct stored_result {
    std::string text;
    std::vector<int32_t> token_ids;
    std::vector<float> log_probabilities;
    finish_reason reason = finish_reason::end_token;
    std::string stop;
};

// Safe to use from several threads. A store that fails costs a warning, never a request.
class result_store {
  public:
    // name_space: stands for everything but the request, such as loaded_model::fingerprint().
    result_store(std::shared_ptr<plugin_instance> plugin, host_services& services,
                 std::string name_space);

    // What the answer depends on besides the namespace, as 64 hexadecimal digits.
    static std::string key_of(std::span<const int32_t> prompt,
                              const generation_parameters& parameters, std::string_view tenant);

    std::optional<stored_result> find(const std::string& key);
    void put(const std::string& key, const stored_result& result);

  private:
    std::optional<std::string> get_bytes(const std::string& key);

    std::shared_ptr<plugin_instance> plugin_;
    host_services& services_;
    std::string name_space_;
};

// The stored form, which is checked when it is read: whatever is behind the cache may have changed
// it.
std::string stored_result_text(const stored_result& result);
stored_result parse_stored_result(const std::string& text);

} // namespace sluice
