#include "tokenizer/pre_tokenizer.hpp"

#include "tokenizer/byte_alphabet.hpp"
#include "tokenizer/component_json.hpp"
#include "tokenizer/unicode.hpp"

#include <algorithm>
#include <optional>
#include <utility>

namespace sluice::tokenization {

namespace {

enum class delimiter_behavior {
    removed,
    isolated,
    merged_with_previous,
    merged_with_next,
    contiguous
};

delimiter_behavior behavior_of(const json_view& node) {
    const std::string_view name = node.as_text();
    if (name == "Removed") return delimiter_behavior::removed;
    if (name == "Isolated") return delimiter_behavior::isolated;
    if (name == "MergedWithPrevious") return delimiter_behavior::merged_with_previous;
    if (name == "MergedWithNext") return delimiter_behavior::merged_with_next;
    if (name == "Contiguous") return delimiter_behavior::contiguous;
    node.fail_expected("\"Removed\", \"Isolated\", \"MergedWithPrevious\", "
                       "\"MergedWithNext\" or \"Contiguous\"");
}

// Joins or drops the delimiters (the spans that are matches) as `behavior` asks. The spans that
// remain are the pieces.
void apply_behavior(std::vector<match_span>& spans, delimiter_behavior behavior) {
    std::vector<match_span> joined;
    bool previous = false; // whether the span before was a delimiter
    switch (behavior) {
    case delimiter_behavior::isolated:
        return;
    case delimiter_behavior::removed:
        std::erase_if(spans, [](const match_span& span) { return span.is_match; });
        return;
    case delimiter_behavior::contiguous:
        for (const match_span& span : spans) {
            if (span.is_match == previous && !joined.empty()) {
                joined.back().end = span.end;
            } else {
                joined.push_back(span);
            }
            previous = span.is_match;
        }
        break;
    case delimiter_behavior::merged_with_previous:
        for (const match_span& span : spans) {
            if (span.is_match && !previous && !joined.empty()) {
                joined.back().end = span.end;
            } else {
                joined.push_back(span);
            }
            previous = span.is_match;
        }
        break;
    case delimiter_behavior::merged_with_next:
        for (auto span = spans.rbegin(); span != spans.rend(); ++span) {
            if (span->is_match && !previous && !joined.empty()) {
                joined.back().begin = span->begin;
            } else {
                joined.push_back(*span);
            }
            previous = span->is_match;
        }
        std::reverse(joined.begin(), joined.end());
        break;
    }
    spans = std::move(joined);
}

// Replaces each piece by parts of it. `find(text, spans)` fills in the parts of one piece.
template <typename Find>
void split_pieces(text_pieces& pieces, match_workspace& workspace, Find find) {
    std::vector<text_piece> split;
    split.reserve(pieces.pieces.size() * 2);
    for (const text_piece& piece : pieces.pieces) {
        auto& spans = workspace.spans;
        spans.clear();
        find(pieces.view(piece), spans);
        for (const match_span& span : spans) {
            if (span.begin == span.end) continue;
            split.push_back({piece.begin + span.begin, piece.begin + span.end,
                             piece.from_start && span.begin == 0});
        }
    }
    pieces.pieces = std::move(split);
}

// Spans of a text by character: each character for which `is_delimiter` holds is a match.
template <typename Predicate>
void find_characters(std::string_view text, std::vector<match_span>& spans,
                     Predicate is_delimiter) {
    std::size_t previous = 0;
    for (std::size_t position = 0; position < text.size();) {
        const std::size_t begin = position;
        if (!is_delimiter(utf8_next(text, position))) continue;
        if (previous < begin) spans.push_back({previous, begin, false});
        spans.push_back({begin, position, true});
        previous = position;
    }
    if (previous < text.size()) spans.push_back({previous, text.size(), false});
}

// Rewrites each piece: `append(output, piece)` adds its new text.
template <typename Append>
void rewrite_pieces(text_pieces& pieces, Append append) {
    std::string output;
    output.reserve(pieces.text.size() + pieces.text.size() / 2);
    for (text_piece& piece : pieces.pieces) {
        const std::size_t begin = output.size();
        append(output, piece);
        piece.begin = begin;
        piece.end = output.size();
    }
    pieces.text = std::move(output);
}

class pre_tokenizer_sequence final : public pre_tokenizer {
  public:
    explicit pre_tokenizer_sequence(const json_view& node) { add_steps(node); }

