/*
 * The entry of a plugin: one exported function from which everything else is reached.
 *
 * Rules that hold for the whole contract
 *
 * Growth. Every struct that can grow begins with struct_size. A table of functions is read through
 *   SLUICE_HAS_FIELD. A semantic struct (attributes, specification, format, batch) is read under
 *   the zero-tail rule: what the writer does not have is zero, zero means the behaviour before the
 *   field existed, and an unknown tail that is not all zero is SLUICE_UNSUPPORTED, never ignored.
 *   Arrays of such structs are arrays of pointers, and none is embedded by value in another.
 * Memory. Three patterns: borrowed for the call (the default); the caller's buffer with its size;
 *   an opaque handle with its destroy function in the same table (parameter names end in _owned).
 *   Nothing allocated on one side is freed on the other.
 * Errors. A function that can fail returns a status and takes a sluice_error, which may be NULL.
 *   No exception, exit, abort or write to standard output crosses the border.
 * Tags. Every function carries a line [thread, state, blocks, allocates]. thread "any" means any
 *   thread, several at once; "owner" means one thread at a time for that object. The host's checked
 *   mode enforces thread and state.
 * Members marked [required] must not be NULL: the host checks at load. The others may be.
 */
#ifndef SLUICE_ABI_PLUGIN_H
#define SLUICE_ABI_PLUGIN_H

#include "host.h"
#include "status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* A version of the contract: the major number in the high 16 bits, the minor in the low. While the
 * major number is 0, versions must match exactly. */
#define SLUICE_ABI_VERSION_MAKE(major, minor) (((uint32_t)(major) << 16) | (uint32_t)(minor))
#define SLUICE_ABI_VERSION                    SLUICE_ABI_VERSION_MAKE(0, 1)

/* Kinds of plugin, as in the manifest. Each kind's table is an extension of the same name. */
#define SLUICE_KIND_BACKEND      "backend"
#define SLUICE_KIND_ROUTER       "router"
#define SLUICE_KIND_QUANTIZER    "quantizer"
#define SLUICE_KIND_BLOCK_STORE  "block_store"
#define SLUICE_KIND_RESULT_CACHE "result_cache"
#define SLUICE_KIND_STAGE        "stage"

/* One setting that the plugin understands. The host reads them from TOML, refuses unknown keys and
 * wrong types with the file, line and nearest name, and fills in the defaults. */
typedef struct sluice_setting_description {
    uint32_t struct_size;
    uint32_t type; /* SLUICE_SETTING_* in host.h */
    sluice_text name;
    sluice_text help;           /* one sentence */
    sluice_text default_text;   /* of a text or a path; the other types use what follows */
    int64_t default_integer;    /* of an integer, or of a boolean as 0 or 1 */
    double default_number;      /* of a number */
    int64_t integer_min;        /* both 0: no bounds */
    int64_t integer_max;
    double number_min;          /* both 0: no bounds */
    double number_max;
    const sluice_text* choices; /* [choice_count] allowed texts; none: any text */
    uint32_t choice_count;
    uint32_t required; /* 1: there is no default, the configuration must give it */
    const sluice_text* default_texts; /* [default_text_count] of a text list; none: an empty one */
    uint32_t default_text_count;
    uint32_t reserved;
} sluice_setting_description;

/* What a plugin says of itself. Static: valid as long as the library is loaded. */
typedef struct sluice_plugin_descriptor {
    uint32_t struct_size;
    uint32_t thread_count; /* threads that a library forces on the plugin; 0 for a good citizen */
    sluice_text id;        /* what TOML names it by: [a-z][a-z0-9_-]*, as the file's stem */
    sluice_text kind;      /* SLUICE_KIND_* */
    sluice_text version;   /* of the plugin: "1.2.3" */
    sluice_text summary;   /* one sentence */
    sluice_text license;   /* SPDX identifier */
    /* of processor or device, for the reader: "x86-64 with AVX2", or empty */
    sluice_text needs;
    const sluice_setting_description* const* settings; /* [setting_count] */
    uint32_t setting_count;
    uint32_t extension_count;
    const sluice_text* extensions; /* [extension_count] ids that `extension` answers */
} sluice_plugin_descriptor;

/* The answer of a probe. */
typedef struct sluice_probe_report {
    uint32_t struct_size;
    uint32_t score;   /* 0: cannot run here; else the higher the better suited */
    char reason[496]; /* ended by a zero byte: why not, or what was found */
} sluice_probe_report;

/* An instance of a plugin: created with a configuration, independent of every other instance. */
typedef struct sluice_plugin sluice_plugin;

typedef struct sluice_plugin_library {
    uint32_t struct_size;
    uint32_t abi_version; /* that the library was built against */

    /* Answers the version it will speak, within the range, or refuses with a reason. The host calls
     * it before anything else and does not go on if the answer is out of the range.
     * [thread: any, state: loaded, blocks: no, allocates: no] [required] */
    sluice_status (*negotiate)(uint32_t version_min, uint32_t version_max, uint32_t* version,
                               sluice_error* error);

    /* [thread: any, state: negotiated, blocks: no, allocates: no] [required] */
    const sluice_plugin_descriptor* (*descriptor)(void);

    /* Says whether the plugin can run on this machine, without initialising a device. Absent: yes.
     * [thread: any, state: negotiated, blocks: briefly, allocates: yes] */
    sluice_status (*probe)(const sluice_host* host, sluice_probe_report* report,
                           sluice_error* error);

    /* Creates an instance. `host` stays valid until `destroy` returns; `settings` is borrowed for
     * the call and complete: one entry for each described setting, in that order.
     * [thread: any, state: negotiated, blocks: yes, allocates: yes] [required] */
    sluice_status (*create)(const sluice_host* host, const sluice_settings* settings,
                            sluice_plugin** plugin_owned, sluice_error* error);

    /* Destroys an instance whose objects have all been destroyed, and joins what it started.
     * [thread: any, state: created, blocks: yes, allocates: no] [required] */
    void (*destroy)(sluice_plugin* plugin_owned);

    /* The table of functions with that id (e.g. SLUICE_BACKEND_EXTENSION), or NULL. Valid as long
     * as the library is loaded.
     * [thread: any, state: negotiated, blocks: no, allocates: no] [required] */
    const void* (*extension)(sluice_text id);
} sluice_plugin_library;

/* The one exported symbol. It may be called more than once and from several hosts in one process.
 */
typedef const sluice_plugin_library* (*sluice_plugin_entry_function)(void);
#define SLUICE_PLUGIN_ENTRY_SYMBOL "sluice_plugin_entry"

#if defined(__GNUC__)
#define SLUICE_EXPORT __attribute__((visibility("default")))
#else
#define SLUICE_EXPORT
#endif

#ifdef __cplusplus
}
#endif
#endif
