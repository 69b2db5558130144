/*
 * What the host offers a plugin: log, memory, the worker team, metrics, cancellation, settings.
 * A plugin brings none of these itself and links against no symbol of the host.
 */
#ifndef SLUICE_ABI_HOST_H
#define SLUICE_ABI_HOST_H

#include "status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Settings ---- */

#define SLUICE_SETTING_BOOLEAN   1u
#define SLUICE_SETTING_INTEGER   2u
#define SLUICE_SETTING_NUMBER    3u
#define SLUICE_SETTING_TEXT      4u
#define SLUICE_SETTING_PATH      5u /* a text; relative paths were resolved against the TOML file */
#define SLUICE_SETTING_TEXT_LIST 6u

/* One typed value. Borrowed as the whole sluice_settings is. */
typedef struct sluice_setting {
    uint32_t struct_size;
    uint32_t type;
    uint32_t is_default; /* 1: the configuration did not name it */
    uint32_t reserved;
    int64_t integer;        /* of a boolean (0 or 1) and an integer */
    double number;
    sluice_text text;       /* of a text and a path */
    const sluice_text* texts; /* [text_count] of a list */
    uint64_t text_count;
} sluice_setting;

typedef struct sluice_settings {
    uint32_t struct_size;
    uint32_t count;
    const sluice_setting* const* settings; /* [count], in the order of the plugin's descriptions */
} sluice_settings;

/* ---- The worker team ---- */

/* Lets all members of one team entry wait for each other. Made by the host. */
typedef struct sluice_barrier sluice_barrier;

/* One entry into the team: every worker runs `run` together with the others, then `finished` is
 * called once, on the last worker to return. The struct is the caller's and must stay valid until
 * `finished` has been entered; the host links it into its queue without allocating. */
typedef struct sluice_team_task {
    uint32_t struct_size;
    uint32_t reserved;
    void* context; /* handed to both functions */
    /* worker is 0 to worker_count-1. Must not throw and must not enter the team again. Work is to
     * be cut by shape, never by worker_count, so that results do not depend on it. */
    void (*run)(void* context, uint32_t worker, uint32_t worker_count, sluice_barrier* barrier);
    void (*finished)(void* context); /* may be NULL */
    void* host_link[2];              /* the host's own */
} sluice_team_task;

/* ---- Metrics ---- */

typedef struct sluice_metric sluice_metric;

#define SLUICE_METRIC_COUNTER   1u
#define SLUICE_METRIC_GAUGE     2u
#define SLUICE_METRIC_HISTOGRAM 3u

typedef struct sluice_metric_description {
    uint32_t struct_size;
    uint32_t type;
    sluice_text name;      /* [a-z_][a-z0-9_]*, unit last: "cache_hits_total", "step_seconds" */
    sluice_text help;      /* one sentence */
    const double* buckets; /* [bucket_count] upper bounds of a histogram, rising */
    uint64_t bucket_count;
} sluice_metric_description;

/* ---- The host ---- */

#define SLUICE_LOG_DEBUG   1u
#define SLUICE_LOG_INFO    2u
#define SLUICE_LOG_WARNING 3u
#define SLUICE_LOG_ERROR   4u

typedef struct sluice_host {
    uint32_t struct_size;
    uint32_t abi_version; /* that the host speaks with this plugin */
    void* context;        /* first argument of every function below */

    /* Writes one line to the host's log. [thread: any, blocks: briefly, allocates: yes] [required]
     */
    void (*log)(void* context, uint32_t level, sluice_text message);

    /* Memory aligned to `alignment` (a power of two), or NULL. Large requests are backed by large
     * pages where the system gives them. [thread: any, blocks: no, allocates: yes] [required] */
    void* (*allocate)(void* context, uint64_t size_bytes, uint64_t alignment);
    /* `size_bytes` as it was asked for. NULL is allowed.
     * [thread: any, blocks: no, allocates: no] [required] */
    void (*release)(void* context, void* memory, uint64_t size_bytes);

    /* Workers in the team; fixed for the host's life. [thread: any, blocks: no] [required] */
    uint32_t (*worker_count)(void* context);
    /* Queues one entry and returns; entries run one after another in the order of the calls.
     * [thread: any, blocks: no, allocates: no] [required] */
    void (*team_start)(void* context, sluice_team_task* task);
    /* Queues one entry and waits until it has run. Not to be called from a worker.
     * [thread: any but a worker, blocks: yes, allocates: no] [required] */
    void (*team_run)(void* context, sluice_team_task* task);
    /* Waits until all workers of this entry have come here; spins briefly, then sleeps. What was
     * written before it is seen after it. [thread: worker, blocks: yes, allocates: no] [required]
     */
    void (*barrier_wait)(sluice_barrier* barrier);

    /* 1 when the call that the calling thread is serving should stop soon; long functions poll it
     * and return SLUICE_CANCELLED. [thread: any, blocks: no, allocates: no] [required] */
    uint32_t (*cancelled)(void* context);

    /* Registers a metric and returns its handle, or NULL when the description is wrong; the same
     * name gives the same handle. To be called in `create`.
     * [thread: any, blocks: briefly, allocates: yes] [required] */
    sluice_metric* (*metric_register)(void* context, const sluice_metric_description* description);
    /* Adds to a counter, sets a gauge, or observes in a histogram. NULL is ignored.
     * [thread: any, blocks: no, allocates: no] [required] */
    void (*metric_record)(sluice_metric* metric, double value);

    /* A service of the host by id ("vendor.name/1"), or NULL. Drafts are answered only when the
     * configuration says allow_draft = true. [thread: any, blocks: no, allocates: no] [required] */
    const void* (*extension)(void* context, sluice_text id);
} sluice_host;

#ifdef __cplusplus
}
#endif
#endif
