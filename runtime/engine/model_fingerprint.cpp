#include "engine/model_fingerprint.hpp"

#include "base/mapped_file.hpp"
#include "base/sha256.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <filesystem>
#include <vector>

namespace sluice {

namespace {

constexpr size_t page_bytes = 4096;
constexpr size_t page_count_max = 256;

void add_file(sha256& hash, const std::filesystem::path& path) {
    const auto changed = std::filesystem::last_write_time(path).time_since_epoch().count();
    const auto file = mapped_file::open(path);
    const auto bytes = file->bytes();
    hash.update(fmt::format("{}\n{}\n{}\n", path.filename().string(), bytes.size(), changed));
    const size_t pages = (bytes.size() + page_bytes - 1) / page_bytes;
    const size_t sampled = std::min(pages, page_count_max);
    for (size_t i = 0; i < sampled; ++i) {
        const size_t begin = i * pages / sampled * page_bytes;
        hash.update(bytes.subspan(begin, std::min(page_bytes, bytes.size() - begin)));
    }
}

} // namespace

std::string model_fingerprint(const checkpoint& weights, std::string_view computation) {
    sha256 hash;
    hash.update(weights.config().to_json().dump());
    hash.update(fmt::format("\n{}\n", computation.size()));
    hash.update(computation);
    if (weights.is_dummy()) {
        hash.update("dummy");
        return hexadecimal(hash.finish());
    }
    std::vector<std::filesystem::path> files;
    for (const auto& entry : std::filesystem::directory_iterator(weights.directory())) {
        if (entry.path().extension() == ".safetensors") files.push_back(entry.path());
    }
    std::sort(files.begin(), files.end());
    for (const auto& file : files) add_file(hash, file);
    return hexadecimal(hash.finish());
}

} // namespace sluice
