#include "tokenizer/normalizer.hpp"

#include "tokenizer/byte_alphabet.hpp"
#include "tokenizer/component_json.hpp"
#include "tokenizer/unicode.hpp"

#include <utility>
#include <vector>

namespace sluice::tokenization {

namespace {

// Keeps the characters for which `keep` holds, each as `map` gives it.
template <typename Keep, typename Map>
void filter_characters(normalized_text& text, Keep keep, Map map) {
    std::string output;
    output.reserve(text.text.size());
    bool first_removed = false;
    for (std::size_t position = 0; position < text.text.size();) {
        const std::size_t begin = position;
        const uint32_t code_point = utf8_next(text.text, position);
        if (keep(code_point)) {
            utf8_append(output, map(code_point));
        } else if (begin == 0) {
            first_removed = true;
        }
    }
    text.text = std::move(output);
    if (first_removed) text.from_start = false;
}

template <typename Keep>
void filter_characters(normalized_text& text, Keep keep) {
    filter_characters(text, keep, [](uint32_t code_point) { return code_point; });
}

class normalizer_sequence final : public normalizer {
  public:
    explicit normalizer_sequence(const json_view& node) { add_steps(node); }

    void apply(normalized_text& text, match_workspace& workspace) const override {
        const std::size_t input_bytes = text.text.size();
        for (const auto& step : steps_) {
            step->apply(text, workspace);
            check_growth(input_bytes, text.text.size(), "normalizer");
        }
    }

  private:
    void add_steps(const json_view& node) {
        for (const json_view element : node.at("normalizers").as_array()) {
            if (element.text("type") == "Sequence") {
                add_steps(element);
            } else {
                steps_.push_back(make_normalizer(element));
            }
        }
    }

    std::vector<std::unique_ptr<const normalizer>> steps_;
};

class unicode_normalizer final : public normalizer {
  public:
    explicit unicode_normalizer(normalization_form form) : form_(form) {}

    void apply(normalized_text& text, match_workspace&) const override {
        text.text = normalize(text.text, form_);
    }

  private:
    normalization_form form_;
};

class lowercase_normalizer final : public normalizer {
  public:
    void apply(normalized_text& text, match_workspace&) const override {
        text.text = lowercase(text.text);
    }
};

class strip_accents_normalizer final : public normalizer {
  public:
    void apply(normalized_text& text, match_workspace&) const override {
        filter_characters(text, [](uint32_t code_point) { return !is_combining_mark(code_point); });
    }
};

class strip_normalizer final : public normalizer {
  public:
    explicit strip_normalizer(const json_view& node)
        : left_(node.boolean("strip_left")), right_(node.boolean("strip_right")) {}

    void apply(normalized_text& text, match_workspace&) const override {
        std::string& content = text.text;
        if (right_) {
            std::size_t end = content.size();
            while (end > 0) {
                std::size_t begin = utf8_previous_start(content, end);
                std::size_t cursor = begin;
                if (!is_white_space(utf8_next(content, cursor))) break;
                end = begin;
            }
            content.resize(end);
        }
        if (left_) {
            std::size_t begin = 0;
            while (begin < content.size()) {
                std::size_t cursor = begin;
                if (!is_white_space(utf8_next(content, cursor))) break;
                begin = cursor;
            }
            content.erase(0, begin);
            if (begin > 0) text.from_start = false;
        }
    }

  private:
    bool left_;
    bool right_;
};

class prepend_normalizer final : public normalizer {
  public:
    explicit prepend_normalizer(const json_view& node) : prefix_(node.text("prepend")) {}

    void apply(normalized_text& text, match_workspace&) const override {
        if (!text.text.empty()) text.text.insert(0, prefix_);
    }

  private:
    std::string prefix_;
};

class replace_normalizer final : public normalizer {
  public:
    explicit replace_normalizer(const json_view& node)
        : pattern_(pattern::from_json(node.at("pattern"))), content_(node.text("content")) {}

    void apply(normalized_text& text, match_workspace& workspace) const override {
        auto& spans = workspace.spans;
        pattern_.find(text.text, spans, workspace);
        if (spans.size() == 1 && !spans[0].is_match) return;
        std::size_t output_bytes = 0;
        for (const match_span& span : spans) {
            output_bytes += span.is_match ? content_.size() : span.end - span.begin;
        }
        check_growth(text.text.size(), output_bytes, "normalizer");
        std::string output;
        output.reserve(output_bytes);
        for (const match_span& span : spans) {
            if (span.is_match) {
                output += content_;
            } else {
                output.append(text.text, span.begin, span.end - span.begin);
            }
        }
        // What replaces a match counts as coming from the match's last character.
        if (!spans.empty() && spans[0].is_match && spans[0].end > 0
            && (content_.empty() || spans[0].end != utf8_length(text.text[0]))) {
            text.from_start = false;
        }
        text.text = std::move(output);
    }

