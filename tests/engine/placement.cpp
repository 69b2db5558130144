// A model spread over two backends computes what it computes on one, and a placement that cannot be
// is refused by file and line.
#include "engine/placement.hpp"

#include "../base/error_check.hpp"
#include "engine/cache_size.hpp"
#include "engine/crossings.hpp"
#include "engine/logits_runner.hpp"
#include "engine/model_fixture.hpp"
#include "engine/segment_buffers.hpp"

#include <algorithm>

using namespace sluice;
using namespace sluice::test;

namespace {

constexpr float tolerance = 1e-4f;

// The golden configuration with lines of [placement].
configuration placed(const std::string& family, const std::string& backend,
                     const std::string& lines, const std::vector<std::string>& overrides = {}) {
    std::string toml = golden_toml(family, backend);
    const std::string folders = "plugin_folders = [";
    toml.insert(toml.find(folders) + folders.size(),
                fmt::format("\"{}\", ", SLUICE_TEST_PLUGIN_DIR));
    return configuration_from_text(toml + "[placement]\n" + lines, std::filesystem::current_path(),
                                   "test", overrides);
}

uint32_t sparse_layer_count(const loaded_model& model) {
    return uint32_t(model.model().routed_layers.size());
}

uint32_t expert_count(const loaded_model& model) { return model.config().moe.expert_count; }

size_t report_count(const loaded_model& model, const std::string& plugin) {
    const auto& operations = model.report().operations;
    return size_t(std::count_if(operations.begin(), operations.end(),
                                [&](const auto& each) { return each.plugin == plugin; }));
}

// Logits of both sequences, whole and one by one, and the greedy continuation.
void check_same(const std::string& family, const std::string& backend, const std::string& lines) {
    CAPTURE(family);
    CAPTURE(backend);
    CAPTURE(lines);
    const golden_file golden = read_golden(family);
    const loaded_golden one(placed(family, backend, ""));
    const loaded_golden two(placed(family, backend, lines));
    CHECK(one.model->report().segment_count == 1);
    CHECK(two.model->report().segment_count > 1);
    CHECK_FALSE(two.model->report().crossings.empty());
    CHECK(one.model->fingerprint() != two.model->fingerprint());
    logits_runner expected(one.model), found(two.model);
    for (const std::vector<int32_t>& tokens : golden.tokens) {
        const std::vector<float> whole = expected.forward(tokens);
        CHECK(largest_difference(found.forward(tokens), whole) < tolerance);
        CHECK(largest_difference(found.forward(tokens, 7), whole) < tolerance);
        CHECK(largest_difference(found.forward(tokens, 1), whole) < tolerance);
    }
    const auto count = uint32_t(golden.greedy.size());
    CHECK(found.greedy(golden.tokens[0], count) == expected.greedy(golden.tokens[0], count));
}

const std::vector<std::string> families{"mixtral", "qwen3_moe", "deepseek_v3"};
// Main backend, and the other.
const std::vector<std::pair<std::string, std::string>> directions{{"onednn", "reference"},
                                                                  {"reference", "onednn"},
                                                                  {"onednn", "unmapped"},
                                                                  {"unmapped", "onednn"},
                                                                  {"unmapped", "reference"}};

std::string line(const std::string& pattern, const std::string& backend) {
    return fmt::format("\"{}\" = \"{}\"\n", pattern, backend);
}

} // namespace

TEST_CASE("all experts, half of the experts, and one layer's experts elsewhere") {
    for (const auto& [main, other] : directions) {
        for (const std::string& family : families) {
            const uint32_t experts = expert_count(*loaded_golden(placed(family, main, "")).model);
            check_same(family, main, line("layers.*.experts", other));
            check_same(family, main,
                       line(fmt::format("layers.*.experts[0-{}]", experts / 2 - 1), other));
            check_same(family, main, line("layers.1.experts", other));
        }
    }
}

