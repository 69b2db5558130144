#include "schedule.hpp"

#include "kernels/product_few.hpp"

namespace sluice::cuda {

namespace {

// Who writes and who reads each value.
class uses {
  public:
    explicit uses(const plugin::program& program)
        : program_(program), writer_(program.values.size(), nullptr),
          readers_(program.values.size()) {
        for (const auto& operation : program.operations) {
            for (const uint32_t number : operation.outputs)
                if (number != SLUICE_VALUE_NONE) writer_[number] = &operation;
            for (const uint32_t number : operation.inputs)
                if (number != SLUICE_VALUE_NONE) readers_[number].push_back(operation.number);
        }
    }

    const plugin::operation* writer(uint32_t value, uint32_t kind) const {
        const auto* found = writer_[value];
        return found != nullptr && found->kind == kind ? found : nullptr;
    }
    const std::vector<uint32_t>& readers(uint32_t value) const { return readers_[value]; }
    bool is_output(uint32_t value) const {
        return std::find(program_.outputs.begin(), program_.outputs.end(), value)
               != program_.outputs.end();
    }

    // Whether all that the group writes, but for `results`, is read in the group alone, and what
    // reads the results comes after the place where the group runs: that of its last operation.
    bool is_closed(const std::vector<uint32_t>& group, const std::vector<uint32_t>& results) const {
        return is_closed(group, results, *std::max_element(group.begin(), group.end()));
    }
    // The same where the group runs at the place of operation `last`.
    bool is_closed(const std::vector<uint32_t>& group, const std::vector<uint32_t>& results,
                   uint32_t last) const {
        for (const uint32_t member : group)
            for (const uint32_t value : program_.operations[member].outputs) {
                if (value == SLUICE_VALUE_NONE) continue;
                const bool is_result =
                    std::find(results.begin(), results.end(), value) != results.end();
                if (!is_result && is_output(value)) return false;
                for (const uint32_t reader : readers_[value]) {
                    const bool inside =
                        std::find(group.begin(), group.end(), reader) != group.end();
                    if (!inside && (!is_result || reader < last)) return false;
                }
            }
        return true;
    }

  private:
    const plugin::program& program_;
    std::vector<const plugin::operation*> writer_;
    std::vector<std::vector<uint32_t>> readers_;
};

// A rope, the reshape before it and the head-wise norm before that.
struct rope_chain {
    const plugin::operation* rope = nullptr;
    const plugin::operation* norm = nullptr;
    uint32_t source = 0;
    std::vector<uint32_t> members;
};

std::optional<rope_chain> chain_before(const plugin::program& program, const uses& known,
                                       uint32_t value) {
    rope_chain chain;
    chain.rope = known.writer(value, SLUICE_OP_ROPE);
    if (chain.rope == nullptr) return std::nullopt;
    chain.members.push_back(chain.rope->number);
    chain.source = chain.rope->inputs[0];
    const auto* reshape = known.writer(chain.source, SLUICE_OP_RESHAPE);
    if (reshape == nullptr) return std::nullopt;
    chain.members.push_back(reshape->number);
    chain.source = reshape->inputs[0];
    const auto* norm = known.writer(chain.source, SLUICE_OP_RMS_NORM);
    const int64_t width = program.values[value].fixed(-1);
    if (norm != nullptr && norm->as<sluice_rms_norm_attributes>().group_width == width
        && !norm->has_input(2) && !norm->has_output(1)) {
        chain.norm = norm;
        chain.members.push_back(norm->number);
        chain.source = norm->inputs[0];
    }
    return chain;
}

bool same_rope(const plugin::operation& a, const plugin::operation& b) {
    auto one = a.as<sluice_rope_attributes>(), other = b.as<sluice_rope_attributes>();
    one.table = other.table = nullptr;
    return a.inputs[1] == b.inputs[1] && a.table == b.table && one.dimension == other.dimension
           && one.interleaved == other.interleaved && one.inverse == other.inverse
           && one.scaling == other.scaling && one.magnitude == other.magnitude
           && one.base == other.base && one.factor == other.factor
           && one.original_length == other.original_length
           && one.low_frequency_factor == other.low_frequency_factor
           && one.high_frequency_factor == other.high_frequency_factor
           && one.beta_fast == other.beta_fast && one.beta_slow == other.beta_slow
           && one.truncate_bounds == other.truncate_bounds;
}

bool is_one_of(const plugin::program& program, uint32_t value,
               std::initializer_list<sluice_element_type> types) {
    const auto& v = program.values[value];
    return std::find(types.begin(), types.end(), v.type) != types.end();
}

// A group that may run together.
struct found_group {
    std::vector<uint32_t> members; // in the order of the program
    uint32_t runs_at = 0;          // the operation at whose place
    fused_group fused;

