#include "command/command_fixture.hpp"

#include "model/checkpoint.hpp"

using namespace sluice::test;

TEST_CASE("inspect counts what the checkpoint holds") {
    for (const char* family : {"llama", "mixtral", "deepseek_v3", "qwen3_moe"}) {
        CAPTURE(family);
        const auto json = sluice_command({"inspect", golden_model(family), "--json"}).json();
        check_keys(json,
                   {"architecture", "model_type", "parameters", "active_parameters", "size_bytes",
                    "types", "bytes_per_token", "cache_bytes_per_token", "cache_type", "layers",
                    "hidden_size", "vocabulary_size", "attention", "experts", "has_weights"});
        CHECK(json["model_type"] == family);
        CHECK(json["has_weights"] == true);
        const auto weights = sluice::open_checkpoint(golden_model(family));
        uint64_t elements = 0;
        for (const auto& [type, total] : weights->totals()) elements += total.elements;
        CHECK(json["parameters"] == elements);
        CHECK(json["size_bytes"] == weights->size_bytes());
        CHECK(json["bytes_per_token"] < json["size_bytes"]);
    }
}

TEST_CASE("inspect knows experts and the cache by their formulas") {
    const auto mixtral = sluice_command({"inspect", golden_model("mixtral"), "--json"}).json();
    CHECK(mixtral["experts"]["experts"] == 8);
    CHECK(mixtral["experts"]["experts_per_token"] == 2);
    CHECK(mixtral["experts"]["sparse_layers"] == mixtral["layers"]);
    CHECK(mixtral["attention"]["kind"] == "grouped");
    const auto layers = mixtral["layers"].get<uint64_t>();
    const auto kv_width = mixtral["attention"]["kv_heads"].get<uint64_t>()
                          * mixtral["attention"]["head_dimension"].get<uint64_t>();
    CHECK(mixtral["cache_bytes_per_token"] == layers * 2 * kv_width * 4);
    // Six of eight experts and all but one row of the embedding rest.
    const auto hidden = mixtral["hidden_size"].get<uint64_t>();
    const auto resting =
        layers * 6 * 3 * hidden * mixtral["experts"]["expert_width"].get<uint64_t>()
        + (mixtral["vocabulary_size"].get<uint64_t>() - 1) * hidden;
    CHECK(mixtral["active_parameters"] == mixtral["parameters"].get<uint64_t>() - resting);

    const auto latent = sluice_command({"inspect", golden_model("deepseek_v3"), "--cache-type",
                                        "bfloat16", "--json"})
                            .json();
    CHECK(latent["attention"]["kind"] == "latent");
    CHECK(latent["cache_bytes_per_token"]
          == latent["layers"].get<uint64_t>()
                 * (latent["attention"]["kv_rank"].get<uint64_t>()
                    + latent["attention"]["rope_dimension"].get<uint64_t>())
                 * 2);
    const auto whole =
        sluice_command({"inspect", golden_model("mixtral"), "--cache-type", "int8", "--json"})
            .json();
    // A byte an element, and a scale for each head.
    CHECK(whole["cache_bytes_per_token"]
          == layers * 2 * (kv_width + 4 * mixtral["attention"]["kv_heads"].get<uint64_t>()));
    CHECK(sluice_command({"inspect", golden_model("llama"), "--json"}).json()["experts"].is_null());
}

TEST_CASE("inspect works without weights") {
    const auto with = sluice_command({"inspect", golden_model("mixtral"), "--json"}).json();
    const auto config = golden_model("mixtral") + "/config.json";
    const auto without = sluice_command({"inspect", config, "--json"}).json();
    CHECK(without["has_weights"] == false);
    CHECK(without["parameters"] == with["parameters"]);
    CHECK(without["size_bytes"] == with["size_bytes"]); // the dtype is the stored one
    const auto text = sluice_command({"inspect", config});
    CHECK(text.status == 0);
    CHECK(text.output.find("no weights beside config.json") != std::string::npos);
    check_refused({"inspect", "/no/such/model"}, {"/no/such/model", "expected a model's folder"});
    const temporary_directory folder;
    folder.write("config.json", R"({"model_type": "mistrall"})");
    check_refused({"inspect", folder.path().string()}, {"mistrall", "config.json"});
}

TEST_CASE("inspect knows without weights what quantization_config says") {
    const auto with = sluice_command({"inspect", default_model(), "--json"}).json();
    const auto config = default_model() + "/config.json";
    const auto without = sluice_command({"inspect", config, "--json"}).json();
    CHECK(without["parameters"] == with["parameters"]);
    const auto size = [](const auto& json) { return json["size_bytes"].template get<double>(); };
    CHECK(size(without) == doctest::Approx(size(with)).epsilon(0.001));
    const auto text = sluice_command({"inspect", config}).output;
    CHECK(text.find("% under 16 bits") != std::string::npos);
    CHECK(text.find("its dtype and quantization_config") != std::string::npos);
}

TEST_CASE("inspect tells quantized weights by their groups") {
    const auto json = sluice_command({"inspect", default_model(), "--json"}).json();
    bool four = false, eight = false;
    for (const auto& type : json["types"]) {
        four |= type["type"] == "u4 in groups of 64";
        eight |= type["type"] == "u8 in groups of 64";
    }
    CHECK(four);
    CHECK(eight);
    CHECK(json["quantization"] == "gptq");
    const auto text = sluice_command({"inspect", default_model()});
    CHECK(text.output.find("2 of 16 for each token") != std::string::npos);
}
