// What the readers of a tokenizer's components share.
#pragma once

#include "base/json.hpp"

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace sluice::tokenization {

// A bound on ids, and with it on every table that is indexed by id.
inline constexpr int32_t token_id_limit = 1 << 22;

int32_t read_token_id(const json_view& value); // 0 .. token_id_limit - 1

// A text of one character.
std::string read_character(const json_view& value);

// Fails because the component's "type" is none that is offered for its role.
[[noreturn]] void fail_component(const json_view& component, std::string_view role,
                                 std::string_view supported);

// A text that the components of a tokenizer rewrite may grow from `input_bytes` to so many. Real
// ones stay far below; hostile files double the text again and again.
inline std::size_t rewritten_bytes_max(std::size_t input_bytes) {
    return (std::size_t{1} << 20) + 64 * input_bytes;
}
// Throws SLUICE_EXHAUSTED if the limit is passed.
void check_growth(std::size_t input_bytes, std::size_t output_bytes, const char* role);

} // namespace sluice::tokenization
