/*
 * sluice for embedding: create a runtime from TOML, submit requests, read the text as it comes.
 *
 * Handles: a runtime owns a model, its plugins and threads; a generation is one request. Two
 * runtimes in one process share nothing. Nothing here is global.
 *
 * Threads: every function may be called from any thread, several at once, except that a handle is
 * destroyed once, when no other call uses it.
 *
 * Errors: a function that can fail returns a status and fills in the caller's sluice_error, which
 * may be NULL: what was expected, what was found, where, and what to do.
 *
 * Memory: texts passed in are copied. Texts handed out are borrowed: until the callback returns, or
 * until the next call with the same generation. Texts are UTF-8; those handed out end in a zero
 * byte that `size` does not count.
 *
 * Growth: structs begin with struct_size; fill them with SLUICE_INIT(type). Fields that a caller's
 * older struct does not have mean their zero, which is always the default.
 */
#ifndef SLUICE_SLUICE_H
#define SLUICE_SLUICE_H

#include <sluice/abi/status.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define SLUICE_API __attribute__((visibility("default")))
#else
#define SLUICE_API
#endif

typedef struct sluice_runtime sluice_runtime;
typedef struct sluice_generation sluice_generation;

/* "0.1.0". Valid for the life of the process. */
SLUICE_API const char* sluice_version(void);

/* ---- Runtimes ---- */

#define SLUICE_RUNTIME_LOG_DEFAULT 0u /* warnings and errors */
#define SLUICE_RUNTIME_LOG_DEBUG   1u
#define SLUICE_RUNTIME_LOG_INFO    2u
#define SLUICE_RUNTIME_LOG_WARNING 3u
#define SLUICE_RUNTIME_LOG_ERROR   4u
#define SLUICE_RUNTIME_LOG_NONE    5u

/* One line of the log; called from any thread, one call at a time. */
typedef void (*sluice_log_function)(void* context, uint32_t level, sluice_text line);
/* Bytes of weights prepared so far, and in all; called on the creating thread. */
typedef void (*sluice_progress_function)(void* context, uint64_t done_bytes, uint64_t total_bytes);

typedef struct sluice_runtime_options {
    uint32_t struct_size;
    uint32_t log_level;         /* SLUICE_RUNTIME_LOG_* */
    sluice_log_function on_log; /* NULL: standard error */
    void* log_context;
    sluice_progress_function on_progress; /* NULL: none */
    void* progress_context;
    const char* const* overrides; /* [override_count] "section.key=value", over the TOML */
    uint64_t override_count;
    /* That relative paths in a TOML text resolve against; NULL: the current one. */
    const char* folder;
} sluice_runtime_options;

/* Reads the TOML file, opens plugins and model, and is ready to generate when it returns. Relative
 * paths in it resolve against its folder. `options` may be NULL. Blocks as long as loading takes.
 */
SLUICE_API sluice_status sluice_runtime_create_from_file(const char* path,
                                                         const sluice_runtime_options* options,
                                                         sluice_runtime** runtime_owned,
                                                         sluice_error* error);
/* The same from TOML text. */
SLUICE_API sluice_status sluice_runtime_create_from_text(sluice_text toml,
                                                         const sluice_runtime_options* options,
                                                         sluice_runtime** runtime_owned,
                                                         sluice_error* error);
/* Cancels what still runs (each stream still gets its last event), joins all threads and frees
 * everything. Generations may be destroyed before or after. Not from a callback. NULL is ignored.
 */
SLUICE_API void sluice_runtime_destroy(sluice_runtime* runtime_owned);

typedef struct sluice_model_info {
    uint32_t struct_size;
    uint32_t vocabulary_size;
    uint32_t layer_count;
    uint32_t hidden_size;
    uint32_t expert_count;       /* routed experts of a sparse layer; 0: a dense model */
    uint32_t context_tokens_max; /* longest prompt and answer together */
    uint32_t has_tokenizer;      /* 0: prompts must be token ids, and there is no text */
    uint32_t sequences_max;      /* requests that run together; more wait */
    uint64_t parameter_count;
    uint64_t active_parameter_count; /* that one token uses */
    sluice_text model_type;  /* "deepseek_v3"; this and the rest live as long as the runtime */
    sluice_text backend;     /* id of the plugin that computes */
    sluice_text device;      /* as the backend calls it */
    sluice_text fingerprint; /* 64 hexadecimal digits: equal ones compute the same */
} sluice_model_info;

/* `info` is the caller's, with struct_size set. */
SLUICE_API sluice_status sluice_runtime_model_info(sluice_runtime* runtime, sluice_model_info* info,
                                                   sluice_error* error);

/* ---- Text and tokens ---- */

/* Writes up to `capacity` tokens of the text and answers how many there are in token_count; where
 * that is more, nothing was written. special: 1 also adds the tokens that begin or end a text. */
SLUICE_API sluice_status sluice_runtime_tokenize(sluice_runtime* runtime, sluice_text text,
                                                 uint32_t special, int32_t* token_ids,
                                                 uint64_t capacity, uint64_t* token_count,
                                                 sluice_error* error);

/* ---- Generations ---- */

#define SLUICE_FINISH_NONE         0u /* not finished */
#define SLUICE_FINISH_END_TOKEN    1u /* the model said that the text ends */
#define SLUICE_FINISH_STOP_TEXT    2u /* a stop string came */
#define SLUICE_FINISH_TOKENS_MAX   3u /* as many tokens as asked for */
#define SLUICE_FINISH_CONTEXT_FULL 4u
#define SLUICE_FINISH_CANCELLED    5u
#define SLUICE_FINISH_DEADLINE     6u
#define SLUICE_FINISH_FAILED       7u /* see status and message */

