#include "tokenizer/byte_alphabet.hpp"

#include "tokenizer/unicode.hpp"

#include <array>

namespace sluice::tokenization {

namespace {

constexpr bool stands_for_itself(uint32_t byte) {
    return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
}

constexpr std::array<uint16_t, 256> make_characters() {
    std::array<uint16_t, 256> characters{};
    uint16_t next = 0x100;
    for (uint32_t byte = 0; byte < 256; ++byte) {
        characters[byte] = stands_for_itself(byte) ? static_cast<uint16_t>(byte) : next++;
    }
    return characters;
}

constexpr std::array<uint16_t, 256> characters = make_characters();

constexpr std::array<int16_t, byte_alphabet_end> make_bytes() {
    std::array<int16_t, byte_alphabet_end> bytes{};
    bytes.fill(-1);
    for (int16_t byte = 0; byte < 256; ++byte) {
        bytes[characters[static_cast<std::size_t>(byte)]] = byte;
    }
    return bytes;
}

constexpr std::array<int16_t, byte_alphabet_end> bytes_of_characters = make_bytes();

} // namespace

void append_byte_characters(std::string& output, std::string_view bytes) {
    for (const char byte : bytes) {
        const uint32_t character = characters[static_cast<unsigned char>(byte)];
        if (character < 0x80) {
            output.push_back(static_cast<char>(character));
        } else {
            output.push_back(static_cast<char>(0xc0 | character >> 6));
            output.push_back(static_cast<char>(0x80 | (character & 0x3f)));
        }
    }
}

void append_character_bytes(std::string& output, std::string_view text) {
    const std::size_t begin = output.size();
    for (std::size_t position = 0; position < text.size();) {
        const uint32_t character = utf8_next(text, position);
        const int16_t byte =
            character < byte_alphabet_end ? bytes_of_characters[character] : int16_t{-1};
        if (byte < 0) {
            output.resize(begin);
            output += text;
            return;
        }
        output.push_back(static_cast<char>(byte));
    }
}

} // namespace sluice::tokenization
