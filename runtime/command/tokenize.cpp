// sluice tokenize: text to token ids and back, from standard input to standard output.
#include "command.hpp"

#include "base/json.hpp"
#include "base/text.hpp"
#include "tokenizer/tokenizer.hpp"

#include <cstdio>

namespace sluice::command {

namespace {

constexpr size_t input_bytes_max = size_t{1} << 30;

struct tokenize_options {
    std::string path;
    bool special = false;
    bool decode = false;
};

std::string read_standard_input() {
    std::string text;
    char buffer[1 << 16];
    while (const size_t count = std::fread(buffer, 1, sizeof buffer, stdin)) {
        text.append(buffer, count);
        if (text.size() > input_bytes_max)
            fail(SLUICE_INVALID, "standard input: expected at most {} bytes", input_bytes_max);
    }
    if (std::ferror(stdin) != 0) fail(SLUICE_UNAVAILABLE, "standard input: cannot be read");
    return text;
}

void write_standard_output(std::string_view text) {
    const bool written =
        std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0;
    if (!written) fail(SLUICE_UNAVAILABLE, "standard output: cannot be written");
}

// A JSON array, or numbers with white space between them.
std::vector<int32_t> parse_ids(const std::string& text) {
    const auto content = trim(text);
    std::vector<int32_t> ids;
    if (content.starts_with('[')) {
        for (const int64_t id :
             parse_json(content, "standard input").as_integer_list(0, INT32_MAX, content.size()))
            ids.push_back(static_cast<int32_t>(id));
        return ids;
    }
    constexpr std::string_view space = " \t\r\n";
    for (size_t begin = content.find_first_not_of(space); begin != std::string_view::npos;) {
        const size_t end = std::min(content.find_first_of(space, begin), content.size());
        const auto word = content.substr(begin, end - begin);
        const auto id = parse_integer(word);
        if (!id || *id < 0 || *id > INT32_MAX)
            fail(SLUICE_INVALID,
                 "standard input: expected token ids from 0 to {} as a JSON array, or with white "
                 "space between them; found {}",
                 INT32_MAX, quote(word));
        ids.push_back(static_cast<int32_t>(*id));
        begin = content.find_first_not_of(space, end);
    }
    return ids;
}

void check_ids(const tokenizer& words, const std::vector<int32_t>& ids) {
    for (const int32_t id : ids)
        if (id >= words.id_end())
            fail(SLUICE_INVALID,
                 "standard input: token id {} is not below {}, where this "
                 "vocabulary ends",
                 id, words.id_end());
}

void tokenize(const tokenize_options& options, const common_options& common) {
    const auto words = tokenizer::load(options.path);
    for (const auto& warning : words->warnings())
        fmt::print(stderr, "sluice: warning: {}: {}\n", options.path, warning);
    const std::string input = read_standard_input();
    if (options.decode) {
        const auto ids = parse_ids(input);
        check_ids(*words, ids);
        const std::string text = words->decode(ids, !options.special);
        if (common.json) return print_json({{"text", text}, {"tokens", ids.size()}});
        return write_standard_output(text);
    }
    const auto ids = words->encode(input, options.special);
    if (!common.json) return write_standard_output(nlohmann::json(ids).dump() + "\n");
    std::vector<std::string> texts;
    for (const int32_t id : ids) texts.emplace_back(words->token_text(id));
    print_json({{"ids", ids}, {"tokens", texts}});
}

} // namespace

void add_tokenize(CLI::App& application, common_options& common) {
    auto options = std::make_shared<tokenize_options>();
    auto* command = application.add_subcommand(
        "tokenize", "standard input's text to a JSON array of token ids, or back");
    command->add_option("MODEL_DIR", options->path, "a model's folder, or a tokenizer.json")
        ->required();
    command->add_flag("--special", options->special,
                      "add the special tokens around a text; keep them when decoding");
    command->add_flag("--decode", options->decode, "from token ids to text, byte for byte");
    command->callback([options, &common] { tokenize(*options, common); });
}

} // namespace sluice::command
