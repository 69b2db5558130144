// The checked mode of routers: the table wrapped so that a call of the host function that breaks
// its tag line ends in an error that names the rule.
#pragma once

#include "plugin/host_services.hpp"

#include <sluice/abi/router.h>

#include <memory>

namespace sluice {

class checked_router {
  public:
    // `router` and `host` outlive it; `plugin` is the instance that the functions are called with.
    checked_router(const sluice_router& router, sluice_plugin* plugin, host_table& host);
    ~checked_router();
    checked_router(const checked_router&) = delete;
    checked_router& operator=(const checked_router&) = delete;

    // Functions to be called with handle().
    const sluice_router& table() const;
    sluice_plugin* handle();

    struct state;

  private:
    std::unique_ptr<state> state_;
};

} // namespace sluice
