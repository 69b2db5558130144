// A router that is a host function computes on every backend what its specification does, the
// report says what that costs, and wrong answers are refused by plugin, layer and row.
#include "../base/error_check.hpp"
#include "engine/logits_runner.hpp"
#include "engine/model_fixture.hpp"
#include "program/operation_table.hpp"
#include "program/print.hpp"

#include <algorithm>
#include <thread>

using namespace sluice;
using namespace sluice::test;

namespace {

constexpr float tolerance = 1e-4f;
constexpr float golden_tolerance = 1e-3f;

const std::vector<std::string> routed_families{"mixtral", "qwen3_moe", "deepseek_v2",
                                               "deepseek_v3"};

// The golden configuration with another router, and lines of [placement].
configuration routed(const std::string& family, const std::string& backend,
                     const std::string& router, std::vector<std::string> overrides = {},
                     const std::string& lines = "") {
    std::string toml = golden_toml(family, backend);
    const std::string folders = "plugin_folders = [";
    toml.insert(toml.find(folders) + folders.size(),
                fmt::format("\"{}\", ", SLUICE_TEST_PLUGIN_DIR));
    overrides.push_back(fmt::format("router=\"{}\"", router));
    return configuration_from_text(toml + "[placement]\n" + lines, std::filesystem::current_path(),
                                   "test", overrides);
}

size_t host_count(const loaded_model& model) {
    const auto& operations = model.report().operations;
    return size_t(std::count_if(operations.begin(), operations.end(),
                                [](const auto& each) { return each.plugin == "host"; }));
}

// Against the same configuration with the router "specification": whole, in chunks, row by row,
// several sequences together, and the greedy continuation.
void check_same(const std::string& family, const std::string& backend,
                const std::vector<std::string>& overrides = {}, const std::string& lines = "") {
    CAPTURE(family);
    CAPTURE(backend);
    CAPTURE(lines);
    const golden_file golden = read_golden(family);
    const loaded_golden own(routed(family, backend, "specification", {}, lines));
    const loaded_golden host(routed(family, backend, "oracle", overrides, lines));
    CHECK(host_count(*own.model) == 0);
    CHECK(host_count(*host.model) == host.model->report().host_function_count);
    CHECK(host_count(*host.model) > 0);
    logits_runner expected(own.model), found(host.model);
    const std::vector<float> whole = expected.forward(golden.tokens[0]);
    CHECK(largest_difference(whole, golden.logits[0]) < golden_tolerance);
    for (const uint32_t rows : {0u, 7u, 1u}) {
        CHECK(largest_difference(found.forward(golden.tokens[0], rows), whole) < tolerance);
    }
    std::vector<std::vector<float>> mixed(2);
    const std::vector<logits_request> requests{{golden.tokens[0], 1, false},
                                               {golden.tokens[1], 5, false}};
    found.run(requests, [&](size_t sequence, uint32_t, std::span<const float> logits) {
        mixed[sequence].insert(mixed[sequence].end(), logits.begin(), logits.end());
    });
    CHECK(largest_difference(mixed[0], whole) < tolerance);
    CHECK(largest_difference(mixed[1], golden.logits[1]) < golden_tolerance);
    const auto count = uint32_t(golden.greedy.size());
    CHECK(found.greedy(golden.tokens[0], count) == expected.greedy(golden.tokens[0], count));
}

float golden_difference(const loaded_golden& loaded, const golden_file& golden) {
    return largest_difference(logits_runner(loaded.model).forward(golden.tokens[0]),
                              golden.logits[0]);
}

} // namespace

TEST_CASE("a host function computes what the specification does, on every backend") {
    for (const std::string backend : {"reference", "onednn", "unmapped"}) {
        for (const std::string& family : routed_families) check_same(family, backend);
    }
}

TEST_CASE("a layer may be a host function beside one that is a specification") {
    check_same("mixtral", "onednn", {"settings.oracle.every_layer=false"});
    const loaded_golden loaded(
        routed("mixtral", "onednn", "oracle", {"settings.oracle.every_layer=false"}));
    CHECK(loaded.model->report().host_function_count
          == loaded.model->model().routed_layers.size() - 1);
}

