// Semantic structs as an older or a newer writer would send them: what the zero-tail rule of
// abi/plugin.h is checked with.
#pragma once

#include <sluice/abi/status.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <memory>
#include <vector>

namespace sluice::checker {

// A copy of a struct with another struct_size, and a tail filled with one byte where that is
// larger.
template <typename Struct>
class resized {
  public:
    resized(const Struct& source, size_t size, std::byte tail)
        // Storage of at least the whole struct, so that a reader who overlooks a small struct_size
        // meets zeros and gives a wrong answer instead of a crash.
        : storage_((std::max(size, sizeof(Struct)) + sizeof(std::max_align_t) - 1)
                   / sizeof(std::max_align_t)) {
        auto* bytes = reinterpret_cast<std::byte*>(storage_.data());
        std::memcpy(bytes, &source, std::min(size, sizeof(Struct)));
        if (size > sizeof(Struct)) std::fill(bytes + sizeof(Struct), bytes + size, tail);
        get()->struct_size = static_cast<uint32_t>(size);
    }
    Struct* get() { return reinterpret_cast<Struct*>(storage_.data()); }
    const Struct* get() const { return reinterpret_cast<const Struct*>(storage_.data()); }

  private:
    std::vector<std::max_align_t> storage_;
};

constexpr size_t tail_bytes = 16;

// A newer writer that uses a field this contract does not have: must be SLUICE_UNSUPPORTED.
template <typename Struct>
resized<Struct> with_unknown_field(const Struct& source) {
    return {source, sizeof(Struct) + tail_bytes, std::byte{1}};
}
// A newer writer that leaves its new fields at their meaning of before: must be accepted.
template <typename Struct>
resized<Struct> with_zero_tail(const Struct& source) {
    return {source, sizeof(Struct) + tail_bytes, std::byte{0}};
}
// An older writer that has only the first `size` bytes.
template <typename Struct>
resized<Struct> cut_to(const Struct& source, size_t size) {
    return {source, size, std::byte{0}};
}

} // namespace sluice::checker
