/* Chooses a version that it was not offered. */
#define HOSTILE_NEGOTIATE choose
#include <sluice/abi/plugin.h>
static sluice_status choose(uint32_t version_min, uint32_t version_max, uint32_t* version,
                            sluice_error* error) {
    (void)version_min;
    (void)error;
    *version = version_max + 5;
    return SLUICE_OK;
}
#include "parts.h"
