/*
 * The program: one step of a model as a flat array of operations over typed values, each value
 * written once. The runtime builds it, backends claim, compile and run it. operations.h says what
 * each operation does.
 */
#ifndef SLUICE_ABI_PROGRAM_H
#define SLUICE_ABI_PROGRAM_H

#include "weight.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Extents: the sizes that change from step to step ---- */

#define SLUICE_EXTENT_NONE      0u
#define SLUICE_EXTENT_TOKENS    1u /* T: token rows of the step */
#define SLUICE_EXTENT_SEQUENCES 2u /* S: sequences of the step */
#define SLUICE_EXTENT_LOGITS    3u /* L: rows whose logits are wanted */
#define SLUICE_EXTENT_BLOCKS    4u /* B: columns of the block table */
#define SLUICE_EXTENT_COUNT     5u

/* A size: factor * extent + offset; with SLUICE_EXTENT_NONE just `offset`. */
typedef struct sluice_dimension {
    uint32_t extent;
    uint32_t factor;
    int64_t offset;
} sluice_dimension;

/* ---- Values ---- */

#define SLUICE_VALUE_INPUT  1u /* given for each step */
#define SLUICE_VALUE_WEIGHT 2u /* given once, at compile */
/* a cache before or after a write: orders operations, holds no bytes */
#define SLUICE_VALUE_STATE  3u
#define SLUICE_VALUE_RESULT 4u /* written by exactly one operation */

/* Which input an INPUT is. The batch ones are filled by `plan` from sluice_batch. Padding rows have
 * token id 0, position -1, sequence_of_row -1 and slot -1. */
#define SLUICE_INPUT_CUSTOM          0u /* bound to a buffer by the caller; known by its name */
#define SLUICE_INPUT_TOKEN_IDS       1u /* i32 [T] */
#define SLUICE_INPUT_POSITION        2u /* i32 [T]: place of the row in its sequence, from 0 */
#define SLUICE_INPUT_SEQUENCE_OF_ROW 3u /* i32 [T]: row of the block table, 0 to S-1 */
#define SLUICE_INPUT_KV_LENGTH       4u /* i32 [S]: cached tokens, this step's rows included */
/* i32 [S, B]: block numbers of the state's group, -1 none */
#define SLUICE_INPUT_BLOCK_TABLE     5u
#define SLUICE_INPUT_SLOT            6u /* i32 [T]: block * tokens_per_block + place in the block */
#define SLUICE_INPUT_LOGIT_ROWS      7u /* i32 [L]: the rows whose logits are wanted */
#define SLUICE_INPUT_ADAPTER_INDEX   8u /* i32 [T]: adapter of the row, -1 none */

#define SLUICE_VALUE_NONE 0xffffffffu /* an optional operand that is absent */

/* Read under the zero-tail rule. */
typedef struct sluice_value {
    uint32_t struct_size;
    uint32_t kind;
    sluice_element_type element_type; /* of a weight: 0, see weight_format */
    uint32_t rank;                    /* 0 for a state */
    sluice_dimension shape[SLUICE_RANK_MAX];
    uint32_t input;       /* of an INPUT: SLUICE_INPUT_* */
    uint32_t group;       /* of the inputs SLOT and BLOCK_TABLE: the cache group */
    uint32_t state;       /* of a STATE: its number in sluice_program.states */
    uint32_t weight_role; /* of a WEIGHT: SLUICE_ROLE_* of all its uses together */
    const sluice_weight_format* weight_format; /* of a WEIGHT */
    sluice_text name; /* unique in the program; weights by the checkpoint's names */
} sluice_value;

/* ---- State ---- */

#define SLUICE_STATE_PAGED        1u /* in blocks that the block tables name */
#define SLUICE_STATE_PAGED_WINDOW 2u /* likewise; tokens older than the window may be gone */
#define SLUICE_STATE_PER_SEQUENCE 3u /* one fixed-size record a sequence */

#define SLUICE_STATE_PARTS_MAX 4u

/* What the cache keeps for each token in one layer: part_count vectors. Grouped-query attention
 * keeps k [kv_heads * head_dim] and v; MLA keeps the normalised latent [kv_lora_rank] and the
 * rotated k_pe [rope_dim]. Layers of one group share block tables. Read under the zero-tail rule.
 */
typedef struct sluice_state {
    uint32_t struct_size;
    uint32_t kind;
    uint32_t group;
    uint32_t window; /* tokens; 0: all */
    uint32_t tokens_per_block;
    uint32_t part_count;
    uint32_t part_width[SLUICE_STATE_PARTS_MAX]; /* elements a token */
    sluice_element_type part_type[SLUICE_STATE_PARTS_MAX];
    sluice_text name; /* "layers.3.cache" */
    /* Of a part of type I8, and of no other: so many neighbouring elements share a scale, which the
     * cache keeps for each token as well. It divides the width. kv_write says what is stored. */
    uint32_t part_group[SLUICE_STATE_PARTS_MAX];
} sluice_state;

/* ---- Operations ---- */

/* Recomputing the operation would count twice: transformations must not repeat it. */
#define SLUICE_OPERATION_ONCE 0x1u
/* A `route` that a router's host function answers (router.h): of its attributes only expert_count
 * and choice_count count. The runtime runs it itself; no backend is asked for it. */
#define SLUICE_OPERATION_HOST_FUNCTION 0x2u

typedef struct sluice_operation {
    uint32_t struct_size;
    uint32_t kind;          /* SLUICE_OP_* in operations.h */
    const void* attributes; /* the struct that operations.h gives for the kind; NULL where none */
    const uint32_t* inputs; /* [input_count] value numbers, SLUICE_VALUE_NONE for an absent one */
    const uint32_t* outputs; /* [output_count] value numbers */
    uint32_t input_count;   /* trailing absent operands may be left out */
    uint32_t output_count;
    uint32_t placement; /* where the runtime may cut the program; 0 for now */
    uint32_t flags;     /* SLUICE_OPERATION_* */
    sluice_text name;   /* "layers.3.attention": for profiles and messages */
} sluice_operation;

/* Operations stand in an order in which they can run. */
typedef struct sluice_program {
    uint32_t struct_size;
    uint32_t value_count;
    const sluice_value* const* values; /* [value_count] */
    const sluice_operation* const* operations; /* [operation_count] */
    const sluice_state* const* states;         /* [state_count] */
    const uint32_t* outputs; /* [output_count] value numbers that the caller can bind and read */
    uint32_t operation_count;
    uint32_t state_count;
    uint32_t output_count;
    uint32_t reserved;
    sluice_text name;
} sluice_program;

#ifdef __cplusplus
}
#endif
#endif