TEST_CASE("a host function and placements of other operations go together") {
    for (const auto& [main, other] :
         {std::pair("onednn", "reference"), std::pair("unmapped", "onednn")}) {
        for (const std::string pattern :
             {"layers.*.experts", "layers.*.experts[0-1]", "layers.1.**"}) {
            check_same("deepseek_v3", main, {}, fmt::format("\"{}\" = \"{}\"\n", pattern, other));
        }
    }
}

TEST_CASE("no pattern moves a host function") {
    const loaded_golden loaded(
        routed("mixtral", "onednn", "oracle", {}, "\"layers.*.route\" = \"reference\"\n"));
    CHECK(host_count(*loaded.model) == loaded.model->model().routed_layers.size());
    CHECK(golden_difference(loaded, read_golden("mixtral")) < golden_tolerance);
}

TEST_CASE("the sample routes as Mixtral does, and evens out at a higher temperature") {
    for (const std::string family : {"mixtral", "qwen3_moe"}) {
        CAPTURE(family);
        const golden_file golden = read_golden(family);
        CHECK(golden_difference(loaded_golden(routed(family, "onednn", "temperature")), golden)
              < golden_tolerance);
        CHECK(golden_difference(loaded_golden(routed(family, "onednn", "temperature",
                                                     {"settings.temperature.temperature=4"})),
                                golden)
              > golden_tolerance);
    }
}

TEST_CASE("a host function may make another number of choices") {
    const golden_file golden = read_golden("mixtral");
    const loaded_golden host(routed("mixtral", "onednn", "oracle", {"settings.oracle.top_k=3"}));
    const loaded_golden own(
        routed("mixtral", "onednn", "specification", {"settings.specification.top_k=3"}));
    CHECK(largest_difference(logits_runner(host.model).forward(golden.tokens[0]),
                             logits_runner(own.model).forward(golden.tokens[0]))
          < tolerance);
}

TEST_CASE("the report says what a host function costs") {
    const loaded_golden loaded(routed("mixtral", "onednn", "oracle"));
    const loaded_model& model = *loaded.model;
    const explain_report& report = model.report();
    const auto layers = uint32_t(model.model().routed_layers.size());
    CHECK(report.host_function_count == layers);
    CHECK(report.segment_count == 2 * layers + 1);
    REQUIRE(report.backends.size() == 2);
    CHECK(report.backends[1].id == "host");
    // Logits go down, index and weight come back.
    REQUIRE(report.crossings.size() == 3 * layers);
    const uint32_t experts = model.config().moe.expert_count;
    const uint32_t choices = model.config().moe.routing.choice_count;
    const crossing_report& down = report.crossings[0];
    CHECK(down.value == "layers.0.router");
    CHECK(down.type == fmt::format("f32[T, {}]", experts));
    CHECK(down.bytes == 4 * experts);
    CHECK(down.unit == "token");
    CHECK(down.from == "onednn");
    CHECK(down.to == "host");
    for (const size_t i : {1, 2}) {
        CHECK(report.crossings[i].bytes == 4 * choices);
        CHECK(report.crossings[i].from == "host");
        CHECK(report.crossings[i].to == "onednn");
    }
    const auto& operations = model.step_program().operations();
    const auto route = std::find_if(operations.begin(), operations.end(), is_host_function);
    REQUIRE(route != operations.end());
    const auto number = uint32_t(route - operations.begin());
    CHECK(report.operations[number].kernel == "function of router oracle");
    CHECK(print_operation(model.step_program(), number)
              .find(fmt::format("{{choose {} of {}, by host function}}", choices, experts))
          != std::string::npos);
}

TEST_CASE("a bias of choices stays on the host") {
    const loaded_golden loaded(routed("deepseek_v3", "onednn", "oracle"));
    size_t count = 0;
    for (const weight_report& weight : loaded.model->report().weights) {
        if (weight.plugin != "host") continue;
        CHECK(weight.name.find("bias") != std::string::npos);
        ++count;
    }
    CHECK(count == loaded.model->report().host_function_count);
    for (const crossing_report& each : loaded.model->report().crossings) {
        CHECK(each.unit == "token");
    }
}

