// Programs as older and newer runtimes would send them.
#include "backend_checks.hpp"
#include "tailed.hpp"

#include "program/operation_table.hpp"

namespace sluice::checker {
namespace {

// A copy of a program's structs whose parts can be replaced one by one.
class changed_program {
  public:
    explicit changed_program(const program& of) : program_(*of.view()) {
        values_.assign(program_.values, program_.values + program_.value_count);
        states_.assign(program_.states, program_.states + program_.state_count);
        for (uint32_t i = 0; i < program_.operation_count; ++i)
            operations_.push_back(*program_.operations[i]);
        for (const auto& operation : operations_) operation_pointers_.push_back(&operation);
        program_.values = values_.data();
        program_.states = states_.data();
        program_.operations = operation_pointers_.data();
    }
    changed_program(const changed_program&) = delete;
    changed_program& operator=(const changed_program&) = delete;

    const sluice_program* get() const { return &program_; }
    sluice_program& whole() { return program_; }
    std::vector<const sluice_value*>& values() { return values_; }
    std::vector<const sluice_state*>& states() { return states_; }
    std::vector<const sluice_operation*>& operations() { return operation_pointers_; }
    sluice_operation& operation(size_t number) { return operations_[number]; }

  private:
    sluice_program program_;
    std::vector<const sluice_value*> values_;
    std::vector<const sluice_state*> states_;
    std::vector<sluice_operation> operations_;
    std::vector<const sluice_operation*> operation_pointers_;
};

struct outcome {
    sluice_status status = SLUICE_OK;
    bool claimed = true;
    std::string message;
    // Refused as something that this backend does not know.
    bool unsupported() const {
        return SLUICE_STATUS_CLASS(status) == SLUICE_UNSUPPORTED
               || (status == SLUICE_OK && !claimed);
    }
};

outcome claim(plugin_instance& plugin, const sluice_program* sent, uint32_t operation) {
    auto verdict = SLUICE_INIT(sluice_claim);
    auto error = SLUICE_INIT(sluice_error);
    outcome found;
    found.status = plugin.backend().claim(plugin.handle(), sent, operation, &verdict, &error);
    found.claimed = verdict.accepted != 0;
    found.message = found.status == SLUICE_OK ? text_of_array(verdict.reason, sizeof verdict.reason)
                                              : text_of_array(error.message, sizeof error.message);
    return found;
}

// Compiles a changed program with the weights of the case that it came from.
class compiler {
  public:
    compiler(plugin_instance& plugin, const operation_case& given)
        : plugin_(plugin), objects_(plugin), weights_(given.made.values().size()),
          sizes_(bound_extents(given)) {
        for (const auto& [number, weight] : given.weights)
            weights_[number] =
                objects_.weight(weight.source(), given.made.value(number).weight_role);
    }

    outcome compile(const sluice_program* sent, bool unknown_option = false) {
        auto options = SLUICE_INIT(sluice_compile_options);
        const uint32_t* const bucket = sizes_.data();
        std::copy(sizes_.begin(), sizes_.end(), options.extent_max);
        options.bucket_count = 1;
        options.buckets = &bucket;
        const auto newer = with_unknown_field(options);
        auto error = SLUICE_INIT(sluice_error);
        sluice_executable* made = nullptr;
        outcome found;
        found.status = plugin_.backend().executable_create(plugin_.handle(), sent,
                                                           unknown_option ? newer.get() : &options,
                                                           weights_.data(), &made, &error);
        if (found.status == SLUICE_OK)
            plugin_.backend().executable_destroy(plugin_.handle(), made);
        else
            found.message = text_of_array(error.message, sizeof error.message);
        return found;
    }

