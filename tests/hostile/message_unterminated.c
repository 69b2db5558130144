/* Fails with a message that no zero byte ends. */
#define HOSTILE_CREATE create
#include <sluice/abi/plugin.h>
#include <string.h>
static sluice_status create(const sluice_host* host, const sluice_settings* settings,
                            sluice_plugin** plugin_owned, sluice_error* error) {
    (void)host;
    (void)settings;
    (void)plugin_owned;
    error->status = SLUICE_EXHAUSTED;
    memset(error->message, 'x', sizeof error->message);
    memcpy(error->message, "out of patience \x1b[31m", 21);
    return SLUICE_EXHAUSTED;
}
#include "parts.h"
