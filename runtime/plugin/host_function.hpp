// A call of a router's host function, with the checks of what it answers.
#pragma once

#include "plugin/plugin_host.hpp"

#include <sluice/abi/router.h>

namespace sluice {

// Fills the outputs of `call` as the contract promises, calls the plugin, and checks what it wrote.
// count [experts]: how many choices went to each expert. Fails with what the plugin reports, or
// with SLUICE_INTERNAL for an answer against the contract; both name router and layer, the second
// the row.
void call_host_function(const plugin_instance& router, const sluice_router_call& call,
                        int32_t* count);

} // namespace sluice