    void apply(text_pieces& pieces, match_workspace& workspace) const override {
        const std::size_t input_bytes = pieces.text.size();
        for (const auto& step : steps_) {
            step->apply(pieces, workspace);
            check_growth(input_bytes, pieces.text.size(), "pre-tokenizer");
        }
    }

  private:
    void add_steps(const json_view& node) {
        for (const json_view element : node.at("pretokenizers").as_array()) {
            if (element.text("type") == "Sequence") {
                add_steps(element);
            } else {
                steps_.push_back(make_pre_tokenizer(element));
            }
        }
    }

    std::vector<std::unique_ptr<const pre_tokenizer>> steps_;
};

class split_pre_tokenizer final : public pre_tokenizer {
  public:
    explicit split_pre_tokenizer(const json_view& node)
        : pattern_(pattern::from_json(node.at("pattern"))),
          behavior_(behavior_of(node.at("behavior"))), invert_(node.boolean("invert")) {}

    void apply(text_pieces& pieces, match_workspace& workspace) const override {
        split_pieces(pieces, workspace, [&](std::string_view text, std::vector<match_span>& spans) {
            pattern_.find(text, spans, workspace);
            if (invert_) {
                for (match_span& span : spans) span.is_match = !span.is_match;
            }
            apply_behavior(spans, behavior_);
        });
    }

  private:
    pattern pattern_;
    delimiter_behavior behavior_;
    bool invert_;
};

class byte_level_pre_tokenizer final : public pre_tokenizer {
  public:
    explicit byte_level_pre_tokenizer(const json_view& node)
        : add_prefix_space_(node.boolean("add_prefix_space")) {
        // GPT-2's expression.
        constexpr const char* expression = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+"
                                           "| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
        if (node.boolean("use_regex", true)) {
            words_.emplace(pattern::regex(expression, node.where()));
        }
    }

    void apply(text_pieces& pieces, match_workspace& workspace) const override {
        if (add_prefix_space_) {
            rewrite_pieces(pieces, [&](std::string& output, const text_piece& piece) {
                const std::string_view text = pieces.view(piece);
                if (!text.starts_with(' ')) output += ' ';
                output += text;
            });
        }
        if (words_) {
            split_pieces(pieces, workspace,
                         [&](std::string_view text, std::vector<match_span>& spans) {
                             words_->find(text, spans, workspace);
                         });
        }
        rewrite_pieces(pieces, [&](std::string& output, const text_piece& piece) {
            append_byte_characters(output, pieces.view(piece));
        });
    }

  private:
    bool add_prefix_space_;
    std::optional<pattern> words_;
};

class metaspace_pre_tokenizer final : public pre_tokenizer {
  public:
    explicit metaspace_pre_tokenizer(const json_view& node)
        : replacement_(read_character(node.at("replacement"))),
          split_(node.boolean("split", true)) {
        const std::string scheme = node.text("prepend_scheme", "always");
        if (scheme == "always") {
            prepend_ = prepend_scheme::always;
        } else if (scheme == "first") {
            prepend_ = prepend_scheme::first;
        } else if (scheme == "never") {
            prepend_ = prepend_scheme::never;
        } else {
            node.at("prepend_scheme").fail_expected("\"always\", \"first\" or \"never\"");
        }
        if (!node.boolean("add_prefix_space", true) && prepend_ != prepend_scheme::never) {
            node.at("add_prefix_space")
                .fail_expected("true, unless \"prepend_scheme\" is \"never\"");
        }
    }

    void apply(text_pieces& pieces, match_workspace& workspace) const override {
        rewrite_pieces(pieces, [&](std::string& output, const text_piece& piece) {
            const std::string_view text = pieces.view(piece);
            const bool prepends = prepend_ == prepend_scheme::always
                                  || (prepend_ == prepend_scheme::first && piece.from_start);
            if (prepends && !text.starts_with(' ') && !text.starts_with(replacement_)) {
                output += replacement_;
            }
            for (const char byte : text) {
                if (byte == ' ') {
                    output += replacement_;
                } else {
                    output += byte;
                }
            }
        });
        if (!split_) return;
        std::size_t start = 0;
        const uint32_t delimiter = utf8_next(replacement_, start);
        split_pieces(pieces, workspace, [&](std::string_view text, std::vector<match_span>& spans) {
            find_characters(text, spans, [&](uint32_t c) { return c == delimiter; });
            apply_behavior(spans, delimiter_behavior::merged_with_next);
        });
    }

  private:
    enum class prepend_scheme { always, first, never };