  private:
    pattern pattern_;
    std::string content_;
};

class bert_normalizer final : public normalizer {
  public:
    explicit bert_normalizer(const json_view& node)
        : clean_text_(node.boolean("clean_text")),
          separate_chinese_(node.boolean("handle_chinese_chars")),
          lowercase_(node.boolean("lowercase")),
          strip_accents_(node.boolean("strip_accents", lowercase_)) {}

    void apply(normalized_text& text, match_workspace&) const override {
        if (clean_text_) {
            filter_characters(
                text,
                [](uint32_t code_point) {
                    return code_point != 0 && code_point != 0xfffd && !is_bert_control(code_point);
                },
                [](uint32_t code_point) { return is_white_space(code_point) ? ' ' : code_point; });
        }
        if (separate_chinese_) separate_chinese(text.text);
        if (strip_accents_) {
            text.text = normalize(text.text, normalization_form::nfd);
            filter_characters(
                text, [](uint32_t code_point) { return !is_bert_nonspacing_mark(code_point); });
        }
        if (lowercase_) text.text = lowercase(text.text);
    }

  private:
    static void separate_chinese(std::string& text) {
        std::string output;
        output.reserve(text.size());
        for (std::size_t position = 0; position < text.size();) {
            const std::size_t begin = position;
            const bool chinese = is_chinese_character(utf8_next(text, position));
            if (chinese) output += ' ';
            output.append(text, begin, position - begin);
            if (chinese) output += ' ';
        }
        text = std::move(output);
    }

    bool clean_text_;
    bool separate_chinese_;
    bool lowercase_;
    bool strip_accents_;
};

class byte_level_normalizer final : public normalizer {
  public:
    void apply(normalized_text& text, match_workspace&) const override {
        std::string output;
        output.reserve(text.text.size() * 2);
        append_byte_characters(output, text.text);
        text.text = std::move(output);
    }
};

class nmt_normalizer final : public normalizer {
  public:
    void apply(normalized_text& text, match_workspace&) const override {
        filter_characters(
            text,
            [](uint32_t c) {
                return !((c >= 0x1 && c <= 0x8) || c == 0xb || (c >= 0xe && c <= 0x1f) || c == 0x7f
                         || c == 0x8f || c == 0x9f);
            },
            [](uint32_t c) {
                const bool space = c == 0x9 || c == 0xa || c == 0xc || c == 0xd || c == 0x1680
                                   || (c >= 0x200b && c <= 0x200f) || c == 0x2028 || c == 0x2029
                                   || c == 0x2581 || c == 0xfeff || c == 0xfffd;
                return space ? uint32_t{' '} : c;
            });
    }
};

} // namespace

std::unique_ptr<const normalizer> make_normalizer(const json_view& node) {
    const std::string type = node.text("type");
    if (type == "Sequence") return std::make_unique<normalizer_sequence>(node);
    if (type == "NFC") return std::make_unique<unicode_normalizer>(normalization_form::nfc);
    if (type == "NFD") return std::make_unique<unicode_normalizer>(normalization_form::nfd);
    if (type == "NFKC") return std::make_unique<unicode_normalizer>(normalization_form::nfkc);
    if (type == "NFKD") return std::make_unique<unicode_normalizer>(normalization_form::nfkd);
    if (type == "Lowercase") return std::make_unique<lowercase_normalizer>();
    if (type == "StripAccents") return std::make_unique<strip_accents_normalizer>();
    if (type == "Strip") return std::make_unique<strip_normalizer>(node);
    if (type == "Prepend") return std::make_unique<prepend_normalizer>(node);
    if (type == "Replace") return std::make_unique<replace_normalizer>(node);
    if (type == "BertNormalizer" || type == "Bert") return std::make_unique<bert_normalizer>(node);
    if (type == "ByteLevel") return std::make_unique<byte_level_normalizer>();
    if (type == "Nmt") return std::make_unique<nmt_normalizer>();
    fail_component(node, "normalizer",
                   "Sequence, NFC, NFD, NFKC, NFKD, Lowercase, StripAccents, Strip, "
                   "Prepend, Replace, BertNormalizer, ByteLevel and Nmt");
}

} // namespace sluice::tokenization
