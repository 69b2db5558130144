// What tells one model from another in the keys of caches.
#pragma once

#include "model/checkpoint.hpp"

#include <string>
#include <string_view>

namespace sluice {

// SHA-256, as hexadecimal digits, over config.json, `computation` (everything else that the results
// depend on), and of each weight file its name, size, time of change and pages sampled all over it.
// Reading every byte of a large checkpoint would cost more time than loading it; a file that is
// changed in place is still seen by its time of change.
std::string model_fingerprint(const checkpoint& weights, std::string_view computation);

} // namespace sluice
