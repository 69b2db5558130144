// The alphabet of byte-level tokenizers: each byte is written as one printable character
// (GPT-2's bytes_to_unicode). Bytes that print in Latin-1 stand for themselves, the other 68 are
// the characters from U+0100 on, in order.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace sluice::tokenization {

inline constexpr uint32_t byte_alphabet_end = 0x144; // all its characters are below

// Appends each byte of `bytes` as its character.
void append_byte_characters(std::string& output, std::string_view bytes);

// Appends the bytes that the characters of `text` stand for, or `text` itself if one of its
// characters is not of the alphabet.
void append_character_bytes(std::string& output, std::string_view text);

} // namespace sluice::tokenization