TEST_CASE("experts in no order, a layer with its cache, and the ends of the model elsewhere") {
    for (const auto& [main, other] : directions) {
        check_same("mixtral", main, line("layers.*.experts[0,2-3]", other));
        check_same("deepseek_v3", main, line("layers.1.**", other));
        check_same("qwen3_moe", main, line("embed", other) + line("logits", other));
        check_same("deepseek_v3", main, line("layers.*.*experts", other));
        check_same("qwen3_moe", main, line("layers.*.route", other));
    }
    // A step that begins and ends on the other backend, with the main one in between.
    check_same("mixtral", "onednn",
               line("layers.*.**", "reference") + line("layers.*.experts", "unmapped"));
}

TEST_CASE("a sub-program router can be placed as well") {
    const golden_file golden = read_golden("mixtral");
    const loaded_golden loaded(placed("mixtral", "onednn", line("layers.*.route*", "reference"),
                                      {"router=\"subprogram\""}));
    CHECK(
        largest_difference(logits_runner(loaded.model).forward(golden.tokens[0]), golden.logits[0])
        < 1e-3f);
}

TEST_CASE("a whole model on memory that the host cannot address") {
    for (const std::string& family : families) {
        CAPTURE(family);
        const golden_file golden = read_golden(family);
        const loaded_golden loaded(placed(family, "unmapped", ""));
        CHECK(loaded.model->report().segment_count == 1);
        logits_runner runner(loaded.model);
        CHECK(largest_difference(runner.forward(golden.tokens[0]), golden.logits[0]) < 1e-3f);
        CHECK(largest_difference(runner.forward(golden.tokens[0], 3), golden.logits[0]) < 1e-3f);
    }
}

TEST_CASE("sampling stays with the logits, and with the host where no backend takes it") {
    const golden_file golden = read_golden("mixtral");
    const auto greedy_of = [&](const loaded_golden& loaded) {
        return logits_runner(loaded.model).greedy(golden.tokens[0], uint32_t(golden.greedy.size()));
    };
    const loaded_golden moved(placed("mixtral", "onednn", line("logits", "unmapped")));
    CHECK(moved.model->report().operations.back().plugin == "unmapped");
    CHECK(moved.model->step_program().operations().back().kind == SLUICE_OP_SAMPLE);
    CHECK(greedy_of(moved) == golden.greedy);

    const loaded_golden asked(placed("mixtral", "onednn", line("sample", "unmapped")));
    CHECK(asked.model->report().operations.back().plugin == "onednn");
    CHECK(greedy_of(asked) == golden.greedy);

    const loaded_golden older(
        placed("mixtral", "unmapped", "", {"settings.unmapped.samples=false"}));
    CHECK(older.model->sampled().token == value_none);
    CHECK(older.model->report().host_sampling
          == "backend \"unmapped\": sample is newer than this backend");
    CHECK(greedy_of(older) == golden.greedy);
}

TEST_CASE("a pool of automatic size is what memory has room for beside the weights") {
    constexpr uint64_t reserve = uint64_t(512) << 20;
    const auto on_device = [](uint64_t free_bytes) {
        return loaded_golden(
            placed("mixtral", "unmapped", "",
                   {"engine.cache_tokens=\"auto\"",
                    fmt::format("settings.unmapped.memory_bytes_total={}", uint64_t(1) << 30),
                    fmt::format("settings.unmapped.memory_bytes_free={}", free_bytes)}));
    };
    const loaded_golden roomy = on_device(reserve + (uint64_t(100) << 20));
    CHECK(roomy.model->cache_tokens() == 4 * 128); // all sequences at their longest
    CHECK(roomy.model->context_tokens_max() == 128);
    const uint64_t token_bytes =
        cache_bytes_per_token(roomy.model->backend(), roomy.model->partition().segments.at(0).part);
    // Blocks have 8 tokens: 19 of them fit, and a half.
    const loaded_golden narrow = on_device(reserve + token_bytes * 156);
    CHECK(narrow.model->cache_tokens() == 152);
    const golden_file golden = read_golden("mixtral");
    CHECK(logits_runner(narrow.model).greedy(golden.tokens[0], 16) == golden.greedy);

    check_error(
        [&] { on_device(reserve + token_bytes * 7); }, SLUICE_EXHAUSTED,
        {"\"auto\"", "unmapped", "of 1.0 GiB are free", "512.0 MiB", "a block of 8 tokens"});
    check_error([&] { on_device(1000); }, SLUICE_EXHAUSTED,
                {"the weights take", "unmapped", "1000", "[placement]"});
    // Where the backend does not know its memory, the pool has its usual size.
    const loaded_golden unknown(
        placed("mixtral", "unmapped", "", {"engine.cache_tokens=\"auto\""}));
    CHECK(unknown.model->cache_tokens() == 8192);
    // The machine's own memory is known.
    const loaded_golden host(placed("mixtral", "onednn", "", {"engine.cache_tokens=\"auto\""}));
    CHECK(host.model->cache_tokens() == 4 * 128);
}

