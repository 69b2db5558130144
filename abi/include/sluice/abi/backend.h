/*
 * A compute backend: prepares weights, keeps caches, compiles programs and runs them.
 *
 * Life of a step: executable_create once per program; bind once per set of extents and buffers;
 * then for each step plan (host work, from the batch) and submit (queued; neither blocks nor
 * allocates), and wait for the event. Repeatable: the same shapes and inputs give the same bits.
 */
#ifndef SLUICE_ABI_BACKEND_H
#define SLUICE_ABI_BACKEND_H

#include "operations.h"
#include "plugin.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct sluice_weight sluice_weight;         /* prepared, in the backend's own layout */
typedef struct sluice_buffer sluice_buffer;         /* memory of the device */
typedef struct sluice_cache sluice_cache;           /* the blocks of all states of a program */
typedef struct sluice_executable sluice_executable; /* a compiled program */
typedef struct sluice_bound sluice_bound;           /* an executable with extents and buffers */
typedef struct sluice_queue sluice_queue;           /* submissions in order */
typedef struct sluice_event sluice_event;           /* completion of one submission */

typedef struct sluice_backend_properties {
    uint32_t struct_size;
    uint32_t batch_invariant; /* 1: a row's bits do not depend on the other rows of the step */
    char device_name[128];    /* ended by a zero byte */
    uint64_t memory_bytes_total;
    uint64_t memory_bytes_free;
    uint32_t tokens_per_block; /* preferred size of cache blocks; 0: any */
    /* bit (1 << element type) for each that values of a program may have */
    uint32_t activation_types;
    /* likewise for each that caches may be kept in beside those, such as I8 */
    uint32_t cache_types;
} sluice_backend_properties;

/* The verdict on one operation. */
typedef struct sluice_claim {
    uint32_t struct_size;
    uint32_t accepted; /* 0: the runtime must decompose it (or fail, if it is a primitive) */
    char kernel[64];   /* which kernel would run it */
    char reason[240];  /* if not accepted: why; else what was passed over and why, or empty */
    /* 8: before weights multiply them, rows are rounded to 8-bit codes, with a scale for each run
     * of at most 64 elements; 0: rows keep the program's type */
    uint32_t activation_bits;
} sluice_claim;

typedef struct sluice_compile_options {
    uint32_t struct_size;
    uint32_t bucket_count;
    uint32_t extent_max[SLUICE_EXTENT_COUNT]; /* by SLUICE_EXTENT_*; [0] is unused */
    uint32_t reserved;
    /* [bucket_count]: sizes to warm, each an array [SLUICE_EXTENT_COUNT] */
    const uint32_t* const* buckets;
} sluice_compile_options;

/* A buffer for an INPUT of kind CUSTOM, for an output, or for a batch input that is then not filled
 * by `plan`, such as token ids that the step before wrote. An input and an output may have the same
 * buffer where every operation that reads the one comes before the operation that makes the other:
 * it is read first. */
typedef struct sluice_binding {
    uint32_t struct_size;
    uint32_t value; /* its number in the program */
    sluice_buffer* buffer;
    uint64_t offset_bytes;
} sluice_binding;

/* One step as the scheduler made it. Rows of decoding sequences (one row each) come first, then
 * those of the others, sequence by sequence in the order of the block table. Read under the
 * zero-tail rule; borrowed for the call. */
typedef struct sluice_batch {
    uint32_t struct_size;
    uint32_t token_count;           /* valid rows, at most the bound T */
    uint32_t sequence_count;        /* at most the bound S */
    uint32_t logit_count;           /* at most the bound L */
    uint32_t decode_sequence_count; /* the first so many sequences have one row each */
    uint32_t group_count;           /* of block_table and slot */
    uint32_t block_table_columns;   /* at most the bound B */
    uint32_t reserved;
    const int32_t* token_ids;          /* [token_count]; NULL when bound to a buffer */
    const int32_t* position;           /* [token_count] */
    const int32_t* sequence_of_row;    /* [token_count], rising within each part */
    const int32_t* query_start;        /* [sequence_count + 1]: first row of each sequence */
    const int32_t* kv_length;          /* [sequence_count] */
    const int32_t* const* block_table; /* [group_count] of [sequence_count, block_table_columns] */
    const int32_t* const* slot;        /* [group_count] of [token_count] */
    const int32_t* logit_rows;         /* [logit_count] */
    const int32_t* adapter_index;      /* [token_count] or NULL: no adapters */
} sluice_batch;

