/* An array of settings with a hole. */
#include <sluice/abi/plugin.h>
#include <stddef.h>
static const sluice_setting_description* const settings[] = {NULL};
#define HOSTILE_SETTING_COUNT 1
#define HOSTILE_SETTINGS      settings
#include "parts.h"
