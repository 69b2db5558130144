#include "engine/claim.hpp"

namespace sluice {

sluice_claim ask_claim(const plugin_instance& backend, const program& asked, uint32_t operation) {
    auto verdict = SLUICE_INIT(sluice_claim);
    plugin_call call = backend.call("claim");
    call =
        backend.backend().claim(backend.handle(), asked.view(), operation, &verdict, call.error());
    return verdict;
}

} // namespace sluice
