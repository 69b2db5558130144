// The checked mode: a backend's table of functions wrapped so that a breach of the contract's rules
// of state, thread and lifetime, by the runtime or by the plugin, ends in an error that names the
// rule. Costs a lock and a look-up a call; meant for tests, the checker and the search for defects.
#pragma once

#include "plugin/host_services.hpp"

#include <sluice/abi/backend.h>

#include <memory>

namespace sluice {

class checked_backend {
  public:
    // `backend` and `host` outlive it; `plugin` is the instance that the functions are called with.
    checked_backend(const sluice_backend& backend, sluice_plugin* plugin, host_table& host);
    ~checked_backend();
    checked_backend(const checked_backend&) = delete;
    checked_backend& operator=(const checked_backend&) = delete;

    // Functions to be called with handle(); every object they give is a wrapping, too, and may be
    // handed to no other table.
    const sluice_backend& table() const;
    sluice_plugin* handle();

    // Notes a breach for every object that was not destroyed before the instance.
    void check_all_destroyed();

    struct state;

  private:
    std::unique_ptr<state> state_;
};

} // namespace sluice
