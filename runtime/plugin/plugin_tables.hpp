// The tables of functions of every kind of plugin, checked and completed.
#pragma once

#include <sluice/abi/backend.h>
#include <sluice/abi/cache.h>
#include <sluice/abi/draft/stage.h>
#include <sluice/abi/plugin.h>
#include <sluice/abi/quantizer.h>
#include <sluice/abi/router.h>

#include <string_view>

namespace sluice {

// A table of each kind in the host's own full size; only the one of the plugin's kind is filled.
// Optional functions that the plugin lacks are stubs that answer SLUICE_UNIMPLEMENTED (or NULL).
struct plugin_tables {
    sluice_backend backend;
    sluice_router router;
    sluice_quantizer quantizer;
    sluice_block_store block_store;
    sluice_result_cache result_cache;
    sluice_stage stage;
};

// The id of the extension that holds the table of a kind; empty for an unknown kind.
std::string_view extension_of_kind(std::string_view kind);
// Kinds that load only under allow_draft.
bool is_draft_kind(std::string_view kind);

// Copies the table that a plugin of that kind gave; throws SLUICE_INVALID where it is NULL, too
// small, or lacks a required function.
plugin_tables checked_tables(std::string_view kind, const void* table);

// Whether the router has the optional host function, and not its stub.
bool has_route(const sluice_router& table);

// Bytes a struct_size may claim: more is garbage rather than a later version.
constexpr uint32_t struct_size_max = 1 << 20;

} // namespace sluice
