#include "plugin/host_function.hpp"

#include "base/error.hpp"
#include "base/text.hpp"

#include <algorithm>
#include <cmath>

namespace sluice {

namespace {

[[noreturn]] void refuse_row(const plugin_instance& router, const sluice_router_call& call,
                             size_t row, const std::string& what) {
    fail(SLUICE_INTERNAL, "router {}, layer {}, row {}: {}; the plugin is wrong",
         quote(router.id()), call.layer, row, what);
}

void check_row(const plugin_instance& router, const sluice_router_call& call, size_t row) {
    const int32_t* index = call.index + row * call.choice_count;
    const float* weight = call.weight + row * call.choice_count;
    for (uint32_t j = 0; j < call.choice_count; ++j) {
        const bool chosen = index[j] != -1;
        if (index[j] < -1 || index[j] >= int32_t(call.expert_count)) {
            refuse_row(router, call, row,
                       fmt::format("choice {} is expert {}, expected 0 to {}, or -1 for none", j,
                                   index[j], call.expert_count - 1));
        }
        if (chosen && call.position[row] < 0) {
            refuse_row(router, call, row,
                       fmt::format("it is padding, but goes to expert {}", index[j]));
        }
        if (chosen && std::find(index, index + j, index[j]) != index + j) {
            refuse_row(router, call, row, fmt::format("it goes to expert {} twice", index[j]));
        }
        if (!std::isfinite(weight[j])) {
            refuse_row(router, call, row,
                       fmt::format("choice {} (expert {}) has the weight {}, expected a finite one",
                                   j, index[j], weight[j]));
        }
        if (!chosen && weight[j] != 0) {
            refuse_row(
                router, call, row,
                fmt::format("choice {} goes to no expert, but has the weight {}", j, weight[j]));
        }
    }
}

} // namespace

void call_host_function(const plugin_instance& router, const sluice_router_call& call,
                        int32_t* count) {
    const size_t choices = size_t(call.row_count) * call.choice_count;
    std::fill_n(call.index, choices, -1);
    std::fill_n(call.weight, choices, 0.0f);
    *call.dropped = 0;
    auto failure = SLUICE_INIT(sluice_error);
    const sluice_status status = router.router().route(router.handle(), &call, &failure);
    if (status != SLUICE_OK) {
        const std::string message = text_of_array(failure.message, sizeof failure.message);
        fail(status_known(status), "router {}, layer {}: {}", quote(router.id()), call.layer,
             message.empty() ? "its host function failed without a message" : message);
    }
    std::fill_n(count, call.expert_count, 0);
    for (size_t row = 0; row < call.row_count; ++row) {
        check_row(router, call, row);
        for (size_t at = row * call.choice_count; at < (row + 1) * call.choice_count; ++at) {
            if (call.index[at] >= 0) ++count[call.index[at]];
        }
    }
    if (*call.dropped < 0) {
        fail(SLUICE_INTERNAL, "router {}, layer {}: {} choices were dropped; the plugin is wrong",
             quote(router.id()), call.layer, *call.dropped);
    }
}

} // namespace sluice
