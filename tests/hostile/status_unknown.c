/* Fails with a status of a class that does not exist, and no message. */
#define HOSTILE_CREATE create
#include <sluice/abi/plugin.h>
static sluice_status create(const sluice_host* host, const sluice_settings* settings,
                            sluice_plugin** plugin_owned, sluice_error* error) {
    (void)host;
    (void)settings;
    (void)plugin_owned;
    (void)error;
    return 0x5a000003u;
}
#include "parts.h"
