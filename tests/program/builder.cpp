// What the builder computes and what it refuses.
#include "program/builder.hpp"

#include "../base/error_check.hpp"
#include "program/print.hpp"

namespace sluice {

namespace {

sluice_weight_format bf16_format() {
    auto format = SLUICE_INIT(sluice_weight_format);
    format.element_type = SLUICE_BF16;
    return format;
}

// A builder with the values that most cases need.
struct small_model {
    program_builder build{"small"};
    value_number x = build.custom_input("x", SLUICE_F32, {size::tokens(), size::fixed(8)});
    value_number ids = build.batch_input(SLUICE_INPUT_TOKEN_IDS);
    value_number matrix = weight("matrix", {4, 8});
    value_number vector = weight("vector", {8});

    value_number weight(const std::string& name, std::vector<int64_t> dimensions) {
        return build.weight(name, dimensions, bf16_format());
    }
    value_number cache(std::vector<uint32_t> part_width) {
        program_state state;
        state.tokens_per_block = 16;
        state.part_type.assign(part_width.size(), SLUICE_F32);
        state.part_width = std::move(part_width);
        state.name = "cache";
        return build.state(std::move(state));
    }
    value_number tensor(const std::string& name, value_shape shape,
                        sluice_element_type type = SLUICE_F32) {
        return build.custom_input(name, type, std::move(shape));
    }
};

sluice_rms_norm_attributes norm_attributes(uint32_t group_width = 0) {
    auto attributes = SLUICE_INIT(sluice_rms_norm_attributes);
    attributes.epsilon = 1e-6f;
    attributes.group_width = group_width;
    return attributes;
}

sluice_routing_specification routing(uint32_t experts, uint32_t choices) {
    auto specification = SLUICE_INIT(sluice_routing_specification);
    specification.expert_count = experts;
    specification.choice_count = choices;
    specification.scale = 1;
    return specification;
}

} // namespace

TEST_CASE("results get their shapes and types from the operands") {
    small_model m;
    const norm_results norm =
        m.build.rms_norm("norm", m.x, m.vector, m.x, norm_attributes(), SLUICE_BF16);
    const value_number y = m.build.linear("y", norm.normed, m.matrix, value_none, SLUICE_F32);
    CHECK(print_value_type(m.build.value(norm.normed)) == "bf16[T, 8]");
    CHECK(print_value_type(m.build.value(norm.sum)) == "f32[T, 8]");
    CHECK(print_value_type(m.build.value(y)) == "f32[T, 4]");
    const topk_results best = m.build.topk("best", y, 2);
    CHECK(print_value_type(m.build.value(best.index)) == "i32[T, 2]");
    const group_results groups = m.build.group_rows("groups", best.index, value_none, 4);
    CHECK(print_value_type(m.build.value(groups.row)) == "i32[2*T]");
    CHECK(print_value_type(m.build.value(groups.offset)) == "i32[5]");
    m.build.output(y);
    const program made = m.build.finish();
    CHECK(made.value(made.at("matrix")).weight_role == SLUICE_ROLE_LINEAR);
    CHECK(made.value(made.at("vector")).weight_role == SLUICE_ROLE_VECTOR);
    CHECK(made.find("norm.sum").has_value());
    CHECK_FALSE(made.find("nothing").has_value());
    test::check_error([&] { made.at("matrx"); }, SLUICE_INVALID, {"\"matrix\""});
}

TEST_CASE("names are made unique, inputs and weights are shared") {
    small_model m;
    const value_number first = m.build.unary("y", SLUICE_UNARY_EXP, m.x);
    const value_number second = m.build.unary("y", SLUICE_UNARY_EXP, m.x);
    CHECK(m.build.value(first).name == "y");
    CHECK(m.build.value(second).name == "y#2");
    CHECK(m.build.batch_input(SLUICE_INPUT_TOKEN_IDS) == m.ids);
    CHECK(m.weight("matrix", {4, 8}) == m.matrix);
    CHECK(m.build.batch_input(SLUICE_INPUT_SLOT, 0) != m.build.batch_input(SLUICE_INPUT_SLOT, 1));
    test::check_error(
        [&] {
            m.weight("matrix", {8, 4});
        },
        SLUICE_INVALID, {"matrix", "[4, 8]", "[8, 4]"});
    test::check_error([&] { m.build.custom_input("x", SLUICE_F32, {}); }, SLUICE_INVALID, {"x"});
}

TEST_CASE("the view has what the program has") {
    small_model m;
    const value_number y = m.build.linear("y", m.x, m.matrix, value_none, SLUICE_F32);
    m.build.output(y);
    const program made = m.build.finish();
    const program copy = made;
    const sluice_program* view = copy.view();
    REQUIRE(view->operation_count == 1);
    CHECK(view->struct_size == sizeof(sluice_program));
    CHECK(view->operations[0]->kind == SLUICE_OP_LINEAR);
    CHECK(view->operations[0]->input_count == 2);
    CHECK(view->operations[0]->inputs[1] == m.matrix);
    CHECK(view->operations[0]->attributes == nullptr);
    CHECK(view->values[m.matrix]->weight_format->element_type == SLUICE_BF16);
    CHECK(view->values[m.matrix]->weight_role == SLUICE_ROLE_LINEAR);
    CHECK(view->values[y]->weight_format == nullptr);
    CHECK(view->values[y]->shape[0].extent == SLUICE_EXTENT_TOKENS);
    CHECK(view->outputs[0] == y);
}

TEST_CASE("operations that count are marked") {
    small_model m;
    const value_number logits = m.tensor("logits", {size::tokens(), size::fixed(4)});
    m.build.route("route", {logits}, routing(4, 2));
    const program made = m.build.finish();
    CHECK(made.operations().back().flags == SLUICE_OPERATION_ONCE);
}

TEST_CASE("operands that do not fit are refused with the operation's name") {
    small_model m;
    const auto refuses = [](const std::function<void()>& action,
                            const std::vector<std::string>& parts) {
        test::check_error(action, SLUICE_INVALID, parts);
    };
    const value_number narrow = m.tensor("narrow", {size::tokens(), size::fixed(6)});
    const value_number whole = m.tensor("whole", {size::tokens(), size::fixed(8)}, SLUICE_I32);
    refuses([&] { m.build.linear("first", narrow, m.matrix, value_none, SLUICE_F32); },
            {"\"first\" (linear)", "W", "[4, 6]", "bf16[4, 8]"});
    refuses([&] { m.build.linear("first", whole, m.matrix, value_none, SLUICE_F32); },
            {"operand 0 (x)", "i32[T, 8]"});
    refuses([&] { m.build.linear("first", m.x, m.matrix, m.vector, SLUICE_F32); },
            {"operand 2 (b)", "[4]"});
    refuses([&] { m.build.linear("first", m.x, m.matrix, value_none, SLUICE_I32); }, {"result 0"});
    refuses([&] { m.build.linear("first", 999, m.matrix, value_none, SLUICE_F32); }, {"999"});
    refuses(
        [&] { m.build.rms_norm("n", m.x, m.vector, value_none, norm_attributes(3), SLUICE_F32); },
        {"group_width 3", "8"});
    refuses([&] { m.build.embed("e", m.x, m.matrix, SLUICE_F32); }, {"operand 0 (ids)"});
    refuses([&] { m.build.binary("b", SLUICE_BINARY_ADD, m.x, narrow); }, {"\"b\"", "broadcast"});
    refuses([&] { m.build.binary("b", SLUICE_BINARY_ADD, m.x, whole); }, {"f32 and i32"});
    refuses([&] { m.build.binary("b", SLUICE_BINARY_ADD, m.x, m.vector); }, {"dequantize"});
    refuses([&] { m.build.unary("u", SLUICE_UNARY_EXP, whole); }, {"i32 only for an affine"});
    refuses([&] { m.build.unary("u", SLUICE_UNARY_AFFINE, whole, 0.5f); }, {"whole numbers"});
    refuses(
        [&] {
            m.build.reshape("r", m.x, {size::tokens(), size::fixed(7)});
        },
        {"[T, 8]", "[T, 7]"});
    refuses([&] { m.build.slice("s", m.x, 1, 4, size::fixed(5)); }, {"4 + 5", "8"});
    refuses([&] { m.build.slice("s", m.x, 0, 0, size::fixed(2)); }, {"T"});
    refuses([&] { m.build.slice("s", m.x, 2, 0, size::fixed(1)); }, {"axis 2"});
    refuses([&] { m.build.transpose("t", m.x, std::array{0u, 0u}); }, {"once"});
    refuses([&] { m.build.topk("k", m.x, 9); }, {"9 largest of 8"});
    refuses([&] { m.build.sample("s", whole); }, {"operand 0 (logits)", "i32[T, 8]"});
    test::check_error([&] { m.build.sample("s", m.x, 7); }, SLUICE_UNSUPPORTED, {"method 7"});
    refuses([&] { m.build.matmul("m", m.x, narrow); }, {"inner sizes"});
    refuses([&] { m.build.gather_rows("g", m.x, m.x); }, {"operand 1 (rows)"});
    refuses([&] { m.build.dequantize("d", m.x); }, {"must be a weight"});
    refuses([&] { m.build.concat("c", std::array{m.x, narrow}, 0); }, {"operand 1"});
    refuses([&] { m.build.concat("c", {}, 0); }, {"nothing to join"});
}

TEST_CASE("attention needs a state that fits its heads") {
    small_model m;
    const value_number q = m.tensor("q", {size::tokens(), size::fixed(4), size::fixed(8)});
    const value_number cache = m.cache({16, 16});
    auto attributes = SLUICE_INIT(sluice_attention_attributes);
    attributes.kv_heads = 2;
    attributes.scale = 1;
    const value_number o = m.build.attention("a", {q, cache}, attributes, SLUICE_F32);
    CHECK(print_value_type(m.build.value(o)) == "f32[T, 4, 8]");
    attributes.kv_heads = 3;
    test::check_error(
        [&] {
            m.build.attention("a", {q, cache}, attributes, SLUICE_F32);
        },
        SLUICE_INVALID, {"kv_heads is 3"});
    attributes.kv_heads = 4;
    test::check_error(
        [&] {
            m.build.attention("a", {q, cache}, attributes, SLUICE_F32);
        },
        SLUICE_INVALID, {"cache", "32"});
    test::check_error(
        [&] {
            m.build.attention("a", {q, q}, attributes, SLUICE_F32);
        },
        SLUICE_INVALID, {"no state"});
    test::check_error([&] { m.build.kv_write("w", cache, std::array{q}); }, SLUICE_INVALID,
                      {"1 parts are written", "2"});
    test::check_error(
        [&] {
            m.build.kv_write("w", cache, std::array{q, q});
        },
        SLUICE_INVALID, {"part 0", "16"});
}

TEST_CASE("rope and activations check their attributes") {
    small_model m;
    const value_number q = m.tensor("q", {size::tokens(), size::fixed(2), size::fixed(8)});
    const value_number position = m.build.batch_input(SLUICE_INPUT_POSITION);
    auto rope = SLUICE_INIT(sluice_rope_attributes);
    rope.base = 10000;
    for (const uint32_t turned : {0u, 3u, 10u}) {
        rope.dimension = turned;
        test::check_error([&] { m.build.rope("r", q, position, rope); }, SLUICE_INVALID,
                          {"dimension"});
    }
    rope.dimension = 8;
    rope.scaling = SLUICE_ROPE_YARN;
    test::check_error([&] { m.build.rope("r", q, position, rope); }, SLUICE_INVALID, {"factor"});
    rope.scaling = SLUICE_ROPE_TABLE;
    test::check_error([&] { m.build.rope("r", q, position, rope); }, SLUICE_INVALID, {"table"});
    rope.scaling = 17;
    test::check_error([&] { m.build.rope("r", q, position, rope); }, SLUICE_UNSUPPORTED, {"17"});
    const auto table = std::make_shared<const std::vector<double>>(4, 0.5);
    rope.scaling = SLUICE_ROPE_TABLE;
    m.build.rope("r", q, position, rope, table);
    auto activation = SLUICE_INIT(sluice_activation_attributes);
    activation.activation = SLUICE_ACTIVATION_SWIGLU_OAI;
    test::check_error([&] { m.build.activation("a", m.x, activation); }, SLUICE_UNSUPPORTED,
                      {"without a gate"});
    test::check_error([&] { m.build.gated_activation("a", m.x, value_none, activation); },
                      SLUICE_INVALID, {"up is absent"});
    activation.gate_layout = SLUICE_GATE_INTERLEAVED;
    const value_number gated = m.build.gated_activation("a", m.x, value_none, activation);
    CHECK(print_value_type(m.build.value(gated)) == "f32[T, 4]");
}

TEST_CASE("a routing specification out of its ranges is refused by field") {
    small_model m;
    const value_number logits = m.tensor("logits", {size::tokens(), size::fixed(8)});
    const auto refuses = [&](const std::function<void(sluice_routing_specification&)>& change,
                             sluice_status status, const char* part) {
        sluice_routing_specification specification = routing(8, 2);
        change(specification);
        test::check_error([&] { m.build.route("r", {logits}, specification); }, status, {part});
    };
    refuses([](auto& s) { s.choice_count = 9; }, SLUICE_INVALID, "choice_count");
    refuses([](auto& s) { s.choice_count = 0; }, SLUICE_INVALID, "choice_count");
    refuses([](auto& s) { s.group_count = 3; }, SLUICE_INVALID, "group_count");
    refuses([](auto& s) { s.group_count = 4; }, SLUICE_INVALID, "group_choice_count");
    refuses([](auto& s) { s.scale = 0; }, SLUICE_INVALID, "scale");
    refuses([](auto& s) { s.capacity_factor = -1; }, SLUICE_INVALID, "capacity_factor");
    refuses([](auto& s) { s.score = 9; }, SLUICE_UNSUPPORTED, "score");
    refuses([](auto& s) { s.expert_count = 4; }, SLUICE_INVALID, "[T, 4]");
    refuses(
        [](auto& s) {
            s.group_count = 8;
            s.group_choice_count = 2;
            s.group_score = SLUICE_GROUP_SCORE_TOPK_SUM;
            s.group_score_count = 2;
        },
        SLUICE_INVALID, "group_score_count");
}

} // namespace sluice
