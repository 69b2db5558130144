// Tokenizers write their regular expressions for Oniguruma (in its Ruby syntax); this runtime
// matches them with PCRE2. The translation keeps the meaning: what the two read differently is
// rewritten, and what cannot be rewritten is refused.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace sluice::tokenization {

// The options with which the translated expression must be compiled.
uint32_t translated_regex_options();

// Throws sluice::error; `where` names the file and the key of the expression in its message.
std::string translate_regex(std::string_view oniguruma, const std::string& where);

} // namespace sluice::tokenization