typedef struct sluice_generation_usage {
    uint32_t struct_size;
    uint32_t prompt_tokens;
    uint32_t prompt_tokens_reused; /* whose cached vectors were reused */
    uint32_t completion_tokens;
    double time_to_first_token_s; /* since submission; 0: there was none */
    double duration_s;
    double tokens_per_second; /* after the first token */
    uint32_t from_result_cache;
    uint32_t draft_tokens; /* guesses that were computed together with other tokens */
    uint32_t draft_tokens_accepted; /* of these, those that were right */
    uint32_t reserved;
} sluice_generation_usage;

/* A piece of an answer, or its end. */
typedef struct sluice_generation_event {
    uint32_t struct_size;
    uint32_t finish;          /* SLUICE_FINISH_NONE: a piece; else the last event */
    sluice_text text;         /* whole characters, never part of a stop string; may be empty */
    const int32_t* token_ids; /* [token_count] sampled since the event before */
    const float* log_probabilities; /* [token_count] natural logarithms */
    uint64_t token_count;
    sluice_status status; /* of a failure; else SLUICE_OK */
    uint32_t reserved;
    sluice_text message;                  /* of a failure */
    sluice_text stop;                     /* the stop string that came */
    const sluice_generation_usage* usage; /* of the last event; else NULL */
} sluice_generation_event;

/* Called for each event in order, the last one included, on a thread of the runtime or on the
 * submitting thread, and maybe before `submit` returns. Must not block for long (every other text
 * waits) and must not destroy the runtime or its own generation; it may submit and cancel. */
typedef void (*sluice_generation_function)(void* context, const sluice_generation_event* event);

/* Which of the members below count; the others keep the configuration's [generation]. */
#define SLUICE_SET_TOKENS_MAX         0x001u
#define SLUICE_SET_TEMPERATURE        0x002u
#define SLUICE_SET_TOP_K              0x004u
#define SLUICE_SET_TOP_P              0x008u
#define SLUICE_SET_MIN_P              0x010u
#define SLUICE_SET_REPETITION_PENALTY 0x020u
#define SLUICE_SET_SEED               0x040u
#define SLUICE_SET_STOP               0x080u
#define SLUICE_SET_ALL                0x0ffu

#define SLUICE_GENERATION_IGNORE_END      0x1u /* end tokens are tokens like any others */
#define SLUICE_GENERATION_PLAIN_PROMPT    0x2u /* add no special tokens to the prompt */
#define SLUICE_GENERATION_NO_RESULT_CACHE 0x4u

/* A further text field of the request, for pipelines that read it as "request.<name>". */
typedef struct sluice_named_text {
    sluice_text name;
    sluice_text text;
} sluice_named_text;

typedef struct sluice_generation_options {
    uint32_t struct_size;
    uint32_t set;             /* SLUICE_SET_* */
    sluice_text prompt;       /* read unless token_ids are given */
    const int32_t* token_ids; /* [token_count] */
    uint64_t token_count;
    uint32_t tokens_max;
    uint32_t top_k;            /* 0: off */
    double temperature;        /* 0: greedy */
    double top_p;              /* 1: off */
    double min_p;              /* 0: off */
    double repetition_penalty; /* 1: off */
    uint64_t seed;
    const sluice_text* stop; /* [stop_count] */
    uint64_t stop_count;
    const sluice_named_text* fields; /* [field_count] */
    uint64_t field_count;
    sluice_text tenant;  /* whose cached prefixes may be shared */
    uint64_t timeout_ms; /* since submission; 0: none */
    uint32_t flags;      /* SLUICE_GENERATION_* */
    uint32_t reserved;
    sluice_generation_function on_event; /* NULL: read with sluice_generation_next */
    void* context;                       /* for on_event */
} sluice_generation_options;

/* Queues a request. Fails at once for one that cannot run. */
SLUICE_API sluice_status sluice_runtime_submit(sluice_runtime* runtime,
                                               const sluice_generation_options* options,
                                               sluice_generation** generation_owned,
                                               sluice_error* error);

#define SLUICE_WAIT_FOREVER UINT64_MAX

/* The next event, waiting up to timeout_ms for it (0: not at all). *event is NULL when none came in
 * time, and when all were taken; it is borrowed until the next call with this generation. One
 * thread at a time. SLUICE_INVALID for a generation with a callback. */
SLUICE_API sluice_status sluice_generation_next(sluice_generation* generation, uint64_t timeout_ms,
                                                const sluice_generation_event** event,
                                                sluice_error* error);
/* Waits for the last event; with a callback, until that has returned. Not from a callback. */
SLUICE_API void sluice_generation_wait(sluice_generation* generation);
/* 1 when the last event has come. */
SLUICE_API uint32_t sluice_generation_finished(sluice_generation* generation);
/* Asks for an end, between two tokens. The last event still comes. */
SLUICE_API void sluice_generation_cancel(sluice_generation* generation);
/* Cancels if it still runs, waits for its last event if it has a callback, and frees the handle.
 * Not from its own callback. NULL is ignored. */
SLUICE_API void sluice_generation_destroy(sluice_generation* generation_owned);

#ifdef __cplusplus
}
#endif
#endif
