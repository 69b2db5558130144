#include "plugin/plugin_tables.hpp"

#include "base/error.hpp"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <span>

namespace sluice {

namespace {

struct member {
    std::string_view name;
    size_t offset;
};

#define SLUICE_MEMBER(type, name)                                                                  \
    member { #name, offsetof(type, name) }

// ---- The functions that the headers mark [required] ----

constexpr member backend_required[] = {
    SLUICE_MEMBER(sluice_backend, properties),
    SLUICE_MEMBER(sluice_backend, claim),
    SLUICE_MEMBER(sluice_backend, weight_size),
    SLUICE_MEMBER(sluice_backend, weight_prepare),
    SLUICE_MEMBER(sluice_backend, weight_destroy),
    SLUICE_MEMBER(sluice_backend, weight_describe),
    SLUICE_MEMBER(sluice_backend, buffer_create),
    SLUICE_MEMBER(sluice_backend, buffer_destroy),
    SLUICE_MEMBER(sluice_backend, buffer_write),
    SLUICE_MEMBER(sluice_backend, buffer_read),
    SLUICE_MEMBER(sluice_backend, cache_block_bytes),
    SLUICE_MEMBER(sluice_backend, cache_create),
    SLUICE_MEMBER(sluice_backend, cache_destroy),
    SLUICE_MEMBER(sluice_backend, cache_copy_blocks),
    SLUICE_MEMBER(sluice_backend, cache_read_block),
    SLUICE_MEMBER(sluice_backend, cache_write_block),
    SLUICE_MEMBER(sluice_backend, executable_create),
    SLUICE_MEMBER(sluice_backend, executable_destroy),
    SLUICE_MEMBER(sluice_backend, bind),
    SLUICE_MEMBER(sluice_backend, bound_destroy),
    SLUICE_MEMBER(sluice_backend, plan),
    SLUICE_MEMBER(sluice_backend, submit),
    SLUICE_MEMBER(sluice_backend, queue_create),
    SLUICE_MEMBER(sluice_backend, queue_destroy),
    SLUICE_MEMBER(sluice_backend, event_create),
    SLUICE_MEMBER(sluice_backend, event_destroy),
    SLUICE_MEMBER(sluice_backend, event_wait),
    SLUICE_MEMBER(sluice_backend, event_ended),
};
constexpr member router_required[] = {SLUICE_MEMBER(sluice_router, describe)};
constexpr member quantizer_required[] = {SLUICE_MEMBER(sluice_quantizer, plan),
                                         SLUICE_MEMBER(sluice_quantizer, quantize)};
constexpr member block_store_required[] = {
    SLUICE_MEMBER(sluice_block_store, contains), SLUICE_MEMBER(sluice_block_store, get),
    SLUICE_MEMBER(sluice_block_store, put), SLUICE_MEMBER(sluice_block_store, drop)};
constexpr member result_cache_required[] = {
    SLUICE_MEMBER(sluice_result_cache, get), SLUICE_MEMBER(sluice_result_cache, put),
    SLUICE_MEMBER(sluice_result_cache, drop), SLUICE_MEMBER(sluice_result_cache, clear)};
constexpr member stage_required[] = {SLUICE_MEMBER(sluice_stage, accept)};

#undef SLUICE_MEMBER

struct kind_entry {
    std::string_view kind;
    std::string_view extension;
    bool draft;
};
constexpr kind_entry kinds[] = {
    {SLUICE_KIND_BACKEND, SLUICE_BACKEND_EXTENSION, false},
    {SLUICE_KIND_ROUTER, SLUICE_ROUTER_EXTENSION, false},
    {SLUICE_KIND_QUANTIZER, SLUICE_QUANTIZER_EXTENSION, false},
    {SLUICE_KIND_BLOCK_STORE, SLUICE_BLOCK_STORE_EXTENSION, false},
    {SLUICE_KIND_RESULT_CACHE, SLUICE_RESULT_CACHE_EXTENSION, false},
    {SLUICE_KIND_STAGE, SLUICE_STAGE_EXTENSION, true},
};

// Copies as much of the plugin's table as both sides know; what the plugin does not have stays
// NULL.
template <typename Table>
void copy_table(Table& target, const void* source, std::span<const member> required,
                std::string_view id) {
    uint32_t size;
    std::memcpy(&size, source, sizeof size);
    if (size > struct_size_max) {
        fail(SLUICE_INVALID,
             "table {}: struct_size is {}, which is no size of a table; use "
             "SLUICE_INIT to set it",
             id, size);
    }
    std::memcpy(&target, source, std::min<size_t>(size, sizeof target));
    target.struct_size = sizeof target;
    for (const member& one : required) {
        if (size < one.offset + sizeof(void*)) {
            fail(
                SLUICE_INVALID,
                "table {}: struct_size is {}, which ends before the required function {}; expected "
                "at least {}",
                id, size, one.name, one.offset + sizeof(void*));
        }
        void* function;
        std::memcpy(&function, reinterpret_cast<const char*>(&target) + one.offset,
                    sizeof function);
        if (function == nullptr) {
            fail(SLUICE_INVALID, "table {}: the required function {} is NULL", id, one.name);
        }
    }
}

// ---- Stubs of optional functions ----

sluice_status unimplemented(sluice_error* error, const char* function) noexcept {
    if (error != nullptr && SLUICE_HAS_FIELD(sluice_error, error, message)) {
        error->status = SLUICE_UNIMPLEMENTED;
        const std::string_view head = "the plugin does not have the optional function ";
        const std::string_view name = function;
        std::memcpy(error->message, head.data(), head.size());
        std::memcpy(error->message + head.size(), name.data(), name.size());
        error->message[head.size() + name.size()] = 0;
    }
    return SLUICE_UNIMPLEMENTED;
}

void complete(sluice_backend& table) {
    if (table.buffer_map == nullptr) {
        table.buffer_map = [](sluice_plugin*, sluice_buffer*) -> void* { return nullptr; };
    }
    if (table.measure == nullptr) {
        table.measure = [](sluice_plugin*, uint32_t, double*, sluice_error* error) {
            return unimplemented(error, "measure");
        };
    }
    if (table.profile == nullptr) {
        table.profile = [](sluice_bound*, double*, uint32_t, sluice_error* error) {
            return unimplemented(error, "profile");
        };
    }
}

sluice_status route_stub(sluice_plugin*, const sluice_router_call*, sluice_error* error) {
    return unimplemented(error, "route");
}

void complete(sluice_router& table) {
    if (table.route == nullptr) table.route = route_stub;
}

void complete(sluice_result_cache& table) {
    if (table.statistics == nullptr) {
        table.statistics = [](sluice_plugin*, sluice_result_cache_statistics*,
                              sluice_error* error) { return unimplemented(error, "statistics"); };
    }
}

void check_stage(const sluice_stage& stage) {
    if (stage.port_count > 64 || (stage.port_count > 0 && stage.ports == nullptr)) {
        fail(SLUICE_INVALID, "table {}: {} ports; expected at most 64, and an array of them",
             SLUICE_STAGE_EXTENSION, stage.port_count);
    }
}

} // namespace

std::string_view extension_of_kind(std::string_view kind) {
    for (const kind_entry& entry : kinds) {
        if (entry.kind == kind) return entry.extension;
    }
    return {};
}

bool has_route(const sluice_router& table) { return table.route != route_stub; }

bool is_draft_kind(std::string_view kind) {
    for (const kind_entry& entry : kinds) {
        if (entry.kind == kind) return entry.draft;
    }
    return false;
}

plugin_tables checked_tables(std::string_view kind, const void* table) {
    const std::string_view id = extension_of_kind(kind);
    if (table == nullptr) {
        fail(SLUICE_INVALID,
             "extension(\"{}\") answered NULL; a plugin of kind {} must have that "
             "table",
             id, kind);
    }
    plugin_tables tables{};
    if (kind == SLUICE_KIND_BACKEND) {
        copy_table(tables.backend, table, backend_required, id);
        complete(tables.backend);
    } else if (kind == SLUICE_KIND_ROUTER) {
        copy_table(tables.router, table, router_required, id);
        complete(tables.router);
    } else if (kind == SLUICE_KIND_QUANTIZER) {
        copy_table(tables.quantizer, table, quantizer_required, id);
    } else if (kind == SLUICE_KIND_BLOCK_STORE) {
        copy_table(tables.block_store, table, block_store_required, id);
    } else if (kind == SLUICE_KIND_RESULT_CACHE) {
        copy_table(tables.result_cache, table, result_cache_required, id);
        complete(tables.result_cache);
    } else {
        copy_table(tables.stage, table, stage_required, id);
        check_stage(tables.stage);
    }
    return tables;
}

} // namespace sluice
