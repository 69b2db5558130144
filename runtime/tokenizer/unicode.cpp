#include "tokenizer/unicode.hpp"

#include "base/error.hpp"
#include "tokenizer/unicode_tables.hpp"

#include <algorithm>
#include <cstdlib>
#include <memory>

namespace sluice::tokenization {

std::optional<std::size_t> utf8_error_offset(std::string_view text) {
    std::size_t position = 0;
    while (position < text.size()) {
        if (static_cast<unsigned char>(text[position]) < 0x80) {
            ++position;
            continue;
        }
        utf8proc_int32_t code_point = -1;
        const utf8proc_ssize_t length = utf8proc_iterate(
            reinterpret_cast<const utf8proc_uint8_t*>(text.data() + position),
            static_cast<utf8proc_ssize_t>(std::min<std::size_t>(text.size() - position, 4)),
            &code_point);
        if (length <= 0 || code_point < 0) return position;
        position += static_cast<std::size_t>(length);
    }
    return std::nullopt;
}

uint32_t utf8_next(std::string_view text, std::size_t& position) {
    const auto byte = [&](std::size_t offset) {
        return static_cast<uint32_t>(static_cast<unsigned char>(text[position + offset]));
    };
    const uint32_t lead = byte(0);
    uint32_t code_point = lead;
    if (lead < 0x80) {
        position += 1;
    } else if (lead < 0xe0) {
        code_point = (lead & 0x1f) << 6 | (byte(1) & 0x3f);
        position += 2;
    } else if (lead < 0xf0) {
        code_point = (lead & 0x0f) << 12 | (byte(1) & 0x3f) << 6 | (byte(2) & 0x3f);
        position += 3;
    } else {
        code_point =
            (lead & 0x07) << 18 | (byte(1) & 0x3f) << 12 | (byte(2) & 0x3f) << 6 | (byte(3) & 0x3f);
        position += 4;
    }
    return code_point;
}

std::size_t utf8_previous_start(std::string_view text, std::size_t position) {
    do {
        --position;
    } while (position > 0 && (static_cast<unsigned char>(text[position]) & 0xc0) == 0x80);
    return position;
}

void utf8_append(std::string& text, uint32_t code_point) {
    if (code_point < 0x80) {
        text.push_back(static_cast<char>(code_point));
        return;
    }
    utf8proc_uint8_t bytes[4];
    const auto length = utf8proc_encode_char(static_cast<utf8proc_int32_t>(code_point), bytes);
    text.append(reinterpret_cast<const char*>(bytes), static_cast<std::size_t>(length));
}

std::size_t utf8_count(std::string_view text) {
    return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char byte) {
        return (static_cast<unsigned char>(byte) & 0xc0) != 0x80;
    }));
}

utf8proc_category_t category(uint32_t code_point) {
    const utf8proc_category_t known = utf8proc_category(static_cast<utf8proc_int32_t>(code_point));
    if (known != UTF8PROC_CATEGORY_CN) return known;
    const auto ranges = characters_assigned_after_unicode_14();
    const auto after = std::upper_bound(
        ranges.begin(), ranges.end(), code_point,
        [](uint32_t value, const category_range& range) { return value < range.first; });
    if (after == ranges.begin() || code_point > std::prev(after)->last) return known;
    return std::prev(after)->category;
}

bool is_letter(utf8proc_category_t category) {
    return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
}

bool is_mark(utf8proc_category_t category) {
    return category >= UTF8PROC_CATEGORY_MN && category <= UTF8PROC_CATEGORY_ME;
}

bool is_number(utf8proc_category_t category) {
    return category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO;
}

bool is_punctuation(utf8proc_category_t category) {
    return category >= UTF8PROC_CATEGORY_PC && category <= UTF8PROC_CATEGORY_PO;
}

bool is_symbol(utf8proc_category_t category) {
    return category >= UTF8PROC_CATEGORY_SM && category <= UTF8PROC_CATEGORY_SO;
}

bool is_white_space(uint32_t code_point) {
    if (code_point < 0x80) return code_point == ' ' || (code_point >= 9 && code_point <= 13);
    return code_point == 0x85 || code_point == 0xa0 || code_point == 0x1680
           || (code_point >= 0x2000 && code_point <= 0x200a) || code_point == 0x2028
           || code_point == 0x2029 || code_point == 0x202f || code_point == 0x205f
           || code_point == 0x3000;
}

bool is_numeric(uint32_t code_point) {
    if (code_point < 0x80) return code_point >= '0' && code_point <= '9';
    // Rust's numbers of Unicode 17.
    if (code_point >= 0x11de0 && code_point <= 0x11de9) return true;
    if (code_point >= 0x16ff4 && code_point <= 0x16ff6) return true;
    return is_number(category(code_point));
}

bool is_alphabetic_symbol(uint32_t code_point) {
    return (code_point >= 0x24b6 && code_point <= 0x24e9)
           || (code_point >= 0x1f130 && code_point <= 0x1f149)
           || (code_point >= 0x1f150 && code_point <= 0x1f169)
           || (code_point >= 0x1f170 && code_point <= 0x1f189);
}

bool is_word_character(uint32_t code_point) {
    const utf8proc_category_t kind = category(code_point);
    return is_letter(kind) || is_mark(kind) || kind == UTF8PROC_CATEGORY_ND
           || kind == UTF8PROC_CATEGORY_NL || kind == UTF8PROC_CATEGORY_PC || code_point == 0x200c
           || code_point == 0x200d || is_alphabetic_symbol(code_point);
}