TEST_CASE("where memory is short, sizes of steps make room for each other") {
    const loaded_golden loaded(
        placed("mixtral", "unmapped", "", {"settings.unmapped.bounds_max=2"}));
    model_runner runner(loaded.model);
    CHECK(runner.warm(warm_sizes::decode) == 2);
    CHECK(runner.prepared_count() == 2);
    check_continuation(runner, "mixtral");
    CHECK(runner.prepared_count() == 2);
}

TEST_CASE("a pool that does not fit says what it asked for and what would fit") {
    const loaded_golden large(
        placed("mixtral", "unmapped", "",
               {"engine.cache_tokens=8000000",
                fmt::format("settings.unmapped.memory_bytes_total={}", uint64_t(1) << 30),
                fmt::format("settings.unmapped.memory_bytes_free={}", uint64_t(600) << 20)}));
    check_error([&] { logits_runner runner(large.model); }, SLUICE_EXHAUSTED,
                {"that many blocks do not fit", "KV pool of 8000000 tokens takes",
                 "600.0 MiB of 1.0 GiB are free", "engine.cache_tokens = "});
}

TEST_CASE("placed models run in the checked mode, and two runners side by side") {
    const golden_file golden = read_golden("deepseek_v3");
    const loaded_golden loaded(placed("deepseek_v3", "onednn",
                                      line("layers.*.experts[1-2]", "unmapped"), {"checked=true"}));
    logits_runner left(loaded.model), right(loaded.model);
    const auto first = left.forward(golden.tokens[0]);
    const auto second = right.forward(golden.tokens[1]);
    CHECK(largest_difference(first, golden.logits[0]) < 1e-3f);
    CHECK(largest_difference(second, golden.logits[1]) < 1e-3f);
    CHECK(largest_difference(right.forward(golden.tokens[0]), first) < tolerance);
    for (uint32_t i = 0; i < loaded.model->backend_count(); ++i) {
        CHECK(loaded.model->backend(i).breach_count() == 0);
    }
}

TEST_CASE("the report says what runs where and what crosses") {
    const loaded_golden loaded(
        placed("mixtral", "onednn", line("layers.*.experts[0-1]", "reference")));
    const loaded_model& model = *loaded.model;
    const explain_report& report = model.report();
    const uint32_t layers = sparse_layer_count(model);
    REQUIRE(report.backends.size() == 2);
    CHECK(report.backends[0].id == "onednn");
    CHECK(report.backends[1].id == "reference");
    CHECK(report.segment_count == 2 * layers + 1);
    CHECK(report.operations.size() == model.step_program().operations().size());
    for (uint32_t i = 0; i < report.operations.size(); ++i) {
        const program_operation& operation = model.step_program().operations()[i];
        CHECK(report.operations[i].operation == i);
        CHECK(report.operations[i].plugin == report.backends[operation.placement].id);
        CHECK_FALSE(report.operations[i].kernel.empty());
    }
    CHECK(report_count(model, "reference") >= layers);
    // x, index and weight go there, the partial sum comes back.
    REQUIRE(report.crossings.size() == 4 * layers);
    const crossing_report& back = report.crossings[3];
    CHECK(back.value == "layers.0.experts[0-1]");
    CHECK(back.type == fmt::format("f32[T, {}]", model.config().hidden_size));
    CHECK(back.bytes == 4 * model.config().hidden_size);
    CHECK(back.unit == "token");
    CHECK(back.from == "reference");
    CHECK(back.to == "onednn");
    // Each weight is prepared where it is used, the stacks in two parts.
    CHECK(report.weights.size() == model.model().weights.size() + 3 * layers);
    for (const weight_report& weight : report.weights) {
        CHECK((weight.plugin == "reference") == weight.name.ends_with("[0-1]"));
        CHECK(weight.stored_bytes > 0);
    }
}

