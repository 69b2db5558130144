/* Does not export the entry. */
#define HOSTILE_NO_ENTRY
#include "parts.h"
SLUICE_EXPORT const void* sluice_plugin_entrance(void);
const void* sluice_plugin_entrance(void) { return hostile_descriptor(); }
