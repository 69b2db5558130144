// Routing as the families of models do it, by name.
#pragma once

#include <sluice/plugin/router.hpp>

#include <string_view>
#include <vector>

namespace sluice::routers {

// The names that `preset` accepts, "model" first.
std::vector<std::string_view> preset_names();

// The specification that the settings start from. A preset fixes how scores become weights; the
// numbers that differ between checkpoints of a family (experts, choices, groups, scale) stay the
// model's own where it gives them. What a family's formula does not have, such as the bias of
// choices, is ignored where the checkpoint has it.
plugin::router_answer preset(std::string_view name, const plugin::router_request& request);

} // namespace sluice::routers