TEST_CASE("only the rows that are valid are copied") {
    program_value value;
    value.element_type = SLUICE_BF16;
    value.dimensions = {size::tokens(2), size::fixed(8)};
    extent_sizes extents{};
    extents[SLUICE_EXTENT_TOKENS] = 3;
    CHECK(valid_bytes(value, extents) == 2 * 3 * 8 * 2);
    CHECK(bytes_per_unit(value) == 2 * 8 * 2);
    CHECK(unit_name(value) == "token");
    value.dimensions = {size::fixed(16)};
    CHECK(valid_bytes(value, extents) == 32);
    CHECK(unit_name(value) == "step");
}

TEST_CASE("rows that a step is padded with go to no expert on the other backend") {
    for (const auto& [main, other] : directions) {
        CAPTURE(main);
        CAPTURE(other);
        const loaded_golden loaded(placed("mixtral", main, line("layers.*.experts", other)));
        const loaded_model& model = *loaded.model;
        segment_buffers buffers(model);
        const auto index = std::find_if(
            buffers.transfers().begin(), buffers.transfers().end(), [&](const auto& each) {
                return model.step_program().value(each.crossing.value).element_type == SLUICE_I32;
            });
        REQUIRE(index != buffers.transfers().end());
        // Where the value lies for a segment that writes or reads it.
        const auto buffer_of = [&](uint32_t segment) {
            const value_number number =
                model.partition().segments[segment].find(index->crossing.value);
            for (const sluice_binding& binding : buffers.bindings(segment)) {
                if (binding.value == number) return binding.buffer;
            }
            FAIL("the value is not bound");
            return static_cast<sluice_buffer*>(nullptr);
        };
        const uint32_t choices = model.config().moe.routing.choice_count;
        std::vector<int32_t> numbers(5 * choices, 3);
        plugin_call writing("main", "buffer_write");
        writing = model.backend().backend().buffer_write(
            model.backend().handle(), buffer_of(index->crossing.writer), 0, numbers.data(),
            numbers.size() * sizeof(int32_t), writing.error());
        const plugin_instance& reader = model.backend(index->crossing.to);
        extent_sizes extents{};
        for (const uint32_t tokens : {5, 3}) { // steps of 8 rows and of 4
            extents[SLUICE_EXTENT_TOKENS] = tokens;
            buffers.copy(*index, extents);
            const size_t padded = tokens == 5 ? 8 : 4;
            std::vector<int32_t> found(padded * choices);
            plugin_call reading("other", "buffer_read");
            reading = reader.backend().buffer_read(
                reader.handle(), buffer_of(index->crossing.first_reader), 0, found.data(),
                found.size() * sizeof(int32_t), reading.error());
            for (size_t i = 0; i < found.size(); ++i) {
                CHECK(found[i] == (i < tokens * choices ? 3 : -1));
            }
        }
    }
}

