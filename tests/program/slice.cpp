// Any values out, any values in.
#include "program/slice.hpp"

#include "../base/error_check.hpp"
#include "model/model_program.hpp"
#include "program/decompose.hpp"
#include "program/print.hpp"

namespace sluice {

namespace {

model_program deepseek() {
    const std::string path = std::string(SLUICE_TEST_DATA_DIR) + "/configs/deepseek_v3.json";
    return build_model_program(load_model_config(path), {});
}

size_t count_kind(const program& counted, uint32_t kind) {
    size_t count = 0;
    for (const auto& operation : counted.operations()) count += operation.kind == kind ? 1 : 0;
    return count;
}

using names = std::vector<std::string>;

} // namespace

TEST_CASE("a slice has what its outputs need and no more") {
    const program whole = deepseek().step;
    const program first = slice_program(whole, names{"layers.1.router"});
    CHECK(first.outputs().size() == 1);
    CHECK(first.outputs()[0] == first.at("layers.1.router"));
    CHECK(count_kind(first, SLUICE_OP_MLA_ATTENTION) == 2);
    CHECK(count_kind(first, SLUICE_OP_KV_WRITE) == 2);
    CHECK(count_kind(first, SLUICE_OP_ROUTE) == 0);
    CHECK(first.states().size() == 2);
    CHECK(first.find("lm_head.weight") == std::nullopt);
    CHECK(first.find("logit_rows") == std::nullopt);
    CHECK(first.find("model.layers.1.mlp.gate.weight").has_value());
}

TEST_CASE("a cut value becomes an input and what led to it goes") {
    const program whole = deepseek().step;
    const program block =
        slice_program(whole, names{"layers.2.mlp"}, names{"layers.2.post_attention_norm"});
    const program_value& input = block.value(block.at("layers.2.post_attention_norm"));
    CHECK(input.kind == SLUICE_VALUE_INPUT);
    CHECK(input.input == SLUICE_INPUT_CUSTOM);
    CHECK(print_value_type(input) == "f32[T, 128]");
    CHECK(block.operations().size() == 5); // router, route, experts, shared experts, sum
    CHECK(block.states().empty());
    CHECK_NOTHROW(decompose(block));
}

TEST_CASE("slicing everything changes nothing") {
    const program whole = deepseek().step;
    names outputs;
    for (const value_number output : whole.outputs()) outputs.push_back(whole.value(output).name);
    CHECK(print_program(slice_program(whole, outputs)) == print_program(whole));
}

TEST_CASE("taps are outputs more") {
    const program whole = deepseek().step;
    const program tapped = tap_program(whole, names{"layers.1.router", "logits"});
    CHECK(tapped.outputs().size() == whole.outputs().size() + 1);
    CHECK(tapped.outputs().back() == whole.at("layers.1.router"));
}

TEST_CASE("wrong names are refused") {
    const program whole = deepseek().step;
    test::check_error([&] { slice_program(whole, names{"layers.1.ruter"}); }, SLUICE_INVALID,
                      {"layers.1.ruter", "layers.1.router"});
    test::check_error([&] { slice_program(whole, names{}); }, SLUICE_INVALID, {"output"});
    test::check_error([&] { slice_program(whole, names{"logits"}, names{"token_ids"}); },
                      SLUICE_INVALID, {"token_ids", "no result"});
    test::check_error(
        [&] {
            slice_program(whole, names{"layers.1.route.weight"}, names{"layers.1.route.index"});
        },
        SLUICE_INVALID, {"layers.1.route.index", "cannot be cut"});
    test::check_error([&] { tap_program(whole, names{"model.norm.weight"}); }, SLUICE_INVALID,
                      {"model.norm.weight"});
}

} // namespace sluice
