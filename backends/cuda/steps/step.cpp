#include "step.hpp"

namespace sluice::cuda {

namespace {

using claim_function = std::string (*)(const plugin::operation&, const value_reader&);
using make_function = std::unique_ptr<step> (*)(bound&, const plugin::operation&);

struct family {
    claim_function claim;
    make_function make;
};
constexpr family families[] = {
    {claim_dense, make_dense},     {claim_rows, make_rows},     {claim_attention, make_attention},
    {claim_experts, make_experts}, {claim_sample, make_sample}, {claim_primitive, make_primitive}};

// The first family that has a step for the operation.
const family& family_of(const plugin::operation& operation, const value_reader& values,
                        std::string& kernel) {
    for (const auto& each : families) {
        kernel = each.claim(operation, values);
        if (!kernel.empty()) return each;
    }
    plugin::fail(SLUICE_UNSUPPORTED, plugin::operation_name(operation.kind),
                 " has no kernel in this backend");
}

} // namespace

std::string claim(const sluice_program& program, const plugin::operation& operation, std::string&) {
    const value_reader values = [&](uint32_t number) {
        return plugin::read_value(program, number);
    };
    std::string kernel;
    family_of(operation, values, kernel);
    return kernel;
}

std::unique_ptr<step> make_step(bound& owner, const plugin::operation& operation) {
    const value_reader values = [&](uint32_t number) { return owner.source().values[number]; };
    std::string kernel;
    return family_of(operation, values, kernel).make(owner, operation);
}

} // namespace sluice::cuda
