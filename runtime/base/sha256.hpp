// SHA-256 (FIPS 180-4), for content keys such as the hash chains of cached prefixes.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace sluice {

using sha256_digest = std::array<uint8_t, 32>;

class sha256 {
  public:
    sha256& update(std::span<const std::byte> bytes);
    sha256& update(std::string_view text);
    sha256_digest finish(); // of all bytes so far; the object is spent afterwards

    static sha256_digest of(std::span<const std::byte> bytes);
    static sha256_digest of(std::string_view text);

  private:
    void compress(const uint8_t* block); // [64]

    std::array<uint32_t, 8> state_ = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    std::array<uint8_t, 64> pending_{};
    uint64_t size_bytes_ = 0;
};

std::string hexadecimal(const sha256_digest& digest); // 64 lower-case digits

} // namespace sluice
