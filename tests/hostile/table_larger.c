/* A table with functions that the host does not know: must be accepted. */
#define HOSTILE_EXTENSION larger_extension
#include <sluice/abi/plugin.h>
static const void* larger_extension(sluice_text id);
#include "parts.h"
static const struct {
    sluice_router known;
    void (*later[8])(void);
} larger_router = {{sizeof(sluice_router) + 64, 0, hostile_describe, NULL}, {NULL}};
static const void* larger_extension(sluice_text id) {
    return hostile_is(id, SLUICE_ROUTER_EXTENSION) ? &larger_router : NULL;
}
