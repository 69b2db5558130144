/* Well made, but its device is not here; the reason is not ended by a zero byte. */
#define HOSTILE_PROBE no_device
#include <sluice/abi/plugin.h>
#include <string.h>
static sluice_status no_device(const sluice_host* host, sluice_probe_report* report,
                               sluice_error* error) {
    static const char reason[] = "no abacus with 12 rods was found ";
    size_t at;
    (void)host;
    (void)error;
    report->score = 0;
    for (at = 0; at < sizeof report->reason; ++at) {
        report->reason[at] = reason[at % (sizeof reason - 1)];
    }
    return SLUICE_OK;
}
#include "parts.h"
