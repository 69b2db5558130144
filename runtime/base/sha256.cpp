#include "base/sha256.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

namespace sluice {
namespace {

// The first 32 bits of the fractional parts of the cube roots of the first 64 primes.
constexpr std::array<uint32_t, 64> round_constants = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

} // namespace

void sha256::compress(const uint8_t* block) {
    std::array<uint32_t, 64> schedule;
    for (size_t i = 0; i < 16; ++i) {
        schedule[i] = uint32_t(block[4 * i]) << 24 | uint32_t(block[4 * i + 1]) << 16
                      | uint32_t(block[4 * i + 2]) << 8 | uint32_t(block[4 * i + 3]);
    }
    for (size_t i = 16; i < 64; ++i) {
        uint32_t early = schedule[i - 15], late = schedule[i - 2];
        schedule[i] = schedule[i - 16] + schedule[i - 7]
                      + (std::rotr(early, 7) ^ std::rotr(early, 18) ^ early >> 3)
                      + (std::rotr(late, 17) ^ std::rotr(late, 19) ^ late >> 10);
    }
    auto [a, b, c, d, e, f, g, h] = state_;
    for (size_t i = 0; i < 64; ++i) {
        uint32_t first = h + (std::rotr(e, 6) ^ std::rotr(e, 11) ^ std::rotr(e, 25))
                         + ((e & f) ^ (~e & g)) + round_constants[i] + schedule[i];
        uint32_t second =
            (std::rotr(a, 2) ^ std::rotr(a, 13) ^ std::rotr(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
        h = g, g = f, f = e, e = d + first;
        d = c, c = b, b = a, a = first + second;
    }
    std::array<uint32_t, 8> sum = {a, b, c, d, e, f, g, h};
    for (size_t i = 0; i < 8; ++i) state_[i] += sum[i];
}

sha256& sha256::update(std::span<const std::byte> bytes) {
    auto* data = reinterpret_cast<const uint8_t*>(bytes.data());
    size_t left = bytes.size(), held = size_bytes_ % 64;
    size_bytes_ += left;
    while (left > 0) {
        if (held == 0 && left >= 64) {
            compress(data);
            data += 64, left -= 64;
            continue;
        }
        size_t count = std::min(left, 64 - held);
        std::memcpy(pending_.data() + held, data, count);
        data += count, left -= count, held += count;
        if (held == 64) {
            compress(pending_.data());
            held = 0;
        }
    }
    return *this;
}

sha256& sha256::update(std::string_view text) {
    return update(std::as_bytes(std::span<const char>(text.data(), text.size())));
}

sha256_digest sha256::finish() {
    // A one bit, zeros, and the length in bits as a big-endian 64-bit number end the last block.
    uint64_t size_bits = size_bytes_ * 8;
    std::array<std::byte, 72> padding{};
    padding[0] = std::byte{0x80};
    size_t zeros_end = (size_bytes_ % 64 < 56 ? 56 : 120) - size_bytes_ % 64;
    for (size_t i = 0; i < 8; ++i) padding[zeros_end + i] = std::byte(size_bits >> (56 - 8 * i));
    update(std::span<const std::byte>(padding.data(), zeros_end + 8));
    sha256_digest digest;
    for (size_t i = 0; i < 32; ++i) digest[i] = uint8_t(state_[i / 4] >> (24 - 8 * (i % 4)));
    return digest;
}

sha256_digest sha256::of(std::span<const std::byte> bytes) {
    return sha256().update(bytes).finish();
}
sha256_digest sha256::of(std::string_view text) { return sha256().update(text).finish(); }

std::string hexadecimal(const sha256_digest& digest) {
    static constexpr char digits[] = "0123456789abcdef";
    std::string text;
    for (uint8_t byte : digest) text += {digits[byte >> 4], digits[byte & 15]};
    return text;
}

} // namespace sluice
