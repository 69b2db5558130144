// Patterns over dotted names.
#include "config/name_pattern.hpp"
#include "../base/error_check.hpp"

using namespace sluice;
using sluice::test::check_error;

TEST_CASE("a pattern matches whole names, part by part") {
    const auto matches = [](const char* pattern, const char* name) {
        return name_pattern(pattern).matches(name);
    };
    CHECK(matches("embed", "embed"));
    CHECK(!matches("embed", "embed2"));
    CHECK(!matches("embed", "head.embed"));
    CHECK(matches("layers.*.experts", "layers.3.experts"));
    CHECK(matches("layers.*.experts", "layers.47.experts"));
    CHECK(!matches("layers.*.experts", "layers.3.shared_experts"));
    CHECK(matches("layers.*.*experts", "layers.3.shared_experts"));
    CHECK(!matches("layers.*", "layers.3.experts"));
    CHECK(!matches("layers.*.experts", "layers.3.mlp.experts"));
    CHECK(matches("layers.*.route*", "layers.3.route/scores"));
    CHECK(matches("*a*b*", "xxaxxbxx"));
    CHECK(!matches("*a*b*", "xxbxxaxx"));
    CHECK(matches("layers.3.**", "layers.3.attention"));
    CHECK(matches("layers.3.**", "layers.3.mlp.gate"));
    CHECK(!matches("layers.3.**", "layers.3"));
    CHECK(!matches("layers.3.**", "layers.30.attention"));
}

TEST_CASE("numbers in braces are matched by value") {
    const auto matches = [](const char* pattern, const char* name) {
        return name_pattern(pattern).matches(name);
    };
    CHECK(matches("layers.{0-11}.experts", "layers.0.experts"));
    CHECK(matches("layers.{0-11}.experts", "layers.11.experts"));
    CHECK(!matches("layers.{0-11}.experts", "layers.12.experts"));
    CHECK(!matches("layers.{0-11}.experts", "layers.110.experts"));
    CHECK(!matches("layers.{0-11}.experts", "layers.x.experts"));
    CHECK(matches("layers.{1,4-5}.experts", "layers.4.experts"));
    CHECK(!matches("layers.{1,4-5}.experts", "layers.3.experts"));
    CHECK(matches("block{2}.x", "block2.x"));
    CHECK(!matches("*{2}.x", "block12.x"));
}

TEST_CASE("brackets at the end name experts and are no part of the name") {
    const name_pattern pattern("layers.*.experts[0-3,8]");
    CHECK(pattern.matches("layers.1.experts"));
    REQUIRE(pattern.experts().size() == 2);
    CHECK(pattern.experts()[0].first == 0);
    CHECK(pattern.experts()[0].last == 3);
    CHECK(pattern.experts()[1].first == 8);
    CHECK(pattern.experts()[1].last == 8);
    CHECK(name_pattern("layers.*.experts").experts().empty());
    CHECK(pattern.generalised() == "layers.*.experts");
    CHECK(name_pattern("layers.{0-3}.**").generalised() == "layers.*.**");
    CHECK(name_pattern("layers.12.norm2").generalised() == "layers.*.norm2");
    CHECK(generalised_name("layers.3.experts") == "layers.*.experts");
    CHECK(ranges_text({0, 1, 2, 5, 7, 8}) == "0-2,5,7-8");
}

TEST_CASE("what is no pattern is refused") {
    const auto refused = [](const char* pattern, const std::vector<std::string>& parts) {
        CAPTURE(pattern);
        check_error([&] { const name_pattern made(pattern); }, SLUICE_INVALID, parts);
    };
    refused("", {"1 to"});
    refused("a..b", {"empty"});
    refused("a.{1-", {"without"});
    refused("a.{x}", {"x", "number"});
    refused("a.{5-3}", {"5-3", "before"});
    refused("a.{-1}", {"number"});
    refused("a]", {"without"});
    refused("a[]", {"number"});
    refused("a[0-3].b", {"at the end"});
    refused("**.a", {"**"});
    refused("a.{99999999}", {"99999999"});
    refused(std::string(600, 'a').c_str(), {"1 to"});
}
