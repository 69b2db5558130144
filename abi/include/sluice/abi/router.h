/*
 * Routing: which experts a token goes to and with what weight, as a specification that every
 * backend lowers to one kernel; and the table of a router plugin.
 *
 * Given logits [tokens, experts] in float32, a row is routed so (all arithmetic in float32):
 *
 *   1. l = logits; with logit_softcap c > 0: l = c * tanh(l / c).
 *   2. With score_stage BEFORE: s = score(l) over all experts. With AFTER: s = l.
 *   3. choice = s + choice_bias (if given).
 *   4. With group_count G > 1, experts lie in G equal groups of neighbours. A group's score is the
 *      maximum of choice in it, or the sum of its group_score_count largest. The group_choice_count
 *      best groups stay; the choice of experts elsewhere becomes mask_value.
 *   5. The choice_count experts with the largest choice are taken, in falling order. Ties
 *   everywhere
 *      go to the lower number.
 *   6. w = s of those (weight_source SCORE) or their choice (weight_source CHOICE). With AFTER:
 *      w = score(w) over the chosen alone.
 *   7. renormalize ADD: w /= sum(w) + epsilon; CLAMP: w /= max(sum(w), epsilon).
 *   8. w *= scale, unless scale_condition says NOT_RENORMALIZED and step 7 was done;
 *      w *= per_expert_scale[expert] (if given).
 *   9. Capacity, if capacity_factor > 0: an expert takes at most
 *      ceil(capacity_factor * rows * choice_count / expert_count) rows, where `rows` counts the
 *      valid rows of the step. Assignments are taken first choices first, within one rank in the
 *      order of the rows. One that finds its expert full is dropped (index -1, weight 0), or with
 *      REROUTE goes to the expert with room that is best by step 5 among those the row has not
 *      already, keeps its rank, and is weighed as in step 6 before renormalisation; if none has
 *      room, it is dropped. Renormalisation is not repeated, except that REROUTE weighs after the
 *      assignment, so steps 6 to 8 then run on the final experts.
 *
 * Rows that are padding (position < 0) get index -1 and weight 0, and count nowhere.
 * With a hash table, steps 3 to 5 are replaced: choice = s, and the experts are table[token_id].
 * An id outside 0..V-1 and an entry outside 0..E-1 choose no expert: index -1, weight 0, and no
 * part in steps 6 and 7.
 */
#ifndef SLUICE_ABI_ROUTER_H
#define SLUICE_ABI_ROUTER_H

#include "plugin.h"
#include "program.h"

