#include "base/progress.hpp"
#include "base/sha256.hpp"

#include <doctest/doctest.h>

#include <string>
#include <thread>
#include <vector>

using namespace sluice;

TEST_CASE("SHA-256 of the published test vectors") { // NIST FIPS 180-4 examples
    CHECK(hexadecimal(sha256::of(std::string_view("")))
          == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    CHECK(hexadecimal(sha256::of(std::string_view("abc")))
          == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    CHECK(hexadecimal(sha256::of(
              std::string_view("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq")))
          == "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    CHECK(hexadecimal(sha256::of(std::string(1'000'000, 'a')))
          == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST_CASE("SHA-256 does not depend on how the bytes are cut") {
    std::string text;
    for (int i = 0; i < 300; ++i) text += char(i * 7);
    for (size_t size = 0; size <= text.size(); ++size) {
        std::string_view whole = std::string_view(text).substr(0, size);
        sha256_digest expected = sha256::of(whole);
        sha256 pieces;
        for (size_t at = 0, step = 1; at < size; at += step, step = step % 67 + 1) {
            pieces.update(whole.substr(at, step));
        }
        REQUIRE(pieces.finish() == expected);
    }
}

TEST_CASE("a progress line says share, rate and time left") {
    CHECK(progress_line("quantizing", 120, 288, progress_unit::items, 4)
          == "quantizing   42% (120 of 288)  30.0/s  5.6 s left");
    CHECK(progress_line("loading", 1 << 20, 4 << 20, progress_unit::bytes, 1)
          == "loading   25% (1.0 MiB of 4.0 MiB)  1.0 MiB/s  3.0 s left");
    CHECK(progress_line("loading", 0, 10, progress_unit::items, 1) == "loading    0% (0 of 10)");
    CHECK(progress_line("reading", 7, 0, progress_unit::items, 2) == "reading  7  3.5/s");
    CHECK(progress_line("done", 10, 10, progress_unit::items, 2)
          == "done  100% (10 of 10)  5.0/s  in 2.0 s");
}

TEST_CASE("progress redraws rarely, ends its line once, and is silent without a terminal") {
    std::string drawn;
    {
        progress bar("work", 100000, progress_unit::items,
                     [&](std::string_view text) { drawn += text; });
        std::vector<std::jthread> threads;
        for (int t = 0; t < 4; ++t) {
            threads.emplace_back([&] {
                for (int i = 0; i < 25000; ++i) bar.advance();
            });
        }
        threads.clear();
        bar.finish();
        bar.advance();
    }
    CHECK(drawn.find("100% (100000 of 100000)") != std::string::npos);
    CHECK(drawn.ends_with("\n"));
    CHECK(std::count(drawn.begin(), drawn.end(), '\n') == 1);
    CHECK(std::count(drawn.begin(), drawn.end(), '\r') < 100);
    progress quiet("work", 10, progress_unit::items, {});
    quiet.advance(10);
    quiet.finish();
}
