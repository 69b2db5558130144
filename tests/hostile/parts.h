/*
 * A small router plugin that keeps every rule, in pieces that a file may replace before it includes
 * this header. Each file in this folder replaces one and so breaks one rule. HOSTILE_ID is given by
 * the build: the name of the file.
 */
#ifndef SLUICE_TESTS_HOSTILE_PARTS_H
#define SLUICE_TESTS_HOSTILE_PARTS_H

#include <sluice/abi/router.h>

#include <string.h>

#ifdef __cplusplus
#define HOSTILE_C extern "C"
#else
#define HOSTILE_C
#endif

/* A text from a literal. */
#define HOSTILE_TEXT(literal)                                                                      \
    { literal, sizeof(literal) - 1 }

#ifndef HOSTILE_ABI_VERSION
#define HOSTILE_ABI_VERSION SLUICE_ABI_VERSION
#endif
#ifndef HOSTILE_LIBRARY_SIZE
#define HOSTILE_LIBRARY_SIZE sizeof(sluice_plugin_library)
#endif
#ifndef HOSTILE_TABLE_SIZE
#define HOSTILE_TABLE_SIZE sizeof(sluice_router)
#endif
#ifndef HOSTILE_DESCRIPTOR_ID
#define HOSTILE_DESCRIPTOR_ID HOSTILE_TEXT(HOSTILE_ID)
#endif
#ifndef HOSTILE_KIND
#define HOSTILE_KIND HOSTILE_TEXT(SLUICE_KIND_ROUTER)
#endif
#ifndef HOSTILE_SUMMARY
#define HOSTILE_SUMMARY HOSTILE_TEXT("A router for tests")
#endif
#ifndef HOSTILE_DESCRIBE
#define HOSTILE_DESCRIBE hostile_describe
#endif
#ifndef HOSTILE_NEGOTIATE
#define HOSTILE_NEGOTIATE hostile_negotiate
#endif
#ifndef HOSTILE_DESCRIPTOR
#define HOSTILE_DESCRIPTOR hostile_descriptor
#endif
#ifndef HOSTILE_PROBE
#define HOSTILE_PROBE NULL
#endif
#ifndef HOSTILE_CREATE
#define HOSTILE_CREATE hostile_create
#endif
#ifndef HOSTILE_DESTROY
#define HOSTILE_DESTROY hostile_destroy
#endif
#ifndef HOSTILE_EXTENSION
#define HOSTILE_EXTENSION hostile_extension
#endif
#ifndef HOSTILE_SETTING_COUNT
#define HOSTILE_SETTING_COUNT 0
#define HOSTILE_SETTINGS      NULL
#endif
#ifndef HOSTILE_EXTENSIONS
#define HOSTILE_EXTENSIONS HOSTILE_TEXT(SLUICE_ROUTER_EXTENSION)
#endif

static int hostile_is(sluice_text text, const char* literal) {
    return text.size == strlen(literal) && memcmp(text.data, literal, strlen(literal)) == 0;
}

/* A piece that was replaced is not used by that file. */
#define HOSTILE_UNUSED __attribute__((unused))

HOSTILE_UNUSED static sluice_status hostile_describe(sluice_plugin* plugin,
                                                     const sluice_router_request* request,
                                                     sluice_router_answer* answer,
                                                     sluice_error* error) {
    (void)plugin;
    (void)error;
    *answer->specification = *request->model;
    answer->form = SLUICE_ROUTER_SPECIFICATION;
    return SLUICE_OK;
}

HOSTILE_UNUSED static const sluice_router hostile_router = {HOSTILE_TABLE_SIZE, 0,
                                                            HOSTILE_DESCRIBE, NULL};

HOSTILE_UNUSED static sluice_status hostile_negotiate(uint32_t version_min, uint32_t version_max,
                                                      uint32_t* version, sluice_error* error) {
    (void)version_min;
    (void)error;
    *version = version_max;
    return SLUICE_OK;
}

static const sluice_text hostile_extensions[] = {HOSTILE_EXTENSIONS};
static const sluice_plugin_descriptor hostile_description = {
    sizeof(sluice_plugin_descriptor),
    0,
    HOSTILE_DESCRIPTOR_ID,
    HOSTILE_KIND,
    HOSTILE_TEXT("1.0.0"),
    HOSTILE_SUMMARY,
    HOSTILE_TEXT("MIT"),
    HOSTILE_TEXT(""),
    HOSTILE_SETTINGS,
    HOSTILE_SETTING_COUNT,
    sizeof hostile_extensions / sizeof hostile_extensions[0],
    hostile_extensions,
};

HOSTILE_UNUSED static const sluice_plugin_descriptor* hostile_descriptor(void) {
    return &hostile_description;
}

HOSTILE_UNUSED static sluice_status hostile_create(const sluice_host* host,
                                                   const sluice_settings* settings,
                                                   sluice_plugin** plugin_owned,
                                                   sluice_error* error) {
    static const char instance = 0; /* has no state, but must be something */
    (void)host;
    (void)settings;
    (void)error;
    *plugin_owned = (sluice_plugin*)(uintptr_t)&instance;
    return SLUICE_OK;
}

HOSTILE_UNUSED static void hostile_destroy(sluice_plugin* plugin_owned) { (void)plugin_owned; }

HOSTILE_UNUSED static const void* hostile_extension(sluice_text id) {
    return hostile_is(id, SLUICE_ROUTER_EXTENSION) ? &hostile_router : NULL;
}

#ifndef HOSTILE_NO_ENTRY
HOSTILE_C SLUICE_EXPORT const sluice_plugin_library* sluice_plugin_entry(void);
const sluice_plugin_library* sluice_plugin_entry(void) {
    static const sluice_plugin_library library = {
        HOSTILE_LIBRARY_SIZE, HOSTILE_ABI_VERSION, HOSTILE_NEGOTIATE, HOSTILE_DESCRIPTOR,
        HOSTILE_PROBE,        HOSTILE_CREATE,      HOSTILE_DESTROY,   HOSTILE_EXTENSION,
    };
    return &library;
}
#endif

#endif
