// Token ids for evaluation and calibration.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

namespace sluice::command {

// Little-endian 16-bit ids, as many as the file has.
std::vector<int32_t> read_token_file(const std::filesystem::path& path);

// Fails with SLUICE_INVALID naming the file for a token outside of the vocabulary.
void check_tokens(const std::filesystem::path& path, const std::vector<int32_t>& tokens,
                  uint32_t vocabulary_size);

} // namespace sluice::command
