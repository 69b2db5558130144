// For router plugins: from a class to the table of abi/router.h, and the consistency of a
// specification.
//
// A router class has, besides what entry.hpp asks for,
//   router_answer describe(const router_request& request);
// which may be called by several threads at once, and answers `router_table<Class>()` for the id
// SLUICE_ROUTER_EXTENSION. One that answers with a host function also has
//   void route(const router_call& call);
// which is called by one thread at a time.
#pragma once

#include <sluice/abi/router.h>
#include <sluice/plugin/entry.hpp>

#include <cmath>
#include <optional>
#include <span>
#include <variant>

namespace sluice::plugin {

// sluice_router_request, read. The texts are borrowed for the call.
struct router_request {
    uint32_t layer;
    uint32_t expert_count;
    uint32_t choice_count;
    uint32_t hidden_size;
    bool has_choice_bias;
    std::string_view model_type;
    bool has_model; // whether the runtime gave the model's own specification
    sluice_routing_specification model;
    bool has_per_expert_scale;
    uint32_t table_row_count; // 0: no hash table
};

// Routing by the class's own `route`.
struct host_function {
    uint32_t choice_count = 0; // experts a token goes to; 0: the request's
    // The specification that it computes, for the checker to hold it to.
    std::optional<sluice_routing_specification> computes = std::nullopt;
};

// What a router answers; made from one form alone.
struct router_answer {
    // ignored: SLUICE_ROUTER_INPUT_* of the checkpoint that take no part.
    router_answer(const sluice_routing_specification& found, uint32_t ignored = 0)
        : form(found), ignored_inputs(ignored) {}
    // A sub-program that lives until the instance is destroyed.
    router_answer(const sluice_program* found) : form(found) {}
    router_answer(const host_function& found, uint32_t ignored = 0)
        : form(found), ignored_inputs(ignored) {}

    std::variant<sluice_routing_specification, const sluice_program*, host_function> form;
    uint32_t ignored_inputs = 0;
};

// sluice_router_call, read. What is absent is empty; `index`, `weight` and `dropped` are written,
// and come filled with -1, 0 and 0.
struct router_call {
    uint32_t layer;
    uint32_t row_count;
    uint32_t expert_count;
    uint32_t choice_count;
    std::span<const float> logits;           // [rows, experts]
    std::span<const int32_t> position;       // [rows]
    std::span<const int32_t> token_ids;      // [rows]
    std::span<const float> choice_bias;      // [experts]
    std::span<const float> per_expert_scale; // [experts]
    std::span<const int32_t> table;          // [table rows, choices]
    std::span<int32_t> index;                // [rows, choices]
    std::span<float> weight;                 // [rows, choices]
    int32_t& dropped;

