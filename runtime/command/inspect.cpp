// sluice inspect: what a model is made of and what it costs to run, without loading it.
#include "command.hpp"

#include "base/element_type.hpp"
#include "base/text.hpp"
#include "model/checkpoint.hpp"
#include "model/dummy_checkpoint.hpp"
#include "model/model_program.hpp"
#include "model/weight_binding.hpp"

#include <algorithm>

namespace sluice::command {

namespace {

struct inspect_options {
    std::string model;
    std::string cache_type = "float32";
};

struct inspected {
    model_config config;
    parameter_account account;
    bool has_weights = false;
    bool has_formats = false; // how each weight is stored is known

    // Of what the weights would take in 16 bits.
    double saved_share() const {
        return 1.0 - double(account.size_bytes) / (2.0 * double(account.parameter_count));
    }
};

inspected inspect_model(const inspect_options& options) {
    namespace fs = std::filesystem;
    fs::path path = options.model;
    if (!fs::exists(path))
        fail(SLUICE_UNAVAILABLE, "there is no {}; expected a model's folder, or its config.json",
             path.string());
    const bool is_folder = fs::is_directory(path);
    inspected result;
    result.config = load_model_config(is_folder ? path / "config.json" : path);
    result.has_weights = is_folder
                         && (fs::exists(path / "model.safetensors")
                             || fs::exists(path / "model.safetensors.index.json"));
    model_program_options program_options;
    program_options.cache_type = *element_type_from_name(options.cache_type);
    std::shared_ptr<const checkpoint> weights;
    if (result.has_weights)
        weights = open_checkpoint(path);
    else if (result.config.quantization == "gptq") // its quantization_config says which modules
        weights = make_dummy_checkpoint(path, result.config.stored_type);
    if (weights != nullptr) program_options.weight_format = weight_formats_of(*weights);
    result.has_formats = weights != nullptr;
    result.account =
        account_parameters(result.config, build_model_program(result.config, program_options));
    return result;
}

nlohmann::ordered_json attention_json(const model_config& config) {
    const attention_config& attention = config.attention;
    if (config.mla.kv_lora_rank == 0)
        return {{"kind", "grouped"},
                {"heads", attention.head_count},
                {"kv_heads", attention.kv_head_count},
                {"head_dimension", attention.head_dim}};
    return {{"kind", "latent"},
            {"heads", attention.head_count},
            {"query_rank", config.mla.query_lora_rank},
            {"kv_rank", config.mla.kv_lora_rank},
            {"head_dimension", config.mla.nope_head_dim + config.mla.rope_head_dim},
            {"rope_dimension", config.mla.rope_head_dim},
            {"value_dimension", config.mla.value_head_dim}};
}

uint64_t sparse_layers(const model_config& config) {
    return static_cast<uint64_t>(std::count_if(config.layers.begin(), config.layers.end(),
                                               [](const auto& layer) { return layer.sparse; }));
}

nlohmann::ordered_json experts_json(const model_config& config) {
    const moe_config& moe = config.moe;
    if (moe.expert_count == 0) return nullptr;
    return {{"sparse_layers", sparse_layers(config)},
            {"experts", moe.expert_count},
            {"experts_per_token", moe.routing.choice_count},
            {"expert_width", moe.expert_width},
            {"shared_width", moe.shared_width},
            {"groups", std::max(1u, moe.routing.group_count)}};
}

nlohmann::ordered_json result_json(const inspected& found, const inspect_options& options) {
    const model_config& config = found.config;
    auto types = nlohmann::ordered_json::array();
    for (const auto& type : found.account.types)
        types.push_back({{"type", type.type},
                         {"parameters", type.parameter_count},
                         {"size_bytes", type.size_bytes}});
    return {{"architecture", config.architecture},
            {"model_type", config.model_type},
            {"family", config.family},
            {"quantization", config.quantization},
            {"has_weights", found.has_weights},
            {"parameters", found.account.parameter_count},
            {"active_parameters", found.account.active_parameter_count},
            {"size_bytes", found.account.size_bytes},
            {"types", types},
            {"bytes_per_token", found.account.bytes_per_token},
            {"cache_type", options.cache_type},
            {"cache_bytes_per_token", found.account.cache_bytes_per_token},
            {"layers", config.layer_count},
            {"hidden_size", config.hidden_size},
            {"intermediate_size", config.intermediate_size},
            {"vocabulary_size", config.vocabulary_size},
            {"positions_max", config.position_count_max},
            {"tied_embeddings", config.tied_embeddings},
            {"attention", attention_json(config)},
            {"experts", experts_json(config)}};
}

std::string attention_text(const model_config& config) {
    if (config.mla.kv_lora_rank == 0)
        return fmt::format("{} heads of {}, {} key-value heads", config.attention.head_count,
                           config.attention.head_dim, config.attention.kv_head_count);
    return fmt::format("latent: {} heads of {} + {}, values of {}, key-value rank {}",
                       config.attention.head_count, config.mla.nope_head_dim,
                       config.mla.rope_head_dim, config.mla.value_head_dim,
                       config.mla.kv_lora_rank);
}

void print_text(const inspected& found, const inspect_options& options) {
    const model_config& config = found.config;
    const parameter_account& account = found.account;
    fmt::print("architecture  {} (model type {}, family {})\n",
               config.architecture.empty() ? "not given" : config.architecture, config.model_type,
               config.family);
    fmt::print("layers        {} of width {}, vocabulary {}{}, {} positions\n", config.layer_count,
               config.hidden_size, config.vocabulary_size,
               config.tied_embeddings ? " (head tied)" : "", config.position_count_max);
    fmt::print("attention     {}\n", attention_text(config));
    const moe_config& moe = config.moe;
    if (moe.expert_count != 0)
        fmt::print(
            "experts       {} of {} for each token in {} layers, width {}, shared width {}\n",
            moe.routing.choice_count, moe.expert_count, sparse_layers(config), moe.expert_width,
            moe.shared_width);
    fmt::print("parameters    {} ({}), {} active for a token\n",
               count_text(account.parameter_count), account.parameter_count,
               count_text(account.active_parameter_count));
    fmt::print("size          {}{}\n", bytes_text(account.size_bytes),
               found.saved_share() > 0.005
                   ? fmt::format(", {:.1f}% under 16 bits", 100 * found.saved_share())
                   : "");
    for (const auto& type : account.types)
        fmt::print("  {:26} {:>9} parameters  {:>10}\n", type.type,
                   count_text(type.parameter_count), bytes_text(type.size_bytes));
    fmt::print("decoding      {} of weights read for a token\n",
               bytes_text(account.bytes_per_token));
    fmt::print("cache         {} a token in {}\n", bytes_text(account.cache_bytes_per_token),
               options.cache_type);
    if (!found.has_weights)
        fmt::print("There are no weights beside config.json: sizes are those of its dtype{}.\n",
                   config.quantization.empty() ? ""
                   : found.has_formats
                       ? " and quantization_config"
                       : fmt::format(", without its quantization ({})", config.quantization));
}

} // namespace

void add_inspect(CLI::App& application, common_options& common) {
    auto options = std::make_shared<inspect_options>();
    auto* command = application.add_subcommand(
        "inspect", "a model's dimensions, parameters, sizes, and bytes read for a token");
    command->add_option("MODEL_DIR", options->model, "a model's folder, or its config.json")
        ->required();
    command->add_option("--cache-type", options->cache_type, "type of the cache's elements")
        ->check(CLI::IsMember({"float32", "bfloat16", "int8"}))
        ->capture_default_str();
    command->callback([options, &common] {
        const auto found = inspect_model(*options);
        if (common.json) return print_json(result_json(found, *options));
        print_text(found, *options);
    });
}

} // namespace sluice::command
