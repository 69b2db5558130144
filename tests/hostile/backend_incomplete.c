/* A backend whose table has all required functions but one. */
#define HOSTILE_KIND       HOSTILE_TEXT(SLUICE_KIND_BACKEND)
#define HOSTILE_EXTENSIONS HOSTILE_TEXT(SLUICE_BACKEND_EXTENSION)
#define HOSTILE_EXTENSION  backend_extension
#include <sluice/abi/backend.h>
static const void* backend_extension(sluice_text id);
#include "parts.h"
static void anything(void) {}
static const void* backend_extension(sluice_text id) {
    /* Filled when asked, since C cannot cast all of these in a constant initialiser. */
    static sluice_backend table;
    void (**functions)(void) = (void (**)(void))(void*)((char*)&table + 8);
    size_t at;
    if (!hostile_is(id, SLUICE_BACKEND_EXTENSION)) return NULL;
    table.struct_size = sizeof table;
    for (at = 0; at < (sizeof table - 8) / sizeof *functions; ++at) functions[at] = anything;
    table.submit = NULL;
    return &table;
}
