#include "tokenizer/decoder.hpp"

#include "base/error.hpp"
#include "tokenizer/byte_alphabet.hpp"
#include "tokenizer/component_json.hpp"
#include "tokenizer/unicode.hpp"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <optional>
#include <tuple>
#include <utility>

namespace sluice::tokenization {

namespace {

constexpr std::size_t components_max = 64;
constexpr std::size_t strip_characters_max = 1 << 16;
// Of what one token may become; real ones are short, hostile decoders multiply them.
constexpr std::size_t decoded_token_bytes_max = std::size_t{1} << 20;

constexpr std::string_view replacement_character = "\xef\xbf\xbd"; // U+FFFD

// For decoders that need a token as a whole.
class whole_token_stage : public decoder_stage {
  public:
    void chunk(std::string_view text) final { token_ += text; }
    void end_token() final {
        std::string token = std::move(token_);
        token_.clear();
        take(std::move(token));
    }

  protected:
    virtual void take(std::string token) = 0;

    void pass_on(std::string_view token) {
        next->chunk(token);
        next->end_token();
    }

  private:
    std::string token_;
};

template <typename Stage, typename... Settings>
class component final : public decoder_component {
  public:
    explicit component(Settings... settings) : settings_(std::move(settings)...) {}

    std::unique_ptr<decoder_stage> make_stage() const override {
        return std::apply(
            [](const Settings&... settings) { return std::make_unique<Stage>(settings...); },
            settings_);
    }

  private:
    std::tuple<Settings...> settings_;
};

template <typename Stage, typename... Settings>
std::unique_ptr<const decoder_component> make_component(Settings... settings) {
    return std::make_unique<component<Stage, Settings...>>(std::move(settings)...);
}

class space_joining_stage final : public decoder_stage {
  public:
    void chunk(std::string_view text) override {
        begin_token();
        next->chunk(text);
    }
    void end_token() override {
        begin_token();
        in_token_ = false;
        next->end_token();
    }

  private:
    void begin_token() {
        if (in_token_) return;
        if (!first_) next->chunk(" ");
        first_ = false;
        in_token_ = true;
    }

    bool first_ = true;
    bool in_token_ = false;
};

class fuse_stage final : public decoder_stage {
  public:
    void chunk(std::string_view text) override { next->chunk(text); }
    void end_token() override {}
    void finish() override { next->end_token(); }
};

// The length of the character at the start of `bytes`: 0 if more bytes are needed to tell,
// negative if so many bytes are no character (the longest start of one, which becomes one U+FFFD).
int character_length(std::string_view bytes) {
    const auto at = [&](std::size_t index) { return static_cast<unsigned char>(bytes[index]); };
    const unsigned char lead = at(0);
    if (lead < 0x80) return 1;
    if (lead < 0xc2 || lead > 0xf4) return -1;
    const int length = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    // The second byte's range excludes overlong forms, surrogates and what is beyond U+10FFFF.
    const unsigned char low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
    const unsigned char high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
    for (int index = 1; index < length; ++index) {
        if (static_cast<std::size_t>(index) >= bytes.size()) return 0;
        const unsigned char byte = at(static_cast<std::size_t>(index));
        if (index == 1 ? byte < low || byte > high : (byte & 0xc0) != 0x80) return -index;
    }
    return length;
}

// All tokens become one, of the bytes that their characters stand for.
class byte_level_stage final : public whole_token_stage {
  public:
    void finish() override {
        if (!bytes_.empty()) next->chunk(replacement_character);
        bytes_.clear();
        next->end_token();
    }

  protected:
    void take(std::string token) override {
        append_character_bytes(bytes_, token);
        std::string text;
        std::size_t position = 0;
        while (position < bytes_.size()) {
            const int length = character_length(std::string_view(bytes_).substr(position));
            if (length == 0) break;
            if (length > 0) {
                text.append(bytes_, position, static_cast<std::size_t>(length));
            } else {
                text += replacement_character;
            }
            position += static_cast<std::size_t>(std::abs(length));
        }
        bytes_.erase(0, position);
        if (!text.empty()) next->chunk(text);
    }

  private:
    std::string bytes_; // the beginning of a character
};

// Tokens such as <0x41> are bytes. A run of them is text if it is UTF-8 as a whole, and otherwise
// one U+FFFD for each, so nothing of it is certain before the run ends.
class byte_fallback_stage final : public whole_token_stage {
  public:
    void finish() override { end_run(); }

  protected:
    void take(std::string token) override {
        if (const auto byte = byte_of(token)) {
            run_ += *byte;
            return;
        }
        end_run();
        pass_on(token);
    }

  private:
    static std::optional<char> byte_of(std::string_view token) {
        if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return std::nullopt;
        const auto digit = [](char byte) {
            if (byte >= '0' && byte <= '9') return byte - '0';
            if (byte >= 'a' && byte <= 'f') return byte - 'a' + 10;
            if (byte >= 'A' && byte <= 'F') return byte - 'A' + 10;
            return -1;
        };
        const int high = token[3] == '+' ? 0 : digit(token[3]); // the reference takes a sign
        const int low = digit(token[4]);
        if (high < 0 || low < 0) return std::nullopt;
        return static_cast<char>(high * 16 + low);
    }

