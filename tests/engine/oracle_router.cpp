// A router of the tests alone: the model's own routing by the checker's oracle, as a host function,
// with faults to order.
#include "abi/checker/routing_oracle.hpp"

#include <sluice/plugin/router.hpp>

#include <limits>
#include <map>
#include <mutex>

namespace {

namespace plugin = sluice::plugin;
namespace checker = sluice::checker;

class oracle_router {
  public:
    static const plugin::definition& define() {
        static const plugin::definition made{
            .id = "oracle",
            .kind = SLUICE_KIND_ROUTER,
            .version = "0.1.0",
            .summary = "The model's own routing as a host function, with faults to order",
            .settings =
                plugin::schema()
                    .text("fault", "What it does wrong, in layer 1.", "none",
                          {"none", "out_of_range", "twice", "not_a_number", "weightless", "dropped",
                           "error", "exception"})
                    .boolean("every_layer", "Whether layer 0 is a host function, too.", true)
                    .integer("top_k", "Experts a token goes to; 0: the model's.", 0, 0, 64),
            .extensions = {SLUICE_ROUTER_EXTENSION}};
        return made;
    }
    static const void* extension(std::string_view id) {
        if (id != SLUICE_ROUTER_EXTENSION) return nullptr;
        return plugin::router_table<oracle_router>();
    }

    oracle_router(plugin::host host, const plugin::settings& settings)
        : host_(host), fault_(settings.text("fault")),
          every_layer_(settings.boolean("every_layer")),
          top_k_(static_cast<uint32_t>(settings.integer("top_k"))) {}

    plugin::router_answer describe(const plugin::router_request& request) {
        if (!request.has_model) plugin::fail(SLUICE_INVALID, "there is no routing to follow");
        plugin::check_specification(request.model);
        if (!every_layer_ && request.layer == 0) return request.model;
        sluice_routing_specification routing = request.model;
        if (top_k_ != 0) routing.choice_count = top_k_;
        const std::lock_guard lock(mutex_);
        routing_[request.layer] = routing;
        return plugin::host_function{top_k_, routing};
    }

    void route(const plugin::router_call& call) {
        checker::routing_inputs inputs;
        inputs.logits = call.logits;
        inputs.choice_bias = call.choice_bias;
        inputs.per_expert_scale = call.per_expert_scale;
        inputs.position = call.position;
        inputs.token_ids = call.token_ids;
        inputs.table = call.table;
        checker::routing_outputs found;
        // On the team, as a large router would be.
        host_.run([&](const plugin::worker& self) {
            if (self.index == 0) found = checker::route_directly(routing_of(call.layer), inputs);
        });
        std::copy(found.index.begin(), found.index.end(), call.index.begin());
        std::copy(found.weight.begin(), found.weight.end(), call.weight.begin());
        call.dropped = found.dropped;
        if (call.layer == 1 && call.row_count > 2) spoil(call);
    }

  private:
    const sluice_routing_specification& routing_of(uint32_t layer) {
        const std::lock_guard lock(mutex_);
        return routing_.at(layer);
    }

    void spoil(const plugin::router_call& call) const {
        constexpr size_t row = 2;
        if (fault_ == "out_of_range")
            call.index_of(row)[1] = static_cast<int32_t>(call.expert_count);
        if (fault_ == "twice") call.index_of(row)[1] = call.index_of(row)[0];
        if (fault_ == "not_a_number")
            call.weight_of(row)[0] = std::numeric_limits<float>::quiet_NaN();
        if (fault_ == "weightless") call.index_of(row)[1] = -1;
        if (fault_ == "dropped") call.dropped = -1;
        if (fault_ == "error") plugin::fail(SLUICE_UNAVAILABLE, "the service is gone");
        if (fault_ == "exception") throw 7;
    }

    plugin::host host_;
    std::string fault_;
    bool every_layer_;
    uint32_t top_k_;
    std::mutex mutex_;
    std::map<uint32_t, sluice_routing_specification> routing_; // by layer
};

} // namespace

SLUICE_PLUGIN(oracle_router)
