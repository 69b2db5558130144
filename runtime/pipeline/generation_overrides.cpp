#include "pipeline/generation_overrides.hpp"

#include "base/error.hpp"
#include "base/text.hpp"

#include <limits>

namespace sluice {

namespace {

// The keys of [generation], which a stage may repeat.
const std::vector<std::string>& known_keys() {
    static const std::vector<std::string> keys{"tokens_max", "temperature",        "top_k", "top_p",
                                               "min_p",      "repetition_penalty", "seed",  "stop"};
    return keys;
}

class settings_reader {
  public:
    settings_reader(const configured_settings& settings, const std::string& stage)
        : settings_(settings), stage_(stage) {
        for (const auto& [key, value] : settings.values) {
            const auto& keys = known_keys();
            if (std::find(keys.begin(), keys.end(), key) != keys.end()) continue;
            fail(SLUICE_INVALID, "{}: stage \"{}\" (generate) has no setting \"{}\"; it knows {}{}",
                 value.origin.text(), stage, key, join(keys, ", "), did_you_mean(key, keys));
        }
    }

    template <typename Integer>
    void read_integer(const char* key, std::optional<Integer>& target, int64_t min) const {
        const auto found = settings_.values.find(key);
        if (found == settings_.values.end()) return;
        const auto* value = std::get_if<int64_t>(&found->second.value);
        const uint64_t largest = std::min<uint64_t>(std::numeric_limits<Integer>::max(),
                                                    std::numeric_limits<int64_t>::max());
        if (value == nullptr || *value < min || uint64_t(*value) > largest) {
            refuse(found->second, key, fmt::format("a whole number from {} on", min));
        }
        target = Integer(*value);
    }

    void read_number(const char* key, std::optional<double>& target) const {
        const auto found = settings_.values.find(key);
        if (found == settings_.values.end()) return;
        if (const auto* whole = std::get_if<int64_t>(&found->second.value)) {
            target = double(*whole);
        } else if (const auto* number = std::get_if<double>(&found->second.value)) {
            target = *number;
        } else {
            refuse(found->second, key, "a number");
        }
    }

    void read_texts(const char* key, std::optional<std::vector<std::string>>& target) const {
        const auto found = settings_.values.find(key);
        if (found == settings_.values.end()) return;
        const auto* texts = std::get_if<std::vector<std::string>>(&found->second.value);
        if (texts == nullptr) refuse(found->second, key, "a list of texts");
        target = *texts;
    }

  private:
    [[noreturn]] void refuse(const configured_value& value, const char* key,
                             const std::string& expected) const {
        fail(SLUICE_INVALID, "{}: stage \"{}\": {} must be {}", value.origin.text(), stage_, key,
             expected);
    }

    const configured_settings& settings_;
    const std::string& stage_;
};

template <typename Value>
void apply(const std::optional<Value>& source, Value& target) {
    if (source) target = *source;
}

} // namespace

void generation_overrides::apply_to(generation_parameters& parameters) const {
    apply(tokens_max, parameters.tokens_max);
    apply(temperature, parameters.sampling.temperature);
    apply(top_k, parameters.sampling.top_k);
    apply(top_p, parameters.sampling.top_p);
    apply(min_p, parameters.sampling.min_p);
    apply(repetition_penalty, parameters.sampling.repetition_penalty);
    apply(seed, parameters.sampling.seed);
    apply(stop, parameters.stop);
    apply(end_tokens_stop, parameters.end_tokens_stop);
}

generation_parameters parameters_of(const generation_configuration& configuration) {
    generation_parameters parameters;
    parameters.tokens_max = configuration.tokens_max;
    parameters.sampling = {configuration.temperature,
                           configuration.top_k,
                           configuration.top_p,
                           configuration.min_p,
                           configuration.repetition_penalty,
                           configuration.seed};
    parameters.stop = configuration.stop;
    return parameters;
}

generation_overrides overrides_from_settings(const configured_settings& settings,
                                             const std::string& stage) {
    const settings_reader reader(settings, stage);
    generation_overrides overrides;
    reader.read_integer("tokens_max", overrides.tokens_max, 1);
    reader.read_number("temperature", overrides.temperature);
    reader.read_integer("top_k", overrides.top_k, 0);
    reader.read_number("top_p", overrides.top_p);
    reader.read_number("min_p", overrides.min_p);
    reader.read_number("repetition_penalty", overrides.repetition_penalty);
    reader.read_integer("seed", overrides.seed, 0);
    reader.read_texts("stop", overrides.stop);
    generation_parameters tried;
    overrides.apply_to(tried);
    try {
        check_sampling_parameters(tried.sampling);
    } catch (const error& caught) {
        fail(SLUICE_INVALID, "{}: stage \"{}\": {}", settings.origin.text(), stage, caught.what());
    }
    return overrides;
}

} // namespace sluice
