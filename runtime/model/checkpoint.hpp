// A model folder in the Hugging Face layout, behind one interface: real weights from safetensors
// files, or made-up ones for benchmarks (dummy_checkpoint.hpp).
#pragma once

#include "base/json.hpp"
#include "model/safetensors.hpp"

#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace sluice {

struct element_type_total {
    uint64_t tensors = 0;
    uint64_t elements = 0;
    uint64_t size_bytes = 0;
};

// Where a model's configuration and weights come from. Safe to use from several threads.
class checkpoint {
  public:
    virtual ~checkpoint() = default;

    const std::filesystem::path& directory() const { return directory_; }
    const json_view& config() const { return config_; } // the root of config.json
    // The root of generation_config.json; nothing when there is no such file.
    const std::optional<json_view>& generation_config() const { return generation_config_; }

    virtual bool is_dummy() const = 0;

    // Whether the checkpoint has this tensor. Ask before tensor() only where a family allows
    // several layouts or a tensor is optional.
    virtual bool contains(std::string_view name) const = 0;

    // The tensor, with the shape the caller knows it must have from the configuration. Fails with
    // INVALID when it is missing (naming the nearest names) or has another shape, with UNSUPPORTED
    // when its type has no use here.
    virtual tensor_view tensor(std::string_view name,
                               std::span<const int64_t> expected_shape) const = 0;
    tensor_view tensor(std::string_view name, std::initializer_list<int64_t> expected_shape) const {
        return tensor(name,
                      std::span<const int64_t>(expected_shape.begin(), expected_shape.size()));
    }

    // The tensor with whatever shape it has; nothing when it is missing (a dummy has none of its
    // own, so always nothing there).
    virtual std::optional<tensor_view> find(std::string_view name) const = 0;

    // All names, sorted; what they add up to. Empty for a dummy.
    virtual std::vector<std::string> names() const = 0;
    virtual std::map<std::string, element_type_total> totals() const = 0; // by type, as "BF16"
    uint64_t size_bytes() const;                                          // of all tensors

  protected:
    // Reads config.json, which must be there, and generation_config.json, which may. `path` is the
    // folder, or config.json itself.
    explicit checkpoint(const std::filesystem::path& path);

    std::filesystem::path directory_;

  private:
    json_view config_;
    std::optional<json_view> generation_config_;
};

// Opens `directory` with `model.safetensors`, or `model.safetensors.index.json` and the shards that
// it names. Every file's header is checked at once; weights are read when touched. Of a sharded
// checkpoint, tensors that the index does not list do not exist.
std::shared_ptr<const checkpoint> open_checkpoint(const std::filesystem::path& directory);

// The index of a sharded checkpoint: tensor name to shard's file name, each a plain name without
// any path. Fails with INVALID on anything else.
std::map<std::string, std::string, std::less<>> parse_safetensors_index(const json_view& index);

} // namespace sluice