  private:
    plugin_instance& plugin_;
    backend_objects objects_;
    std::vector<sluice_weight*> weights_;
    extent_sizes sizes_;
};

uint32_t operation_under_test(const operation_case& given, uint32_t kind) {
    const auto& operations = given.made.operations();
    for (uint32_t i = 0; i < operations.size(); ++i)
        if (operations[i].kind == kind) return i;
    return 0;
}

template <typename Attributes>
void check_attributes(plugin_instance& plugin, const operation_case& given, uint32_t operation,
                      const Attributes& attributes, compiler& compiling) {
    changed_program changed(given.made);
    const auto newer = with_unknown_field(attributes);
    changed.operation(operation).attributes = newer.get();
    require(claim(plugin, changed.get(), operation).unsupported(),
            "attributes with an unknown field that is not zero are claimed");
    require(compiling.compile(changed.get()).unsupported(),
            "attributes with an unknown field that is not zero are compiled, or refused with "
            "another status than 'unsupported'");
    const auto zero = with_zero_tail(attributes);
    changed.operation(operation).attributes = zero.get();
    const outcome claimed = claim(plugin, changed.get(), operation);
    require(claimed.status == SLUICE_OK && claimed.claimed,
            "attributes with a zero tail are not claimed: {}", claimed.message);
    const outcome compiled = compiling.compile(changed.get());
    require(compiled.status == SLUICE_OK, "attributes with a zero tail do not compile: {}",
            compiled.message);
    // Older writers: whatever the verdict, it has to come back.
    const auto oldest = cut_to(attributes, sizeof(uint32_t));
    changed.operation(operation).attributes = oldest.get();
    const outcome old = claim(plugin, changed.get(), operation);
    require(old.status == SLUICE_OK || !old.message.empty(),
            "attributes of 4 bytes are refused without a reason");
}

std::string operation_growth(context& with, const generator& of) {
    plugin_instance& plugin = with.plugin();
    const operation_case given = draw_case(with, of, {}, 2);
    if (const auto refused = first_refusal(plugin, given.made))
        skip_check("not claimed: {}", refused->reason);
    const uint32_t number = operation_under_test(given, of.kind);
    compiler compiling(plugin, given);
    const outcome plain = compiling.compile(given.made.view());
    require(plain.status == SLUICE_OK, "it does not compile at all: {}", plain.message);
    std::visit(
        [&]<typename Attributes>(const Attributes& attributes) {
            if constexpr (!std::is_same_v<Attributes, std::monostate>)
                check_attributes(plugin, given, number, attributes, compiling);
        },
        given.made.operations()[number].attributes);

    changed_program changed(given.made);
    const auto newer = with_unknown_field(*given.made.view()->operations[number]);
    changed.operations()[number] = newer.get();
    require(claim(plugin, changed.get(), number).unsupported()
                && compiling.compile(changed.get()).unsupported(),
            "an operation with an unknown field is not refused as unsupported");
    const auto zero = with_zero_tail(*given.made.view()->operations[number]);
    changed.operations()[number] = zero.get();
    const outcome compiled = compiling.compile(changed.get());
    require(compiled.status == SLUICE_OK, "an operation with a zero tail does not compile: {}",
            compiled.message);
    return {};
}

const generator& generator_of(uint32_t kind) {
    static const std::vector<generator> all = all_generators();
    for (const auto& each : all)
        if (each.kind == kind) return each;
    return all.front();
}

std::string program_growth(context& with) {
    plugin_instance& plugin = with.plugin();
    const operation_case given = draw_case(with, generator_of(SLUICE_OP_KV_WRITE), {}, 3);
    compiler compiling(plugin, given);
    const sluice_program& view = *given.made.view();
    const auto refused = [&](const changed_program& sent, const char* what) {
        require(compiling.compile(sent.get()).unsupported(),
                "{} with an unknown field is not refused as unsupported", what);
    };
    {
        changed_program changed(given.made);
        const auto newer = with_unknown_field(*view.values[0]);
        changed.values()[0] = newer.get();
        refused(changed, "a value");
    }
    {
        changed_program changed(given.made);
        const auto newer = with_unknown_field(*view.states[0]);
        changed.states()[0] = newer.get();
        refused(changed, "a state");
        auto error = SLUICE_INIT(sluice_error);
        uint64_t size = 0;
        require(SLUICE_STATUS_CLASS(plugin.backend().cache_block_bytes(
                    plugin.handle(), changed.get()->states, 1, 0, &size, &error))
                    == SLUICE_UNSUPPORTED,
                "cache_block_bytes does not refuse a state with an unknown field as unsupported");
    }
    const auto newer = with_unknown_field(view);
    require(compiling.compile(newer.get()).unsupported(),
            "a program with an unknown field is not refused as unsupported");
    require(compiling.compile(given.made.view(), true).unsupported(),
            "compile options with an unknown field are not refused as unsupported");
    return {};
}

std::string weight_growth(context& with) {
    plugin_instance& plugin = with.plugin();
    auto random = with.random("weight growth");
    const weight_case weight(random, weight_format_named("f32").format, 1, 8, 16, 1);
    const auto prepare = [&](const sluice_weight_source* source) {
        sluice_weight* made = nullptr;
        uint32_t needed = 0;
        const sluice_status status = plugin.backend().weight_prepare(
            plugin.handle(), source, SLUICE_ROLE_LINEAR, &made, &needed, nullptr);
        if (status == SLUICE_OK) plugin.backend().weight_destroy(plugin.handle(), made);
        return status;
    };
    sluice_weight_source source = *weight.source();
    const auto newer_source = with_unknown_field(source);
    require(SLUICE_STATUS_CLASS(prepare(newer_source.get())) == SLUICE_UNSUPPORTED,
            "a weight source with an unknown field is not refused as unsupported");
    const auto newer_format = with_unknown_field(*source.format);
    source.format = newer_format.get();
    require(SLUICE_STATUS_CLASS(prepare(&source)) == SLUICE_UNSUPPORTED,
            "a weight format with an unknown field is not refused as unsupported");
    const auto zero_format = with_zero_tail(*weight.source()->format);
    source.format = zero_format.get();
    require(prepare(&source) == SLUICE_OK, "a weight format with a zero tail is refused");
    const auto older_format =
        cut_to(*weight.source()->format, offsetof(sluice_weight_format, zero_point));
    source.format = older_format.get();
    require(prepare(&source) == SLUICE_OK, "a weight format without its last fields is refused");
    source.format = weight.source()->format;

    const auto newer_slice = with_unknown_field(*source.slices[0]);
    const sluice_weight_slice* slice = newer_slice.get();
    source.slices = &slice;
    require(SLUICE_STATUS_CLASS(prepare(&source)) == SLUICE_UNSUPPORTED,
            "a weight slice with an unknown field is not refused as unsupported");

    sluice_weight_format unknown = *weight.source()->format;
    unknown.element_type = 999;
    source = *weight.source();
    source.format = &unknown;
    const sluice_status status = prepare(&source);
    require(SLUICE_STATUS_CLASS(status) == SLUICE_UNSUPPORTED
                || SLUICE_STATUS_CLASS(status) == SLUICE_INVALID,
            "an unknown element type is not refused");
    return {};
}

std::string batch_growth(context& with) {
    plugin_instance& plugin = with.plugin();
    const operation_case given = draw_case(with, generator_of(SLUICE_OP_RMS_NORM), {}, 4);
    case_runner runner(plugin, given);
    const batch_storage batch(given.steps[0]);
    const auto plan = [&](const sluice_batch* sent) {
        return plugin.backend().plan(runner.bound(), sent, nullptr);
    };
    const auto newer = with_unknown_field(*batch.get());
    require(SLUICE_STATUS_CLASS(plan(newer.get())) == SLUICE_UNSUPPORTED,
            "a batch with an unknown field is not refused as unsupported");
    const auto zero = with_zero_tail(*batch.get());
    require(plan(zero.get()) == SLUICE_OK, "a batch with a zero tail is refused");
    const auto older = cut_to(*batch.get(), offsetof(sluice_batch, adapter_index));
    require(plan(older.get()) == SLUICE_OK, "a batch without its last field is refused");
    require(plan(nullptr) != SLUICE_OK, "a batch that is NULL is accepted");
    return {};
}

std::string unknown_refused(context& with) {
    plugin_instance& plugin = with.plugin();
    const operation_case given = draw_case(with, generator_of(SLUICE_OP_LINEAR), {}, 2);
    compiler compiling(plugin, given);
    changed_program changed(given.made);
    changed.operation(0).kind = 999;
    require(claim(plugin, changed.get(), 0).unsupported(), "an unknown operation is claimed");
    require(compiling.compile(changed.get()).unsupported(),
            "an unknown operation is not refused as unsupported");
    const outcome beyond = claim(plugin, given.made.view(), 77);
    require(beyond.status != SLUICE_OK || !beyond.claimed,
            "an operation beyond the program's end is claimed");

    const operation_case route = draw_case(with, generator_of(SLUICE_OP_ROUTE), {}, 2);
    auto routing = std::get<sluice_routing_specification>(route.made.operations()[0].attributes);
    routing.choice_count = routing.expert_count + 1;
    changed_program impossible(route.made);
    impossible.operation(0).attributes = &routing;
    const outcome claimed = claim(plugin, impossible.get(), 0);
    require(claimed.status != SLUICE_OK || !claimed.claimed,
            "a route of more choices than experts is claimed");
    return {};
}

} // namespace

std::vector<check> growth_checks() {
    std::vector<check> checks{{"backend: unknown operations", unknown_refused},
                              {"backend: growth of programs", program_growth},
                              {"backend: growth of weights", weight_growth},
                              {"backend: growth of batches", batch_growth}};
    for (const auto& of : all_generators())
        checks.push_back({fmt::format("backend: growth of {}", of.name),
                          [of](context& with) { return operation_growth(with, of); }});
    return checks;
}

} // namespace sluice::checker
