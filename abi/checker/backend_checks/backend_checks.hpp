// The checks of backends, by what they look at.
#pragma once

#include "generators.hpp"

#include "checks.hpp"

namespace sluice::checker {

struct case_kind {
    sluice_element_type type = SLUICE_F32; // of activations
    std::string_view format = "f32";       // of weights, in weight_formats()
};

sluice_backend_properties properties_of(plugin_instance& plugin);
// Whether values of programs may have the type.
bool has_activations(plugin_instance& plugin, sluice_element_type type);
// Whether the backend keeps caches of the type that the generator's cases have.
bool has_cache_of(plugin_instance& plugin, const generator& of);

// The same case for the same number, whatever was drawn before.
operation_case draw_case(context& with, const generator& of, const case_kind& kind,
                         uint32_t number);

std::vector<check> operation_checks(); // what every operation computes
std::vector<check> behaviour_checks(); // caches, queues, errors, repeatability
std::vector<check> growth_checks();    // structs of older and newer writers

} // namespace sluice::checker