    bool is_padding(size_t row) const { return position[row] < 0; }
    // One row's logits, and its choices.
    std::span<const float> logits_of(size_t row) const {
        return logits.subspan(row * expert_count, expert_count);
    }
    std::span<int32_t> index_of(size_t row) const {
        return index.subspan(row * choice_count, choice_count);
    }
    std::span<float> weight_of(size_t row) const {
        return weight.subspan(row * choice_count, choice_count);
    }
};

namespace detail {

inline void check_enumeration(std::string_view field, uint32_t found, uint32_t last) {
    if (found > last)
        fail(SLUICE_UNSUPPORTED, "routing specification: ", field, " is ", found,
             ", the values known here are 0 to ", last);
}

inline void check_number(std::string_view field, float found, float least) {
    if (!std::isfinite(found) || found < least)
        fail(SLUICE_INVALID, "routing specification: ", field, " is ", found,
             ", expected a finite number of at least ", least);
}

inline void check_groups(const sluice_routing_specification& given) {
    if (given.group_count <= 1) return;
    if (given.expert_count % given.group_count != 0)
        fail(SLUICE_INVALID, "routing specification: group_count ", given.group_count,
             " does not divide the ", given.expert_count, " experts into equal groups");
    const uint32_t group_width = given.expert_count / given.group_count;
    if (given.group_choice_count < 1 || given.group_choice_count > given.group_count)
        fail(SLUICE_INVALID, "routing specification: group_choice_count is ",
             given.group_choice_count, ", expected 1 to group_count ", given.group_count);
    if (uint64_t{given.group_choice_count} * group_width < given.choice_count)
        fail(SLUICE_INVALID, "routing specification: ", given.group_choice_count, " groups of ",
             group_width, " experts cannot give ", given.choice_count,
             " choices; raise group_choice_count or lower choice_count");
    if (given.group_score == SLUICE_GROUP_SCORE_TOPK_SUM
        && (given.group_score_count < 1 || given.group_score_count > group_width))
        fail(SLUICE_INVALID, "routing specification: group_score_count is ",
             given.group_score_count, ", expected 1 to the ", group_width, " experts of a group");
}

} // namespace detail

// Throws unless the fields of a specification agree with each other and with abi/router.h.
inline void check_specification(const sluice_routing_specification& given) {
    if (given.expert_count < 1 || given.expert_count > 4096)
        fail(SLUICE_INVALID, "routing specification: expert_count is ", given.expert_count,
             ", expected 1 to 4096");
    const uint32_t choice_count_max = std::min(given.expert_count, 64u);
    if (given.choice_count < 1 || given.choice_count > choice_count_max)
        fail(SLUICE_INVALID, "routing specification: choice_count is ", given.choice_count,
             ", expected 1 to ", choice_count_max, " for ", given.expert_count, " experts");
    detail::check_enumeration("group_score", given.group_score, SLUICE_GROUP_SCORE_TOPK_SUM);
    detail::check_enumeration("score", given.score, SLUICE_SCORE_IDENTITY);
    detail::check_enumeration("score_stage", given.score_stage, SLUICE_SCORE_AFTER_CHOICE);
    detail::check_enumeration("mask_value", given.mask_value, SLUICE_MASK_ZERO);
    detail::check_enumeration("weight_source", given.weight_source, SLUICE_WEIGHT_FROM_CHOICE);
    detail::check_enumeration("renormalize", given.renormalize, SLUICE_RENORMALIZE_CLAMP);
    detail::check_enumeration("scale_condition", given.scale_condition,
                              SLUICE_SCALE_NOT_RENORMALIZED);
    detail::check_enumeration("capacity_policy", given.capacity_policy, SLUICE_CAPACITY_REROUTE);
    detail::check_groups(given);
    detail::check_number("renormalize_epsilon", given.renormalize_epsilon, 0.0F);
    detail::check_number("logit_softcap", given.logit_softcap, 0.0F);
    detail::check_number("capacity_factor", given.capacity_factor, 0.0F);
    if (!std::isfinite(given.scale) || given.scale == 0.0F)
        fail(SLUICE_INVALID, "routing specification: scale is ", given.scale,
             ", expected a finite number other than 0; 1 for none");
}

namespace detail {

inline router_request read_request(const sluice_router_request* source) {
    const auto given = read(source, "the router request");
    router_request request{};
    request.layer = given.layer;
    request.expert_count = given.expert_count;
    request.choice_count = given.choice_count;
    request.hidden_size = given.hidden_size;
    request.has_choice_bias = given.has_choice_bias != 0;
    request.has_per_expert_scale = given.has_per_expert_scale != 0;
    request.table_row_count = given.table_row_count;
    request.model_type = view(given.model_type);
    request.has_model = given.model != nullptr;
    if (!request.has_model) return request;
    request.model = read(given.model, "the model's routing specification");
    if (request.model.expert_count != request.expert_count)
        fail(SLUICE_INVALID, "the request speaks of ", request.expert_count,
             " experts, the model's routing specification of ", request.model.expert_count);
    return request;
}

inline void write_host_function(const host_function& found, sluice_router_answer* answer) {
    if (!SLUICE_HAS_FIELD(sluice_router_answer, answer, choice_count))
        fail(SLUICE_UNSUPPORTED, "this host is too old for routers that are host functions");
    answer->form = SLUICE_ROUTER_HOST_FUNCTION;
    answer->subprogram = nullptr;
    answer->choice_count = found.choice_count;
    if (found.computes)
        write_semantic(answer->specification, *found.computes, "the router answer's specification");
}

inline router_call read_call(const sluice_router_call* source) {
    const auto given = read(source, "the router call");
    if (given.row_count != 0
        && (given.logits == nullptr || given.position == nullptr || given.token_ids == nullptr
            || given.index == nullptr || given.weight == nullptr))
        fail(SLUICE_INVALID, "a router call of ", given.row_count, " rows lacks one of them");
    if (given.dropped == nullptr) fail(SLUICE_INVALID, "a router call without `dropped`");
    const size_t rows = given.row_count;
    const auto all_of = [](auto* data, size_t count) {
        return std::span(data, data == nullptr ? 0 : count);
    };
    return {given.layer,
            given.row_count,
            given.expert_count,
            given.choice_count,
            all_of(given.logits, rows * given.expert_count),
            all_of(given.position, rows),
            all_of(given.token_ids, rows),
            all_of(given.choice_bias, given.expert_count),
            all_of(given.per_expert_scale, given.expert_count),
            all_of(given.table, size_t{given.table_row_count} * given.choice_count),
            all_of(given.index, rows * given.choice_count),
            all_of(given.weight, rows * given.choice_count),
            *given.dropped};
}

inline void write_answer(const router_answer& found, sluice_router_answer* answer) {
    if (answer == nullptr || !SLUICE_HAS_FIELD(sluice_router_answer, answer, subprogram))
        fail(SLUICE_INVALID, "the router answer must be given, with struct_size set");
    // An older host would route by what is to be ignored.
    if (SLUICE_HAS_FIELD(sluice_router_answer, answer, ignored_inputs))
        answer->ignored_inputs = found.ignored_inputs;
    else if (found.ignored_inputs != 0)
        fail(SLUICE_UNSUPPORTED, "the routing ignores inputs of the checkpoint (",
             found.ignored_inputs, "), which this host does not know how to leave out");
    if (const auto* program = std::get_if<const sluice_program*>(&found.form)) {
        answer->form = SLUICE_ROUTER_SUBPROGRAM;
        answer->subprogram = *program;
        return;
    }
    if (const auto* function = std::get_if<host_function>(&found.form)) {
        write_host_function(*function, answer);
        return;
    }
    write_semantic(answer->specification, std::get<sluice_routing_specification>(found.form),
                   "the router answer's specification");
    answer->form = SLUICE_ROUTER_SPECIFICATION;
    answer->subprogram = nullptr;
}

} // namespace detail

template <typename Class>
const sluice_router* router_table() {
    static const sluice_router table = [] {
        sluice_router made = SLUICE_INIT(sluice_router);
        made.describe = [](sluice_plugin* plugin, const sluice_router_request* request,
                           sluice_router_answer* answer, sluice_error* error) {
            return guard(error, [&] {
                const router_answer found =
                    instance<Class>(plugin).describe(detail::read_request(request));
                detail::write_answer(found, answer);
            });
        };
        if constexpr (requires(Class & router, const router_call& call) { router.route(call); }) {
            made.route = [](sluice_plugin* plugin, const sluice_router_call* call,
                            sluice_error* error) {
                return guard(error,
                             [&] { instance<Class>(plugin).route(detail::read_call(call)); });
            };
        }
        return made;
    }();
    return &table;
}

} // namespace sluice::plugin
