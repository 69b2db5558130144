/* Describes one setting twice. */
#include <sluice/abi/plugin.h>
static const sluice_setting_description depth = {.struct_size = sizeof(sluice_setting_description),
                                                 .type = SLUICE_SETTING_INTEGER,
                                                 .name = {"depth", 5}};
static const sluice_setting_description* const settings[] = {&depth, &depth};
#define HOSTILE_SETTING_COUNT 2
#define HOSTILE_SETTINGS      settings
#include "parts.h"
