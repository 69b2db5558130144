#include "backend_checks/runner.hpp"
#include "checks.hpp"
#include "routing_oracle.hpp"
#include "tailed.hpp"

#include "plugin/host_function.hpp"
#include "program/route_inline.hpp"

#include <cmath>
#include <cstring>
#include <numeric>
#include <thread>

namespace sluice::checker {
namespace {

// A place that a router may be asked about, with everything the request points to.
struct routing_case {
    std::string name;
    sluice_routing_specification model = SLUICE_INIT(sluice_routing_specification);
    bool has_choice_bias = false;
    bool has_per_expert_scale = false;
    uint32_t table_row_count = 0;

    sluice_router_request request() const {
        auto made = SLUICE_INIT(sluice_router_request);
        made.layer = 3;
        made.expert_count = model.expert_count;
        made.choice_count = model.choice_count;
        made.hidden_size = 64;
        made.has_choice_bias = has_choice_bias ? 1 : 0;
        made.has_per_expert_scale = has_per_expert_scale ? 1 : 0;
        made.table_row_count = table_row_count;
        made.model_type = text_view("checker");
        made.model = &model;
        return made;
    }
};

routing_case make_case(std::string name, uint32_t experts, uint32_t choices) {
    routing_case made;
    made.name = std::move(name);
    made.model.expert_count = experts;
    made.model.choice_count = choices;
    made.model.scale = 1;
    return made;
}

// What the families do (see the table of abi/router.h's steps), at sizes of their own proportion.
std::vector<routing_case> family_cases() {
    std::vector<routing_case> cases;
    cases.push_back(make_case("softmax", 64, 6));
    cases.push_back(make_case("one expert", 1, 1));
    cases.push_back(make_case("softmax, renormalised", 8, 2));
    cases.back().model.renormalize = SLUICE_RENORMALIZE_ADD;
    cases.push_back(make_case("groups by maximum", 160, 6));
    cases.back().model.group_count = 8;
    cases.back().model.group_choice_count = 3;
    cases.back().model.mask_value = SLUICE_MASK_ZERO;
    cases.back().model.scale = 16;
    cases.push_back(make_case("biased sigmoid, groups by sum", 256, 8));
    cases.back().model.group_count = 8;
    cases.back().model.group_choice_count = 4;
    cases.back().model.group_score = SLUICE_GROUP_SCORE_TOPK_SUM;
    cases.back().model.group_score_count = 2;
    cases.back().model.score = SLUICE_SCORE_SIGMOID;
    cases.back().model.renormalize = SLUICE_RENORMALIZE_ADD;
    cases.back().model.renormalize_epsilon = 1e-20F;
    cases.back().model.scale = 2.5F;
    cases.back().has_choice_bias = true;
    cases.push_back(make_case("softmax of the chosen", 32, 4));
    cases.back().model.score_stage = SLUICE_SCORE_AFTER_CHOICE;
    cases.push_back(make_case("square root of softplus, clamped sum, softcap", 12, 3));
    cases.back().model.score = SLUICE_SCORE_SQRT_SOFTPLUS;
    cases.back().model.renormalize = SLUICE_RENORMALIZE_CLAMP;
    cases.back().model.renormalize_epsilon = 1e-12F;
    cases.back().model.logit_softcap = 5;
    cases.push_back(make_case("weights from choices, scaled unless renormalised", 16, 5));
    cases.back().model.weight_source = SLUICE_WEIGHT_FROM_CHOICE;
    cases.back().model.scale_condition = SLUICE_SCALE_NOT_RENORMALIZED;
    cases.back().model.scale = 3;
    cases.back().has_choice_bias = true;
    cases.push_back(make_case("scaled by expert", 16, 3));
    cases.back().has_per_expert_scale = true;
    cases.push_back(make_case("hash table, softmax of the chosen", 16, 3));
    cases.back().model.score_stage = SLUICE_SCORE_AFTER_CHOICE;
    cases.back().model.renormalize = SLUICE_RENORMALIZE_ADD;
    cases.back().table_row_count = 5;
    return cases;
}

std::vector<routing_case> random_cases(context& with, std::string_view purpose) {
    auto random = with.random(purpose);
    const auto below = [&](uint32_t bound) { return static_cast<uint32_t>(random() % bound); };
    std::vector<routing_case> cases;
    for (uint32_t i = 0; i < with.options().iterations; ++i) {
        const uint32_t groups = 1 + below(6);
        const uint32_t width = 1 + below(9);
        auto made = make_case(fmt::format("random case {}", i), groups * width, 1);
        auto& model = made.model;
        if (groups > 1) {
            model.group_count = groups;
            model.group_choice_count = 1 + below(groups);
            model.group_score = below(2);
            model.group_score_count =
                model.group_score == SLUICE_GROUP_SCORE_TOPK_SUM ? 1 + below(width) : 0;
        }
        const uint32_t reachable = groups > 1 ? model.group_choice_count * width : width;
        model.choice_count = 1 + below(std::min(reachable, 64U));
        model.score = below(4);
        model.score_stage = below(2);
        model.renormalize = model.score == SLUICE_SCORE_IDENTITY ? 0 : below(3);
        model.renormalize_epsilon = model.renormalize != 0 ? 1e-9F : 0;
        model.scale = 0.5F + static_cast<float>(below(8));
        model.scale_condition = below(2);
        made.has_choice_bias = below(2) == 1;
        made.has_per_expert_scale = below(2) == 1;
        made.table_row_count = below(4) == 0 ? 1 + below(20) : 0;
        cases.push_back(made);
    }
    return cases;
}

// Asks the plugin; throws sluice::error where it refuses.
router_answer ask(plugin_instance& plugin, const sluice_router_request& request,
                  std::string_view name) {
    auto specification = SLUICE_INIT(sluice_routing_specification);
    auto answer = SLUICE_INIT(sluice_router_answer);
    answer.specification = &specification;
    plugin_call call = plugin.call("describe");
    call = plugin.router().describe(plugin.handle(), &request, &answer, call.error());
    return import_router_answer(request, answer, name);
}

// The same with the status instead of an exception.
sluice_status try_to_ask(plugin_instance& plugin, const sluice_router_request* request,
                         std::string& message) {
    auto specification = SLUICE_INIT(sluice_routing_specification);
    auto answer = SLUICE_INIT(sluice_router_answer);
    auto error = SLUICE_INIT(sluice_error);
    answer.specification = &specification;
    const sluice_status status =
        plugin.router().describe(plugin.handle(), request, &answer, &error);
    message = status == SLUICE_OK ? "" : text_of_array(error.message, sizeof error.message);
    return status;
}

std::string families_answered(context& with) {
    size_t specifications = 0, subprograms = 0, host_functions = 0;
    auto cases = family_cases();
    for (auto& each : random_cases(with, "families")) cases.push_back(each);
    for (const auto& each : cases) {
        const router_answer answer = ask(with.plugin(), each.request(), each.name);
        specifications += answer.specification ? 1 : 0;
        subprograms += answer.subprogram ? 1 : 0;
        host_functions += answer.host_function ? 1 : 0;
        require(!answer.host_function || has_route(with.plugin().router()),
                "{}: it answers with a host function, but has no function route", each.name);
    }
    return fmt::format("{} specifications, {} sub-programs, {} host functions", specifications,
                       subprograms, host_functions);
}

// Rows of logits without near ties, so that rounding cannot change a choice: each row holds equally
// spaced numbers in a random order.
std::vector<float> separated_logits(std::mt19937_64& random, int64_t rows, int64_t experts) {
    std::vector<float> logits;
    std::vector<float> row(static_cast<size_t>(experts));
    for (int64_t t = 0; t < rows; ++t) {
        for (int64_t e = 0; e < experts; ++e)
            row[static_cast<size_t>(e)] =
                6 * (static_cast<float>(e) + 0.5F) / static_cast<float>(experts) - 3;
        std::shuffle(row.begin(), row.end(), random);
        logits.insert(logits.end(), row.begin(), row.end());
    }
    return logits;
}

// Different experts within a row, and from row to row.
std::vector<int32_t> hash_table(const routing_case& which) {
    std::vector<int32_t> table;
    for (uint32_t row = 0; row < which.table_row_count; ++row)
        for (uint32_t j = 0; j < which.model.choice_count; ++j)
            table.push_back(static_cast<int32_t>((row + j) % which.model.expert_count));
    return table;
}

constexpr uint32_t row_count = 9;
constexpr size_t padding_row = 4;

// Rows to route, one of them padding, and all inputs that a checkpoint can have.
struct drawn_rows {
    std::vector<float> logits, choice_bias, per_expert_scale;
    std::vector<int32_t> position, table;

