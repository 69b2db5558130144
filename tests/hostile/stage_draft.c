/* Keeps every rule, but its kind is a draft. */
#define HOSTILE_KIND       HOSTILE_TEXT(SLUICE_KIND_STAGE)
#define HOSTILE_EXTENSIONS HOSTILE_TEXT(SLUICE_STAGE_EXTENSION)
#define HOSTILE_EXTENSION  stage_extension
#include <sluice/abi/draft/stage.h>
static const void* stage_extension(sluice_text id);
#include "parts.h"
static sluice_status accept(sluice_plugin* plugin, uint32_t port, const sluice_record* record,
                            sluice_request* request, sluice_error* error) {
    (void)plugin;
    (void)port;
    (void)record;
    (void)request;
    (void)error;
    return SLUICE_OK;
}
static const sluice_stage stage = {sizeof(sluice_stage), 0, NULL, accept};
static const void* stage_extension(sluice_text id) {
    return hostile_is(id, SLUICE_STAGE_EXTENSION) ? &stage : NULL;
}
