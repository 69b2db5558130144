#include "step.hpp"

#include "plain/step.hpp"

namespace sluice::onednn {

namespace {

// What has nothing faster here: the plain kernel, shared by units. A reshape that shares its
// operand's memory has no work.
class plain_step final : public step {
  public:
    plain_step(bound& owner, const plugin::operation& operation)
        : tensors_([&owner](uint32_t number) -> const plugin::tensor& { return owner.at(number); }),
          step_(owner.source(), operation, owner.source().states.empty() ? nullptr : &owner.cache(),
                tensors_, owner.compiled().decoded()) {}

    void planned() override { step_.resize(tensors_); }
    void run(const plugin::worker& self) override { step_.run(self); }

  private:
    plain::step::tensor_of tensors_;
    plain::step step_;
};

enum class family { dense, rows, attention, experts, sample, gram, plain };

family family_of(const plugin::operation& operation, const value_reader& values,
                 const state_reader& states, claimed& verdict) {
    if (claims_dense(operation, values, verdict)) return family::dense;
    if (claims_rows(operation, values, states, verdict)) return family::rows;
    if (claims_attention(operation, values, states, verdict)) return family::attention;
    if (claims_experts(operation, values, verdict)) return family::experts;
    if (claims_sample(operation, values, verdict)) return family::sample;
    if (claims_gram(operation, values, verdict)) return family::gram;
    plain::require_kernel(operation);
    verdict.kernel = std::string(plugin::operation_name(operation.kind)) + ", plain";
    return family::plain;
}

// The plain kernels read a weight decoded; packed roles alone do not keep it so.
void check_plain_weights(const plugin::operation& operation, const value_reader& values) {
    constexpr uint32_t decoded_roles = SLUICE_ROLE_VECTOR | SLUICE_ROLE_TENSOR;
    for (const uint32_t number : operation.inputs) {
        if (number == SLUICE_VALUE_NONE) continue;
        const auto& v = values(number);
        if (v.kind == SLUICE_VALUE_WEIGHT && (v.weight_role & decoded_roles) == 0)
            plugin::fail(SLUICE_UNSUPPORTED, plugin::operation_name(operation.kind),
                         " reads weight '", v.name, "' element by element, so its role must have ",
                         "TENSOR");
    }
}

} // namespace

claimed claim(const sluice_program& program, const plugin::operation& operation) {
    claimed verdict;
    const value_reader values = [&](uint32_t number) {
        return plugin::read_value(program, number);
    };
    const state_reader states = [&](uint32_t number) {
        return plugin::read(program.states[number], "sluice_state");
    };
    if (family_of(operation, values, states, verdict) == family::plain)
        check_plain_weights(operation, values);
    return verdict;
}

bool rounds_rows(const plugin::operation& operation, const value_reader& values,
                 const kernel_choice& kernels) {
    switch (operation.kind) {
    case SLUICE_OP_LINEAR:
    case SLUICE_OP_GATED_MLP:
    case SLUICE_OP_GROUPED_LINEAR:
    case SLUICE_OP_MOE_FFN:
    case SLUICE_OP_MLA_ATTENTION:
        break;
    default:
        return false;
    }
    const auto type = values(operation.inputs[0]).type;
    if (!is_fast_type(type) || !kernels.quantizes(type)) return false;
    for (const uint32_t number : operation.inputs) {
        if (number == SLUICE_VALUE_NONE) continue;
        const auto& v = values(number);
        if (v.weight_format && keeps_codes(*v.weight_format)) return true;
    }
    return false;
}

std::unique_ptr<step> make_step(bound& owner, const plugin::operation& operation) {
    claimed verdict;
    const value_reader values = [&](uint32_t number) { return owner.source().values[number]; };
    const state_reader states = [&](uint32_t number) { return owner.source().states[number]; };
    switch (family_of(operation, values, states, verdict)) {
    case family::dense:
        return make_dense(owner, operation);
    case family::rows:
        return make_rows(owner, operation);
    case family::attention:
        return make_attention(owner, operation);
    case family::experts:
        return operation.kind == SLUICE_OP_ROUTE ? make_route(owner, operation)
                                                 : make_moe_ffn(owner, operation);
    case family::sample:
        return make_sample(owner, operation);
    case family::gram:
        return make_gram(owner, operation);
    default:
        return std::make_unique<plain_step>(owner, operation);
    }
}

} // namespace sluice::onednn
