/* Throws before anything is agreed on, and nothing that is an exception. */
#define HOSTILE_NO_ENTRY
#include "parts.h"
HOSTILE_C SLUICE_EXPORT const sluice_plugin_library* sluice_plugin_entry(void) { throw 42; }
