#include "base/json.hpp"

#include "error_check.hpp"
#include "temporary_directory.hpp"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

using namespace sluice;
using test::check_error;

namespace {

json_view parse(std::string_view text) { return parse_json(text, "config.json"); }

const char* const sample = R"({
    "hidden_size": 384, "rms_norm_eps": 1e-06, "tie": true, "model_type": "llama",
    "q_lora_rank": null, "rope_scaling": {"factor": 8.0, "low": [1, 2, 3]},
    "layers": [{"kind": "dense"}, {"kind": "sparse"}], "weight.map": {"a.b": 1}
})";

} // namespace

TEST_CASE("typed getters read what is there") {
    json_view view = parse(sample);
    CHECK(view.integer("hidden_size", 1, 65536) == 384);
    CHECK(view.number("rms_norm_eps") == doctest::Approx(1e-6));
    CHECK(view.number("hidden_size") == 384);
    CHECK(view.number("hidden_size", 1, 1000) == 384);
    CHECK(view.boolean("tie"));
    CHECK(view.text("model_type") == "llama");
    CHECK(view.object("rope_scaling").number("factor") == 8);
    CHECK(view.array("layers").size() == 2);
    CHECK(view.array("layers")[1].text("kind") == "sparse");
    CHECK(view.object("rope_scaling").at("low").as_integer_list(0, 9, 3)
          == std::vector<int64_t>{1, 2, 3});
    CHECK(view.keys()
          == std::vector<std::string>{"hidden_size", "rms_norm_eps", "tie", "model_type",
                                      "q_lora_rank", "rope_scaling", "layers", "weight.map"});
    std::string kinds;
    for (json_view layer : view.array("layers")) kinds += layer.text("kind") + " ";
    CHECK(kinds == "dense sparse ");
    CHECK(view.array("layers")[1].at("kind").path() == "layers[1].kind");
    CHECK(view.object("weight.map").at("a.b").path() == "[\"weight.map\"][\"a.b\"]");
}

TEST_CASE("missing and null take the default, wrong types never do") {
    json_view view = parse(sample);
    CHECK(view.integer("absent", 0, 9, 7) == 7);
    CHECK(view.integer("q_lora_rank", 0, 9, 7) == 7);
    CHECK(view.number("absent", 0.5) == 0.5);
    CHECK(view.number("absent", 0, 1, 0.5) == 0.5);
    CHECK(view.text("absent", "x") == "x");
    CHECK(view.boolean("absent", true));
    CHECK(!view.find("q_lora_rank"));
    CHECK(view.contains("q_lora_rank"));
    CHECK(!view.contains("absent"));
    CHECK(!view.object_if_present("absent"));
    CHECK(view.at("q_lora_rank").is_null());
    check_error([&] { view.integer("model_type", 0, 9, 7); }, SLUICE_INVALID,
                {"the text \"llama\""});
    check_error([&] { view.boolean("hidden_size", true); }, SLUICE_INVALID,
                {"true or false", "384"});
    check_error([&] { view.text("tie", "x"); }, SLUICE_INVALID, {"expected a text, found true"});
    check_error([&] { view.object_if_present("tie"); }, SLUICE_INVALID, {"expected an object"});
}

TEST_CASE("errors name the file, the path, what was expected and what was found") {
    json_view view = parse(sample);
    check_error(
        [&] { view.integer("hiden_size", 1, 9); }, SLUICE_INVALID,
        {"config.json", "\"hiden_size\"", "at the top level", "did you mean \"hidden_size\""});
    check_error([&] { view.object("rope_scaling").number("factr"); }, SLUICE_INVALID,
                {"in rope_scaling", "did you mean \"factor\""});
    check_error([&] { view.integer("hidden_size", 1, 256); }, SLUICE_INVALID,
                {"config.json: hidden_size: expected an integer from 1 to 256, found 384"});
    check_error([&] { view.integer("rms_norm_eps", 0, 1); }, SLUICE_INVALID,
                {"rms_norm_eps", "integer from 0 to 1", "the number 1e-06"});
    check_error([&] { view.object("rope_scaling").at("low")[1].as_text(); }, SLUICE_INVALID,
                {"rope_scaling.low[1]: expected a text, found 2"});
    check_error([&] { view.object("rope_scaling").at("low")[3]; }, SLUICE_INVALID,
                {"an array of 3"});
    check_error([&] { view.object("layers"); }, SLUICE_INVALID, {"an object, found an array of 2"});
    check_error([&] { view.integer("q_lora_rank", 0, 9); }, SLUICE_INVALID, {"found null"});
    check_error([&] { view.number("hidden_size", 0, 1); }, SLUICE_INVALID, {"from 0 to 1"});
    check_error([&] { view.at("tie").at("x"); }, SLUICE_INVALID, {"tie: expected an object"});
    check_error(
        [&] {
            view.object("rope_scaling").expect_only({"factor", "lows"});
        },
        SLUICE_INVALID, {"rope_scaling.low: unknown key", "factor, lows", "did you mean \"lows\""});
}

