#include "tokenizer/tokenizer.hpp"

#include "base/error.hpp"
#include "base/json.hpp"
#include "tokenizer/added_tokens.hpp"
#include "tokenizer/decoder.hpp"
#include "tokenizer/normalizer.hpp"
#include "tokenizer/post_processor.hpp"
#include "tokenizer/pre_tokenizer.hpp"
#include "tokenizer/token_model.hpp"
#include "tokenizer/unicode.hpp"

#include <algorithm>
#include <system_error>
#include <utility>

namespace sluice {

using namespace tokenization;

namespace {

constexpr json_limits tokenizer_limits{uint64_t{128} << 20, 64, 4u << 20};
constexpr json_limits configuration_limits{uint64_t{16} << 20, 64, 1u << 18};

// "bos_token" and its like are a string, or an added token with its content.
std::optional<std::string> read_token(const json_view& root, const char* key) {
    const auto node = root.find(key);
    if (!node) return std::nullopt;
    return node->is_object() ? node->text("content") : std::string(node->as_text());
}

// "chat_template" is a string, or a list of named ones of which "default" is taken.
std::optional<std::string> read_chat_template(const json_view& root) {
    const auto node = root.find("chat_template");
    if (!node) return std::nullopt;
    if (!node->is_array()) return std::string(node->as_text());
    for (const json_view element : node->as_array()) {
        if (element.text("name") == "default") {
            return element.text("template");
        }
    }
    return std::nullopt;
}

std::optional<bool> read_boolean(const json_view& root, const char* key) {
    const auto node = root.find(key);
    if (!node) return std::nullopt;
    return node->as_boolean();
}

tokenizer_configuration read_configuration(const json_view& root) {
    tokenizer_configuration result;
    result.beginning_of_text_token = read_token(root, "bos_token");
    result.end_of_text_token = read_token(root, "eos_token");
    result.padding_token = read_token(root, "pad_token");
    result.unknown_token = read_token(root, "unk_token");
    result.chat_template = read_chat_template(root);
    result.adds_beginning_of_text = read_boolean(root, "add_bos_token");
    result.adds_end_of_text = read_boolean(root, "add_eos_token");
    return result;
}

} // namespace

struct tokenizer::implementation {
    struct decoded_token {
        std::string_view text; // what the decoder gets; no data if there is no such token
        bool special = false;
    };

    // What one call to encode writes to.
    struct scratch {
        match_workspace matches;
        std::unique_ptr<model_workspace> model;
        std::vector<added_token_span> spans;
        std::vector<added_token_span> inner_spans;
        text_pieces pieces;
        std::vector<int32_t> ids;
    };

    std::vector<std::string> warnings;
    tokenizer_configuration configuration;
    std::unique_ptr<const normalizer> text_normalizer;
    std::unique_ptr<const pre_tokenizer> splitter;
    std::unique_ptr<const token_model> model;
    std::unique_ptr<const added_tokens> added;
    post_processor finisher;
    decoder token_decoder;
    std::vector<decoded_token> decoded; // by id

    const decoded_token* find(int32_t id) const {
        if (id < 0 || static_cast<std::size_t>(id) >= decoded.size()) return nullptr;
        const decoded_token& token = decoded[static_cast<std::size_t>(id)];
        return token.text.data() != nullptr ? &token : nullptr;
    }

