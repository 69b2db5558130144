#include "tuning_cache.hpp"

#include <nlohmann/json.hpp>

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <fstream>
#include <random>
#include <sstream>
#include <stdexcept>

namespace sluice::cuda {

namespace {

constexpr std::streamoff file_bytes_max = 16 << 20;
constexpr size_t choices_max = 100000;

// A file's name from what it holds for: letters, digits and single dashes.
std::string file_name(const tuning_identity& identity) {
    std::string name;
    for (const auto& [key, value] : identity) {
        if (!name.empty()) name += '_';
        for (const char c : value) {
            const bool is_plain = std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '.';
            if (is_plain)
                name += c;
            else if (name.empty() || name.back() != '-')
                name += '-';
        }
    }
    return name + ".json";
}

// Held by one process at a time while it replaces a file of the folder. Where the file system has
// no locks, two that save at once keep the choices of one of them.
class folder_lock {
  public:
    explicit folder_lock(const std::filesystem::path& folder)
        : number_(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)) {
        if (number_ >= 0)
            while (::flock(number_, LOCK_EX) != 0 && errno == EINTR) {
            }
    }
    ~folder_lock() {
        if (number_ >= 0) ::close(number_);
    }
    folder_lock(const folder_lock&) = delete;
    folder_lock& operator=(const folder_lock&) = delete;

  private:
    int number_;
};

// Throws where the file is not what `write` writes.
std::map<tuning_key, tuned_choice> choices_of(const nlohmann::json& file,
                                              const tuning_identity& identity) {
    if (file.at("measured_on").get<tuning_identity>() != identity)
        throw std::runtime_error("it was measured elsewhere");
    const auto& listed = file.at("choices");
    if (!listed.is_array() || listed.size() > choices_max)
        throw std::runtime_error("\"choices\" is not a list of choices");
    std::map<tuning_key, tuned_choice> found;
    for (const auto& each : listed) {
        tuning_key key;
        key.family = each.at("family").get<std::string>();
        key.operands = each.at("operands").get<std::string>();
        key.rows = each.at("rows").get<int64_t>();
        tuned_choice choice;
        choice.variant = each.at("variant").get<std::string>();
        choice.us = each.at("us").get<double>();
        choice.us_rule = each.at("us_rule").get<double>();
        choice.from_file = true;
        found.insert_or_assign(std::move(key), std::move(choice));
    }
    return found;
}

} // namespace

tuning_cache::tuning_cache(std::filesystem::path folder, tuning_identity identity, report warn)
    : folder_(std::move(folder)), identity_(std::move(identity)), warn_(std::move(warn)) {
    if (folder_.empty()) return;
    path_ = folder_ / file_name(identity_);
    if (auto found = read()) choices_ = std::move(*found);
}

std::optional<tuning_cache::choice_map> tuning_cache::read() const {
    std::error_code error;
    if (!std::filesystem::exists(path_, error) && !error) return std::nullopt;
    try {
        if (error) throw std::runtime_error(error.message());
        // The size of what was opened: others put new files in its place.
        std::ifstream stream(path_, std::ios::binary | std::ios::ate);
        const std::streamoff size = stream.tellg();
        if (size > file_bytes_max) throw std::runtime_error("it is too large");
        std::string text(static_cast<size_t>(std::max<std::streamoff>(size, 0)), '\0');
        if (!stream.seekg(0).read(text.data(), size)) throw std::runtime_error("it cannot be read");
        return choices_of(nlohmann::json::parse(text), identity_);
    } catch (const std::exception& caught) {
        warn_(path_.string() + ": measured choices of kernels are left out: " + caught.what());
        return std::nullopt;
    }
}

const tuned_choice* tuning_cache::find(const tuning_key& key) const {
    const auto found = choices_.find(key);
    return found == choices_.end() ? nullptr : &found->second;
}

void tuning_cache::remember(const tuning_key& key, tuned_choice choice) {
    choice.from_file = false;
    choices_.insert_or_assign(key, std::move(choice));
    is_changed_ = true;
}

void tuning_cache::save() {
    if (path_.empty() || !is_changed_ || has_failed_) return;
    try {
        std::filesystem::create_directories(folder_);
        const folder_lock lock(folder_);
        // What this process measured stands, and else what was measured last.
        if (auto others = read())
            for (auto& [key, choice] : *others) {
                const tuned_choice* own = find(key);
                if (own == nullptr || own->from_file) choices_.insert_or_assign(key, choice);
            }
        write();
        is_changed_ = false;
    } catch (const std::exception& caught) {
        has_failed_ = true;
        warn_(path_.string() + ": measured choices of kernels cannot be kept: " + caught.what());
    }
}

void tuning_cache::write() const {
    auto listed = nlohmann::ordered_json::array();
    for (const auto& [key, choice] : choices_)
        listed.push_back({{"family", key.family},
                          {"operands", key.operands},
                          {"rows", key.rows},
                          {"variant", choice.variant},
                          {"us", choice.us},
                          {"us_rule", choice.us_rule}});
    const nlohmann::ordered_json file{{"measured_on", identity_}, {"choices", std::move(listed)}};
    std::random_device random;
    std::ostringstream name;
    name << '.' << path_.filename().string() << '.' << std::hex << random() << ".partial";
    const auto partial = folder_ / name.str();
    std::ofstream stream(partial, std::ios::binary);
    stream << file.dump(1) << '\n';
    stream.close();
    std::error_code error;
    if (!stream)
        error = std::make_error_code(std::errc::io_error);
    else
        std::filesystem::rename(partial, path_, error);
    if (!error) return;
    std::error_code ignored;
    std::filesystem::remove(partial, ignored);
    throw std::runtime_error(error.message());
}

std::filesystem::path default_tuning_folder() {
    // The environment of a process of raised rights is somebody else's.
    const char* cache = ::secure_getenv("XDG_CACHE_HOME");
    if (cache != nullptr && cache[0] == '/')
        return std::filesystem::path(cache) / "sluice" / "cuda";
    const char* home = ::secure_getenv("HOME");
    if (home == nullptr || home[0] != '/') return {};
    return std::filesystem::path(home) / ".cache" / "sluice" / "cuda";
}

} // namespace sluice::cuda