TEST_CASE("text that is no acceptable JSON") {
    struct {
        const char* text;
        const char* says;
    } cases[] = {
        {"", "found nothing"},
        {" \n", "found nothing"},
        {"{", "line 1"},
        {"{\"a\": 1,}", "line 1"},
        {"{\n\"a\": 01}", "line 2"},
        {"[1, 2", "line 1"},
        {"{} {}", "line 1"},
        {"{\"a\": NaN}", "line 1"},
        {"{\"a\": 1e999}", "1e999"},
        {"{'a': 1}", "line 1"},
        {"{\"a\": 1} // no", "line 1"},
        {"{\"a\": \"\xff\"}", "UTF-8"},
        {"{\"a\": \"\\ud800\"}", "line 1"},
        {"\xef\xbb", "line 1"},
        {"{\"a\": {\"b\": 1, \"c\": 2, \"b\": 3}}", "a.b is there twice"},
        {"[{}, {\"x\": 0, \"x\": 0}]", "[1].x is there twice"},
    };
    for (auto& item : cases) {
        INFO(std::string(item.text));
        check_error([&] { parse(item.text); }, SLUICE_INVALID, {"config.json", item.says});
    }
    // No limit on what nlohmann would echo: hostile bytes never reach the message.
    check_error([&] { parse("{\"a\": " + std::string(100000, 'x') + "}"); }, SLUICE_INVALID, {});
}

TEST_CASE("limits hold without deep recursion or large allocation") {
    std::string deep(1'000'000, '[');
    check_error([&] { parse(deep); }, SLUICE_INVALID, {"at most 64 nested"});
    check_error([&] { parse("{\"a\":" + deep); }, SLUICE_INVALID, {"at most 64 nested"});
    json_limits limits;
    limits.depth_max = 1'000'000;
    json_view tower =
        parse_json(std::string(500'000, '[') + std::string(500'000, ']'), "x", limits);
    CHECK(tower.size() == 1);
    limits = {};
    limits.values_max = 10;
    CHECK(parse_json("[1,2,3,4,5,6,7,8,9]", "x", limits).size() == 9);
    check_error([&] { parse_json("[1,2,3,4,5,6,7,8,9,10]", "x", limits); }, SLUICE_INVALID,
                {"at most 10 values"});
    limits.size_bytes_max = 4;
    check_error([&] { parse_json("[1,2]", "x", limits); }, SLUICE_INVALID, {"at most 4 B"});
    test::temporary_directory folder;
    auto path = folder.write("large.json", "[1,2]");
    check_error([&] { read_json_file(path, limits); }, SLUICE_INVALID,
                {"large.json", "at most 4 B"});
    CHECK(read_json_file(path).size() == 2);
    check_error([&] { read_json_file(folder.path() / "absent.json"); }, SLUICE_UNAVAILABLE,
                {"absent.json"});
}

TEST_CASE("numbers keep their kind at the edges") {
    json_view view = parse("[9223372036854775807, -9223372036854775808, 9223372036854775808, 1.0]");
    CHECK(view[0].as_integer() == INT64_MAX);
    CHECK(view[1].as_integer() == INT64_MIN);
    CHECK(view[2].kind() == json_kind::number);
    check_error([&] { view[2].as_integer(); }, SLUICE_INVALID, {"[2]: expected an integer"});
    check_error([&] { view[3].as_integer(); }, SLUICE_INVALID, {"[3]: expected an integer"});
}

TEST_CASE("a copy keeps order and content") {
    json_view view = parse(sample);
    auto copy = view.to_json();
    CHECK(copy.dump() == nlohmann::ordered_json::parse(sample).dump());
    copy["added"] = 1;
    CHECK(copy.back() == 1);
}

TEST_CASE("views keep the document alive") {
    std::optional<json_view> inner;
    { inner = parse(sample).object("rope_scaling"); }
    CHECK(inner->number("factor") == 8);
    CHECK(inner->source() == "config.json");
}
