// A router in one file, as a host function: softmax over the experts at a temperature, the best
// choices, weights that sum to 1. At temperature 1 it routes as Mixtral and Qwen3-MoE do.
//
//     router = "temperature"
//     [settings.temperature]
//     temperature = 0.7
#include <sluice/plugin/router.hpp>

#include <numeric>
#include <vector>

namespace {

namespace plugin = sluice::plugin;

class temperature_router {
  public:
    static const plugin::definition& define() {
        static const plugin::definition made{
            .id = "temperature",
            .kind = SLUICE_KIND_ROUTER,
            .version = "0.1.0",
            .summary = "Softmax over the experts at a temperature, the best of them renormalised",
            .settings = plugin::schema().number(
                "temperature", "Divides the logits: under 1 sharpens, over 1 evens out.", 1.0, 0.01,
                100.0),
            .extensions = {SLUICE_ROUTER_EXTENSION}};
        return made;
    }
    static const void* extension(std::string_view id) {
        return id == SLUICE_ROUTER_EXTENSION ? plugin::router_table<temperature_router>() : nullptr;
    }

    temperature_router(plugin::host, const plugin::settings& settings)
        : temperature_(static_cast<float>(settings.number("temperature"))) {}

    // Asked once for each layer: as many choices as the model makes, and nothing but logits. What
    // `route` computes at temperature 1 has a name, which lets sluice-plugin-check hold it to that.
    plugin::router_answer describe(const plugin::router_request& request) const {
        plugin::host_function answer;
        if (temperature_ == 1.0F) {
            auto mixtral = SLUICE_INIT(sluice_routing_specification);
            mixtral.expert_count = request.expert_count;
            mixtral.choice_count = request.choice_count;
            mixtral.renormalize = SLUICE_RENORMALIZE_ADD;
            mixtral.scale = 1;
            plugin::check_specification(mixtral);
            answer.computes = mixtral;
        }
        return {answer, SLUICE_ROUTER_INPUTS_ALL};
    }

    // Called for each layer of each step.
    void route(const plugin::router_call& call) {
        order_.resize(call.expert_count);
        for (size_t row = 0; row < call.row_count; ++row)
            if (!call.is_padding(row))
                route_row(call.logits_of(row), call.index_of(row), call.weight_of(row));
    }

  private:
    void route_row(std::span<const float> logits, std::span<int32_t> index,
                   std::span<float> weight) {
        std::iota(order_.begin(), order_.end(), 0);
        const auto better = [&](int32_t a, int32_t b) {
            return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
        };
        std::partial_sort(order_.begin(), order_.begin() + std::ssize(index), order_.end(), better);
        float sum = 0;
        for (size_t j = 0; j < index.size(); ++j) {
            index[j] = order_[j];
            weight[j] = std::exp((logits[order_[j]] - logits[order_[0]]) / temperature_);
            sum += weight[j];
        }
        for (float& each : weight) each /= sum;
    }

    float temperature_;
    std::vector<int32_t> order_; // kept from call to call: one thread at a time
};

} // namespace

SLUICE_PLUGIN(temperature_router)
