// Which launch variants were found fastest, kept in a file from one process to the next. Knows
// nothing of devices.
#pragma once

#include <compare>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>

namespace sluice::cuda {

// What a choice is remembered by.
struct tuning_key {
    std::string family;   // "product"
    std::string operands; // element types, how weights are stored, their shapes
    int64_t rows = 0;     // of the bucket that a call's rows fall into
    auto operator<=>(const tuning_key&) const = default;
};

struct tuned_choice {
    std::string variant; // the fastest
    double us = 0;       // what it took, microseconds
    double us_rule = 0;  // what the variant took that would be used without measuring
    bool from_file = false;
};

// What measurements hold for, by name: {"device": "NVIDIA H100 ...", "driver": "12.8"}.
using tuning_identity = std::map<std::string, std::string>;

// Not thread-safe; several processes may use one folder.
class tuning_cache {
  public:
    using report = std::function<void(const std::string&)>;

    // Reads the identity's file in `folder`, where there is one; an empty folder keeps nothing.
    // What cannot be read or was measured elsewhere is told to `warn`, left out, and replaced by
    // the next save.
    tuning_cache(std::filesystem::path folder, tuning_identity identity, report warn);

    // NULL where nothing is known; valid until the next change.
    const tuned_choice* find(const tuning_key& key) const;
    void remember(const tuning_key& key, tuned_choice choice);
    const std::map<tuning_key, tuned_choice>& choices() const { return choices_; }

    // Writes what was remembered since the last save, beside what other processes wrote meanwhile.
    // A failure is told to `warn`, once.
    void save();
    // "" where nothing is kept.
    const std::filesystem::path& path() const { return path_; }

  private:
    using choice_map = std::map<tuning_key, tuned_choice>;
    // Nothing where there is no file or none that can be used.
    std::optional<choice_map> read() const;
    void write() const;

    std::filesystem::path folder_;
    std::filesystem::path path_;
    tuning_identity identity_;
    report warn_;
    choice_map choices_;
    bool is_changed_ = false;
    bool has_failed_ = false;
};

// $XDG_CACHE_HOME/sluice/cuda or ~/.cache/sluice/cuda; "" where the environment names neither, or
// is not to be trusted.
std::filesystem::path default_tuning_folder();

} // namespace sluice::cuda
