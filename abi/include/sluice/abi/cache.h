/*
 * Stores behind the runtime's caches. The KV pool itself (blocks, prefix hashes, reference counts,
 * eviction) is the runtime's; block stores keep blocks that left it, result caches whole answers.
 */
#ifndef SLUICE_ABI_CACHE_H
#define SLUICE_ABI_CACHE_H

#include "plugin.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Block stores ---- */

#define SLUICE_BLOCK_KEY_BYTES 32u

/* A hash chain over model, weights, format, layout, adapter, tenant and all tokens up to the
 * block's end. */
typedef struct sluice_block_key {
    uint8_t bytes[SLUICE_BLOCK_KEY_BYTES];
} sluice_block_key;

#define SLUICE_BLOCK_STORE_EXTENSION "sluice.block_store/0"

typedef struct sluice_block_store {
    uint32_t struct_size;
    uint32_t reserved;
    /* present: [count], 1 where the block is there.
     * [thread: any, state: created, blocks: yes, allocates: yes] [required] */
    sluice_status (*contains)(sluice_plugin* plugin, const sluice_block_key* keys, uint32_t count,
                              uint8_t* present, sluice_error* error);
    /* Copies a block of exactly size_bytes out; found is 0 when it is not there (any more), or has
     * another size. [thread: any, state: created, blocks: yes, allocates: yes] [required] */
    sluice_status (*get)(sluice_plugin* plugin, const sluice_block_key* key, void* data,
                         uint64_t size_bytes, uint32_t* found, sluice_error* error);
    /* Copies a block in; may forget others.
     * [thread: any, state: created, blocks: yes, allocates: yes] [required] */
    sluice_status (*put)(sluice_plugin* plugin, const sluice_block_key* key, const void* data,
                         uint64_t size_bytes, sluice_error* error);
    /* [thread: any, state: created, blocks: yes, allocates: no] [required] */
    sluice_status (*drop)(sluice_plugin* plugin, const sluice_block_key* keys, uint32_t count,
                          sluice_error* error);
} sluice_block_store;

/* ---- Result caches ---- */

#define SLUICE_RESULT_CACHE_EXTENSION "sluice.result_cache/0"

typedef struct sluice_result_cache_statistics {
    uint32_t struct_size;
    uint32_t reserved;
    uint64_t entry_count;
    uint64_t size_bytes;
    uint64_t hit_count;
    uint64_t miss_count;
    uint64_t eviction_count;
} sluice_result_cache_statistics;

/* Bytes to bytes, in namespaces (one for each model and configuration), with a time to live. */
typedef struct sluice_result_cache {
    uint32_t struct_size;
    uint32_t reserved;
    /* found: 0 when it is not there. size_bytes is the value's; where it is over `capacity_bytes`,
     * nothing was copied and the caller may come again with more room.
     * [thread: any, state: created, blocks: yes, allocates: yes] [required] */
    sluice_status (*get)(sluice_plugin* plugin, sluice_text name_space, sluice_text key, void* data,
                         uint64_t capacity_bytes, uint64_t* size_bytes, uint32_t* found,
                         sluice_error* error);
    /* Copies the value in; time_to_live_ms 0 means the configured default.
     * [thread: any, state: created, blocks: yes, allocates: yes] [required] */
    sluice_status (*put)(sluice_plugin* plugin, sluice_text name_space, sluice_text key,
                         const void* data, uint64_t size_bytes, uint64_t time_to_live_ms,
                         sluice_error* error);
    /* [thread: any, state: created, blocks: yes, allocates: no] [required] */
    sluice_status (*drop)(sluice_plugin* plugin, sluice_text name_space, sluice_text key,
                          sluice_error* error);
    /* Drops a whole namespace. [thread: any, state: created, blocks: yes, allocates: no] [required]
     */
    sluice_status (*clear)(sluice_plugin* plugin, sluice_text name_space, sluice_error* error);
    /* [thread: any, state: created, blocks: no, allocates: no] */
    sluice_status (*statistics)(sluice_plugin* plugin, sluice_result_cache_statistics* statistics,
                                sluice_error* error);
} sluice_result_cache;

#ifdef __cplusplus
}
#endif
#endif
