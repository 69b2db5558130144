/*
 * DRAFT: pipeline stages. Loaded only where the configuration says allow_draft = true.
 *
 * Stages exchange immutable records of named, typed fields, asynchronously. The host routes records
 * along the edges of the pipeline, carries deadlines and cancellation, and offers the generation
 * engine as a service.
 */
#ifndef SLUICE_ABI_DRAFT_STAGE_H
#define SLUICE_ABI_DRAFT_STAGE_H

#include "../plugin.h"
#include "../tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

#define SLUICE_FIELD_TEXT      1u
#define SLUICE_FIELD_BYTES     2u
#define SLUICE_FIELD_INTEGER   3u
#define SLUICE_FIELD_NUMBER    4u
#define SLUICE_FIELD_BOOLEAN   5u
#define SLUICE_FIELD_TENSOR    6u
#define SLUICE_FIELD_TOKEN_IDS 7u /* i32 */
#define SLUICE_FIELD_RECORDS   8u

struct sluice_record;

/* One field. Standard names: "text", "prompt", "token_ids", "score", and "attribution" (why a
 * score), "provenance" (for audit), "sensitivity" (to be redacted before log or store). */
typedef struct sluice_field {
    uint32_t struct_size;
    uint32_t type;
    sluice_text name;
    int64_t integer; /* of INTEGER and BOOLEAN */
    double number;
    sluice_text text;            /* of TEXT and BYTES */
    const sluice_tensor* tensor; /* of TENSOR */
    const int32_t* token_ids;    /* [count] */
    const struct sluice_record* const* records; /* [count] */
    uint64_t count;
} sluice_field;

/* Immutable; borrowed for the call. */
typedef struct sluice_record {
    uint32_t struct_size;
    uint32_t field_count;
    const sluice_field* const* fields;
} sluice_record;

/* A port: what a stage takes or gives there. The edges of a pipeline are checked against these. */
typedef struct sluice_port_description {
    uint32_t struct_size;
    uint32_t is_output;
    sluice_text name;
    const sluice_text* field_names; /* [field_count] that a record must have */
    const uint32_t* field_types;    /* [field_count] SLUICE_FIELD_* */
    uint32_t field_count;
    uint32_t streams; /* 1: several records a request */
} sluice_port_description;

typedef struct sluice_request sluice_request; /* the host's; valid until emit FINAL or fail */

#define SLUICE_STAGE_HOST_EXTENSION "sluice.stage_host/0"
#define SLUICE_EMIT_FINAL           0x1u

/* The host's services for stages, through sluice_host.extension. */
typedef struct sluice_stage_host {
    uint32_t struct_size;
    uint32_t reserved;
    /* Sends a record on; with SLUICE_EMIT_FINAL the request is done with this stage.
     * [thread: any, blocks: no, allocates: yes] [required] */
    void (*emit)(sluice_request* request, uint32_t port, const sluice_record* record,
                 uint32_t flags);
    /* [thread: any, blocks: no, allocates: yes] [required] */
    void (*fail)(sluice_request* request, const sluice_error* error);
    /* [thread: any, blocks: no, allocates: no] [required] */
    uint32_t (*cancelled)(sluice_request* request);
    /* Nanoseconds of the monotonic clock; 0: none. [thread: any, blocks: no] [required] */
    uint64_t (*deadline_ns)(sluice_request* request);
} sluice_stage_host;

#define SLUICE_STAGE_EXTENSION "sluice.stage/0"

typedef struct sluice_stage {
    uint32_t struct_size;
    uint32_t port_count;
    const sluice_port_description* const* ports; /* [port_count] */
    /* Takes one record in; answers through the stage host, from any thread, now or later.
     * [thread: any, state: created, blocks: no, allocates: yes] [required] */
    sluice_status (*accept)(sluice_plugin* plugin, uint32_t port, const sluice_record* record,
                            sluice_request* request, sluice_error* error);
} sluice_stage;

#ifdef __cplusplus
}
#endif
#endif
