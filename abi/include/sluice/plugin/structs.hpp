// Reading and writing structs that grow: the zero-tail rule of abi/plugin.h.
#pragma once

#include <sluice/plugin/error.hpp>

namespace sluice::plugin {

// A full-size copy of a semantic struct from an older or newer writer: a missing tail is zero, an
// unknown tail must be. `name` is for the message.
template <typename Struct>
Struct read(const Struct* source, std::string_view name) {
    if (source == nullptr) fail(SLUICE_INVALID, name, " is missing (NULL)");
    const size_t size = source->struct_size;
    if (size < sizeof(uint32_t))
        fail(SLUICE_INVALID, name, ".struct_size is ", size,
             "; fill the struct with SLUICE_INIT before setting its fields");
    Struct copy{};
    std::memcpy(static_cast<void*>(&copy), static_cast<const void*>(source),
                std::min(size, sizeof(Struct)));
    const auto* bytes = reinterpret_cast<const unsigned char*>(source);
    for (size_t i = sizeof(Struct); i < size; ++i)
        if (bytes[i] != 0)
            fail(SLUICE_UNSUPPORTED, name, " uses a field at byte ", i,
                 " that this plugin does not know (it knows ", sizeof(Struct), " bytes)");
    copy.struct_size = static_cast<uint32_t>(sizeof(Struct));
    return copy;
}

// Writes an answer into the caller's struct, which may be smaller or larger than ours.
template <typename Struct>
void write(Struct* target, const Struct& source, std::string_view name) {
    if (target == nullptr || target->struct_size < sizeof(uint32_t))
        fail(SLUICE_INVALID, name, " must be given, with struct_size set");
    const uint32_t size = target->struct_size;
    std::memcpy(static_cast<void*>(target), static_cast<const void*>(&source),
                std::min<size_t>(size, sizeof(Struct)));
    target->struct_size = size;
}

// The same for a semantic struct: a reader too old to see a field that matters must be told, not
// given half an answer.
template <typename Struct>
void write_semantic(Struct* target, const Struct& source, std::string_view name) {
    const size_t room = target == nullptr ? 0 : target->struct_size;
    const auto* bytes = reinterpret_cast<const unsigned char*>(&source);
    for (size_t i = std::max(room, sizeof(uint32_t)); i < sizeof(Struct); ++i)
        if (room != 0 && bytes[i] != 0)
            fail(SLUICE_UNSUPPORTED, name, " has room for ", room,
                 " bytes, but the answer uses byte ", i);
    write(target, source, name);
    // What a newer reader has beyond our fields keeps its meaning of before: zero.
    if (room > sizeof(Struct))
        std::memset(reinterpret_cast<unsigned char*>(target) + sizeof(Struct), 0,
                    room - sizeof(Struct));
}

} // namespace sluice::plugin
