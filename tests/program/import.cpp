// Programs from the other side of the ABI: nothing in them may be believed.
#include "../base/error_check.hpp"
#include "program/builder.hpp"
#include "program/print.hpp"

#include <deque>

namespace sluice {

namespace {

sluice_text text_of(const char* text) { return {text, std::char_traits<char>::length(text)}; }

// y = 2 x + 1; z = softmax(y), written by hand as a plugin would, so that it can be broken
// anywhere.
struct foreign_program {
    foreign_program() {
        add_value(SLUICE_VALUE_INPUT, "x");
        add_value(SLUICE_VALUE_RESULT, "y");
        add_value(SLUICE_VALUE_RESULT, "z");
        affine.function = SLUICE_UNARY_AFFINE;
        affine.a = 2;
        affine.b = 1;
        add_operation(SLUICE_OP_UNARY, &affine, &numbers[0], &numbers[1]);
        add_operation(SLUICE_OP_SOFTMAX, nullptr, &numbers[1], &numbers[2]);
        whole.value_count = 3;
        whole.values = value_pointers;
        whole.operation_count = 2;
        whole.operations = operation_pointers;
        whole.outputs = &numbers[2];
        whole.output_count = 1;
        whole.name = text_of("foreign");
    }

    void add_value(uint32_t kind, const char* name) {
        auto value = SLUICE_INIT(sluice_value);
        value.kind = kind;
        value.element_type = SLUICE_F32;
        value.rank = 2;
        value.shape[0] = size::tokens();
        value.shape[1] = size::fixed(4);
        value.name = text_of(name);
        values.push_back(value);
        value_pointers[values.size() - 1] = &values.back();
    }

    void add_operation(uint32_t kind, const void* attributes, const uint32_t* input,
                       const uint32_t* output) {
        auto operation = SLUICE_INIT(sluice_operation);
        operation.kind = kind;
        operation.attributes = attributes;
        operation.inputs = input;
        operation.outputs = output;
        operation.input_count = 1;
        operation.output_count = 1;
        operations.push_back(operation);
        operation_pointers[operations.size() - 1] = &operations.back();
    }

