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

std::optional<std::vector<uint32_t>> find_attention_input(const plugin::program& program,
                                                          const uses& known,
                                                          const plugin::operation& attention) {
    if (attention.kind != SLUICE_OP_ATTENTION) return std::nullopt;
    const auto* write = known.writer(attention.inputs[1], SLUICE_OP_KV_WRITE);
    if (write == nullptr || write->inputs.size() != 4) return std::nullopt;
    const auto q = chain_before(program, known, attention.inputs[0]);
    const auto k = chain_before(program, known, write->inputs[2]);
    if (!q || !k || !same_rope(*q->rope, *k->rope)) return std::nullopt;
    std::vector<uint32_t> group{write->number};
    group.insert(group.end(), q->members.begin(), q->members.end());
    group.insert(group.end(), k->members.begin(), k->members.end());
    std::sort(group.begin(), group.end());
    if (program.values[k->source].rank != 2 || program.values[q->source].rank != 2
        || program.values[write->inputs[3]].rank != 2)
        return std::nullopt;
    if (!known.is_closed(group, {attention.inputs[0], attention.inputs[1]})) return std::nullopt;
    return group;
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

std::optional<mla_input> mla_input_of(const plugin::program& program, const uses& known,
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
    for (const plugin::operation* member :
         {heads, q->first, q->second, found.q_rope, kv->first, found.latent_norm, kv->second,
          one_head, found.k_rope, found.write})
        found.members.push_back(member->number);
    std::sort(found.members.begin(), found.members.end());
    return found;
}

std::optional<std::vector<uint32_t>> find_mla_input(const plugin::program& program,
                                                    const uses& known,
                                                    const plugin::operation& attention) {
    const auto found = mla_input_of(program, known, attention);
    if (!found
        || !known.is_closed(found->members, {found->q_nope->outputs[0], found->q_rope->outputs[0],
                                             found->write->outputs[0]}))
        return std::nullopt;
    return found->members;
}

std::optional<std::vector<uint32_t>>
find_head_input(const plugin::program& program, const uses& known, const plugin::operation& norm) {
    if (norm.kind != SLUICE_OP_RMS_NORM || !norm.has_input(2) || norm.has_output(1)
        || norm.as<sluice_rms_norm_attributes>().group_width != 0)
        return std::nullopt;
    const auto* stream = known.writer(norm.inputs[0], SLUICE_OP_GATHER_ROWS);
    const auto* addend = known.writer(norm.inputs[2], SLUICE_OP_GATHER_ROWS);
    if (stream == nullptr || addend == nullptr || stream->inputs[1] != addend->inputs[1]
        || program.values[stream->inputs[0]].rank != 2
        || !is_one_of(program, stream->inputs[0], {SLUICE_F32, SLUICE_BF16, SLUICE_F16}))
        return std::nullopt;
    std::vector<uint32_t> group{stream->number, addend->number, norm.number};
    std::sort(group.begin(), group.end());
    if (!known.is_closed(group, {norm.outputs[0]})) return std::nullopt;
    return group;
}

// A linear without a bias that reads `x`.
bool is_linear_of(const plugin::operation& operation, uint32_t x) {
    return operation.kind == SLUICE_OP_LINEAR && operation.inputs[0] == x
           && !operation.has_input(2);
}

std::optional<std::vector<uint32_t>> find_normed_product(const plugin::program& program,
                                                         const uses& known,
                                                         const plugin::operation& norm) {
    if (norm.kind != SLUICE_OP_RMS_NORM || norm.as<sluice_rms_norm_attributes>().group_width != 0
        || norm.number + 1 >= program.operations.size())
        return std::nullopt;
    const uint32_t x = norm.outputs[0];
    const auto& linear = program.operations[norm.number + 1];
    if (!is_linear_of(linear, x)) return std::nullopt;
    std::vector<uint32_t> group{norm.number, linear.number};
    std::vector<uint32_t> results{x, linear.outputs[0]};
    if (norm.has_output(1)) results.push_back(norm.outputs[1]);
    if (linear.number + 1 < program.operations.size()) {
        const auto& route = program.operations[linear.number + 1];
        if (route.kind == SLUICE_OP_ROUTE && route.inputs[0] == linear.outputs[0]) {
            group.push_back(route.number);
            for (const uint32_t value : route.outputs)
                if (value != SLUICE_VALUE_NONE) results.push_back(value);
            if (!known.is_closed(group, results)) return std::nullopt;
            return group;
        }
    }
    for (const uint32_t reader : known.readers(x)) {
        const auto& other = program.operations[reader];
        if (reader == linear.number || !is_linear_of(other, x)
            || group.size() == 2 + few_parts_more)
            continue;
        group.push_back(reader);
        results.push_back(other.outputs[0]);
    }
    if (!known.is_closed(group, results, linear.number)) return std::nullopt;
    return group;
}

} // namespace

