/* A default that its own bounds forbid. */
#include <sluice/abi/plugin.h>
static const sluice_setting_description depth = {.struct_size = sizeof(sluice_setting_description),
                                                 .type = SLUICE_SETTING_INTEGER,
                                                 .name = {"depth", 5},
                                                 .default_integer = 9,
                                                 .integer_min = 1,
                                                 .integer_max = 8};
static const sluice_setting_description* const settings[] = {&depth};
#define HOSTILE_SETTING_COUNT 1
#define HOSTILE_SETTINGS      settings
#include "parts.h"
