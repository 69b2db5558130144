/* Enters the team from a worker, which would wait for itself. */
#define HOSTILE_CREATE create
#include <sluice/abi/plugin.h>
#include <stddef.h>
static void nothing(void* context, uint32_t worker, uint32_t worker_count,
                    sluice_barrier* barrier) {
    (void)context;
    (void)worker;
    (void)worker_count;
    (void)barrier;
}
static void again(void* context, uint32_t worker, uint32_t worker_count, sluice_barrier* barrier) {
    const sluice_host* host = context;
    (void)worker_count;
    (void)barrier;
    if (worker == 0) {
        sluice_team_task inner = SLUICE_INIT(sluice_team_task);
        inner.run = nothing;
        host->team_run(host->context, &inner);
    }
}
static sluice_status create(const sluice_host* host, const sluice_settings* settings,
                            sluice_plugin** plugin_owned, sluice_error* error) {
    static const char instance = 0;
    sluice_team_task task = SLUICE_INIT(sluice_team_task);
    (void)settings;
    (void)error;
    task.context = (void*)(uintptr_t)host;
    task.run = again;
    host->team_run(host->context, &task);
    *plugin_owned = (sluice_plugin*)(uintptr_t)&instance;
    return SLUICE_OK;
}
#include "parts.h"