    void read(const json_view& root);
    void encode_section(std::string_view text, bool from_start, scratch& work) const;
    void encode_words(std::string_view text, bool from_start, scratch& work) const;
};

void tokenizer::implementation::read(const json_view& root) {
    if (const auto version = root.find("version"); version && version->as_text() != "1.0") {
        version->fail_unsupported("expected \"1.0\", found " + version->describe());
    }
    model = make_token_model(root.at("model"));
    if (const auto node = root.find("normalizer")) {
        text_normalizer = make_normalizer(*node);
    }
    if (const auto node = root.find("pre_tokenizer")) {
        splitter = make_pre_tokenizer(*node);
    }
    if (const auto node = root.find("post_processor")) finisher = post_processor(*node);
    if (const auto node = root.find("decoder")) token_decoder = decoder(*node);
    added = std::make_unique<added_tokens>(root.find("added_tokens"), model->tokens(),
                                           text_normalizer.get(), warnings);

    decoded.resize(static_cast<std::size_t>(std::max(model->tokens().id_end(), added->id_end())));
    for (int32_t id = 0; static_cast<std::size_t>(id) < decoded.size(); ++id) {
        decoded_token& token = decoded[static_cast<std::size_t>(id)];
        if (const added_token* found = added->find(id)) {
            token.text = found->normalized_content;
        } else if (const std::string* text = model->tokens().text(id)) {
            token.text = *text;
        }
        token.special = added->is_special(token.text);
    }
}

// Encodes text without added tokens that are found before normalization.
void tokenizer::implementation::encode_section(std::string_view text, bool from_start,
                                               scratch& work) const {
    normalized_text normalized{std::string(text), from_start};
    if (text_normalizer) text_normalizer->apply(normalized, work.matches);
    added->normalized_matcher().find(normalized.text, work.inner_spans);
    for (const added_token_span& span : work.inner_spans) {
        if (span.begin == span.end) continue;
        if (span.id >= 0) {
            work.ids.push_back(span.id);
            continue;
        }
        encode_words(std::string_view(normalized.text).substr(span.begin, span.end - span.begin),
                     normalized.from_start && span.begin == 0, work);
    }
}

void tokenizer::implementation::encode_words(std::string_view text, bool from_start,
                                             scratch& work) const {
    work.pieces.text.assign(text);
    work.pieces.pieces.assign(1, text_piece{0, text.size(), from_start});
    if (splitter) splitter->apply(work.pieces, work.matches);
    for (const text_piece& piece : work.pieces.pieces) {
        model->encode(work.pieces.view(piece), work.ids, *work.model);
    }
}

tokenizer::tokenizer(std::unique_ptr<const implementation> parts) : parts_(std::move(parts)) {}
tokenizer::~tokenizer() = default;

std::shared_ptr<const tokenizer> tokenizer::parse(std::string_view json_text,
                                                  const std::string& origin) {
    auto parts = std::make_unique<implementation>();
    parts->read(parse_json(json_text, origin, tokenizer_limits));
    return std::shared_ptr<const tokenizer>(new tokenizer(std::move(parts)));
}

std::shared_ptr<const tokenizer> tokenizer::load(const std::filesystem::path& path) {
    std::error_code problem;
    const bool is_folder = std::filesystem::is_directory(path, problem);
    const std::filesystem::path file = is_folder ? path / "tokenizer.json" : path;
    auto parts = std::make_unique<implementation>();
    parts->read(read_json_file(file, tokenizer_limits));
    const std::filesystem::path beside = file.parent_path() / "tokenizer_config.json";
    if (std::filesystem::exists(beside, problem)) {
        parts->configuration = read_configuration(read_json_file(beside, configuration_limits));
    }
    return std::shared_ptr<const tokenizer>(new tokenizer(std::move(parts)));
}

std::vector<int32_t> tokenizer::encode(std::string_view utf8, bool add_special_tokens) const {
    if (const auto offset = utf8_error_offset(utf8)) {
        fail(SLUICE_INVALID,
             "the text to encode: expected UTF-8, found the byte 0x{:02x} at offset {}",
             static_cast<unsigned char>(utf8[*offset]), *offset);
    }
    implementation::scratch work;
    work.model = parts_->model->make_workspace();
    work.ids.reserve(utf8.size() / 3 + 8);
    parts_->added->plain_matcher().find(utf8, work.spans);
    for (const added_token_span& span : work.spans) {
        if (span.begin == span.end) continue;
        if (span.id >= 0) {
            work.ids.push_back(span.id);
        } else {
            parts_->encode_section(utf8.substr(span.begin, span.end - span.begin), span.begin == 0,
                                   work);
        }
    }
    return parts_->finisher.apply(std::move(work.ids), add_special_tokens);
}

std::string tokenizer::decode(std::span<const int32_t> ids, bool skip_special_tokens) const {
    decoder_run run(parts_->token_decoder);
    for (const int32_t id : ids) {
        const auto* token = parts_->find(id);
        if (token == nullptr || (skip_special_tokens && token->special)) continue;
        run.push(token->text);
    }
    run.finish();
    return run.take();
}

std::optional<int32_t> tokenizer::token_id(std::string_view token) const {
    if (const added_token* found = parts_->added->find(token)) return found->id;
    const int32_t id = parts_->model->tokens().find(token);
    if (id < 0) return std::nullopt;
    return id;
}

std::string_view tokenizer::token_text(int32_t id) const {
    if (const added_token* found = parts_->added->find(id)) return found->content;
    const std::string* text = parts_->model->tokens().text(id);
    return text != nullptr ? std::string_view(*text) : std::string_view();
}

bool tokenizer::is_special(int32_t id) const {
    const auto* token = parts_->find(id);
    return token != nullptr && token->special;
}

int32_t tokenizer::vocabulary_size() const {
    return static_cast<int32_t>(std::count_if(
        parts_->decoded.begin(), parts_->decoded.end(),
        [](const implementation::decoded_token& token) { return token.text.data() != nullptr; }));
}

int32_t tokenizer::id_end() const { return static_cast<int32_t>(parts_->decoded.size()); }

const tokenizer_configuration& tokenizer::configuration() const { return parts_->configuration; }

const std::vector<std::string>& tokenizer::warnings() const { return parts_->warnings; }

struct token_stream_decoder::state {
    explicit state(const decoder& source) : run(source) {}
    decoder_run run;
};

token_stream_decoder::token_stream_decoder(std::shared_ptr<const tokenizer> source,
                                           bool skip_special_tokens)
    : source_(std::move(source)), skip_special_tokens_(skip_special_tokens),
      state_(std::make_unique<state>(source_->parts_->token_decoder)) {}

token_stream_decoder::~token_stream_decoder() = default;
token_stream_decoder::token_stream_decoder(token_stream_decoder&&) noexcept = default;
token_stream_decoder& token_stream_decoder::operator=(token_stream_decoder&&) noexcept = default;

std::string token_stream_decoder::push(int32_t id) {
    const auto* token = source_->parts_->find(id);
    if (token == nullptr || (skip_special_tokens_ && token->special)) return {};
    state_->run.push(token->text);
    return state_->run.take();
}

std::string token_stream_decoder::finish() {
    state_->run.finish();
    std::string rest = state_->run.take();
    state_ = std::make_unique<state>(source_->parts_->token_decoder);
    return rest;
}

} // namespace sluice