TEST_CASE("of several patterns the last one counts") {
    const loaded_golden model(golden_configuration("mixtral", "onednn"));
    const program& step = model.model->model().step;
    const auto plan = [&](const std::string& lines) {
        return plan_placement(placed("mixtral", "onednn", lines), "onednn", step);
    };
    const auto number_of = [&](const std::string& name) {
        for (uint32_t i = 0; i < step.operations().size(); ++i) {
            if (step.operations()[i].name == name) return i;
        }
        FAIL("no operation ", name);
        return 0u;
    };
    const uint32_t first = number_of("layers.0.experts");
    const uint32_t second = number_of("layers.1.experts");

    const placement_plan excepted =
        plan(line("layers.*.experts", "reference") + line("layers.0.experts", "onednn"));
    CHECK(excepted.operations[first] == 0);
    CHECK(excepted.operations[second] == 1);
    CHECK(excepted.warnings.empty());

    // Whole operations first, then some of their experts: the rest stays where it was.
    const placement_plan refined =
        plan(line("layers.*.experts", "reference") + line("layers.0.experts[1-2]", "unmapped"));
    const std::vector<uint32_t> spread{1, 2, 2, 1};
    REQUIRE(refined.experts.contains(first));
    CHECK(std::equal(spread.begin(), spread.end(), refined.experts.at(first).begin()));
    CHECK(refined.backends.size() == 3);
    CHECK(refined.backends[2].id == "unmapped");
    CHECK(refined.operations[second] == 1);
    CHECK_FALSE(refined.experts.contains(second));
    // The sum is computed where it is read.
    CHECK(refined.operations[first] == 0);

    // All experts by their numbers are the whole operation.
    const placement_plan all = plan(line("layers.*.experts[0-3,4-7]", "reference"));
    CHECK(all.experts.empty());
    CHECK(all.operations[first] == 1);

    const placement_plan overridden =
        plan(line("layers.0.experts[0-1]", "reference") + line("layers.*.experts", "onednn"));
    CHECK(overridden.experts.empty());
    REQUIRE(overridden.warnings.size() == 1);
    CHECK(overridden.warnings[0].find("layers.0.experts[0-1]") != std::string::npos);
}

TEST_CASE("a placement that cannot be is refused by file and line") {
    const auto refused = [](const std::string& lines, const std::vector<std::string>& parts,
                            sluice_status status = SLUICE_INVALID,
                            const std::vector<std::string>& overrides = {}) {
        CAPTURE(lines);
        check_error([&] { loaded_golden(placed("mixtral", "onednn", lines, overrides)); }, status,
                    parts);
    };
    const std::string fourteen = "test:14"; // the first line of [placement]
    refused(line("layers.*.experts", "referense"), {fourteen, "referense", "reference"},
            SLUICE_UNAVAILABLE);
    refused(line("layers.*.expert", "reference"),
            {fourteen, "layers.*.expert", "no operation", "layers.*.experts"});
    refused(line("layers.{7-9}.experts", "reference"), {fourteen, "no operation"});
    refused(line("layers.*.experts[0-8]", "reference"), {fourteen, "expert 8", "0 to 7"});
    refused(line("layers.*.router[0-1]", "reference"), {fourteen, "router", "experts"});
    refused(line("layers.*.ex[perts", "reference"), {fourteen, "brackets"});
    refused("layers.0.experts = \"reference\"\n", {fourteen, "quotes"});
    refused(line("layers.*.experts", "Reference!"), {fourteen, "id of a backend"});
    refused(line("layers.0.attention", "reference"),
            {fourteen, "layers.0.attention", "layers.0.cache", "reference", "onednn"});
    refused(line("layers.*.experts", "unmapped"), {"bfloat16", "unmapped", fourteen},
            SLUICE_UNSUPPORTED, {"model.compute_type=bfloat16"});
}

TEST_CASE("a placement can be given on the command line") {
    const auto plan = configuration_from_text(
        "", ".", "test",
        {"placement={\"layers.*.experts\" = \"reference\", \"embed\" = \"onednn\"}",
         "placement.\"layers.0.experts\"=onednn"});
    REQUIRE(plan.placement.size() == 3);
    CHECK(plan.placement[0].pattern.text() == "layers.*.experts");
    CHECK(plan.placement[1].pattern.text() == "embed");
    CHECK(plan.placement[2].pattern.text() == "layers.0.experts");
    CHECK(plan.placement[2].origin.text().find("--set") != std::string::npos);
}
