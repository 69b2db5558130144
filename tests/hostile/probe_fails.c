/* Its probe itself fails. */
#define HOSTILE_PROBE fails
#include <sluice/abi/plugin.h>
#include <string.h>
static sluice_status fails(const sluice_host* host, sluice_probe_report* report,
                           sluice_error* error) {
    (void)host;
    (void)report;
    error->status = SLUICE_UNAVAILABLE;
    strcpy(error->message, "the driver answers in riddles");
    return SLUICE_UNAVAILABLE;
}
#include "parts.h"