    found_group(std::vector<uint32_t> operations, fused_group made_of)
        : members(std::move(operations)), fused(std::move(made_of)) {
        std::sort(members.begin(), members.end());
        runs_at = members.back();
    }
};

std::optional<found_group> find_turned_attention(const plugin::program& program, const uses& known,
                                                 const plugin::operation& attention) {
    if (attention.kind != SLUICE_OP_ATTENTION) return std::nullopt;
    const auto* write = known.writer(attention.inputs[1], SLUICE_OP_KV_WRITE);
    if (write == nullptr || write->inputs.size() != 4) return std::nullopt;
    const auto q = chain_before(program, known, attention.inputs[0]);
    const auto k = chain_before(program, known, write->inputs[2]);
    if (!q || !k || !same_rope(*q->rope, *k->rope)) return std::nullopt;
    const uint32_t v = write->inputs[3];
    if (program.values[k->source].rank != 2 || program.values[q->source].rank != 2
        || program.values[v].rank != 2)
        return std::nullopt;
    // The places of other tokens are read before the kernels of the step have ended.
    if (program.values[write->inputs[0]].kind != SLUICE_VALUE_STATE) return std::nullopt;
    std::vector<uint32_t> members{write->number, attention.number};
    members.insert(members.end(), q->members.begin(), q->members.end());
    members.insert(members.end(), k->members.begin(), k->members.end());
    if (!known.is_closed(members, {attention.inputs[1], attention.outputs[0]})) return std::nullopt;
    return found_group(std::move(members), turned_attention{q->source, k->source, v, q->norm,
                                                            k->norm, q->rope, write, &attention});
}

// The size of the last axis, or 0 where it follows an extent.
int64_t width_of(const plugin::program& program, uint32_t value) {
    const auto& v = program.values[value];
    const bool is_fixed = v.rank > 0 && v.shape[v.rank - 1].extent == SLUICE_EXTENT_NONE;
    return is_fixed ? v.fixed(-1) : 0;
}

// Two slices that are all of a value's last axis.
struct parted_value {
    const plugin::operation* first = nullptr;
    const plugin::operation* second = nullptr;
    uint32_t whole = 0;
};

// Where `first` and `second` are such parts.
std::optional<parted_value> parted_before(const plugin::program& program, const uses& known,
                                          uint32_t first, uint32_t second) {
    const parted_value parts{known.writer(first, SLUICE_OP_SLICE),
                             known.writer(second, SLUICE_OP_SLICE)};
    if (parts.first == nullptr || parts.second == nullptr
        || parts.first->inputs[0] != parts.second->inputs[0])
        return std::nullopt;
    const uint32_t whole = parts.first->inputs[0];
    const int64_t begin = width_of(program, first), rest = width_of(program, second);
    const auto is_cut = [&](const plugin::operation& slice, int64_t at) {
        const auto& attributes = slice.as<sluice_axis_attributes>();
        return attributes.axis + 1 == program.values[whole].rank && attributes.begin == at;
    };
    if (begin == 0 || rest == 0 || begin + rest != width_of(program, whole)
        || !is_cut(*parts.first, 0) || !is_cut(*parts.second, begin))
        return std::nullopt;
    return parted_value{parts.first, parts.second, whole};
}

// A norm of whole rows of a value, by a weight, that writes nothing else.
bool is_plain_norm(const plugin::program& program, const plugin::operation& norm) {
    return norm.as<sluice_rms_norm_attributes>().group_width == 0 && !norm.has_input(2)
           && !norm.has_output(1) && program.values[norm.inputs[1]].kind == SLUICE_VALUE_WEIGHT;
}

std::optional<found_group> find_mla_input(const plugin::program& program, const uses& known,
                                          const plugin::operation& attention) {
    if (attention.kind != SLUICE_OP_MLA_ATTENTION) return std::nullopt;
    mla_input found;
    found.q_rope = known.writer(attention.inputs[1], SLUICE_OP_ROPE);
    found.write = known.writer(attention.inputs[2], SLUICE_OP_KV_WRITE);
    if (found.q_rope == nullptr || found.write == nullptr || found.write->inputs.size() != 4)
        return std::nullopt;
    found.latent_norm = known.writer(found.write->inputs[2], SLUICE_OP_RMS_NORM);
    found.k_rope = known.writer(found.write->inputs[3], SLUICE_OP_ROPE);
    if (found.latent_norm == nullptr || found.k_rope == nullptr
        || !is_plain_norm(program, *found.latent_norm) || !same_rope(*found.q_rope, *found.k_rope))
        return std::nullopt;
    const uint32_t key = found.k_rope->inputs[0];
    const auto* one_head = known.writer(key, SLUICE_OP_RESHAPE);
    if (one_head == nullptr) return std::nullopt;
    const auto q = parted_before(program, known, attention.inputs[0], found.q_rope->inputs[0]);
    const auto kv =
        parted_before(program, known, found.latent_norm->inputs[0], one_head->inputs[0]);
    if (!q || !kv) return std::nullopt;
    const auto* heads = known.writer(q->whole, SLUICE_OP_RESHAPE);
    if (heads == nullptr) return std::nullopt;
    found.q = heads->inputs[0];
    found.kv = kv->whole;
    found.q_nope = q->first;
    const auto& values = program.values;
    if (values[found.q].rank != 2 || values[found.kv].rank != 2
        || width_of(program, key) != width_of(program, found.q_rope->inputs[0])
        || width_of(program, key) != width_of(program, one_head->inputs[0]))
        return std::nullopt;
    std::vector<uint32_t> members;
    for (const plugin::operation* member :
         {heads, q->first, q->second, found.q_rope, kv->first, found.latent_norm, kv->second,
          one_head, found.k_rope, found.write})
        members.push_back(member->number);
    if (!known.is_closed(
            members, {found.q_nope->outputs[0], found.q_rope->outputs[0], found.write->outputs[0]}))
        return std::nullopt;
    return found_group(std::move(members), found);
}

std::optional<found_group> find_head_input(const plugin::program& program, const uses& known,
                                           const plugin::operation& norm) {
    if (norm.kind != SLUICE_OP_RMS_NORM || !norm.has_input(2) || norm.has_output(1)
        || norm.as<sluice_rms_norm_attributes>().group_width != 0)
        return std::nullopt;
    const auto* stream = known.writer(norm.inputs[0], SLUICE_OP_GATHER_ROWS);
    const auto* addend = known.writer(norm.inputs[2], SLUICE_OP_GATHER_ROWS);
    if (stream == nullptr || addend == nullptr || stream->inputs[1] != addend->inputs[1]
        || program.values[stream->inputs[0]].rank != 2
        || !is_one_of(program, stream->inputs[0], {SLUICE_F32, SLUICE_BF16, SLUICE_F16}))
        return std::nullopt;
    std::vector<uint32_t> members{stream->number, addend->number, norm.number};
    if (!known.is_closed(members, {norm.outputs[0]})) return std::nullopt;
    return found_group(std::move(members), head_input{stream, addend, &norm});
}

// A linear without a bias that reads `x`.
bool is_linear_of(const plugin::operation& operation, uint32_t x) {
    return operation.kind == SLUICE_OP_LINEAR && operation.inputs[0] == x
           && !operation.has_input(2);
}

std::optional<found_group> find_normed_product(const plugin::program& program, const uses& known,
                                               const plugin::operation& norm) {
    if (norm.kind != SLUICE_OP_RMS_NORM || norm.as<sluice_rms_norm_attributes>().group_width != 0
        || norm.number + 1 >= program.operations.size())
        return std::nullopt;
    const uint32_t x = norm.outputs[0];
    const auto& linear = program.operations[norm.number + 1];
    if (!is_linear_of(linear, x)) return std::nullopt;
    normed_product found{&norm, {&linear}, nullptr};
    std::vector<uint32_t> members{norm.number, linear.number};
    std::vector<uint32_t> results{x, linear.outputs[0]};
    if (norm.has_output(1)) results.push_back(norm.outputs[1]);
    if (linear.number + 1 < program.operations.size()) {
        const auto& route = program.operations[linear.number + 1];
        if (route.kind == SLUICE_OP_ROUTE && route.inputs[0] == linear.outputs[0]) {
            found.route = &route;
            members.push_back(route.number);
            for (const uint32_t value : route.outputs)
                if (value != SLUICE_VALUE_NONE) results.push_back(value);
            if (!known.is_closed(members, results)) return std::nullopt;
            return found_group(std::move(members), std::move(found));
        }
    }
    for (const uint32_t reader : known.readers(x)) {
        const auto& other = program.operations[reader];
        if (reader == linear.number || !is_linear_of(other, x)
            || found.linears.size() == 1 + few_parts_more)
            continue;
        found.linears.push_back(&other);
        members.push_back(reader);
        results.push_back(other.outputs[0]);
    }
    if (!known.is_closed(members, results, linear.number)) return std::nullopt;
    found_group group(std::move(members), std::move(found));
    group.runs_at = linear.number;
    return group;
}

std::optional<found_group> find_shared_experts(const plugin::program& program, const uses& known,
                                               const plugin::operation& sum) {
    if (sum.kind != SLUICE_OP_BINARY
        || sum.as<sluice_binary_attributes>().function != SLUICE_BINARY_ADD)
        return std::nullopt;
    shared_experts found;
    found.sum = &sum;
    for (const size_t i : {0, 1}) {
        if (const auto* routed = known.writer(sum.inputs[i], SLUICE_OP_MOE_FFN))
            found.routed = routed;
        if (const auto* shared = known.writer(sum.inputs[i], SLUICE_OP_GATED_MLP))
            found.shared = shared;
    }
    if (found.routed == nullptr || found.shared == nullptr
        || found.routed->inputs[0] != found.shared->inputs[0]
        || width_of(program, found.routed->outputs[0]) != width_of(program, sum.outputs[0])
        || !is_one_of(program, sum.outputs[0], {SLUICE_F32, SLUICE_BF16, SLUICE_F16}))
        return std::nullopt;
    std::vector<uint32_t> members{found.routed->number, found.shared->number, sum.number};
    if (!known.is_closed(members, {sum.outputs[0]})) return std::nullopt;
    return found_group(std::move(members), std::move(found));
}

// Lets shared experts know of the router that runs right before them.
void join_routers(fused_schedule& order) {
    for (size_t i = 1; i < order.fused.size(); ++i) {
        auto* experts = std::get_if<shared_experts>(&order.fused[i]);
        const auto* before = std::get_if<normed_product>(&order.fused[i - 1]);
        if (experts != nullptr && before != nullptr && before->route != nullptr
            && before->norm->outputs[0] == experts->routed->inputs[0])
            experts->router = *before;
    }
}

} // namespace

fused_schedule make_schedule(const plugin::program& program, bool fuses) {
    std::vector<std::optional<found_group>> group_at(program.operations.size()); // by where it runs
    std::vector<bool> taken(program.operations.size());
    if (fuses) {
        const uses known(program);
        for (const auto& operation : program.operations) {
            for (const auto find : {find_turned_attention, find_mla_input, find_head_input,
                                    find_normed_product, find_shared_experts}) {
                auto group = find(program, known, operation);
                if (!group) continue;
                const auto& members = group->members;
                if (std::any_of(members.begin(), members.end(),
                                [&](uint32_t m) { return taken[m]; }))
                    continue;
                for (const uint32_t member : members) taken[member] = true;
                const uint32_t at = group->runs_at;
                group_at[at] = std::move(group);
            }
        }
    }
    fused_schedule order;
    for (const auto& operation : program.operations) {
        if (auto& group = group_at[operation.number]) {
            order.groups.push_back(std::move(group->members));
            order.fused.push_back(std::move(group->fused));
        } else if (!taken[operation.number]) {
            order.groups.push_back({operation.number});
            order.fused.emplace_back();
        }
    }
    join_routers(order);
    return order;
}

} // namespace sluice::cuda
