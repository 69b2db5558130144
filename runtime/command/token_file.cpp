#include "token_file.hpp"

#include "base/error.hpp"
#include "base/mapped_file.hpp"

#include <cstddef>

namespace sluice::command {

std::vector<int32_t> read_token_file(const std::filesystem::path& path) {
    const auto file = mapped_file::open(path);
    const auto bytes = file->bytes();
    if (bytes.size() % 2 != 0)
        fail(SLUICE_INVALID, "{}: expected little-endian 16-bit token ids, found {} bytes",
             path.string(), bytes.size());
    std::vector<int32_t> tokens(bytes.size() / 2);
    for (size_t i = 0; i < tokens.size(); ++i)
        tokens[i] = std::to_integer<int32_t>(bytes[2 * i])
                    | std::to_integer<int32_t>(bytes[2 * i + 1]) << 8;
    return tokens;
}

void check_tokens(const std::filesystem::path& path, const std::vector<int32_t>& tokens,
                  uint32_t vocabulary_size) {
    for (const int32_t token : tokens)
        if (token < 0 || uint32_t(token) >= vocabulary_size)
            fail(SLUICE_INVALID, "{}: token {} is outside of the vocabulary of {}", path.string(),
                 token, vocabulary_size);
}

} // namespace sluice::command
