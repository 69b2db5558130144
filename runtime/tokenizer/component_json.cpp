#include "tokenizer/component_json.hpp"

#include "base/error.hpp"
#include "base/text.hpp"
#include "tokenizer/unicode.hpp"

namespace sluice::tokenization {

int32_t read_token_id(const json_view& value) {
    return static_cast<int32_t>(value.as_integer(0, token_id_limit - 1));
}

std::string read_character(const json_view& value) {
    const std::string_view text = value.as_text();
    if (utf8_count(text) != 1) value.fail_expected("a text of one character");
    return std::string(text);
}

void fail_component(const json_view& component, std::string_view role, std::string_view supported) {
    fail(SLUICE_UNSUPPORTED, "{}: the {} {} is not supported; supported are {}", component.where(),
         role, quote(component.text("type")), supported);
}

void check_growth(std::size_t input_bytes, std::size_t output_bytes, const char* role) {
    if (output_bytes <= rewritten_bytes_max(input_bytes)) return;
    fail(SLUICE_EXHAUSTED, "the tokenizer's {} makes {} bytes of a text of {}, the limit is {}",
         role, output_bytes, input_bytes, rewritten_bytes_max(input_bytes));
}

} // namespace sluice::tokenization
