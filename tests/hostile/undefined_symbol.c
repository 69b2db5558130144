/* Needs a symbol that nobody has. */
#define HOSTILE_CREATE create
#include <sluice/abi/plugin.h>
extern int function_that_nobody_wrote(void);
static sluice_status create(const sluice_host* host, const sluice_settings* settings,
                            sluice_plugin** plugin_owned, sluice_error* error) {
    (void)host;
    (void)settings;
    (void)plugin_owned;
    (void)error;
    return (sluice_status)function_that_nobody_wrote();
}
#include "parts.h"