/* What `measure` finds out about the device, with all workers at once. */
#define SLUICE_MEASURE_READ_BANDWIDTH 0u /* bytes a second from memory */
#define SLUICE_MEASURE_F32_PEAK       1u /* multiply and add count as two operations a second */
#define SLUICE_MEASURE_BF16_PEAK      2u
#define SLUICE_MEASURE_I8_PEAK        3u

#define SLUICE_BACKEND_EXTENSION "sluice.backend/0"

typedef struct sluice_backend {
    uint32_t struct_size;
    uint32_t reserved;

    /* [thread: any, state: created, blocks: no, allocates: no] [required] */
    sluice_status (*properties)(sluice_plugin* plugin, sluice_backend_properties* properties,
                                sluice_error* error);

    /* Whether and how the backend would run one operation of a program.
     * [thread: any, state: created, blocks: no, allocates: yes] [required] */
    sluice_status (*claim)(sluice_plugin* plugin, const sluice_program* program, uint32_t operation,
                           sluice_claim* claim, sluice_error* error);

    /* ---- Weights: prepared once, shared by executables. ---- */

    /* Bytes that the prepared weight will take on the device. Reads no weight data.
     * [thread: any, state: created, blocks: no, allocates: no] [required] */
    sluice_status (*weight_size)(sluice_plugin* plugin, const sluice_weight_source* source,
                                 uint32_t roles, uint64_t* size_bytes, sluice_error* error);
    /* source_still_needed: 1 when the prepared weight goes on reading the source's bytes, which
     * must then stay mapped. May use the team.
     * [thread: any but a worker, state: created, blocks: yes, allocates: yes] [required] */
    sluice_status (*weight_prepare)(sluice_plugin* plugin, const sluice_weight_source* source,
                                    uint32_t roles, sluice_weight** weight_owned,
                                    uint32_t* source_still_needed, sluice_error* error);
    /* [thread: any, state: no executable uses it, blocks: no, allocates: no] [required] */
    void (*weight_destroy)(sluice_plugin* plugin, sluice_weight* weight_owned);
    /* A text for people: the layout chosen, e.g. "bf16 32x2 blocks". Cut to `size`, ended by a
     * zero.
     * [thread: any, state: created, blocks: no, allocates: no] [required] */
    void (*weight_describe)(sluice_plugin* plugin, const sluice_weight* weight, char* text,
                            uint64_t size);

    /* ---- Buffers ---- */

    /* [thread: any, state: created, blocks: yes, allocates: yes] [required] */
    sluice_status (*buffer_create)(sluice_plugin* plugin, uint64_t size_bytes,
                                   sluice_buffer** buffer_owned, sluice_error* error);
    /* [thread: any, state: not in use, blocks: no, allocates: no] [required] */
    void (*buffer_destroy)(sluice_plugin* plugin, sluice_buffer* buffer_owned);
    /* Copies between host and device, after all that was submitted before.
     * [thread: owner, state: created, blocks: yes, allocates: no] [required] */
    sluice_status (*buffer_write)(sluice_plugin* plugin, sluice_buffer* buffer, uint64_t offset,
                                  const void* data, uint64_t size_bytes, sluice_error* error);
    /* [thread: owner, state: created, blocks: yes, allocates: no] [required] */
    sluice_status (*buffer_read)(sluice_plugin* plugin, const sluice_buffer* buffer,
                                 uint64_t offset, void* data, uint64_t size_bytes,
                                 sluice_error* error);
    /* The buffer's own bytes where the host can address them, else NULL.
     * [thread: any, state: created, blocks: no, allocates: no] */
    void* (*buffer_map)(sluice_plugin* plugin, sluice_buffer* buffer);

    /* ---- Caches: state_count states with block_count blocks in each group. ---- */

    /* [thread: any, state: created, blocks: no, allocates: no] [required] */
    sluice_status (*cache_block_bytes)(sluice_plugin* plugin, const sluice_state* const* states,
                                       uint32_t state_count, uint32_t group, uint64_t* size_bytes,
                                       sluice_error* error);
    /* [thread: any, state: created, blocks: yes, allocates: yes] [required] */
    sluice_status (*cache_create)(sluice_plugin* plugin, const sluice_state* const* states,
                                  uint32_t state_count, const uint32_t* block_count,
                                  uint32_t group_count, sluice_cache** cache_owned,
                                  sluice_error* error);
    /* [thread: any, state: not bound, blocks: no, allocates: no] [required] */
    void (*cache_destroy)(sluice_plugin* plugin, sluice_cache* cache_owned);
    /* Copies whole blocks of a group, all its states, before the next submission runs.
     * [thread: owner, state: created, blocks: yes, allocates: no] [required] */
    sluice_status (*cache_copy_blocks)(sluice_plugin* plugin, sluice_cache* cache, uint32_t group,
                                       const int32_t* from, const int32_t* to, uint32_t count,
                                       sluice_error* error);
    /* One block of a group to or from host memory of cache_block_bytes, in the backend's layout.
     * [thread: owner, state: created, blocks: yes, allocates: no] [required] */
    sluice_status (*cache_read_block)(sluice_plugin* plugin, const sluice_cache* cache,
                                      uint32_t group, int32_t block, void* data,
                                      sluice_error* error);
    /* [thread: owner, state: created, blocks: yes, allocates: no] [required] */
    sluice_status (*cache_write_block)(sluice_plugin* plugin, sluice_cache* cache, uint32_t group,
                                       int32_t block, const void* data, sluice_error* error);

    /* ---- Executables ---- */

    /* weights: [program->value_count], by value number; NULL for other values. They and the plugin
     * outlive the executable; the program is borrowed for the call.
     * [thread: any but a worker, state: created, blocks: yes, allocates: yes] [required] */
    sluice_status (*executable_create)(sluice_plugin* plugin, const sluice_program* program,
                                       const sluice_compile_options* options,
                                       sluice_weight* const* weights,
                                       sluice_executable** executable_owned, sluice_error* error);
    /* [thread: any, state: nothing bound to it, blocks: no, allocates: no] [required] */
    void (*executable_destroy)(sluice_plugin* plugin, sluice_executable* executable_owned);

    /* extents: [SLUICE_EXTENT_COUNT], the largest step that will be planned; at most extent_max.
     * The cache (NULL if the program has no state) and the buffers outlive the bound executable.
     * [thread: any, state: created, blocks: yes, allocates: yes] [required] */
    sluice_status (*bind)(sluice_executable* executable, const uint32_t* extents,
                          sluice_cache* cache, const sluice_binding* const* bindings,
                          uint32_t binding_count, sluice_bound** bound_owned, sluice_error* error);
    /* [thread: any, state: no submission runs, blocks: no, allocates: no] [required] */
    void (*bound_destroy)(sluice_bound* bound_owned);
    /* Takes the batch in. Not while a submission of this bound executable runs.
     * [thread: owner, state: bound, blocks: no, allocates: no] [required] */
    sluice_status (*plan)(sluice_bound* bound, const sluice_batch* batch, sluice_error* error);
    /* Queues one run of what was planned, after the waits; `done` is signalled when it has ended.
     * [thread: owner, state: planned, blocks: no, allocates: no] [required] */
    sluice_status (*submit)(sluice_bound* bound, sluice_queue* queue, sluice_event* const* waits,
                            uint32_t wait_count, sluice_event* done, sluice_error* error);

    /* [thread: any, state: created, blocks: yes, allocates: yes] [required] */
    sluice_status (*queue_create)(sluice_plugin* plugin, sluice_queue** queue_owned,
                                  sluice_error* error);
    /* Waits for what was submitted. [thread: any, blocks: yes, allocates: no] [required] */
    void (*queue_destroy)(sluice_queue* queue_owned);
    /* An event is unsignalled until the submission that it was given to has ended, and can be given
     * to another afterwards. [thread: any, state: created, blocks: no, allocates: yes] [required]
     */
    sluice_status (*event_create)(sluice_plugin* plugin, sluice_event** event_owned,
                                  sluice_error* error);
    /* [thread: any, state: signalled or never submitted, blocks: no, allocates: no] [required] */
    void (*event_destroy)(sluice_event* event_owned);
    /* Waits for the end and answers how the submission ended. An event that was never submitted is
     * SLUICE_OK at once. [thread: any, state: created, blocks: yes, allocates: no] [required] */
    sluice_status (*event_wait)(sluice_event* event, sluice_error* error);
    /* 1 when the submission has ended. [thread: any, blocks: no, allocates: no] [required] */
    uint32_t (*event_ended)(sluice_event* event);

    /* ---- Insight ---- */

    /* Measures a limit of the device (SLUICE_MEASURE_*).
     * [thread: any but a worker, state: idle, blocks: about a second, allocates: yes] */
    sluice_status (*measure)(sluice_plugin* plugin, uint32_t measurement, double* value,
                             sluice_error* error);
    /* Seconds spent in each operation by the last ended submission, if the backend was configured
     * to take them. seconds: [operation_count].
     * [thread: owner, state: bound, blocks: no, allocates: no] */
    sluice_status (*profile)(sluice_bound* bound, double* seconds, uint32_t operation_count,
                             sluice_error* error);
} sluice_backend;

#ifdef __cplusplus
}
#endif
#endif
