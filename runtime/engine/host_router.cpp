#include "engine/host_router.hpp"

#include "base/element_type.hpp"
#include "base/error.hpp"
#include "plugin/host_function.hpp"

#include <sluice/plugin/host_backend.hpp>

#include <chrono>
#include <mutex>

namespace sluice {

namespace {

// What the instance is told once it is there.
struct host_routing {
    std::shared_ptr<const plugin_instance> router;
    std::map<std::string, uint32_t> layers; // by operation name
    std::mutex one_call;                    // the function's tag says thread: owner

    void route(const sluice_router_call& call, int32_t* count) {
        const std::lock_guard lock(one_call);
        try {
            call_host_function(*router, call, count);
        } catch (const error& caught) {
            throw plugin::failure(caught.status(), caught.what());
        }
    }
};

// Choice bias and scales of a router.
struct float_vector final : sluice_weight {
    std::vector<float> values;

    explicit float_vector(const sluice_weight_source& source) {
        const sluice_weight_format& format = *source.format;
        if (source.column_count != 1 || format.layout != SLUICE_WEIGHT_ROW_MAJOR
            || format.scale_type != SLUICE_ELEMENT_UNKNOWN)
            plugin::fail(SLUICE_UNSUPPORTED, "weight '", plugin::view(source.name),
                         "': a router's vectors must be plain floats");
        const size_t element_bytes = element_bits(format.element_type) / 8;
        for (uint64_t s = 0; s < source.slice_count; ++s) {
            const auto slice = plugin::read(source.slices[s], "sluice_weight_slice");
            const auto data = plugin::read(slice.parts[SLUICE_PART_DATA], "sluice_tensor");
            const int64_t step = std::max<int64_t>(slice.row_step, 1);
            for (int64_t row = 0; row < source.slice_rows[s]; ++row) {
                const auto at = size_t(slice.row_begin + row * step);
                convert_to_f32(format.element_type,
                               static_cast<const std::byte*>(data.data) + at * element_bytes,
                               &values.emplace_back(), 1);
            }
        }
    }
    std::string describe() const override { return "f32"; }
};

// Operands and results of a route, as operations.h orders them.
enum operand : size_t { logits, choice_bias, per_expert_scale, position, token_ids, table };
enum result : size_t { index, weight, count, dropped };

uint32_t number_at(const std::vector<uint32_t>& numbers, size_t at) {
    return at < numbers.size() ? numbers[at] : SLUICE_VALUE_NONE;
}

class host_routes final : public plugin::host_values {
  public:
    host_routes(const plugin::host& owner, const plugin::program& p, const plugin::extents& sizes,
                sluice_cache* cache, std::span<const sluice_binding> bindings,
                std::span<sluice_weight* const> weights, host_routing& routing)
        : host_values(owner, p, sizes, cache, bindings), weights_(weights), routing_(routing),
          seconds_(p.operations.size()) {}

    void submit(sluice_queue&, std::span<sluice_event* const> waits, sluice_event* done) override {
        require_planned();
        for (sluice_event* event : waits) event->wait();
        for (const plugin::operation& operation : source().operations) {
            const auto start = std::chrono::steady_clock::now();
            route(operation);
            seconds_[operation.number] =
                std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        }
        if (done == nullptr) return;
        static_cast<plugin::host_event*>(done)->begin();
        static_cast<plugin::host_event*>(done)->end(SLUICE_OK, "");
    }

    void profile(std::span<double> seconds) const override {
        std::copy_n(seconds_.begin(), std::min(seconds.size(), seconds_.size()), seconds.begin());
    }

  private:
    void route(const plugin::operation& operation) {
        const auto& sizes = std::get<sluice_routing_specification>(operation.attributes);
        const auto in = [&](size_t at) { return number_at(operation.inputs, at); };
        auto call = SLUICE_INIT(sluice_router_call);
        call.layer = routing_.layers.at(operation.name);
        call.row_count = uint32_t(at(in(logits)).shape[0]);
        call.expert_count = sizes.expert_count;
        call.choice_count = sizes.choice_count;
        call.logits = data<float>(in(logits));
        call.position = data<int32_t>(in(position));
        call.token_ids = data<int32_t>(in(token_ids));
        call.choice_bias = data<float>(in(choice_bias));
        call.per_expert_scale = data<float>(in(per_expert_scale));
        call.table = data<int32_t>(in(table));
        if (call.table != nullptr) call.table_row_count = uint32_t(at(in(table)).shape[0]);
        call.index = data<int32_t>(operation.outputs[index]);
        call.weight = data<float>(operation.outputs[weight]);
        call.dropped = data<int32_t>(operation.outputs[dropped]);
        routing_.route(call, data<int32_t>(operation.outputs[count]));
    }

