// For plugins that keep data behind the runtime's caches: from a class to the tables of
// abi/cache.h.
//
// A result cache has, besides what entry.hpp asks for and safe for several threads at once,
//   std::optional<uint64_t> get(std::string_view name_space, std::string_view key,
//                               std::span<std::byte> room);   the value's size; copied if it fits
//   void put(std::string_view name_space, std::string_view key, std::span<const std::byte> value,
//            uint64_t time_to_live_ms);
//   void drop(std::string_view name_space, std::string_view key);
//   void clear(std::string_view name_space);
// and may have
//   sluice_result_cache_statistics statistics();
//
// A block store has
//   void contains(std::span<const sluice_block_key> keys, std::span<uint8_t> present);
//   bool get(const sluice_block_key& key, std::span<std::byte> block);
//   void put(const sluice_block_key& key, std::span<const std::byte> block);
//   void drop(std::span<const sluice_block_key> keys);
#pragma once

#include <sluice/abi/cache.h>
#include <sluice/plugin/entry.hpp>

#include <optional>
#include <span>

namespace sluice::plugin {
namespace detail {

inline std::string_view checked_text(sluice_text text, std::string_view name) {
    if (text.data == nullptr && text.size != 0)
        fail(SLUICE_INVALID, name, " has ", text.size, " bytes but no data (NULL)");
    return view(text);
}

// `element_count` elements at `data`, which may be NULL only where there are none.
template <typename Element, typename Raw>
std::span<Element> checked_span(Raw* data, uint64_t element_count, std::string_view name) {
    if (data == nullptr && element_count != 0)
        fail(SLUICE_INVALID, name, " has ", element_count, " elements but no data (NULL)");
    return {static_cast<Element*>(data), static_cast<size_t>(element_count)};
}

} // namespace detail

template <typename Class>
const sluice_result_cache* result_cache_table() {
    static const sluice_result_cache table = [] {
        using detail::checked_span;
        using detail::checked_text;
        sluice_result_cache made = SLUICE_INIT(sluice_result_cache);
        made.get = [](sluice_plugin* plugin, sluice_text name_space, sluice_text key, void* data,
                      uint64_t capacity_bytes, uint64_t* size_bytes, uint32_t* found,
                      sluice_error* error) {
            return guard(error, [&] {
                if (size_bytes == nullptr || found == nullptr)
                    fail(SLUICE_INVALID, "size_bytes and found must not be NULL");
                const std::optional<uint64_t> size = instance<Class>(plugin).get(
                    checked_text(name_space, "the namespace"), checked_text(key, "the key"),
                    checked_span<std::byte>(data, capacity_bytes, "the room for the value"));
                *found = size.has_value() ? 1 : 0;
                *size_bytes = size.value_or(0);
            });
        };
        made.put = [](sluice_plugin* plugin, sluice_text name_space, sluice_text key,
                      const void* data, uint64_t size_bytes, uint64_t time_to_live_ms,
                      sluice_error* error) {
            return guard(error, [&] {
                instance<Class>(plugin).put(
                    checked_text(name_space, "the namespace"), checked_text(key, "the key"),
                    checked_span<const std::byte>(data, size_bytes, "the value"), time_to_live_ms);
            });
        };
        made.drop = [](sluice_plugin* plugin, sluice_text name_space, sluice_text key,
                       sluice_error* error) {
            return guard(error, [&] {
                instance<Class>(plugin).drop(checked_text(name_space, "the namespace"),
                                             checked_text(key, "the key"));
            });
        };
        made.clear = [](sluice_plugin* plugin, sluice_text name_space, sluice_error* error) {
            return guard(error, [&] {
                instance<Class>(plugin).clear(checked_text(name_space, "the namespace"));
            });
        };
        if constexpr (requires(Class & cache) { cache.statistics(); }) {
            made.statistics = [](sluice_plugin* plugin, sluice_result_cache_statistics* statistics,
                                 sluice_error* error) {
                return guard(error, [&] {
                    write(statistics, instance<Class>(plugin).statistics(), "the statistics");
                });
            };
        }
        return made;
    }();
    return &table;
}

template <typename Class>
const sluice_block_store* block_store_table() {
    static const sluice_block_store table = [] {
        using detail::checked_span;
        sluice_block_store made = SLUICE_INIT(sluice_block_store);
        made.contains = [](sluice_plugin* plugin, const sluice_block_key* keys, uint32_t count,
                           uint8_t* present, sluice_error* error) {
            return guard(error, [&] {
                instance<Class>(plugin).contains(
                    checked_span<const sluice_block_key>(keys, count, "the keys"),
                    checked_span<uint8_t>(present, count, "the answer"));
            });
        };
        made.get = [](sluice_plugin* plugin, const sluice_block_key* key, void* data,
                      uint64_t size_bytes, uint32_t* found, sluice_error* error) {
            return guard(error, [&] {
                if (key == nullptr || found == nullptr)
                    fail(SLUICE_INVALID, "key and found must not be NULL");
                const auto room = checked_span<std::byte>(data, size_bytes, "the room");
                *found = instance<Class>(plugin).get(*key, room) ? 1 : 0;
            });
        };
        made.put = [](sluice_plugin* plugin, const sluice_block_key* key, const void* data,
                      uint64_t size_bytes, sluice_error* error) {
            return guard(error, [&] {
                if (key == nullptr) fail(SLUICE_INVALID, "key must not be NULL");
                instance<Class>(plugin).put(
                    *key, checked_span<const std::byte>(data, size_bytes, "the block"));
            });
        };
        made.drop = [](sluice_plugin* plugin, const sluice_block_key* keys, uint32_t count,
                       sluice_error* error) {
            return guard(error, [&] {
                instance<Class>(plugin).drop(
                    checked_span<const sluice_block_key>(keys, count, "the keys"));
            });
        };
        return made;
    }();
    return &table;
}

} // namespace sluice::plugin