#ifdef __cplusplus
extern "C" {
#endif

#define SLUICE_SCORE_SOFTMAX       0u
#define SLUICE_SCORE_SIGMOID       1u
#define SLUICE_SCORE_SQRT_SOFTPLUS 2u /* sqrt(log(1 + exp(x))) */
#define SLUICE_SCORE_IDENTITY      3u

#define SLUICE_SCORE_BEFORE_CHOICE 0u
#define SLUICE_SCORE_AFTER_CHOICE  1u

#define SLUICE_GROUP_SCORE_MAX      0u
#define SLUICE_GROUP_SCORE_TOPK_SUM 1u

#define SLUICE_MASK_MINUS_INFINITY 0u
#define SLUICE_MASK_ZERO           1u

#define SLUICE_WEIGHT_FROM_SCORE  0u
#define SLUICE_WEIGHT_FROM_CHOICE 1u

#define SLUICE_RENORMALIZE_NONE  0u
#define SLUICE_RENORMALIZE_ADD   1u
#define SLUICE_RENORMALIZE_CLAMP 2u

#define SLUICE_SCALE_ALWAYS           0u
#define SLUICE_SCALE_NOT_RENORMALIZED 1u

#define SLUICE_CAPACITY_DROP    0u
#define SLUICE_CAPACITY_REROUTE 1u

/* The attributes of operation `route`. Read under the zero-tail rule. */
typedef struct sluice_routing_specification {
    uint32_t struct_size;
    uint32_t expert_count;  /* E, 1 to 4096 */
    uint32_t choice_count;  /* k, 1 to min(E, 64) */
    uint32_t group_count;   /* G; 0 or 1: no groups; divides E */
    uint32_t group_choice_count;
    uint32_t group_score;       /* SLUICE_GROUP_SCORE_* */
    uint32_t group_score_count; /* of TOPK_SUM; at most E/G */
    uint32_t score;
    uint32_t score_stage;
    uint32_t mask_value;
    uint32_t weight_source;
    uint32_t renormalize;
    float renormalize_epsilon;
    float scale; /* must be given; 1 for none */
    uint32_t scale_condition;
    float logit_softcap;   /* 0: none */
    float capacity_factor; /* 0: unlimited */
    uint32_t capacity_policy;
} sluice_routing_specification;

/* What the runtime tells a router of the place it will be used in. */
typedef struct sluice_router_request {
    uint32_t struct_size;
    uint32_t layer;
    uint32_t expert_count;
    uint32_t choice_count;
    uint32_t hidden_size;
    uint32_t has_choice_bias;      /* 1: the checkpoint has one; it will be an input */
    sluice_text model_type;        /* "deepseek_v3" */
    const sluice_routing_specification* model; /* what the model's own configuration asks for */
    uint32_t has_per_expert_scale; /* 1: the checkpoint has one; it will be an input */
    uint32_t table_row_count;      /* V of the checkpoint's hash table [V, choice_count], which will
                                      be an input; 0: it has none */
} sluice_router_request;

/* Inputs of routing that a checkpoint may have, for sluice_router_answer.ignored_inputs. */
#define SLUICE_ROUTER_INPUT_CHOICE_BIAS      0x1u
#define SLUICE_ROUTER_INPUT_PER_EXPERT_SCALE 0x2u
#define SLUICE_ROUTER_INPUT_TABLE            0x4u
#define SLUICE_ROUTER_INPUTS_ALL             0x7u

/* A router answers with a specification, or contributes a sub-program of primitives that is inlined
 * in place of the operation `route`, or routes each step itself, on the host. The last form is a
 * draft. It runs in front of every backend, and costs in each of its layers that the step waits for
 * the host, and that logits and choices are copied to it and back; `sluice explain` says so. */
#define SLUICE_ROUTER_SPECIFICATION 0u
#define SLUICE_ROUTER_SUBPROGRAM    1u
#define SLUICE_ROUTER_HOST_FUNCTION 2u

typedef struct sluice_router_answer {
    uint32_t struct_size;
    uint32_t form;
    /* The caller's, all zero but struct_size. Written by the first form. A host function may write
     * which specification it computes: the checker holds it to that, and nothing else reads it. */
    sluice_routing_specification* specification;
    /* Of a sub-program: its INPUT values are SLUICE_INPUT_CUSTOM with the names "logits"
     * (f32 [T, E]), "position" (i32 [T]) and "token_ids" (i32 [T]), and if the request has them
     * "choice_bias" (f32 [E]), "per_expert_scale" (f32 [E]) and "table" (i32 [V, k] with the
     * request's numbers), each optional; its outputs in order index i32 [T, k], weight f32 [T, k],
     * count i32 [E], dropped i32 [1]. Valid until the instance is destroyed. */
    const sluice_program* subprogram;
    /* Of a specification and of a host function: SLUICE_ROUTER_INPUT_* that it is routed without
     * although the checkpoint has them. (A sub-program leaves out what it does not use.) */
    uint32_t ignored_inputs;
    uint32_t choice_count; /* of a host function: k, 1 to min(E, 64); 0: the request's */
} sluice_router_answer;

/* What a host function is asked: the rows of one step in one layer. Read under the zero-tail rule;
 * borrowed for the call. */
typedef struct sluice_router_call {
    uint32_t struct_size;
    uint32_t layer;
    uint32_t row_count;            /* T; may be 0 */
    uint32_t expert_count;         /* E */
    uint32_t choice_count;         /* k */
    uint32_t table_row_count;      /* V */
    const float* logits;           /* [T, E] */
    const int32_t* position;       /* [T]; a row under 0 is padding */
    const int32_t* token_ids;      /* [T] */
    const float* choice_bias;      /* [E]; like the next two NULL where there is none or ignored */
    const float* per_expert_scale; /* [E] */
    const int32_t* table;          /* [V, k] */
    /* Written. They come filled with -1, 0 and 0: a choice that is left so goes to no expert, as
     * all of a row of padding must. The experts of a row are different ones, the weights finite. */
    int32_t* index;   /* [T, k] */
    float* weight;    /* [T, k] */
    int32_t* dropped; /* [1]: how many choices a capacity took away */
} sluice_router_call;

#define SLUICE_ROUTER_EXTENSION "sluice.router/0"

typedef struct sluice_router {
    uint32_t struct_size;
    uint32_t reserved;
    /* [thread: any, state: created, blocks: no, allocates: yes] [required] */
    sluice_status (*describe)(sluice_plugin* plugin, const sluice_router_request* request,
                              sluice_router_answer* answer, sluice_error* error);
    /* The host function: routes one layer's rows of one step. It is called by the thread that runs
     * the step, which waits for it, and may use the team.
     * [thread: owner and no worker, state: the layer was described as a host function,
     * blocks: yes, allocates: yes] */
    sluice_status (*route)(sluice_plugin* plugin, const sluice_router_call* call,
                           sluice_error* error);
} sluice_router;

#ifdef __cplusplus
}
#endif
#endif
