#include "model/checkpoint.hpp"

#include "base/error.hpp"
#include "base/text.hpp"

#include <algorithm>
#include <unordered_map>

namespace sluice {
namespace {

constexpr size_t shards_max = 4096;

bool is_present(const std::filesystem::path& path) {
    std::error_code ignored;
    return std::filesystem::exists(path, ignored);
}

// A model folder's file names of weights that sluice does not read, to say so instead of "missing".
std::string other_weights_hint(const std::filesystem::path& directory) {
    for (const char* name : {"pytorch_model.bin", "pytorch_model.bin.index.json", "tf_model.h5",
                             "consolidated.safetensors", "adapter_model.safetensors"}) {
        if (is_present(directory / name)) {
            return fmt::format(
                "; {} is there, but is not a format of whole models that sluice reads", name);
        }
    }
    return "; is this a model folder in the Hugging Face layout?";
}

std::filesystem::path folder_of(const std::filesystem::path& path) {
    std::error_code ignored;
    if (std::filesystem::is_directory(path, ignored)) return path;
    if (path.filename() == "config.json") {
        return path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
    }
    if (!is_present(path)) {
        fail(SLUICE_UNAVAILABLE, "{}: no such folder; expected a model folder with config.json",
             path.string());
    }
    fail(SLUICE_INVALID, "{}: expected a model folder with config.json, found a file",
         path.string());
}

class file_checkpoint final : public checkpoint {
  public:
    explicit file_checkpoint(const std::filesystem::path& path) : checkpoint(path) {
        std::filesystem::path single = directory_ / "model.safetensors";
        std::filesystem::path index = directory_ / "model.safetensors.index.json";
        if (is_present(single)) {
            add_file(single);
        } else if (is_present(index)) {
            add_shards(index);
        } else {
            fail(SLUICE_UNAVAILABLE,
                 "{}: expected model.safetensors or model.safetensors.index.json, found neither{}",
                 directory_.string(), other_weights_hint(directory_));
        }
    }

    bool is_dummy() const override { return false; }
    bool contains(std::string_view name) const override { return tensors_.contains(name); }

    tensor_view tensor(std::string_view name,
                       std::span<const int64_t> expected_shape) const override {
        auto place = tensors_.find(name);
        if (place == tensors_.end()) {
            fail(SLUICE_INVALID, "{}: expected the tensor {} {}, found none{}", directory_.string(),
                 quote(name, 160), shape_text(expected_shape), did_you_mean(name, names()));
        }
        const auto& [entry, file] = place->second;
        if (!std::equal(entry->shape.begin(), entry->shape.end(), expected_shape.begin(),
                        expected_shape.end())) {
            fail(SLUICE_INVALID,
                 "{}: {}: expected the shape {} that config.json asks for, found {}",
                 file->path().string(), quote(name, 160), shape_text(expected_shape),
                 shape_text(entry->shape));
        }
        return file->tensor(*entry);
    }

    std::optional<tensor_view> find(std::string_view name) const override {
        auto place = tensors_.find(name);
        if (place == tensors_.end()) return std::nullopt;
        return place->second.file->tensor(*place->second.entry);
    }

    std::vector<std::string> names() const override {
        std::vector<std::string> list;
        list.reserve(tensors_.size());
        for (const auto& [name, location] : tensors_) list.emplace_back(name);
        return list;
    }

    std::map<std::string, element_type_total> totals() const override {
        std::map<std::string, element_type_total> by_type;
        for (const auto& [name, location] : tensors_) {
            element_type_total& total = by_type[location.entry->dtype];
            total.tensors += 1;
            total.size_bytes += location.entry->size_bytes;
            uint64_t elements = 1;
            for (int64_t dimension : location.entry->shape) elements *= uint64_t(dimension);
            total.elements += elements;
        }
        return by_type;
    }

  private:
    struct tensor_location {
        const safetensors_entry* entry; // in file's header
        std::shared_ptr<const safetensors_file> file;
    };

    void add_file(const std::filesystem::path& path) {
        auto file = safetensors_file::open(path);
        for (const safetensors_entry& entry : file->header().entries) {
            tensors_.emplace(entry.name, tensor_location{&entry, file});
        }
    }

    void add_shards(const std::filesystem::path& index_path) {
        std::map<std::string, std::shared_ptr<const safetensors_file>> shards;
        for (const auto& [name, shard] : parse_safetensors_index(read_json_file(index_path))) {
            auto& file = shards[shard];
            if (!file) file = open_shard(index_path, name, shard);
            const safetensors_entry* entry = file->find_entry(name);
            if (entry == nullptr) {
                fail(SLUICE_INVALID,
                     "{}: weight_map[{}]: expected this tensor in {}, which does not have it",
                     index_path.string(), quote(name, 160), shard);
            }
            tensors_.emplace(entry->name, tensor_location{entry, file});
        }
    }

    std::shared_ptr<const safetensors_file> open_shard(const std::filesystem::path& index_path,
                                                       const std::string& name,
                                                       const std::string& shard) const {
        if (!is_present(directory_ / shard)) {
            fail(SLUICE_UNAVAILABLE,
                 "{}: weight_map[{}]: expected the file {} in this folder, found none; is the "
                 "download complete?",
                 index_path.string(), quote(name, 160), shard);
        }
        return safetensors_file::open(directory_ / shard);
    }

    // Sorted, so that names() is; keys point into the files' headers.
    std::map<std::string_view, tensor_location, std::less<>> tensors_;
};

} // namespace

checkpoint::checkpoint(const std::filesystem::path& path)
    : directory_(folder_of(path)), config_(read_json_file(directory_ / "config.json").as_object()) {
    std::filesystem::path generation = directory_ / "generation_config.json";
    if (is_present(generation)) generation_config_ = read_json_file(generation).as_object();
}

uint64_t checkpoint::size_bytes() const {
    uint64_t sum = 0;
    for (const auto& [type, total] : totals()) sum += total.size_bytes;
    return sum;
}

std::shared_ptr<const checkpoint> open_checkpoint(const std::filesystem::path& directory) {
    return std::make_shared<file_checkpoint>(directory);
}

std::map<std::string, std::string, std::less<>> parse_safetensors_index(const json_view& index) {
    std::map<std::string, std::string, std::less<>> shard_by_name;
    std::map<std::string, bool, std::less<>> shards;
    json_view weight_map = index.object("weight_map");
    if (weight_map.size() == 0) weight_map.fail_expected("at least one tensor");
    for (json_view member : weight_map) {
        std::string_view shard = member.as_text();
        // A shard lies in the folder itself: no separators, so no way out of it.
        if (shard.empty() || shard.size() > 255 || shard.starts_with('.')
            || shard.find_first_of(std::string_view("/\\\0", 3)) != std::string_view::npos
            || !shard.ends_with(".safetensors")) {
            member.fail_expected("a plain file name that ends in .safetensors");
        }
        shards.try_emplace(std::string(shard));
        if (shards.size() > shards_max) {
            weight_map.fail_expected(fmt::format("at most {} shards", shards_max));
        }
        shard_by_name.emplace(member.key(), shard);
    }
    return shard_by_name;
}

} // namespace sluice
