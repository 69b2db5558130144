/* Built with a later header whose structs have grown: must be accepted. */
#define HOSTILE_NO_ENTRY
#include "parts.h"
typedef struct larger_library {
    sluice_plugin_library known;
    void (*later)(void);
    uint64_t more[64];
} larger_library;
static void later(void) {}
SLUICE_EXPORT const sluice_plugin_library* sluice_plugin_entry(void);
const sluice_plugin_library* sluice_plugin_entry(void) {
    static const larger_library library = {{sizeof(larger_library), SLUICE_ABI_VERSION,
                                            hostile_negotiate, hostile_descriptor, NULL,
                                            hostile_create, hostile_destroy, hostile_extension},
                                           later,
                                           {1, 2, 3}};
    return &library.known;
}
