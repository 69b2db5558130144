// Programs cut where placements meet.
#include "program/partition.hpp"

#include "../base/error_check.hpp"
#include "model/model_program.hpp"
#include "program/decompose.hpp"
#include "program/print.hpp"

#include <algorithm>
#include <set>

namespace sluice {

namespace {

// deepseek_v3 with placement 1 for the operations that `foreign` picks by name.
program placed_deepseek(const std::function<bool(const std::string& name)>& foreign) {
    const std::string path = std::string(SLUICE_TEST_DATA_DIR) + "/configs/deepseek_v3.json";
    program_contents contents = build_model_program(load_model_config(path), {}).step.contents();
    for (program_operation& operation : contents.operations) {
        operation.placement = foreign(operation.name) ? 1 : 0;
    }
    return program(std::move(contents));
}

bool is_experts(const std::string& name) { return name.ends_with(".experts"); }

size_t sparse_layers(const program& whole) {
    size_t count = 0;
    for (const auto& operation : whole.operations()) count += operation.kind == SLUICE_OP_MOE_FFN;
    return count;
}

// Every operation once, with the same operands, after what it depends on.
void check_covers(const program& whole, const program_partition& partition) {
    std::set<uint32_t> seen;
    std::set<value_number> written;
    for (const program_segment& segment : partition.segments) {
        const auto& operations = segment.part.operations();
        REQUIRE(operations.size() == segment.operations.size());
        for (size_t i = 0; i < operations.size(); ++i) {
            const program_operation& original = whole.operations()[segment.operations[i]];
            CHECK(seen.insert(segment.operations[i]).second);
            CHECK(operations[i].name == original.name);
            CHECK(original.placement == segment.placement);
            for (size_t k = 0; k < original.inputs.size(); ++k) {
                const value_number input = original.inputs[k];
                if (input == value_none) continue;
                CHECK(segment.values[operations[i].inputs[k]] == input);
                CHECK(segment.find(input) == operations[i].inputs[k]);
                if (whole.value(input).kind == SLUICE_VALUE_RESULT) CHECK(written.contains(input));
            }
            written.insert(original.outputs.begin(), original.outputs.end());
        }
    }
    CHECK(seen.size() == whole.operations().size());
}

} // namespace

TEST_CASE("a program of one placement is one segment and the same program") {
    const program whole = placed_deepseek([](const std::string&) { return false; });
    const program_partition partition = partition_program(whole);
    REQUIRE(partition.segments.size() == 1);
    CHECK(partition.passed.empty());
    CHECK(partition.segments[0].part.view() == whole.view()); // shared, not copied
    CHECK(partition.segments[0].find(7) == 7);
    const program elsewhere = placed_deepseek([](const std::string&) { return true; });
    CHECK(partition_program(elsewhere).segments.at(0).placement == 1);
}

TEST_CASE("experts elsewhere make two segments a layer, and one at the end") {
    const program whole = placed_deepseek(is_experts);
    const program_partition partition = partition_program(whole);
    check_covers(whole, partition);
    CHECK(partition.segments.size() == 2 * sparse_layers(whole) + 1);
    for (size_t i = 0; i < partition.segments.size(); ++i) {
        const program_segment& segment = partition.segments[i];
        CHECK(segment.placement == i % 2);
        if (segment.placement == 0) {
            // All states of the placement, but for the head, which uses none.
            const bool head = i + 1 == partition.segments.size();
            CHECK(segment.part.states().size() == (head ? 0 : whole.states().size()));
            continue;
        }
        // What the shared experts do is no business of the experts' segment.
        CHECK(segment.part.operations().size() == 1);
        CHECK(segment.part.states().empty());
        CHECK(segment.part.outputs().size() == 1);
        size_t custom = 0;
        for (const program_value& value : segment.part.values()) {
            custom += value.kind == SLUICE_VALUE_INPUT && value.input == SLUICE_INPUT_CUSTOM;
        }
        CHECK(custom == 3); // x, index and weight
    }
}

TEST_CASE("operations that do not depend on a foreign one move before it") {
    const program whole = placed_deepseek([](const std::string& name) {
        return name.ends_with(".experts") || name.ends_with(".shared_experts");
    });
    const program_partition partition = partition_program(whole);
    check_covers(whole, partition);
    CHECK(partition.segments.size() == 2 * sparse_layers(whole) + 1);
    const program apart =
        placed_deepseek([](const std::string& name) { return name.ends_with(".shared_experts"); });
    // The experts, which stand before the shared ones, and the sum are of placement 0.
    check_covers(apart, partition_program(apart));
    CHECK(partition_program(apart).segments.size() == 2 * sparse_layers(apart) + 1);
}

TEST_CASE("what passes between segments is said with its readers") {
    const program whole = placed_deepseek(is_experts);
    const program_partition partition = partition_program(whole);
    const auto passed = [&](const std::string& name) -> const passed_value* {
        const value_number value = whole.at(name);
        for (const passed_value& each : partition.passed) {
            if (each.value == value) return &each;
        }
        return nullptr;
    };
    uint32_t first = 0; // sparse layer
    while (!whole.find(fmt::format("layers.{}.experts", first))) ++first;
    const auto named = [&](const char* rest) { return fmt::format("layers.{}.{}", first, rest); };
    REQUIRE(passed(named("experts")) != nullptr);
    CHECK(passed(named("experts"))->writer == 1);
    CHECK(passed(named("experts"))->readers == std::vector<uint32_t>{2});
    REQUIRE(passed(named("route.index")) != nullptr);
    CHECK(passed(named("route.index"))->readers == std::vector<uint32_t>{1});
    // The residual stream goes on within the placement.
    REQUIRE(passed(named("post_attention_norm.sum")) != nullptr);
    CHECK(passed(named("post_attention_norm.sum"))->writer == 0);
    CHECK(passed(named("post_attention_norm.sum"))->readers == std::vector<uint32_t>{2});
    CHECK(passed(named("router")) == nullptr);
    CHECK(passed("logits") == nullptr);
    CHECK(partition.segments.back().part.find("logits").has_value());
}

TEST_CASE("a layer elsewhere takes its cache along") {
    const program whole =
        placed_deepseek([](const std::string& name) { return name.starts_with("layers.1."); });
    const program_partition partition = partition_program(whole);
    check_covers(whole, partition);
    REQUIRE(partition.segments.size() == 3);
    CHECK(partition.segments[1].part.states().size() == 1);
    CHECK(partition.segments[1].part.states()[0].name == "layers.1.cache");
    CHECK(partition.segments[0].part.states().size() == whole.states().size() - 1);
    const size_t last = partition.segments[2].part.states().size();
    CHECK(last == whole.states().size() - 1);
}

TEST_CASE("a state of two placements is refused") {
    const program whole =
        placed_deepseek([](const std::string& name) { return name == "layers.1.cache_written"; });
    test::check_error([&] { partition_program(whole); }, SLUICE_INVALID,
                      {"layers.1.attention", "placement"});
}

TEST_CASE("primitives have the placement of their composite") {
    const program whole = decompose(placed_deepseek(is_experts));
    for (const program_operation& operation : whole.operations()) {
        const bool inside = operation.name.find(".experts") != std::string::npos;
        CHECK(operation.placement == (inside ? 1 : 0));
    }
    check_covers(whole, partition_program(whole));
    const std::string text = print_program(whole);
    CHECK(text.find(" at 1\n") != std::string::npos);
}

} // namespace sluice