    // Also words that are out of the table.
    std::span<const int32_t> token_ids() const { return position; }
};

drawn_rows draw_rows(context& with, const routing_case& which) {
    auto random = with.random(which.name);
    const int64_t experts = which.model.expert_count;
    drawn_rows rows;
    rows.logits = separated_logits(random, row_count, experts);
    rows.choice_bias = separated_logits(random, 1, experts);
    rows.per_expert_scale = separated_logits(random, 1, experts);
    rows.position.resize(row_count);
    std::iota(rows.position.begin(), rows.position.end(), 0);
    rows.position[padding_row] = -1;
    rows.table = hash_table(which);
    return rows;
}

// What every router must keep.
void check_choices(const routing_case& which, const routing_outputs& found) {
    const size_t choices = found.index.size() / row_count;
    std::vector<int32_t> loads(which.model.expert_count);
    for (size_t place = 0; place < found.index.size(); ++place) {
        const size_t row = place / choices;
        const int32_t index = found.index[place];
        const float weight = found.weight[place];
        if (row == padding_row || index == -1) {
            require(index == -1 && weight == 0,
                    "{}: a choice without an expert (row {}) has index {} and weight {}, expected "
                    "-1 and 0",
                    which.name, row, index, weight);
            continue;
        }
        require(index >= 0 && index < int32_t(which.model.expert_count) && std::isfinite(weight),
                "{}: row {} has the expert {} with weight {}", which.name, row, index, weight);
        ++loads[static_cast<size_t>(index)];
        for (size_t earlier = row * choices; earlier < place; ++earlier)
            require(found.index[earlier] != index, "{}: row {} goes to the expert {} twice",
                    which.name, row, index);
    }
    require(found.count == loads, "{}: count is not the number of choices an expert", which.name);
    const int64_t assigned = std::accumulate(loads.begin(), loads.end(), int64_t{0});
    const int64_t without = int64_t(row_count - 1) * int64_t(choices) - assigned;
    // A token outside of the hash table has no choices that could be dropped.
    const bool may_be_less = which.table_row_count != 0;
    require(found.dropped == without
                || (may_be_less && found.dropped >= 0 && found.dropped < without),
            "{}: dropped is {}, expected {}{}", which.name, found.dropped, without,
            may_be_less ? " at most" : "");
}

// Runs a router's sub-program on the reference backend.
void check_subprogram(context& with, const routing_case& which, const program& subprogram) {
    const drawn_rows rows = draw_rows(with, which);
    const int64_t experts = which.model.expert_count;
    operation_case given(subprogram);
    batch_step& step = given.add_step();
    step.token_count = row_count;
    const auto custom = [&](const char* name, const host_tensor& tensor) {
        if (const auto value = subprogram.find(name)) step.custom.emplace(*value, tensor);
    };
    custom("logits", host_tensor::floats({row_count, experts}, rows.logits));
    custom("choice_bias", host_tensor::floats({experts}, rows.choice_bias));
    custom("per_expert_scale", host_tensor::floats({experts}, rows.per_expert_scale));
    custom("position", host_tensor::integers({row_count}, rows.position));
    custom("token_ids", host_tensor::integers({row_count}, rows.position));
    custom("table",
           host_tensor::integers({which.table_row_count, which.model.choice_count}, rows.table));
    const auto outputs = run_case(with.oracle(), given).at(0);
    routing_outputs found;
    found.index = outputs[0].as_integers();
    found.weight = outputs[1].as_floats();
    found.count = outputs[2].as_integers();
    found.dropped = outputs[3].as_integers().at(0);
    check_choices(which, found);
}

std::string subprograms_run(context& with) {
    size_t count = 0;
    for (const auto& each : family_cases()) {
        const router_answer answer = ask(with.plugin(), each.request(), each.name);
        if (!answer.subprogram) continue;
        check_subprogram(with, each, *answer.subprogram);
        ++count;
    }
    if (count == 0) skip_check("it has no sub-program");
    return fmt::format("{} sub-programs", count);
}

// A call of a host function with room for what it writes.
struct routing_call {
    routing_outputs found;
    sluice_router_call call = SLUICE_INIT(sluice_router_call);

