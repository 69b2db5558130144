// Routers' answers put into programs.
#pragma once

#include "program/builder.hpp"
#include "program/program.hpp"

#include <optional>

namespace sluice {

// Routing by the plugin's own function, in each step.
struct host_function_answer {
    uint32_t choice_count = 0;
    // What the plugin says that it computes; for the checker.
    std::optional<sluice_routing_specification> computes;
};

// A router's answer, owned: exactly one of specification, sub-program and host function.
struct router_answer {
    std::optional<sluice_routing_specification> specification;
    std::optional<program> subprogram;
    uint32_t ignored_inputs = 0; // SLUICE_ROUTER_INPUT_*, of the other two forms
    std::optional<host_function_answer> host_function = std::nullopt;

    // Whether routing reads the checkpoint's choice bias where there is one.
    bool takes_choice_bias() const {
        return subprogram ? subprogram->find("choice_bias").has_value()
                          : (ignored_inputs & SLUICE_ROUTER_INPUT_CHOICE_BIAS) == 0;
    }
    bool takes_token_ids() const {
        return subprogram ? subprogram->find("token_ids").has_value() : host_function.has_value();
    }
};

// Takes in a plugin's answer to the request. Checks the specification's ranges, or the sub-program
// and its inputs and outputs, or the host function's choices against the request. `origin` begins
// every message.
router_answer import_router_answer(const sluice_router_request& request,
                                   const sluice_router_answer& answer, std::string_view origin);

// Fails with SLUICE_INVALID naming the field that is out of range.
void check_routing_specification(const sluice_routing_specification& specification,
                                 std::string_view origin);

// Puts the router in: one operation `route`, for a host function with that flag, or the
// sub-program's operations under `name`/.
route_results add_router(program_builder& builder, const std::string& name,
                         const route_operands& operands, const router_answer& answer);

// The program with operation number `operation` (a route) answered otherwise. Values keep their
// numbers.
program replace_router(const program& source, uint32_t operation, const router_answer& answer);

} // namespace sluice
