#include "engine/placement.hpp"

#include "base/error.hpp"
#include "base/text.hpp"
#include "program/operation_table.hpp"

#include <algorithm>
#include <set>

namespace sluice {

namespace {

constexpr size_t no_rule = SIZE_MAX;
constexpr size_t gate_operand = 4;

std::string rule_text(const placement_configuration& rule) {
    return fmt::format("{}: placement {} = {}", rule.origin.text(), quote(rule.pattern.text()),
                       quote(rule.backend));
}

uint32_t expert_count_of(const program& placed, const program_operation& operation) {
    return uint32_t(placed.value(operation.inputs[gate_operand]).dimensions[0].offset);
}

class planner {
  public:
    planner(const configuration& configuration, const std::string& main_backend,
            const program& placed)
        : rules_(configuration.placement), placed_(placed),
          rule_of_(placed.operations().size(), no_rule) {
        plan_.backends.push_back({main_backend, "backend"});
        plan_.operations.assign(placed.operations().size(), 0);
    }

    placement_plan plan() {
        for (size_t i = 0; i < rules_.size(); ++i) apply(i);
        settle_sampling();
        settle_experts();
        settle_host_functions();
        check_states();
        for (size_t i = 0; i < rules_.size(); ++i) {
            if (counting_.contains(i)) continue;
            plan_.warnings.push_back(fmt::format(
                "{} has no effect: later patterns place all that it matches (and sampling goes "
                "with the logits, a router's host function runs on the host)",
                rule_text(rules_[i])));
        }
        return std::move(plan_);
    }

  private:
    uint32_t number_of(const placement_configuration& rule) {
        for (uint32_t i = 0; i < plan_.backends.size(); ++i) {
            if (plan_.backends[i].id == rule.backend) return i;
        }
        plan_.backends.push_back({rule.backend, "placement." + rule.pattern.text()});
        return uint32_t(plan_.backends.size() - 1);
    }

    void apply(size_t rule) {
        const placement_configuration& line = rules_[rule];
        const uint32_t number = number_of(line);
        bool found = false;
        for (uint32_t i = 0; i < placed_.operations().size(); ++i) {
            if (!line.pattern.matches(placed_.operations()[i].name)) continue;
            found = true;
            if (is_host_function(placed_.operations()[i])) continue;
            if (line.pattern.experts().empty()) {
                plan_.operations[i] = number;
                rule_of_[i] = rule;
                plan_.experts.erase(i);
                expert_rules_.erase(i);
            } else {
                place_experts(i, rule, number);
            }
        }
        if (!found) refuse_unmatched(line);
    }

    void place_experts(uint32_t operation, size_t rule, uint32_t number) {
        const placement_configuration& line = rules_[rule];
        const program_operation& target = placed_.operations()[operation];
        if (target.kind != SLUICE_OP_MOE_FFN) {
            fail(SLUICE_INVALID,
                 "{}: the pattern names experts, but {} is a {}; only moe_ffn operations have "
                 "experts, such as \"layers.*.experts\"",
                 rule_text(line), quote(target.name), operation_name(target.kind));
        }
        const uint32_t count = expert_count_of(placed_, target);
        std::vector<uint32_t>& experts = plan_.experts[operation];
        std::vector<size_t>& rules = expert_rules_[operation];
        experts.resize(count, plan_.operations[operation]);
        rules.resize(count, rule_of_[operation]);
        for (const number_range& range : line.pattern.experts()) {
            if (range.last >= count) {
                fail(SLUICE_INVALID, "{}: there is no expert {} in {}, which has {} (0 to {})",
                     rule_text(line), range.last, quote(target.name), count, count - 1);
            }
            std::fill_n(experts.begin() + range.first, range.last - range.first + 1, number);
            std::fill_n(rules.begin() + range.first, range.last - range.first + 1, rule);
        }
    }

    [[noreturn]] void refuse_unmatched(const placement_configuration& line) const {
        std::vector<std::string> names;
        for (const program_operation& operation : placed_.operations()) {
            std::string name = generalised_name(operation.name);
            if (std::find(names.begin(), names.end(), name) == names.end()) {
                names.push_back(std::move(name));
            }
        }
        std::string hint = did_you_mean(line.pattern.generalised(), names);
        if (hint.empty()) hint = "; `sluice explain` prints the names";
        fail(SLUICE_INVALID, "{}: the pattern matches no operation of the model{}", rule_text(line),
             hint);
    }

