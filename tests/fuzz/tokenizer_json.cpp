// Any bytes as a tokenizer.json: refused, or a tokenizer that encodes and decodes without a crash,
// and whose streams join to what decoding at once gives.
#include "base/error.hpp"
#include "tokenizer/tokenizer.hpp"

#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

namespace {

// Letters, digits, spaces, punctuation, marks, scripts, what normalization changes, a byte token's
// text, and what the seeds add.
constexpr std::string_view texts[] = {
    "",
    "a b  c",
    "Hello, World! it's 123\n\n x",
    "caf\xc3\xa9 e\xcc\x81 \xef\xac\x81 \xc4\xb0 \xc2\xb2",
    "\xe4\xb8\xad\xe6\x96\x87\xe3\x81\x82 \xed\x95\x9c \xf0\x9f\x99\x82\xe2\x80\x8d",
    "<0x41><s>\xe2\x96\x81x [CLS] ##ab <|endoftext|>"};

void check_stream(const std::shared_ptr<const sluice::tokenizer>& tokenizer,
                  const std::vector<int32_t>& ids, bool skip_special_tokens) {
    sluice::token_stream_decoder stream(tokenizer, skip_special_tokens);
    std::string joined;
    for (const int32_t id : ids) joined += stream.push(id);
    joined += stream.finish();
    if (joined != tokenizer->decode(ids, skip_special_tokens)) std::abort();
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    try {
        const std::string_view json(reinterpret_cast<const char*>(data), size);
        const auto tokenizer = sluice::tokenizer::parse(json, "fuzz");
        for (const std::string_view text : texts) {
            try {
                const auto ids = tokenizer->encode(text, true);
                check_stream(tokenizer, ids, false);
                check_stream(tokenizer, ids, true);
            } catch (const sluice::error&) {
            }
        }
        std::vector<int32_t> ids;
        for (int32_t id = -1; id <= tokenizer->id_end() && id < 300; ++id) ids.push_back(id);
        check_stream(tokenizer, ids, false);
    } catch (const sluice::error&) {
    }
    return 0;
}
