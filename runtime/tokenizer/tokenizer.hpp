// Tokenizers in the format of Hugging Face: tokenizer.json and, beside it, tokenizer_config.json.
// Encoding and decoding give what the `tokenizers` library gives, component by component. What
// this runtime does not have (Unigram models, for one) is refused when loading, by name.
// "truncation" and "padding" in the file are not applied, as in `transformers` by default.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace sluice {

// What tokenizer_config.json says of use here; everything is optional there.
struct tokenizer_configuration {
    std::optional<std::string> beginning_of_text_token; // bos_token
    std::optional<std::string> end_of_text_token;       // eos_token
    std::optional<std::string> padding_token;           // pad_token
    std::optional<std::string> unknown_token;           // unk_token
    // Jinja. Whether these tokens are added is up to tokenizer.json, as in the reference.
    std::optional<std::string> chat_template;
    std::optional<bool> adds_beginning_of_text;
    std::optional<bool> adds_end_of_text;
};

// Immutable: one object may be used by any number of threads at once.
class tokenizer {
  public:
    // `path` is a tokenizer.json or a folder that holds one. Throws sluice::error: UNAVAILABLE if
    // there is no such file, INVALID for a malformed one, UNSUPPORTED for what is not offered.
    static std::shared_ptr<const tokenizer> load(const std::filesystem::path& path);
    // `origin` names the text in messages.
    static std::shared_ptr<const tokenizer> parse(std::string_view json_text,
                                                  const std::string& origin);
    ~tokenizer();
    tokenizer(const tokenizer&) = delete;
    tokenizer& operator=(const tokenizer&) = delete;

    // `add_special_tokens`: those that the file's post-processor puts around the text. The text of
    // an added token inside of `utf8` becomes that token either way. Throws INVALID if the text is
    // not UTF-8 or needs an unknown token that the file lacks, and EXHAUSTED if a regular
    // expression of the file gives up on it.
    std::vector<int32_t> encode(std::string_view utf8, bool add_special_tokens) const;

    // Ids that are no token are skipped, as in the reference.
    std::string decode(std::span<const int32_t> ids, bool skip_special_tokens) const;

    // The id of a token by its text as the file writes it (byte-level vocabularies write a space as
    // U+0120).
    std::optional<int32_t> token_id(std::string_view token) const;
    // The reverse; empty for an id that is no token. Valid as long as the tokenizer.
    std::string_view token_text(int32_t id) const;
    // Whether decoding without special tokens leaves it out.
    bool is_special(int32_t id) const;

    // The number of tokens. Ids may have gaps: all are below id_end().
    int32_t vocabulary_size() const;
    int32_t id_end() const;

    const tokenizer_configuration& configuration() const;
    // Oddities of the file that do not keep it from working.
    const std::vector<std::string>& warnings() const;

  private:
    friend class token_stream_decoder;
    struct implementation;

    explicit tokenizer(std::unique_ptr<const implementation> parts);

    std::unique_ptr<const implementation> parts_;
};

// Decodes tokens one by one as they are generated. What push and finish return, joined, is exactly
// what decode gives for all the ids; each part is whole characters. For one thread at a time.
class token_stream_decoder {
  public:
    token_stream_decoder(std::shared_ptr<const tokenizer> source, bool skip_special_tokens);
    ~token_stream_decoder();
    token_stream_decoder(token_stream_decoder&&) noexcept;
    token_stream_decoder& operator=(token_stream_decoder&&) noexcept;

    // The text that is certain now and was not before; often empty.
    std::string push(int32_t id);
    // The rest. The decoder is then as new.
    std::string finish();

  private:
    struct state;

    std::shared_ptr<const tokenizer> source_;
    bool skip_special_tokens_;
    std::unique_ptr<state> state_;
};

} // namespace sluice