    void end_run() {
        if (run_.empty()) return;
        if (!utf8_error_offset(run_)) {
            pass_on(run_);
        } else {
            for (std::size_t count = 0; count < run_.size(); ++count) {
                pass_on(replacement_character);
            }
        }
        run_.clear();
    }

    std::string run_;
};

class replace_stage final : public whole_token_stage {
  public:
    replace_stage(std::shared_ptr<const pattern> searched, std::string content)
        : pattern_(std::move(searched)), content_(std::move(content)) {}

  protected:
    void take(std::string token) override {
        auto& spans = workspace_.spans;
        pattern_->find(token, spans, workspace_);
        std::string output;
        for (const match_span& span : spans) {
            if (span.is_match) {
                output += content_;
            } else {
                output.append(token, span.begin, span.end - span.begin);
            }
            if (output.size() > decoded_token_bytes_max + token.size()) {
                fail(SLUICE_EXHAUSTED,
                     "the tokenizer's decoder makes more than {} bytes of one token",
                     decoded_token_bytes_max);
            }
        }
        pass_on(output);
    }

  private:
    std::shared_ptr<const pattern> pattern_;
    std::string content_;
    match_workspace workspace_;
};

// Replaces one character, so it needs no whole token; Fuse before it would otherwise hold back
// everything to the end.
class replace_character_stage final : public decoder_stage {
  public:
    replace_character_stage(std::string character, std::string content)
        : character_(std::move(character)), content_(std::move(content)) {}

    void chunk(std::string_view text) override {
        std::string output;
        while (true) {
            const std::size_t found = text.find(character_);
            output += text.substr(0, found);
            if (found == std::string_view::npos) break;
            output += content_;
            text.remove_prefix(found + character_.size());
            if (output.size() > decoded_token_bytes_max) {
                next->chunk(output);
                output.clear();
                check_size();
            }
        }
        next->chunk(output);
    }
    void end_token() override {
        passed_ = 0;
        next->end_token();
    }

  private:
    void check_size() {
        passed_ += decoded_token_bytes_max;
        if (passed_ > 4 * decoded_token_bytes_max) {
            fail(SLUICE_EXHAUSTED, "the tokenizer's decoder makes more than {} bytes of one token",
                 passed_);
        }
    }

    std::string character_;
    std::string content_;
    std::size_t passed_ = 0;
};

// Takes up to `start` copies of a character from the start of each token, `stop` from its end.
class strip_stage final : public decoder_stage {
  public:
    strip_stage(std::string character, std::size_t start, std::size_t stop)
        : character_(std::move(character)), start_(start), stop_(stop), start_left_(start) {}

    void chunk(std::string_view text) override {
        while (start_left_ > 0 && !text.empty()) {
            if (!text.starts_with(character_)) {
                start_left_ = 0;
                break;
            }
            text.remove_prefix(character_.size());
            --start_left_;
        }
        if (stop_ == 0) {
            next->chunk(text);
            return;
        }
        // The last copies of the character are held back, for the token may end with them.
        std::size_t end = text.size();
        std::size_t copies = 0;
        while (copies < stop_ && text.substr(0, end).ends_with(character_)) {
            end -= character_.size();
            ++copies;
        }
        if (end > 0) {
            release(held_);
            next->chunk(text.substr(0, end));
        } else if (held_ + copies > stop_) {
            release(held_ + copies - stop_);
        }
        held_ += copies;
    }
    void end_token() override {
        held_ = 0;
        start_left_ = start_;
        next->end_token();
    }

  private:
    void release(std::size_t copies) {
        held_ -= std::min(held_, copies);
        for (; copies > 0; --copies) next->chunk(character_);
    }

    std::string character_;
    std::size_t start_;
    std::size_t stop_;
    std::size_t start_left_;
    std::size_t held_ = 0; // copies, at most stop_
};

void replace_all(std::string& text, std::string_view from, std::string_view to) {
    for (std::size_t at = text.find(from); at != std::string::npos;
         at = text.find(from, at + to.size())) {
        text.replace(at, from.size(), to);
    }
}

// Undoes spaces that tokenization put before punctuation and English contractions.
void clean_up(std::string& text) {
    constexpr std::array<std::pair<std::string_view, std::string_view>, 11> replacements = {{
        {" .", "."},
        {" ?", "?"},
        {" !", "!"},
        {" ,", ","},
        {" ' ", "'"},
        {" n't", "n't"},
        {" 'm", "'m"},
        {" do not", " don't"},
        {" 's", "'s"},
        {" 've", "'ve"},
        {" 're", "'re"},
    }};
    for (const auto& [from, to] : replacements) replace_all(text, from, to);
}

class word_piece_stage final : public whole_token_stage {
  public:
    word_piece_stage(std::string prefix, bool cleanup)
        : prefix_(std::move(prefix)), cleanup_(cleanup) {}

