/* Calls itself a router, but has no router table. */
#define HOSTILE_EXTENSION no_extension
#include <sluice/abi/plugin.h>
#include <stddef.h>
static const void* no_extension(sluice_text id) {
    (void)id;
    return NULL;
}
#include "parts.h"
