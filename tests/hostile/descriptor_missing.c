/* Has no descriptor. */
#define HOSTILE_DESCRIPTOR no_descriptor
#include <sluice/abi/plugin.h>
#include <stddef.h>
static const sluice_plugin_descriptor* no_descriptor(void) { return NULL; }
#include "parts.h"