plugin::schedule make_schedule(const plugin::program& program, bool fuses) {
    if (!fuses) return plugin::in_program_order(program);
    const uses known(program);
    std::vector<std::vector<uint32_t>> group_at(program.operations.size()); // by where it runs
    std::vector<bool> taken(program.operations.size());
    for (const auto& operation : program.operations)
        for (const auto find :
             {find_attention_input, find_mla_input, find_head_input, find_normed_product}) {
            const auto group = find(program, known, operation);
            if (!group) continue;
            if (std::any_of(group->begin(), group->end(), [&](uint32_t m) { return taken[m]; }))
                continue;
            for (const uint32_t member : *group) taken[member] = true;
            const bool is_product = find == find_normed_product;
            const bool has_route = program.operations[group->back()].kind == SLUICE_OP_ROUTE;
            group_at[is_product && !has_route ? (*group)[1] : group->back()] = *group;
        }
    plugin::schedule order;
    for (const auto& operation : program.operations) {
        if (!group_at[operation.number].empty())
            order.push_back(group_at[operation.number]);
        else if (!taken[operation.number])
            order.push_back({operation.number});
    }
    return order;
}

std::optional<attention_input> read_attention_input(const plugin::program& program,
                                                    const std::vector<uint32_t>& group) {
    attention_input found;
    for (const uint32_t member : group)
        if (program.operations[member].kind == SLUICE_OP_KV_WRITE && group.size() > 1)
            found.write = &program.operations[member];
    if (found.write == nullptr) return std::nullopt;
    const uses known(program);
    const auto k = chain_before(program, known, found.write->inputs[2]);
    if (!k) return std::nullopt;
    for (const uint32_t member : group) {
        const auto& operation = program.operations[member];
        if (operation.kind != SLUICE_OP_ROPE || operation.number == k->rope->number) continue;
        const auto q = chain_before(program, known, operation.outputs[0]);
        found.q = q->source;
        found.q_norm = q->norm;
        found.q_rope = q->rope;
    }
    found.k = k->source;
    found.k_norm = k->norm;
    found.k_rope = k->rope;
    found.v = found.write->inputs[3];
    return found;
}

std::optional<mla_input> read_mla_input(const plugin::program& program,
                                        const std::vector<uint32_t>& group) {
    const uses known(program);
    for (const uint32_t member : group) {
        const auto& write = program.operations[member];
        if (write.kind != SLUICE_OP_KV_WRITE) continue;
        for (const uint32_t reader : known.readers(write.outputs[0]))
            if (auto found = mla_input_of(program, known, program.operations[reader]);
                found && found->members == group)
                return found;
    }
    return std::nullopt;
}

std::optional<head_input> read_head_input(const plugin::program& program,
                                          const std::vector<uint32_t>& group) {
    if (group.size() != 3) return std::nullopt;
    head_input found;
    for (const uint32_t member : group) {
        const auto& operation = program.operations[member];
        if (operation.kind == SLUICE_OP_RMS_NORM) found.norm = &operation;
    }
    if (found.norm == nullptr) return std::nullopt;
    for (const uint32_t member : group) {
        const auto& operation = program.operations[member];
        if (operation.kind != SLUICE_OP_GATHER_ROWS) continue;
        if (operation.outputs[0] == found.norm->inputs[0]) found.stream = &operation;
        if (operation.outputs[0] == found.norm->inputs[2]) found.addend = &operation;
    }
    if (found.stream == nullptr || found.addend == nullptr) return std::nullopt;
    return found;
}

std::optional<normed_product> read_normed_product(const plugin::program& program,
                                                  const std::vector<uint32_t>& group) {
    normed_product found;
    for (const uint32_t member : group) {
        const auto& operation = program.operations[member];
        if (operation.kind == SLUICE_OP_RMS_NORM) found.norm = &operation;
        if (operation.kind == SLUICE_OP_LINEAR) found.linears.push_back(&operation);
        if (operation.kind == SLUICE_OP_ROUTE) found.route = &operation;
    }
    if (found.norm == nullptr || found.linears.empty()) return std::nullopt;
    return found;
}

} // namespace sluice::cuda
