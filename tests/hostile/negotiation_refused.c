/* Refuses, and says why. */
#define HOSTILE_NEGOTIATE refuse
#include <sluice/abi/plugin.h>
#include <string.h>
static sluice_status refuse(uint32_t version_min, uint32_t version_max, uint32_t* version,
                            sluice_error* error) {
    (void)version_min;
    (void)version_max;
    (void)version;
    error->status = SLUICE_UNSUPPORTED;
    strcpy(error->message, "I speak 7.3 alone");
    return SLUICE_UNSUPPORTED;
}
#include "parts.h"
