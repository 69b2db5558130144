/* Says that it created an instance, but gives none. */
#define HOSTILE_CREATE create
#include <sluice/abi/plugin.h>
static sluice_status create(const sluice_host* host, const sluice_settings* settings,
                            sluice_plugin** plugin_owned, sluice_error* error) {
    (void)host;
    (void)settings;
    (void)plugin_owned;
    (void)error;
    return SLUICE_OK;
}
#include "parts.h"
