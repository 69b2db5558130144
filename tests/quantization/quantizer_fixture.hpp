// Quantizers on the small golden models and on checkpoints made up here.
#pragma once

#include "base/temporary_directory.hpp"
#include "engine/model_fixture.hpp"
#include "model/checkpoint.hpp"
#include "quantization/quantize_checkpoint.hpp"

#include <fstream>
#include <map>
#include <string>
#include <vector>

namespace sluice::test {

class quantizer_fixture {
  public:
    // settings: "experts=8" and so on.
    explicit quantizer_fixture(const std::vector<std::string>& settings,
                               const std::string& id = "rtn")
        : configuration_(golden_configuration("llama", "reference")),
          services_(make_host_services(configuration_)),
          plugins_(make_plugin_host(configuration_, services_)),
          quantizer_(
              plugins_->open(SLUICE_KIND_QUANTIZER, id, settings_from_overrides(settings, "/"))) {}

    const plugin_instance& plugin() const { return *quantizer_; }

    std::shared_ptr<plugin_instance> backend() const {
        return plugins_->open(SLUICE_KIND_BACKEND, "reference");
    }

    quantization_report run(const std::filesystem::path& source,
                            const std::filesystem::path& target, bool overwrite = false) const {
        quantize_options options;
        options.target = target;
        options.overwrite = overwrite;
        return quantize_checkpoint(source, *quantizer_, options);
    }

  private:
    configuration configuration_;
    std::shared_ptr<host_services> services_;
    std::unique_ptr<plugin_host> plugins_;
    std::shared_ptr<plugin_instance> quantizer_;
};

// Everything in 8 bits that the layout has a place for.
inline std::vector<std::string> all_eight_bits() {
    return {"experts=8", "shared_experts=8", "mlp=8", "attention=8", "head=8"};
}

// What a checkpoint of a test is made of.
struct tensors_by_name {
    struct tensor {
        sluice_element_type type = SLUICE_F32;
        std::vector<int64_t> shape;
        std::vector<std::byte> bytes;
    };
    std::map<std::string, tensor> all;

    void add(const std::string& name, std::vector<int64_t> shape, std::span<const float> values) {
        tensor made{SLUICE_F32, std::move(shape), {}};
        const auto bytes = std::as_bytes(values);
        made.bytes.assign(bytes.begin(), bytes.end());
        all[name] = std::move(made);
    }
    void add(const tensor_view& view) {
        all[view.name] = {view.element_type, view.shape, {view.bytes.begin(), view.bytes.end()}};
    }
    void write(const std::filesystem::path& folder) const {
        safetensors_writer writer(folder / "model.safetensors");
        for (const auto& [name, each] : all) writer.declare(name, each.type, each.shape);
        for (const auto& [name, each] : all) writer.append(name, each.bytes);
        writer.finish();
    }
};

inline std::string read_text(const std::filesystem::path& path) {
    std::ifstream stream(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), {}};
}

} // namespace sluice::test
