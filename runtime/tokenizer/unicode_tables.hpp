// Where the Unicode versions of the libraries at hand differ from those of the reference
// (Hugging Face `tokenizers`), which mixes several: Oniguruma's regular expressions and Rust's
// character methods are at Unicode 16, its BERT categories at 8, its normalization forms at 9.
// The token ids of a checkpoint are defined by the reference, so these differences are kept here.
#pragma once

#include <utf8proc.h>

#include <cstdint>
#include <span>

namespace sluice::tokenization {

struct code_range { // both ends included
    uint32_t first;
    uint32_t last;
};

struct category_range {
    uint32_t first;
    uint32_t last;
    utf8proc_category_t category;
};

struct lowercase_range { // the lowercase of c is c + difference
    uint32_t first;
    uint32_t last;
    int32_t difference;
};

// Sorted, disjoint. Characters that PCRE2 10.42 (Unicode 14) does not know and the reference does.
std::span<const category_range> characters_assigned_after_unicode_14();
// Characters of a category that the reference's BERT components do not know as such.
std::span<const code_range> punctuation_after_unicode_8();
std::span<const code_range> nonspacing_marks_after_unicode_8();
std::span<const code_range> formats_after_unicode_8();
std::span<const code_range> combining_marks_after_unicode_9();
// Characters, other than those marks, that the reference's normalization forms leave as they are.
std::span<const code_range> normalized_after_unicode_9();
std::span<const lowercase_range> lowercase_after_unicode_15();

bool contains(std::span<const code_range> ranges, uint32_t code_point);

} // namespace sluice::tokenization