  protected:
    void take(std::string token) override {
        if (!first_) {
            if (token.starts_with(prefix_)) {
                token.erase(0, prefix_.size());
            } else {
                token.insert(0, 1, ' ');
            }
        }
        first_ = false;
        if (cleanup_) clean_up(token);
        pass_on(token);
    }

  private:
    std::string prefix_;
    bool cleanup_;
    bool first_ = true;
};

class metaspace_stage final : public decoder_stage {
  public:
    metaspace_stage(std::string replacement, bool strips_first)
        : replacement_(std::move(replacement)), drops_(strips_first) {}

    void chunk(std::string_view text) override {
        std::string output(text);
        replace_all(output, replacement_, drops_ ? "" : " ");
        next->chunk(output);
    }
    void end_token() override {
        drops_ = false; // only the first token drops its spaces
        next->end_token();
    }

  private:
    std::string replacement_;
    bool drops_;
};

// The suffix of a token is a space, except at the end of the text.
class bpe_stage final : public whole_token_stage {
  public:
    explicit bpe_stage(std::string suffix) : suffix_(std::move(suffix)) {}

    void finish() override {
        if (!held_) return;
        pass(" ", true);
    }

  protected:
    void take(std::string token) override {
        if (held_) pass(" ", false);
        held_ = std::move(token);
    }

  private:
    void pass(std::string_view space, bool last) {
        if (suffix_.empty()) { // the reference's replacement of nothing: around every character
            std::string spaced;
            const std::string_view filler = last ? std::string_view() : space;
            for (std::size_t position = 0; position < held_->size();) {
                const std::size_t length = utf8_length((*held_)[position]);
                spaced += filler;
                spaced.append(*held_, position, length);
                position += length;
            }
            *held_ = spaced.append(filler);
        } else {
            replace_all(*held_, suffix_, last ? std::string_view() : space);
        }
        pass_on(*held_);
        held_.reset();
    }

    std::string suffix_;
    std::optional<std::string> held_;
};

std::unique_ptr<const decoder_component> make_replace(const json_view& node) {
    auto searched = std::make_shared<const pattern>(pattern::from_json(node.at("pattern")));
    std::string content = node.text("content");
    const std::string* literal = searched->literal_text();
    if (literal != nullptr && utf8_count(*literal) == 1) {
        return make_component<replace_character_stage>(*literal, content);
    }
    return make_component<replace_stage>(std::move(searched), content);
}

std::unique_ptr<const decoder_component> make_strip(const json_view& node) {
    const auto count = [&](const char* key) {
        return static_cast<std::size_t>(node.integer(key, 0, strip_characters_max));
    };
    return make_component<strip_stage>(read_character(node.at("content")), count("start"),
                                       count("stop"));
}

std::unique_ptr<const decoder_component> make_metaspace(const json_view& node) {
    const bool strips_first = node.text("prepend_scheme", "always") != "never";
    return make_component<metaspace_stage>(read_character(node.at("replacement")), strips_first);
}

std::unique_ptr<const decoder_component> make_decoder_component(const json_view& node) {
    const std::string type = node.text("type");
    if (type == "ByteLevel") return make_component<byte_level_stage>();
    if (type == "ByteFallback") return make_component<byte_fallback_stage>();
    if (type == "Fuse") return make_component<fuse_stage>();
    if (type == "Replace") return make_replace(node);
    if (type == "Strip") return make_strip(node);
    if (type == "Metaspace") return make_metaspace(node);
    if (type == "BPEDecoder") return make_component<bpe_stage>(node.text("suffix"));
    if (type == "WordPiece") {
        return make_component<word_piece_stage>(node.text("prefix"), node.boolean("cleanup"));
    }
    fail_component(node, "decoder",
                   "Sequence, ByteLevel, ByteFallback, Fuse, Replace, Strip, "
                   "Metaspace, BPEDecoder and WordPiece");
}

} // namespace

decoder::decoder() { components_.push_back(make_component<space_joining_stage>()); }

decoder::decoder(const json_view& node) { add(node); }

void decoder::add(const json_view& node) {
    if (node.text("type") == "Sequence") {
        for (const json_view element : node.at("decoders").as_array()) add(element);
        return;
    }
    if (components_.size() == components_max) {
        node.fail_expected(fmt::format("at most {} decoders", components_max));
    }
    components_.push_back(make_decoder_component(node));
}

decoder_run::decoder_run(const decoder& source) {
    for (const auto& each : source.components()) stages_.push_back(each->make_stage());
    for (std::size_t index = 0; index < stages_.size(); ++index) {
        token_sink* next = &sink_;
        if (index + 1 < stages_.size()) next = stages_[index + 1].get();
        stages_[index]->next = next;
    }
}

void decoder_run::push(std::string_view token) {
    token_sink& first = stages_.empty() ? static_cast<token_sink&>(sink_) : *stages_.front();
    first.chunk(token);
    first.end_token();
}

void decoder_run::finish() {
    for (const auto& stage : stages_) stage->finish();
}

std::string decoder_run::take() { return std::exchange(sink_.output, {}); }

} // namespace sluice::tokenization
