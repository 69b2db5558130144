// The kinds of stages.
#pragma once

#include "engine/engine.hpp"
#include "pipeline/stage.hpp"
#include "plugin/plugin_host.hpp"

#include <memory>
#include <string>

namespace sluice {

// "generate": prompt (text, or token_ids) -> text, token_ids. The engine outlives the stage.
std::unique_ptr<stage> make_generate_stage(const stage_configuration& configured,
                                           const generation_configuration& defaults,
                                           engine& generator);

// "template": its setting `text` with {field} replaced by the input of that name -> text. "{{" and
// "}}" are braces.
std::unique_ptr<stage> make_template_stage(const stage_configuration& configured);

// Any other kind: the stage plugin with that id, under allow_draft.
std::unique_ptr<stage> make_plugin_stage(const stage_configuration& configured,
                                         plugin_host& plugins);

// Offers SLUICE_STAGE_HOST_EXTENSION, the draft through which stage plugins answer. To be called
// before the first plugin is created.
void offer_stage_host(host_services& services);

} // namespace sluice
