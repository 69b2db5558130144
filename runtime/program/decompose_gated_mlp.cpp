#include "program/expansion.hpp"

namespace sluice {

std::vector<value_number> expand_gated_mlp(expansion& composite) {
    program_builder& build = composite.build;
    const value_number x = composite.in(0);
    const sluice_element_type type = composite.type_in(0);
    const value_number gate =
        build.linear(composite.name("gate"), x, composite.in(1), value_none, type);
    const value_number up =
        composite.has(2) ? build.linear(composite.name("up"), x, composite.in(2), value_none, type)
                         : value_none;
    const value_number activated =
        build.gated_activation(composite.name("activated"), gate, up,
                               composite.attributes<sluice_activation_attributes>());
    return {build.linear(composite.name("down"), activated, composite.in(3), value_none,
                         composite.type_out(0))};
}

} // namespace sluice
