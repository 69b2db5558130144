// Decoding: from the texts of tokens to text, token by token. Decoding at once and decoding a
// stream are the same work, so both always give the same text.
#pragma once

#include "base/json.hpp"
#include "tokenizer/pattern.hpp"

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace sluice::tokenization {

// Takes tokens one after another, each as one or more chunks of valid UTF-8 and then an end.
class token_sink {
  public:
    virtual ~token_sink() = default;
    virtual void chunk(std::string_view text) = 0;
    virtual void end_token() = 0;
};

// One decoder at work: what comes in, rewritten, goes on to the next sink, as soon as it is
// certain.
class decoder_stage : public token_sink {
  public:
    // After the last token: passes on what was held back. Does not finish the next sink.
    virtual void finish() {}

    token_sink* next = nullptr; // not owned
};

// One component of the decoder; immutable.
class decoder_component {
  public:
    virtual ~decoder_component() = default;
    // The stage may use the component as long as it lives.
    virtual std::unique_ptr<decoder_stage> make_stage() const = 0;
};

class decoder {
  public:
    decoder(); // joins the tokens with spaces, as the reference does without a decoder
    // Of the member "decoder" of tokenizer.json.
    explicit decoder(const json_view& node);

    const std::vector<std::unique_ptr<const decoder_component>>& components() const {
        return components_;
    }

  private:
    void add(const json_view& node);

    std::vector<std::unique_ptr<const decoder_component>> components_;
};

// A decoder's stages in a row, and the text at their end. For one thread at a time; `source` must
// outlive it.
class decoder_run {
  public:
    explicit decoder_run(const decoder& source);
    decoder_run(const decoder_run&) = delete;
    decoder_run& operator=(const decoder_run&) = delete;

    void push(std::string_view token);
    void finish();
    // What has become certain since the last call.
    std::string take();

  private:
    struct output_sink final : token_sink {
        void chunk(std::string_view text) override { output += text; }
        void end_token() override {}
        std::string output;
    };

    output_sink sink_;
    std::vector<std::unique_ptr<decoder_stage>> stages_;
};

} // namespace sluice::tokenization
