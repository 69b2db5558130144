#include "plugin/plugin_call.hpp"
#include "../base/error_check.hpp"

#include <doctest/doctest.h>

#include <cstring>

using namespace sluice;
using sluice::test::check_error;

TEST_CASE("a status becomes an error with plugin, function, message and class") {
    plugin_call fine("acme", "plan");
    CHECK_NOTHROW(fine = SLUICE_OK);
    const auto fail_with = [](sluice_status status, const char* message) {
        plugin_call call("acme", "plan");
        std::strcpy(call.error()->message, message);
        call = status;
    };
    check_error([&] { fail_with(SLUICE_EXHAUSTED, "no blocks"); }, SLUICE_EXHAUSTED,
                {"acme: plan: no blocks (exhausted)"});
    check_error([&] { fail_with(SLUICE_UNIMPLEMENTED, ""); }, SLUICE_UNSUPPORTED,
                {"gave no message"});
    // A detail that is not known keeps its class, a class that is not known is internal.
    check_error([&] { fail_with(SLUICE_DEVICE_LOST | 77, "gone"); }, SLUICE_DEVICE_LOST, {"gone"});
    check_error([&] { fail_with(0x80000000u, "odd"); }, SLUICE_INTERNAL, {"0x80000000"});
    check_error([&] { fail_with(0x00000003u, "odd"); }, SLUICE_INTERNAL, {"0x00000003"});
}

TEST_CASE("texts of a plugin are bounded, valid and printable") {
    CHECK(text_of({nullptr, 10}).empty());
    CHECK(text_of({"abc", 0}).empty());
    CHECK(text_of(text_view("abc"), 2) == "ab");
    CHECK(text_of(text_view("a\xc3\xa9z"), 2) == "a"); // not through the middle of a character
    CHECK(text_of(text_view("a\xc3\xa9z"), 3) == "a\xc3\xa9");
    CHECK(text_of(text_view("a\xffz")) == "a?z");
    CHECK(text_of(text_view("a\nb\tc\x07")) == "a\nb\tc?");
    const char unterminated[4] = {'a', 'b', 'c', 'd'};
    CHECK(text_of_array(unterminated, sizeof unterminated) == "abcd");
    CHECK(text_of_array("ab\0cd", 5) == "ab");
}