    template <typename Element>
    Element* data(uint32_t number) const {
        if (number == SLUICE_VALUE_NONE) return nullptr;
        if constexpr (std::is_same_v<Element, float>) {
            if (weights_[number] != nullptr)
                return static_cast<float_vector*>(weights_[number])->values.data();
        }
        return at(number).as<Element>();
    }

    std::span<sluice_weight* const> weights_; // [values]
    host_routing& routing_;
    std::vector<double> seconds_; // of each operation, in the last run
};

class host_executable final : public sluice_executable {
  public:
    host_executable(const plugin::host& owner, const sluice_program& source,
                    std::span<sluice_weight* const> weights, host_routing& routing)
        : owner_(owner), program_(&source), weights_(weights.begin(), weights.end()),
          routing_(routing) {}

    std::unique_ptr<sluice_bound> bind(const plugin::extents& sizes, sluice_cache* cache,
                                       std::span<const sluice_binding> bindings) override {
        return std::make_unique<host_routes>(owner_, program_, sizes, cache, bindings, weights_,
                                             routing_);
    }

  private:
    plugin::host owner_;
    plugin::program program_;
    std::vector<sluice_weight*> weights_;
    host_routing& routing_;
};

class host_router final : public plugin::host_backend {
  public:
    static const plugin::definition& define() {
        static const plugin::definition made{.id = "host",
                                             .kind = SLUICE_KIND_BACKEND,
                                             .version = SLUICE_VERSION,
                                             .summary = "Runs a router's host function",
                                             .extensions = {SLUICE_BACKEND_EXTENSION}};
        return made;
    }
    static const void* extension(std::string_view id) {
        return id == SLUICE_BACKEND_EXTENSION ? plugin::backend_table<host_router>() : nullptr;
    }

    host_router(plugin::host owner, const plugin::settings&) : host_backend(owner) {}
    void connect(std::shared_ptr<const plugin_instance> router,
                 std::map<std::string, uint32_t> layers) {
        routing_.router = std::move(router);
        routing_.layers = std::move(layers);
    }

    void properties(sluice_backend_properties& found) const override {
        plugin::copy_text(found.device_name, "the step's own thread");
        found.activation_types = (1u << SLUICE_F32) | (1u << SLUICE_F16) | (1u << SLUICE_BF16);
    }
    std::string claim(const sluice_program&, const plugin::operation& which,
                      std::string&) const override {
        if ((which.flags & SLUICE_OPERATION_HOST_FUNCTION) == 0 || which.outputs.size() != 4)
            plugin::fail(SLUICE_UNSUPPORTED, "only host functions of routers run here");
        return "function of router " + routing_.router->id();
    }
    uint64_t weight_size(const sluice_weight_source& source, uint32_t) const override {
        return uint64_t(source.row_count) * sizeof(float);
    }
    std::unique_ptr<sluice_weight> weight_prepare(const sluice_weight_source& source, uint32_t,
                                                  bool&) override {
        return std::make_unique<float_vector>(source);
    }
    std::unique_ptr<sluice_executable>
    executable_create(const sluice_program& program, const sluice_compile_options&,
                      std::span<sluice_weight* const> weights) override {
        return std::make_unique<host_executable>(owner(), program, weights, routing_);
    }

  private:
    host_routing routing_;
};

} // namespace

std::shared_ptr<plugin_instance> open_host_router(plugin_host& plugins,
                                                  std::shared_ptr<const plugin_instance> router,
                                                  std::map<std::string, uint32_t> layers) {
    return plugins.open_built_in(
        *plugin::detail::library<host_router>(), [&](sluice_plugin* created) {
            plugin::instance<host_router>(created).connect(std::move(router), std::move(layers));
        });
}

} // namespace sluice