bool is_bert_punctuation(uint32_t code_point) {
    if (code_point < 0x80) {
        return (code_point >= 0x21 && code_point <= 0x2f)
               || (code_point >= 0x3a && code_point <= 0x40)
               || (code_point >= 0x5b && code_point <= 0x60)
               || (code_point >= 0x7b && code_point <= 0x7e);
    }
    // These two were punctuation in Unicode 8.
    if (code_point == 0x166d || code_point == 0x111c9) return true;
    return is_punctuation(utf8proc_category(static_cast<utf8proc_int32_t>(code_point)))
           && !contains(punctuation_after_unicode_8(), code_point);
}

bool is_bert_control(uint32_t code_point) {
    if (code_point == '\t' || code_point == '\n' || code_point == '\r') return false;
    switch (utf8proc_category(static_cast<utf8proc_int32_t>(code_point))) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CO:
        return true;
    case UTF8PROC_CATEGORY_CF:
        return !contains(formats_after_unicode_8(), code_point);
    default:
        return false;
    }
}

bool is_bert_nonspacing_mark(uint32_t code_point) {
    if (code_point < 0x300) return false;
    if (code_point == 0x1734) return true; // a nonspacing mark in Unicode 8
    return utf8proc_category(static_cast<utf8proc_int32_t>(code_point)) == UTF8PROC_CATEGORY_MN
           && !contains(nonspacing_marks_after_unicode_8(), code_point);
}

bool is_combining_mark(uint32_t code_point) {
    if (code_point < 0x300) return false;
    if (code_point == 0x1cf2 || code_point == 0x1cf3) return true; // marks in Unicode 9
    return is_mark(utf8proc_category(static_cast<utf8proc_int32_t>(code_point)))
           && !contains(combining_marks_after_unicode_9(), code_point);
}

bool is_chinese_character(uint32_t code_point) {
    if (code_point < 0x3400) return false;
    return (code_point >= 0x4e00 && code_point <= 0x9fff)
           || (code_point >= 0x3400 && code_point <= 0x4dbf)
           || (code_point >= 0x20000 && code_point <= 0x2a6df)
           || (code_point >= 0x2a700 && code_point <= 0x2b81f)
           || (code_point >= 0x2b920 && code_point <= 0x2ceaf)
           || (code_point >= 0xf900 && code_point <= 0xfaff)
           || (code_point >= 0x2f800 && code_point <= 0x2fa1f);
}

namespace {

uint32_t lowercase_character(uint32_t code_point) {
    const auto lower =
        static_cast<uint32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(code_point)));
    if (lower != code_point) return lower;
    for (const lowercase_range& range : lowercase_after_unicode_15()) {
        if (code_point >= range.first && code_point <= range.last) {
            return static_cast<uint32_t>(static_cast<int32_t>(code_point) + range.difference);
        }
    }
    return code_point;
}

bool is_ascii(std::string_view text) {
    return std::all_of(text.begin(), text.end(),
                       [](char byte) { return static_cast<unsigned char>(byte) < 0x80; });
}

void append_normalized(std::string& output, std::string_view segment, int options) {
    if (segment.empty()) return;
    utf8proc_uint8_t* mapped = nullptr;
    const utf8proc_ssize_t length =
        utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(segment.data()),
                     static_cast<utf8proc_ssize_t>(segment.size()), &mapped,
                     static_cast<utf8proc_option_t>(options));
    const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(mapped, &std::free);
    if (length < 0) {
        fail(length == UTF8PROC_ERROR_NOMEM ? SLUICE_EXHAUSTED : SLUICE_INVALID,
             "Unicode normalization of {} bytes of text failed: {}", segment.size(),
             utf8proc_errmsg(length));
    }
    output.append(reinterpret_cast<const char*>(mapped), static_cast<std::size_t>(length));
}

} // namespace

std::string lowercase(std::string_view text) {
    std::string output;
    output.reserve(text.size());
    for (std::size_t position = 0; position < text.size();) {
        const uint32_t code_point = utf8_next(text, position);
        if (code_point < 0x80) {
            const bool upper = code_point >= 'A' && code_point <= 'Z';
            output.push_back(static_cast<char>(upper ? code_point + 32 : code_point));
        } else if (code_point == 0x130) { // the one unconditional expansion of SpecialCasing.txt
            output += "i\xcc\x87";
        } else {
            utf8_append(output, lowercase_character(code_point));
        }
    }
    return output;
}

std::string normalize(std::string_view text, normalization_form form) {
    if (is_ascii(text)) return std::string(text);
    int options = UTF8PROC_STABLE;
    const bool composed = form == normalization_form::nfc || form == normalization_form::nfkc;
    options |= composed ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE;
    if (form == normalization_form::nfkc || form == normalization_form::nfkd) {
        options |= UTF8PROC_COMPAT;
    }
    // A character that the reference does not know is to it a starter that neither decomposes nor
    // composes, so the text on its two sides normalizes independently.
    std::string output;
    output.reserve(text.size() + text.size() / 4);
    std::size_t segment = 0;
    for (std::size_t position = 0; position < text.size();) {
        const std::size_t begin = position;
        const uint32_t code_point = utf8_next(text, position);
        if (code_point < 0x7fd || (code_point >= 0x3300 && code_point < 0xa7f2)) continue;
        if (contains(combining_marks_after_unicode_9(), code_point)
            || contains(normalized_after_unicode_9(), code_point)) {
            append_normalized(output, text.substr(segment, begin - segment), options);
            output.append(text.substr(begin, position - begin));
            segment = position;
        }
    }
    append_normalized(output, text.substr(segment), options);
    return output;
}

} // namespace sluice::tokenization