    std::string replacement_;
    bool split_;
    prepend_scheme prepend_ = prepend_scheme::always;
};

// Digits, Punctuation, WhitespaceSplit and CharDelimiterSplit: one predicate, one behavior.
template <typename Predicate>
class character_pre_tokenizer final : public pre_tokenizer {
  public:
    character_pre_tokenizer(Predicate predicate, delimiter_behavior behavior)
        : predicate_(predicate), behavior_(behavior) {}

    void apply(text_pieces& pieces, match_workspace& workspace) const override {
        split_pieces(pieces, workspace, [&](std::string_view text, std::vector<match_span>& spans) {
            find_characters(text, spans, predicate_);
            apply_behavior(spans, behavior_);
        });
    }

  private:
    Predicate predicate_;
    delimiter_behavior behavior_;
};

template <typename Predicate>
std::unique_ptr<const pre_tokenizer> split_at(Predicate predicate, delimiter_behavior behavior) {
    return std::make_unique<character_pre_tokenizer<Predicate>>(predicate, behavior);
}

class bert_pre_tokenizer final : public pre_tokenizer {
  public:
    void apply(text_pieces& pieces, match_workspace& workspace) const override {
        split_pieces(pieces, workspace, [](std::string_view text, std::vector<match_span>& spans) {
            find_characters(text, spans, is_white_space);
            apply_behavior(spans, delimiter_behavior::removed);
        });
        split_pieces(pieces, workspace, [](std::string_view text, std::vector<match_span>& spans) {
            find_characters(text, spans, is_bert_punctuation);
        });
    }
};

// \w+|[^\w\s]+ : runs of word characters, and runs of what is neither that nor white space.
class whitespace_pre_tokenizer final : public pre_tokenizer {
  public:
    void apply(text_pieces& pieces, match_workspace& workspace) const override {
        split_pieces(pieces, workspace, find_runs);
    }

  private:
    enum class kind { word, space, other };

    static kind kind_of(uint32_t code_point) {
        if (is_white_space(code_point)) return kind::space;
        return is_word_character(code_point) ? kind::word : kind::other;
    }

    static void find_runs(std::string_view text, std::vector<match_span>& spans) {
        std::size_t begin = 0;
        kind current = kind::space;
        for (std::size_t position = 0; position < text.size();) {
            const std::size_t start = position;
            const kind next = kind_of(utf8_next(text, position));
            if (next == current) continue;
            if (current != kind::space) spans.push_back({begin, start, true});
            begin = start;
            current = next;
        }
        if (current != kind::space) spans.push_back({begin, text.size(), true});
    }
};

std::unique_ptr<const pre_tokenizer> make_delimiter_split(const json_view& node) {
    const std::string text = read_character(node.at("delimiter"));
    std::size_t start = 0;
    const uint32_t character = utf8_next(text, start);
    return split_at([character](uint32_t c) { return c == character; },
                    delimiter_behavior::removed);
}

} // namespace

std::unique_ptr<const pre_tokenizer> make_pre_tokenizer(const json_view& node) {
    const std::string type = node.text("type");
    if (type == "Sequence") return std::make_unique<pre_tokenizer_sequence>(node);
    if (type == "Split") return std::make_unique<split_pre_tokenizer>(node);
    if (type == "ByteLevel") return std::make_unique<byte_level_pre_tokenizer>(node);
    if (type == "Metaspace") return std::make_unique<metaspace_pre_tokenizer>(node);
    if (type == "BertPreTokenizer") return std::make_unique<bert_pre_tokenizer>();
    if (type == "Whitespace") return std::make_unique<whitespace_pre_tokenizer>();
    if (type == "WhitespaceSplit") return split_at(is_white_space, delimiter_behavior::removed);
    if (type == "CharDelimiterSplit") return make_delimiter_split(node);
    if (type == "Digits") {
        return split_at(is_numeric, node.boolean("individual_digits")
                                        ? delimiter_behavior::isolated
                                        : delimiter_behavior::contiguous);
    }
    if (type == "Punctuation") {
        const auto behavior = node.find("behavior");
        return split_at(is_bert_punctuation,
                        behavior ? behavior_of(*behavior) : delimiter_behavior::isolated);
    }
    fail_component(node, "pre-tokenizer",
                   "Sequence, Split, ByteLevel, Metaspace, Digits, Whitespace, "
                   "WhitespaceSplit, BertPreTokenizer, Punctuation and CharDelimiterSplit");
}

} // namespace sluice::tokenization