    uint32_t numbers[8] = {0, 1, 2, 3, 4, 5, 6, 99};
    sluice_unary_attributes affine = SLUICE_INIT(sluice_unary_attributes);
    std::deque<sluice_value> values;
    std::deque<sluice_operation> operations;
    const sluice_value* value_pointers[8] = {};
    const sluice_operation* operation_pointers[8] = {};
    sluice_program whole = SLUICE_INIT(sluice_program);
};

void refuses(const std::function<void(foreign_program&)>& change, sluice_status status,
             const std::vector<std::string>& parts) {
    foreign_program foreign;
    change(foreign);
    std::vector<std::string> all = parts;
    all.emplace_back("router test");
    test::check_error([&] { import_program(foreign.whole, "router test"); }, status, all);
}

} // namespace

TEST_CASE("a sound program comes in as it is and goes round") {
    const foreign_program foreign;
    const program made = import_program(foreign.whole, "router test");
    const std::string text = print_program(made);
    CHECK(text
          == "program foreign\n"
             "$x = input : f32[T, 4]\n"
             "%y = affine($x) {a 2, b 1} : f32[T, 4]\n"
             "%z = softmax(%y) : f32[T, 4]\n"
             "return %z\n");
    CHECK(print_program(import_program(*made.view(), "again")) == text);
}

TEST_CASE("results need no names") {
    foreign_program foreign;
    foreign.values[1].name = {};
    const program made = import_program(foreign.whole, "router test");
    CHECK(print_operation(made, 1) == "%z = softmax(%1) : f32[T, 4]");
}

TEST_CASE("the caller may throw its program away") {
    auto foreign = std::make_unique<foreign_program>();
    auto rope = SLUICE_INIT(sluice_rope_attributes);
    double table[] = {0.5, 0.25};
    rope.dimension = 4;
    rope.scaling = SLUICE_ROPE_TABLE;
    rope.table = table;
    rope.table_count = 2;
    for (size_t i = 0; i < 2; ++i) {
        foreign->values[i].rank = 3;
        foreign->values[i].shape[2] = size::fixed(4);
    }
    foreign->add_value(SLUICE_VALUE_INPUT, "position");
    foreign->values[3].element_type = SLUICE_I32;
    foreign->values[3].rank = 1;
    const uint32_t inputs[] = {0, 3};
    foreign->whole.value_count = 4;
    foreign->whole.operation_count = 1;
    foreign->whole.outputs = &foreign->numbers[1];
    foreign->values[2].kind = SLUICE_VALUE_INPUT;
    foreign->operations[0].kind = SLUICE_OP_ROPE;
    foreign->operations[0].attributes = &rope;
    foreign->operations[0].inputs = inputs;
    foreign->operations[0].input_count = 2;
    const program made = import_program(foreign->whole, "router test");
    foreign.reset();
    table[0] = 0;
    const auto* attributes =
        static_cast<const sluice_rope_attributes*>(made.view()->operations[0]->attributes);
    CHECK(attributes->table[0] == 0.5);
    CHECK(attributes->table[1] == 0.25);
}

TEST_CASE("growing structs are read under the zero-tail rule") {
    struct longer_attributes {
        sluice_unary_attributes known;
        uint32_t unknown;
    };
    foreign_program foreign;
    longer_attributes longer{foreign.affine, 0};
    longer.known.struct_size = sizeof(longer);
    foreign.operations[0].attributes = &longer;
    CHECK_NOTHROW(import_program(foreign.whole, "router test"));
    longer.unknown = 1;
    test::check_error([&] { import_program(foreign.whole, "router test"); }, SLUICE_UNSUPPORTED,
                      {"operation 0", "attributes", "does not know"});
    // A shorter struct: what is missing is zero, here b.
    longer.known.struct_size = offsetof(sluice_unary_attributes, b);
    const program made = import_program(foreign.whole, "router test");
    CHECK(std::get<sluice_unary_attributes>(made.operations()[0].attributes).b == 0);
    CHECK(std::get<sluice_unary_attributes>(made.operations()[0].attributes).a == 2);
}

TEST_CASE("malformed structure is refused") {
    const auto invalid = SLUICE_INVALID;
    refuses([](auto& f) { f.whole.struct_size = 0; }, invalid, {"struct_size"});
    refuses([](auto& f) { f.whole.values = nullptr; }, invalid, {"values", "NULL"});
    refuses([](auto& f) { f.whole.operations = nullptr; }, invalid, {"operations", "NULL"});
    refuses([](auto& f) { f.whole.outputs = nullptr; }, invalid, {"outputs", "NULL"});
    refuses([](auto& f) { f.whole.value_count = 0xffffffff; }, invalid, {"4294967295", "at most"});
    refuses([](auto& f) { f.whole.operation_count = 0x7fffffff; }, invalid, {"at most"});
    refuses([](auto& f) { f.value_pointers[1] = nullptr; }, invalid, {"value 1", "NULL"});
    refuses([](auto& f) { f.operation_pointers[1] = nullptr; }, invalid, {"operation 1", "NULL"});
    refuses([](auto& f) { f.operations[0].inputs = nullptr; }, invalid, {"inputs", "NULL"});
    refuses([](auto& f) { f.operations[0].input_count = 0xfffffff0; }, invalid, {"at most"});
    refuses([](auto& f) { f.operations[0].attributes = nullptr; }, invalid,
            {"operation 0", "attributes", "NULL"});
    refuses([](auto& f) { f.operations[1].attributes = &f.affine; }, SLUICE_UNSUPPORTED,
            {"operation 1", "has none"});
    refuses([](auto& f) { f.values[0].name.size = 1u << 30; }, invalid, {"value 0", "name"});
    refuses([](auto& f) { f.values[1].name = f.values[0].name; }, invalid, {"two values", "\"x\""});
    refuses([](auto& f) { f.values[1].name = text_of("\xff\xfe"); }, invalid, {"UTF-8"});
}

TEST_CASE("values that are none are refused") {
    const auto invalid = SLUICE_INVALID;
    refuses([](auto& f) { f.values[0].kind = 9; }, SLUICE_UNSUPPORTED, {"kind 9"});
    refuses([](auto& f) { f.values[0].rank = 7; }, invalid, {"rank is 7"});
    refuses([](auto& f) { f.values[1].element_type = 0; }, invalid, {"element type 0"});
    refuses([](auto& f) { f.values[1].element_type = 200; }, invalid, {"element type 200"});
    refuses([](auto& f) { f.values[1].shape[0].extent = 5; }, SLUICE_UNSUPPORTED, {"extent 5"});
    refuses([](auto& f) { f.values[1].shape[0].factor = 0; }, invalid, {"not a positive size"});
    refuses([](auto& f) { f.values[1].shape[1].offset = 0; }, invalid, {"not a positive size"});
    refuses([](auto& f) { f.values[1].shape[1].offset = INT64_MAX; }, invalid, {"positive size"});
    refuses([](auto& f) { f.values[0].input = 77; }, SLUICE_UNSUPPORTED, {"input 77"});
    refuses([](auto& f) { f.values[0].input = SLUICE_INPUT_POSITION; }, invalid, {"i32[T]"});
    refuses([](auto& f) { f.values[0].kind = SLUICE_VALUE_WEIGHT; }, invalid,
            {"weight_format", "NULL"});
    refuses(
        [](auto& f) {
            f.values[0].kind = SLUICE_VALUE_STATE;
            f.values[0].rank = 0;
        },
        invalid, {"no state 0"});
}

TEST_CASE("order and single assignment are kept") {
    const auto invalid = SLUICE_INVALID;
    refuses([](auto& f) { f.operations[0].inputs = &f.numbers[7]; }, invalid, {"value 99"});
    refuses([](auto& f) { f.operations[0].outputs = &f.numbers[7]; }, invalid, {"value 99"});
    refuses([](auto& f) { f.operations[0].inputs = &f.numbers[2]; }, invalid,
            {"\"z\" before it is written"});
    refuses([](auto& f) { f.operations[0].inputs = &f.numbers[1]; }, invalid,
            {"\"y\" before it is written"});
    refuses([](auto& f) { f.operations[1].outputs = &f.numbers[1]; }, invalid,
            {"\"y\"", "written already"});
    refuses([](auto& f) { f.operations[0].outputs = &f.numbers[0]; }, invalid,
            {"\"x\"", "input or a weight"});
    refuses([](auto& f) { f.whole.operation_count = 1; }, invalid, {"no operation writes \"z\""});
    refuses([](auto& f) { f.whole.outputs = &f.numbers[7]; }, invalid, {"value 99"});
    refuses([](auto& f) { std::swap(f.operation_pointers[0], f.operation_pointers[1]); }, invalid,
            {"before it is written"});
}

TEST_CASE("operations that do not compute are refused") {
    const auto invalid = SLUICE_INVALID;
    refuses([](auto& f) { f.operations[0].kind = SLUICE_OP_COUNT; }, SLUICE_UNSUPPORTED,
            {"kind of operation is not known"});
    refuses([](auto& f) { f.operations[0].kind = 0; }, SLUICE_UNSUPPORTED, {"not known"});
    refuses([](auto& f) { f.operations[1].input_count = 0; }, invalid, {"0 operands"});
    refuses([](auto& f) { f.operations[1].output_count = 0; }, invalid, {"0 results"});
    refuses([](auto& f) { f.operations[1].flags = 0x80; }, SLUICE_UNSUPPORTED, {"flags"});
    refuses([](auto& f) { f.affine.function = 99; }, SLUICE_UNSUPPORTED, {"unary function 99"});
    refuses([](auto& f) { f.values[2].shape[1].offset = 5; }, invalid,
            {"operation 1", "[T, 4]", "[T, 5]"});
    refuses([](auto& f) { f.values[2].element_type = SLUICE_I32; }, invalid,
            {"result 0", "i32[T, 4]"});
    refuses([](auto& f) { f.operations[1].kind = SLUICE_OP_MATMUL; }, invalid,
            {"1 operands, expected 2"});
}

TEST_CASE("groups of a cache travel, and belong to whole numbers") {
    program_state state;
    state.tokens_per_block = 4;
    state.part_width = {8, 6};
    state.part_type = {SLUICE_I8, SLUICE_F32};
    state.part_group = {4, 0};
    state.name = "cache";
    CHECK(state.bytes_per_token() == 8 + 2 * 4 + 6 * 4);
    const auto build_with = [](const program_state& given) {
        program_builder build("cached");
        build.state(given);
        return build.finish();
    };
    const program made = build_with(state);
    CHECK(print_program(made).find("[i8[8] by 4, f32[6]]") != std::string::npos);
    const program read = import_program(*made.view(), "router test");
    CHECK(read.states()[0].group_of(0) == 4);
    CHECK(read.states()[0].group_of(1) == 0);
    const auto refuses_groups = [&](std::vector<uint32_t> groups,
                                    const std::vector<std::string>& texts) {
        program_state wrong = state;
        wrong.part_group = std::move(groups);
        test::check_error([&] { build_with(wrong); }, SLUICE_INVALID, texts);
    };
    refuses_groups({3, 0},
                   {"state 0 \"cache\"", "part 0", "groups of 3", "divisor of its width 8"});
    refuses_groups({}, {"groups of 0"});
    refuses_groups({4, 6}, {"part 1", "f32", "no scales"});
}

TEST_CASE("a cache is used in one order") {
    program_builder build("cached");
    program_state description;
    description.tokens_per_block = 4;
    description.part_width = {8};
    description.part_type = {SLUICE_F32};
    description.name = "cache";
    const value_number before = build.state(description);
    const value_number x = build.custom_input("x", SLUICE_F32, {size::tokens(), size::fixed(8)});
    build.kv_write("after", before, std::array{x});
    const value_number table = build.batch_input(SLUICE_INPUT_BLOCK_TABLE);
    build.kv_gather("stale", before, table, 0, SLUICE_F32);
    // What was cached before the write is gone, as a cache is changed in place.
    test::check_error([&] { build.finish(); }, SLUICE_INVALID, {"stale", "\"cache\""});
}

} // namespace sluice
