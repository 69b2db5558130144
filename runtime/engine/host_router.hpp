// The backend that runs routers' host functions within a step: a part of the runtime that keeps the
// rules of all backends, so that placement, crossings, profile and checked mode hold for it too.
//
// It runs routes with SLUICE_OPERATION_HOST_FUNCTION and nothing else, on the thread that submits:
// there is nothing to do meanwhile, and the function may use the worker team.
#pragma once

#include "plugin/plugin_host.hpp"

#include <cstdint>
#include <map>
#include <memory>
#include <string>

namespace sluice {

// The backend "host". layers: by the names of the operations.
std::shared_ptr<plugin_instance> open_host_router(plugin_host& plugins,
                                                  std::shared_ptr<const plugin_instance> router,
                                                  std::map<std::string, uint32_t> layers);

} // namespace sluice