    // Experts that are all in one place need no splitting. The sum of the others is computed where
    // it is read, which costs the fewest copies.
    void settle_experts() {
        for (auto at = plan_.experts.begin(); at != plan_.experts.end();) {
            const auto& [operation, experts] = *at;
            for (const size_t rule : expert_rules_.at(operation)) counting_.insert(rule);
            const bool one_place = std::all_of(experts.begin(), experts.end(),
                                               [&](uint32_t each) { return each == experts[0]; });
            if (one_place) {
                plan_.operations[operation] = experts[0];
                rule_of_[operation] = expert_rules_.at(operation)[0];
                at = plan_.experts.erase(at);
            } else {
                ++at;
            }
        }
        for (uint32_t i = 0; i < rule_of_.size(); ++i) {
            if (!plan_.experts.contains(i)) counting_.insert(rule_of_[i]);
        }
        for (const auto& [operation, experts] : plan_.experts) {
            plan_.operations[operation] = reader_placement(operation);
        }
    }

    // Sampling stays with the logits, which are too large to move for it.
    void settle_sampling() {
        for (uint32_t i = 0; i < placed_.operations().size(); ++i) {
            const program_operation& operation = placed_.operations()[i];
            if (operation.kind != SLUICE_OP_SAMPLE) continue;
            const uint32_t writer = writer_of(operation.inputs.at(0));
            plan_.operations[i] = plan_.operations[writer];
            rule_of_[i] = rule_of_[writer];
        }
    }

    void settle_host_functions() {
        for (uint32_t i = 0; i < placed_.operations().size(); ++i) {
            if (!is_host_function(placed_.operations()[i])) continue;
            plan_.operations[i] = uint32_t(plan_.backends.size());
        }
    }

    uint32_t writer_of(value_number value) const {
        uint32_t i = 0;
        const auto writes = [&](const program_operation& operation) {
            return std::find(operation.outputs.begin(), operation.outputs.end(), value)
                   != operation.outputs.end();
        };
        while (!writes(placed_.operations()[i])) ++i;
        return i;
    }

    uint32_t reader_placement(uint32_t operation) const {
        const value_number result = placed_.operations()[operation].outputs.at(0);
        for (uint32_t i = operation + 1; i < placed_.operations().size(); ++i) {
            const std::vector<value_number>& inputs = placed_.operations()[i].inputs;
            if (std::find(inputs.begin(), inputs.end(), result) != inputs.end()) {
                return plan_.operations[i];
            }
        }
        return plan_.operations[operation];
    }

    void check_states() const {
        std::vector<uint32_t> first_user(placed_.states().size(), UINT32_MAX);
        for (uint32_t i = 0; i < placed_.operations().size(); ++i) {
            for (const value_number input : placed_.operations()[i].inputs) {
                if (input == value_none) continue;
                const program_value& value = placed_.value(input);
                if (value.kind != SLUICE_VALUE_STATE) continue;
                uint32_t& first = first_user[value.state];
                if (first == UINT32_MAX) first = i;
                if (plan_.operations[first] != plan_.operations[i]) {
                    refuse_cut_state(placed_.states()[value.state].name, first, i);
                }
            }
        }
    }

    [[noreturn]] void refuse_cut_state(const std::string& state, uint32_t first,
                                       uint32_t second) const {
        const size_t rule = rule_of_[second] != no_rule ? rule_of_[second] : rule_of_[first];
        const auto backend = [&](uint32_t operation) {
            return quote(plan_.backends[plan_.operations[operation]].id);
        };
        fail(SLUICE_INVALID,
             "{}: the cache {} would be used by {} on {} and by {} on {}; all operations of a "
             "cache must be on one backend, so place both or neither",
             rule_text(rules_[rule]), quote(state), quote(placed_.operations()[first].name),
             backend(first), quote(placed_.operations()[second].name), backend(second));
    }

    const std::vector<placement_configuration>& rules_;
    const program& placed_;
    placement_plan plan_;
    std::vector<size_t> rule_of_; // what placed each operation as a whole
    std::map<uint32_t, std::vector<size_t>> expert_rules_;
    std::set<size_t> counting_; // rules that placed something in the end
};

} // namespace

placement_plan plan_placement(const configuration& configuration, const std::string& main_backend,
                              const program& placed) {
    return planner(configuration, main_backend, placed).plan();
}

program with_placements(const program& source, const placement_plan& plan) {
    program_contents contents = source.contents();
    for (size_t i = 0; i < contents.operations.size(); ++i) {
        contents.operations[i].placement = plan.operations[i];
    }
    return program(std::move(contents));
}

} // namespace sluice
