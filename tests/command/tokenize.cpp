#include "command/command_fixture.hpp"

using namespace sluice::test;

namespace {

std::string tokenizer_folder(const std::string& family) {
    return (std::filesystem::path(SLUICE_TEST_DATA_DIR) / "tokenizers" / family).string();
}

nlohmann::json golden_texts(const std::string& family) {
    return nlohmann::json::parse(read_file(tokenizer_folder(family) + "/golden.json"));
}

} // namespace

TEST_CASE("tokenize gives the reference's ids, and its texts back") {
    for (const char* family : {"deepseek", "llama2_sp"}) {
        CAPTURE(family);
        const auto folder = tokenizer_folder(family);
        const auto texts = golden_texts(family);
        REQUIRE(texts.size() > 10);
        for (size_t i = 0; i < texts.size(); i += texts.size() / 10) {
            const auto& each = texts[i];
            const auto text = each["text"].get<std::string>();
            CAPTURE(text);
            CHECK(sluice_command({"tokenize", folder}, text).json() == each["ids"]);
            CHECK(sluice_command({"tokenize", folder + "/tokenizer.json", "--special"}, text).json()
                  == each["ids_special"]);
            const auto back =
                sluice_command({"tokenize", folder, "--decode", "--special"}, each["ids"].dump());
            CHECK(back.status == 0);
            CHECK(back.output == each["decoded"].get<std::string>()); // and no line end
        }
    }
}

TEST_CASE("decoding reads a JSON array, or numbers with white space between them") {
    const auto folder = tokenizer_folder("gpt2");
    const std::string text = "Hello, world!\r\n  byte for byte \xe4\xb8\xad\n";
    const auto ids = sluice_command({"tokenize", folder}, text).json();
    std::string words;
    for (const auto& id : ids)
        words += std::to_string(id.get<int>()) + (words.empty() ? "\n" : " ");
    CHECK(sluice_command({"tokenize", folder, "--decode"}, ids.dump(2)).output == text);
    CHECK(sluice_command({"tokenize", folder, "--decode"}, words).output == text);
    const auto empty = sluice_command({"tokenize", folder, "--decode"}, "");
    CHECK(empty.status == 0);
    CHECK(empty.output.empty());
    CHECK(sluice_command({"tokenize", folder}, "").output == "[]\n");

    const auto json = sluice_command({"tokenize", folder, "--json"}, text).json();
    CHECK(json["ids"] == ids);
    CHECK(json["tokens"].size() == ids.size());
    CHECK(sluice_command({"tokenize", folder, "--decode", "--json"}, words).json()["text"] == text);
}

TEST_CASE("tokenize refuses what is no text and no ids") {
    const auto folder = tokenizer_folder("gpt2");
    check_refused({"tokenize", "/no/such/tokenizer"}, {"/no/such/tokenizer"});
    check_refused({"tokenize", folder}, {"UTF-8"}, "\xff\xfe");
    check_refused({"tokenize", folder, "--decode"}, {"token ids", "\"x\""}, "1 2 x");
    check_refused({"tokenize", folder, "--decode"}, {"standard input"}, "[1, 2");
    check_refused({"tokenize", folder, "--decode"}, {"standard input"}, "[1, \"2\"]");
    check_refused({"tokenize", folder, "--decode"}, {"999999999", "not below"}, "[999999999]");
    check_refused({"tokenize", folder, "--decode"}, {"token ids"}, "-1");
}
