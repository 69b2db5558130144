#include "engine/result_store.hpp"

#include "base/error.hpp"
#include "base/json.hpp"
#include "base/sha256.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>

namespace sluice {

namespace {

constexpr int64_t stored_version = 1;
// Room that most answers fit into; longer ones are asked for twice.
constexpr uint64_t first_capacity_bytes = 64 << 10;
constexpr uint64_t result_bytes_max = 64 << 20;

finish_reason reason_from_name(std::string_view name) {
    for (const finish_reason reason : {finish_reason::end_token, finish_reason::stop_text,
                                       finish_reason::tokens_max, finish_reason::context_full}) {
        if (finish_reason_name(reason) == name) return reason;
    }
    fail(SLUICE_INVALID, "a cached result ended for the unknown reason \"{}\"", name);
}

} // namespace

std::string stored_result_text(const stored_result& result) {
    const nlohmann::ordered_json json{{"version", stored_version},
                                      {"text", result.text},
                                      {"token_ids", result.token_ids},
                                      {"log_probabilities", result.log_probabilities},
                                      {"reason", finish_reason_name(result.reason)},
                                      {"stop", result.stop}};
    return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

stored_result parse_stored_result(const std::string& text) {
    const json_view json = parse_json(text, "cached result");
    json.integer("version", stored_version, stored_version);
    stored_result result;
    result.text = json.text("text");
    for (const json_view& token : json.array("token_ids")) {
        result.token_ids.push_back(int32_t(token.as_integer(0, INT32_MAX)));
    }
    for (const json_view& value : json.array("log_probabilities")) {
        result.log_probabilities.push_back(float(value.as_number()));
    }
    if (result.log_probabilities.size() != result.token_ids.size()) {
        fail(SLUICE_INVALID, "a cached result has {} tokens and {} log-probabilities",
             result.token_ids.size(), result.log_probabilities.size());
    }
    result.reason = reason_from_name(json.text("reason"));
    result.stop = json.text("stop");
    return result;
}

result_store::result_store(std::shared_ptr<plugin_instance> plugin, host_services& services,
                           std::string name_space)
    : plugin_(std::move(plugin)), services_(services), name_space_(std::move(name_space)) {}

std::string result_store::key_of(std::span<const int32_t> prompt,
                                 const generation_parameters& parameters, std::string_view tenant) {
    const sampling_parameters& sampling = parameters.sampling;
    sha256 hash;
    hash.update(fmt::format("{}:{} {} ", tenant.size(), tenant, prompt.size()));
    hash.update(std::as_bytes(prompt));
    hash.update(fmt::format("{} {} ", parameters.tokens_max, parameters.end_tokens_stop));
    hash.update(fmt::format("{} {} ", sampling.temperature, sampling.repetition_penalty));
    if (sampling.temperature > 0) { // a greedy text depends on none of these
        hash.update(fmt::format("{} {} {} {} ", sampling.top_k, sampling.top_p, sampling.min_p,
                                sampling.seed));
    }
    std::vector<std::string> stops = parameters.stop;
    std::sort(stops.begin(), stops.end());
    for (const std::string& stop : stops) hash.update(fmt::format("{}:{} ", stop.size(), stop));
    return hexadecimal(hash.finish());
}

std::optional<std::string> result_store::get_bytes(const std::string& key) {
    std::string bytes(first_capacity_bytes, '\0');
    for (int attempt = 0; attempt < 3; ++attempt) { // it may grow between two calls
        uint64_t size_bytes = 0;
        uint32_t found = 0;
        plugin_call call = plugin_->call("get");
        call = plugin_->result_cache().get(plugin_->handle(), text_view(name_space_),
                                           text_view(key), bytes.data(), bytes.size(), &size_bytes,
                                           &found, call.error());
        if (found == 0) return std::nullopt;
        if (size_bytes <= bytes.size()) {
            bytes.resize(size_bytes);
            return bytes;
        }
        if (size_bytes > result_bytes_max) return std::nullopt;
        bytes.resize(size_bytes);
    }
    return std::nullopt;
}

std::optional<stored_result> result_store::find(const std::string& key) {
    try {
        const auto bytes = get_bytes(key);
        if (!bytes) return std::nullopt;
        return parse_stored_result(*bytes);
    } catch (const error& caught) {
        services_.log(log_level::warning, "a cached result is not used: {}", caught.what());
        return std::nullopt;
    }
}

void result_store::put(const std::string& key, const stored_result& result) {
    try {
        const std::string bytes = stored_result_text(result);
        plugin_call call = plugin_->call("put");
        call =
            plugin_->result_cache().put(plugin_->handle(), text_view(name_space_), text_view(key),
                                        bytes.data(), bytes.size(), 0, call.error());
    } catch (const error& caught) {
        services_.log(log_level::warning, "a result is not cached: {}", caught.what());
    }
}

} // namespace sluice
