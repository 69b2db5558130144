/*
 * Weights: the parameters that say how one is stored, and where its bytes are borrowed from.
 *
 * A weight is a matrix [N, K] (N outputs, K inputs, as in y = x W^T) or a stack of E such matrices
 * [E, N, K]; a vector is [N] with K absent. Its real values are
 *
 *   w[n, k] = (code[n, k] - zero[n, g]) * scale[n, g] * global_scale,     g = group of k
 *
 * where for float elements `code` is the element's own value and zero is 0.
 */
#ifndef SLUICE_ABI_WEIGHT_H
#define SLUICE_ABI_WEIGHT_H

#include "tensor.h"

#ifdef __cplusplus
extern "C" {
#endif

/* How the codes lie in the `data` part. */
/* [N, K], K fastest; 4-bit elements two a byte, low nibble first */
#define SLUICE_WEIGHT_ROW_MAJOR 0u
/* int32 [K*bits/32, N]: 32/bits consecutive k a word, lowest k in the lowest bits; zeros int32
 * [groups, N*bits/32], packed along N; scales [groups, N]; group_index int32 [K] */
#define SLUICE_WEIGHT_GPTQ 1u

/* The zero points. */
#define SLUICE_ZERO_NONE           0u /* 0 (float elements, two's complement integers) */
#define SLUICE_ZERO_MIDDLE         1u /* 2^(bits-1) everywhere; there is no zeros part */
#define SLUICE_ZERO_GROUP          2u /* one code per scale, in the zeros part */
#define SLUICE_ZERO_GROUP_LESS_ONE 3u /* likewise, but stored less one (the older GPTQ files) */

/* Read under the zero-tail rule. All zero but element_type: plain row-major elements. */
typedef struct sluice_weight_format {
    uint32_t struct_size;
    /* of the codes: F32, F16, BF16, F8_*, F4_E2M1, I8, U8, I4, U4 */
    sluice_element_type element_type;
    uint32_t layout;                  /* SLUICE_WEIGHT_* */
    sluice_element_type scale_type;   /* 0: no scales */
    uint32_t group_rows;    /* n that share a scale: 0 or 1 for one row, 128 for FP8 blocks */
    uint32_t group_columns; /* k that share a scale: 0 for the whole row; 64, 128, 32 ... */
    uint32_t zero_point;    /* SLUICE_ZERO_* */
    uint32_t group_index;   /* 1: the group of k is group_index[k] (activation order), not
                               k / group_columns */
    sluice_element_type global_scale_type; /* second-level scale, one a tensor; 0: none */
} sluice_weight_format;

/* The parts of one stored matrix. Row-major layout: data [N, K]; scales and zeros
 * [ceil(N/group_rows), ceil(K/group_columns)]. An absent part is NULL. */
#define SLUICE_PART_DATA         0u
#define SLUICE_PART_SCALES       1u
#define SLUICE_PART_ZEROS        2u
#define SLUICE_PART_GROUP_INDEX  3u
#define SLUICE_PART_GLOBAL_SCALE 4u
#define SLUICE_PART_COUNT        5u

/* One matrix [row_count, column_count] cut out of a stored one: rows row_begin.., columns
 * column_begin.., both counted in the stored matrix's own N and K. `stored_rows` and
 * `stored_columns` are the whole stored matrix's. A stack of matrices stored as one tensor of rank
 * 3 is given as one slice a matrix, with the parts' data already moved to that matrix. */
typedef struct sluice_weight_slice {
    uint32_t struct_size;
    uint32_t reserved;
    const sluice_tensor* parts[SLUICE_PART_COUNT]; /* borrowed; an absent part is NULL */
    int64_t stored_rows;
    int64_t stored_columns;
    int64_t row_begin;
    int64_t row_step; /* distance of consecutive rows: 0 or 1 for neighbours, 2 for interleaved */
    int64_t column_begin;
} sluice_weight_slice;

/* Where a weight value comes from: `matrix_count` matrices of [row_count, column_count], each made
 * of slice_count / matrix_count slices that follow each other along the rows. */
typedef struct sluice_weight_source {
    uint32_t struct_size;
    uint32_t matrix_count;  /* E, or 1 */
    int64_t row_count;      /* N */
    int64_t column_count;   /* K; 1 for a vector */
    const sluice_weight_format* format;
    const sluice_weight_slice* const* slices; /* [slice_count] */
    const int64_t* slice_rows;                /* [slice_count]: rows of each slice */
    uint64_t slice_count;
    sluice_text name; /* of the weight value, for messages */
} sluice_weight_source;

/* What a program does with a weight: a backend prepares a layout for the roles together. */
#define SLUICE_ROLE_LINEAR    0x1u /* right operand of linear */
#define SLUICE_ROLE_GROUPED   0x2u /* right operand of grouped_linear and moe_ffn */
#define SLUICE_ROLE_EMBEDDING 0x4u /* rows gathered by embed */
#define SLUICE_ROLE_VECTOR    0x8u /* norm weights, biases, sinks: small, read as float32 */
#define SLUICE_ROLE_LATENT    0x10u /* W_uk and W_uv of mla_attention */
#define SLUICE_ROLE_TENSOR    0x20u /* read element by element by dequantize */

#ifdef __cplusplus
}
#endif
#endif