TEST_CASE("settings of a host function are part of what a model computes") {
    const auto fingerprint = [](const std::vector<std::string>& overrides) {
        return loaded_golden(routed("mixtral", "onednn", "temperature", overrides))
            .model->fingerprint();
    };
    CHECK(fingerprint({}) == fingerprint({}));
    CHECK(fingerprint({}) != fingerprint({"settings.temperature.temperature=2"}));
    CHECK(fingerprint({"settings.temperature.temperature=3"})
          != fingerprint({"settings.temperature.temperature=2"}));
}

TEST_CASE("the time of a host function is in the profile") {
    const loaded_golden loaded(routed("mixtral", "reference", "oracle"));
    model_runner runner(loaded.model);
    check_continuation(runner, "mixtral");
    const std::vector<double> seconds = runner.profile();
    const auto& operations = loaded.model->step_program().operations();
    REQUIRE(seconds.size() == operations.size());
    for (size_t i = 0; i < operations.size(); ++i) {
        if (is_host_function(operations[i])) CHECK(seconds[i] > 0);
    }
}

TEST_CASE("wrong answers are refused by plugin, layer and row") {
    struct order {
        std::string fault;
        std::vector<std::string> parts;
        sluice_status status = SLUICE_INTERNAL;
    };
    const golden_file golden = read_golden("mixtral");
    const std::vector<order> orders{
        {"out_of_range", {"row 2", "choice 1 is expert 8", "0 to 7"}},
        {"twice", {"row 2", "goes to expert", "twice"}},
        {"not_a_number", {"row 2", "weight nan", "finite"}},
        {"weightless", {"row 2", "choice 1 goes to no expert, but has the weight"}},
        {"dropped", {"-1 choices were dropped"}},
        {"error", {"the service is gone"}, SLUICE_UNAVAILABLE},
        {"exception", {"exception of unknown type"}},
    };
    for (const std::string backend : {"onednn", "unmapped"}) {
        for (const order& each : orders) {
            CAPTURE(each.fault);
            const loaded_golden loaded(
                routed("mixtral", backend, "oracle", {"settings.oracle.fault=" + each.fault}));
            logits_runner runner(loaded.model);
            std::vector<std::string> parts = each.parts;
            parts.insert(parts.end(), {"router \"oracle\"", "layer 1"});
            check_error([&] { runner.forward(golden.tokens[0]); }, each.status, parts);
            // The fault needs three rows: smaller steps still run.
            CHECK(largest_difference(runner.forward(golden.tokens[0], 2), golden.logits[0])
                  < golden_tolerance);
        }
    }
}

TEST_CASE("a host function that is not there is missed when the model is loaded") {
    for (const std::string checked : {"checked=false", "checked=true"}) {
        check_error([&] { loaded_golden(routed("mixtral", "onednn", "routeless", {checked})); },
                    SLUICE_INVALID,
                    {"router \"routeless\", layer 0", "host function", "no function route"});
    }
}

TEST_CASE("host functions run in the checked mode, and two runners call them one at a time") {
    const golden_file golden = read_golden("deepseek_v3");
    const loaded_golden loaded(routed("deepseek_v3", "onednn", "oracle", {"checked=true"},
                                      "\"layers.1.experts\" = "
                                      "\"unmapped\"\n"));
    std::vector<float> found[2];
    {
        const auto forward = [&](size_t which) {
            found[which] = logits_runner(loaded.model).forward(golden.tokens[which], 3);
        };
        std::thread other(forward, 1);
        forward(0);
        other.join();
    }
    for (const size_t which : {0, 1}) {
        CHECK(largest_difference(found[which], golden.logits[which]) < golden_tolerance);
    }
    REQUIRE(loaded.model->backend_count() == 3);
    CHECK(loaded.model->backend(2).id() == "host");
    for (uint32_t i = 0; i < loaded.model->backend_count(); ++i) {
        CHECK(loaded.model->backend(i).breach_count() == 0);
    }
}
