/* Registers a metric with a name that no exporter could print, and records in what it got. */
#define HOSTILE_CREATE create
#include <sluice/abi/plugin.h>
static sluice_status create(const sluice_host* host, const sluice_settings* settings,
                            sluice_plugin** plugin_owned, sluice_error* error) {
    static const char instance = 0;
    sluice_metric_description description = SLUICE_INIT(sluice_metric_description);
    (void)settings;
    (void)error;
    description.type = SLUICE_METRIC_COUNTER;
    description.name.data = "Cache Hits!";
    description.name.size = 11;
    host->metric_record(host->metric_register(host->context, &description), 1.0);
    *plugin_owned = (sluice_plugin*)(uintptr_t)&instance;
    return SLUICE_OK;
}
#include "parts.h"
