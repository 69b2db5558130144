// Asking a backend whether and how it would run an operation.
#pragma once

#include "plugin/plugin_host.hpp"
#include "program/program.hpp"

#include <cstdint>

namespace sluice {

// Safe from any thread. Fails with the plugin's error.
sluice_claim ask_claim(const plugin_instance& backend, const program& asked, uint32_t operation);

} // namespace sluice
