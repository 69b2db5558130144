// UTF-8 and the character predicates that the reference's components use. All functions are pure.
#pragma once

#include <utf8proc.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace sluice::tokenization {

// The offset of the first byte that is not part of well-formed UTF-8, or nothing.
std::optional<std::size_t> utf8_error_offset(std::string_view text);

// The length in bytes of the character that begins with `lead`, a lead byte of valid UTF-8.
inline std::size_t utf8_length(char lead) {
    const auto byte = static_cast<unsigned char>(lead);
    return byte < 0x80 ? 1 : byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4;
}

// The character at `position`, which it moves behind that character. `text` must be valid UTF-8.
uint32_t utf8_next(std::string_view text, std::size_t& position);

// The start of the character that ends before `position` (> 0) in valid UTF-8.
std::size_t utf8_previous_start(std::string_view text, std::size_t position);

void utf8_append(std::string& text, uint32_t code_point);

std::size_t utf8_count(std::string_view text);

utf8proc_category_t category(uint32_t code_point);
bool is_letter(utf8proc_category_t category);      // L*
bool is_mark(utf8proc_category_t category);        // M*
bool is_number(utf8proc_category_t category);      // N*
bool is_punctuation(utf8proc_category_t category); // P*
bool is_symbol(utf8proc_category_t category);      // S*

bool is_white_space(uint32_t code_point); // the Unicode property White_Space
bool is_numeric(uint32_t code_point);     // Nd, Nl, No
// \w of UTS 18: Alphabetic, marks, decimal digits, connector punctuation, join controls.
bool is_word_character(uint32_t code_point);
// Alphabetic characters that are neither letters, letter numbers nor marks (circled letters).
bool is_alphabetic_symbol(uint32_t code_point);

// What the reference's BERT components and StripAccents test.
bool is_bert_punctuation(uint32_t code_point);
bool is_bert_control(uint32_t code_point);
bool is_bert_nonspacing_mark(uint32_t code_point);
bool is_combining_mark(uint32_t code_point);
bool is_chinese_character(uint32_t code_point);

std::string lowercase(std::string_view text);

enum class normalization_form { nfc, nfd, nfkc, nfkd };
// `text` must be valid UTF-8.
std::string normalize(std::string_view text, normalization_form form);

} // namespace sluice::tokenization
