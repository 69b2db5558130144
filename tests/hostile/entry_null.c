/* The entry answers nothing. */
#define HOSTILE_NO_ENTRY
#include "parts.h"
SLUICE_EXPORT const sluice_plugin_library* sluice_plugin_entry(void);
const sluice_plugin_library* sluice_plugin_entry(void) { return NULL; }
