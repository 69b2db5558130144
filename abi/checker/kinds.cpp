#include "checks.hpp"

namespace sluice::checker {

std::vector<check> checks_of_kind(std::string_view kind) {
    if (kind == SLUICE_KIND_ROUTER) return router_checks();
    if (kind == SLUICE_KIND_QUANTIZER) return quantizer_checks();
    if (kind == SLUICE_KIND_RESULT_CACHE) return result_cache_checks();
    if (kind == SLUICE_KIND_BLOCK_STORE) return block_store_checks();
    if (kind == SLUICE_KIND_BACKEND) return backend_checks();
    return {};
}

} // namespace sluice::checker