    routing_call(const routing_case& which, uint32_t choice_count, const drawn_rows& rows) {
        const auto given = [](const auto& list) { return list.empty() ? nullptr : list.data(); };
        found.index.resize(size_t{row_count} * choice_count);
        found.weight.resize(size_t{row_count} * choice_count);
        found.count.resize(which.model.expert_count);
        call.layer = which.request().layer;
        call.row_count = row_count;
        call.expert_count = which.model.expert_count;
        call.choice_count = choice_count;
        call.table_row_count = rows.table.empty() ? 0 : which.table_row_count;
        call.logits = rows.logits.data();
        call.position = rows.position.data();
        call.token_ids = rows.token_ids().data();
        call.choice_bias = given(rows.choice_bias);
        call.per_expert_scale = given(rows.per_expert_scale);
        call.table = given(rows.table);
        call.index = found.index.data();
        call.weight = found.weight.data();
        call.dropped = &found.dropped;
    }
    routing_call(const routing_call&) = delete;
};

// Where a router says which specification it computes, it is held to that.
void check_claim(const routing_case& which, const routing_outputs& found,
                 const routing_outputs& expected) {
    require(found.index == expected.index,
            "{}: the experts are not those of the specification that it says it computes",
            which.name);
    for (size_t i = 0; i < expected.weight.size(); ++i) {
        const float allowed = 1e-5F + 1e-4F * std::fabs(expected.weight[i]);
        require(std::fabs(found.weight[i] - expected.weight[i]) <= allowed,
                "{}: place {} has the weight {}, the specification that it says it computes {}",
                which.name, i, found.weight[i], expected.weight[i]);
    }
    require(found.dropped == expected.dropped,
            "{}: dropped is {}, by the specification that it says it computes {}", which.name,
            found.dropped, expected.dropped);
}

// Calls the host function as the runtime does, with a request's inputs that it does not ignore.
void check_host_function(context& with, const routing_case& which, const router_answer& answer) {
    const auto takes = [&](bool given, uint32_t input) {
        return given && (answer.ignored_inputs & input) == 0;
    };
    drawn_rows rows = draw_rows(with, which);
    if (!takes(which.has_choice_bias, SLUICE_ROUTER_INPUT_CHOICE_BIAS)) rows.choice_bias.clear();
    if (!takes(which.has_per_expert_scale, SLUICE_ROUTER_INPUT_PER_EXPERT_SCALE))
        rows.per_expert_scale.clear();
    if (!takes(which.table_row_count != 0, SLUICE_ROUTER_INPUT_TABLE)) rows.table.clear();
    routing_call made(which, answer.host_function->choice_count, rows);
    call_host_function(with.plugin(), made.call, made.found.count.data());
    check_choices(which, made.found);
    if (answer.host_function->computes)
        check_claim(which, made.found,
                    route_directly(*answer.host_function->computes,
                                   {rows.logits, rows.choice_bias, rows.per_expert_scale,
                                    rows.position, rows.token_ids(), rows.table}));
    made.call.row_count = 0;
    call_host_function(with.plugin(), made.call, made.found.count.data());
}

std::string host_functions_run(context& with) {
    size_t count = 0, claims = 0;
    auto cases = family_cases();
    for (auto& each : random_cases(with, "families")) cases.push_back(each);
    for (const auto& each : cases) {
        const router_answer answer = ask(with.plugin(), each.request(), each.name);
        if (!answer.host_function) continue;
        check_host_function(with, each, answer);
        ++count;
        claims += answer.host_function->computes ? 1 : 0;
    }
    if (count == 0) skip_check("it has no host function");
    return fmt::format("{} cases, {} of them held to a specification", count, claims);
}

// A call that is too new is refused, one with a zero tail is not.
std::string calls_grow(context& with) {
    const auto given = make_case("growth", 16, 4);
    const router_answer answer = ask(with.plugin(), given.request(), given.name);
    if (!answer.host_function) skip_check("it has no host function");
    const auto rows = draw_rows(with, given);
    routing_call made(given, answer.host_function->choice_count, rows);
    std::fill(made.found.index.begin(), made.found.index.end(), -1);
    const auto status_of = [&](const sluice_router_call* call) {
        auto error = SLUICE_INIT(sluice_error);
        return with.plugin().router().route(with.plugin().handle(), call, &error);
    };
    require(SLUICE_STATUS_CLASS(status_of(with_unknown_field(made.call).get()))
                == SLUICE_UNSUPPORTED,
            "a call with an unknown field is not refused as unsupported");
    require(status_of(with_zero_tail(made.call).get()) == SLUICE_OK,
            "a call with a zero tail is refused");
    require(status_of(nullptr) != SLUICE_OK, "a call that is NULL is accepted");
    return {};
}

std::string impossible_refused(context& with) {
    struct change {
        const char* name;
        void (*apply)(sluice_routing_specification&);
    };
    using specification = sluice_routing_specification;
    const change changes[] = {
        {"no experts", [](specification& s) { s.expert_count = 0; }},
        {"5000 experts", [](specification& s) { s.expert_count = 5000; }},
        {"more choices than experts",
         [](specification& s) { s.choice_count = s.expert_count + 1; }},
        {"an unknown score", [](specification& s) { s.score = 77; }},
        {"groups that do not divide",
         [](specification& s) {
             s.group_count = 7;
             s.group_choice_count = 2;
         }},
        {"more groups chosen than there are",
         [](specification& s) {
             s.group_count = 2;
             s.group_choice_count = 3;
         }},
    };
    for (const auto& [name, apply] : changes) {
        auto given = make_case(name, 16, 4);
        apply(given.model);
        const sluice_router_request request = given.request();
        std::string message;
        const sluice_status status = try_to_ask(with.plugin(), &request, message);
        if (status == SLUICE_OK) {
            // A router may ignore what the model asks for, but its own answer must be possible.
            try {
                ask(with.plugin(), request, name);
            } catch (const std::exception& thrown) {
                fail_check("asked for {}, it answers what no one can do: {}", name, thrown.what());
            }
            continue;
        }
        const bool expected = SLUICE_STATUS_CLASS(status) == SLUICE_INVALID
                              || SLUICE_STATUS_CLASS(status) == SLUICE_UNSUPPORTED;
        require(expected && !message.empty(),
                "asked for {}, it refuses with '{}' and the message '{}'", name,
                status_name(status), message);
    }
    return {};
}

std::string growth_respected(context& with) {
    const auto given = make_case("growth", 16, 4);
    const sluice_router_request request = given.request();
    std::string message;
    const auto status_of = [&](const sluice_router_request* sent) {
        return try_to_ask(with.plugin(), sent, message);
    };
    const auto newer = with_unknown_field(request);
    require(SLUICE_STATUS_CLASS(status_of(newer.get())) == SLUICE_UNSUPPORTED,
            "a request with an unknown field is not refused as unsupported");
    const auto zero = with_zero_tail(request);
    require(status_of(zero.get()) == SLUICE_OK, "a request with a zero tail is refused: {}",
            message);

    sluice_router_request pointing = request;
    auto newer_model = with_unknown_field(given.model);
    pointing.model = newer_model.get();
    require(SLUICE_STATUS_CLASS(status_of(&pointing)) == SLUICE_UNSUPPORTED,
            "a model specification with an unknown field is not refused as unsupported");
    auto zero_model = with_zero_tail(given.model);
    pointing.model = zero_model.get();
    require(status_of(&pointing) == SLUICE_OK,
            "a model specification with a zero tail is refused: {}", message);
    const auto older_model =
        cut_to(given.model, offsetof(sluice_routing_specification, capacity_factor));
    pointing.model = older_model.get();
    require(status_of(&pointing) == SLUICE_OK,
            "a model specification without its last fields is refused: {}", message);

    const auto older = cut_to(request, offsetof(sluice_router_request, model));
    const sluice_status status = status_of(older.get());
    require(status == SLUICE_OK || !message.empty(),
            "a request without the model's specification is refused without a reason");
    require(status_of(nullptr) != SLUICE_OK, "a request that is NULL is accepted");
    auto specification = SLUICE_INIT(sluice_routing_specification);
    auto answer = SLUICE_INIT(sluice_router_answer);
    answer.specification = &specification;
    require(SLUICE_STATUS_CLASS(with.plugin().router().describe(with.plugin().handle(), newer.get(),
                                                                &answer, nullptr))
                == SLUICE_UNSUPPORTED,
            "without an error record it answers another status");
    return {};
}

bool same_answer(const router_answer& left, const router_answer& right) {
    if (left.specification.has_value() != right.specification.has_value()
        || left.host_function.has_value() != right.host_function.has_value())
        return false;
    if (left.host_function)
        return left.host_function->choice_count == right.host_function->choice_count;
    if (left.specification)
        return std::memcmp(&*left.specification, &*right.specification, sizeof *left.specification)
               == 0;
    return left.subprogram->operations().size() == right.subprogram->operations().size()
           && left.subprogram->values().size() == right.subprogram->values().size();
}

std::string many_threads(context& with) {
    const auto cases = family_cases();
    std::vector<router_answer> expected;
    for (const auto& each : cases)
        expected.push_back(ask(with.plugin(), each.request(), each.name));
    std::atomic<bool> differed{false};
    std::vector<std::thread> threads;
    for (size_t thread = 0; thread < 4; ++thread)
        threads.emplace_back([&, thread] {
            for (size_t i = 0; i < 50; ++i) {
                const size_t number = (i + thread) % cases.size();
                try {
                    const auto found =
                        ask(with.plugin(), cases[number].request(), cases[number].name);
                    if (!same_answer(found, expected[number])) differed = true;
                } catch (const std::exception&) {
                    differed = true;
                }
            }
        });
    for (auto& thread : threads) thread.join();
    require(!differed, "asked by four threads at once, it answers otherwise than by one");
    return {};
}

} // namespace

std::vector<check> router_checks() {
    return {{"router: families", families_answered},
            {"router: sub-programs run", subprograms_run},
            {"router: host functions run", host_functions_run},
            {"router: growth of calls", calls_grow},
            {"router: impossible requests", impossible_refused},
            {"router: growth of structs", growth_respected},
            {"router: threads", many_threads}};
}

} // namespace sluice::checker
