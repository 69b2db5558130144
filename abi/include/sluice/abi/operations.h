/*
 * The operations of a program: for each its operands, attributes and formula.
 *
 * Notation: T, S, L, B are the extents of program.h; f means f32, f16 or bf16. Every operation
 * computes in float32 at least and rounds once when it writes. "P" marks a primitive, which every
 * backend must run; "C" a composite, which the runtime decomposes where a backend does not claim
 * it. (x) is an optional operand. W is a weight; a vector such as w or b is a weight or a float
 * tensor. A row of padding reads as the formula says and writes finite numbers that nobody looks
 * at; caches, counts and random numbers never see it.
 *
 * Attribute structs are read under the zero-tail rule.
 */
#ifndef SLUICE_ABI_OPERATIONS_H
#define SLUICE_ABI_OPERATIONS_H

#include "program.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Dense layers ---- */

/* P  ids i32 [T], W [V, D] -> x f [T, D]:  x[t] = scale * W[ids[t]]; scale 0 means 1.
 * An id outside 0..V-1 gives a row of zeros. */
#define SLUICE_OP_EMBED 1u
typedef struct sluice_embed_attributes {
    uint32_t struct_size;
    float scale;
} sluice_embed_attributes;

/* P  x f [..., D], w [G], (addend f [..., D]) -> y f [..., D], (sum f [..., D])
 * u = x + addend, rounded to the type of `sum` where that is an output. Over each run of G elements
 * (G = group_width, or D where that is 0):
 *   y = u / sqrt(mean(u^2) + epsilon) * (w + weight_offset).          (Zhang and Sennrich 2019) */
#define SLUICE_OP_RMS_NORM 2u
typedef struct sluice_rms_norm_attributes {
    uint32_t struct_size;
    float epsilon;
    float weight_offset;  /* 1 for checkpoints that store w - 1 */
    uint32_t group_width; /* head size, for norms of queries and keys; 0: D */
} sluice_rms_norm_attributes;

/* P  x f [..., D], w [D], (b [D]) -> y f [..., D]:  y = (x - mean) / sqrt(var + epsilon) * w + b */
#define SLUICE_OP_LAYER_NORM 3u
typedef struct sluice_layer_norm_attributes {
    uint32_t struct_size;
    float epsilon;
} sluice_layer_norm_attributes;

/* P  x f [M, K], W [N, K], (b [N]) -> y f [M, N]:  y = x W^T + b. M is any dimension. */
#define SLUICE_OP_LINEAR 4u

/* P  x f [T, H, d], position i32 [T] -> y f [T, H, d]
 * The first `dimension` elements of each head are turned, the rest copied. For pair i of
 * dimension/2, angle a = position * frequency[i]:
 *   (u, v) -> (u cos a - v sin a, v cos a + u sin a) * magnitude,
 * with (u, v) = (x[i], x[i + dimension/2]), or (x[2i], x[2i+1]) where interleaved; the result goes
 * back to the places it came from. `inverse` turns by -a (for gradients).   (Su et al. 2021)
 * frequency[i] = base^(-2i/dimension), changed by the scaling:
 *   LINEAR  divided by factor.
 *   LLAMA3  wavelength w = 2 pi / frequency; over original_length/low_frequency_factor: divided by
 *           factor; under original_length/high_frequency_factor: kept; between: mixed by
 *           s = (original_length/w - low)/(high - low): (1-s)*frequency/factor + s*frequency.
 *   YARN    mixed between frequency/factor and frequency by a ramp over i from the pair that turns
 *           beta_fast times within original_length to the one that turns beta_slow times:
 *           bound(r) = dimension * ln(original_length / (2 pi r)) / (2 ln base); low = floor of
 *           bound(beta_fast), high = ceil of bound(beta_slow), clipped to 0..dimension-1 (with
 *           truncate_bounds 1; not rounded with 2); ramp = clip((i - low)/(high - low), 0, 1),
 *           where high = low counts as 0.001 apart; kept share = 1 - ramp.    (Peng et al. 2023)
 *   TABLE   frequency[i] = table[i] (longrope and others), computed by the runtime. */
#define SLUICE_OP_ROPE 5u
#define SLUICE_ROPE_PLAIN  0u
#define SLUICE_ROPE_LINEAR 1u
#define SLUICE_ROPE_LLAMA3 2u
#define SLUICE_ROPE_YARN   3u
#define SLUICE_ROPE_TABLE  4u
typedef struct sluice_rope_attributes {
    uint32_t struct_size;
    uint32_t dimension; /* even */
    uint32_t interleaved;
    uint32_t inverse;
    uint32_t scaling;
    float magnitude; /* factor on cos and sin; 0 means 1 */
    double base;
    double factor;
    double original_length;
    double low_frequency_factor;
    double high_frequency_factor;
    double beta_fast;
    double beta_slow;
    uint32_t truncate_bounds; /* 0 and 1: rounded outward; 2: not rounded */
    uint32_t table_count;
    const double* table; /* [table_count = dimension/2] */
} sluice_rope_attributes;

/* ---- Activations ---- */

#define SLUICE_ACTIVATION_SILU         0u /* x / (1 + exp(-x)) */
#define SLUICE_ACTIVATION_GELU_ERF     1u /* x/2 (1 + erf(x / sqrt 2)) */
#define SLUICE_ACTIVATION_GELU_TANH    2u /* x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) */
#define SLUICE_ACTIVATION_RELU         3u
#define SLUICE_ACTIVATION_RELU_SQUARED 4u
#define SLUICE_ACTIVATION_SWIGLU_OAI   5u /* gated only: g = min(gate, clamp), u = clip(up, -clamp,
                                             clamp); g / (1 + exp(-alpha g)) * (u + 1) */

/* How gate and up lie where they are one tensor or one weight. */
#define SLUICE_GATE_SPLIT       0u /* two operands */
#define SLUICE_GATE_CONCAT      1u /* all of gate, then all of up */
#define SLUICE_GATE_INTERLEAVED 2u /* gate[0], up[0], gate[1], ... */

typedef struct sluice_activation_attributes {
    uint32_t struct_size;
    uint32_t activation;
    uint32_t gate_layout; /* gated_activation, gated_mlp and moe_ffn only */
    float alpha;          /* SWIGLU_OAI */
    float clamp;          /* SWIGLU_OAI; 0: none */
} sluice_activation_attributes;

/* P  x f [...] -> y f [...].  sluice_activation_attributes */
#define SLUICE_OP_ACTIVATION 6u

/* P  gate f [..., F], up f [..., F] -> y f [..., F], or both f [..., 2F] -> y f [..., F]
 * y = activation(gate) * up.  sluice_activation_attributes */
#define SLUICE_OP_GATED_ACTIVATION 7u

/* C  x f [T, D], W_gate [F, D], W_up [F, D], W_down [D, F] -> y f [T, D]
 * y = (activation(x W_gate^T) * x W_up^T) W_down^T. With a gate layout other than SPLIT, W_gate is
 * [2F, D] and W_up is absent.  sluice_activation_attributes */
#define SLUICE_OP_GATED_MLP 8u

/* ---- Caches and attention ---- */

/* P  state, slot i32 [T], part0 f [T, ...], (part1 f [T, ...]), ... -> state
 * Writes each row's parts (flattened to part_width) to its slot, converted to part_type. Slot -1
 * writes nothing. In a part of type I8 each group of part_group elements is stored as whole numbers
 * and a scale, all computed in float32: with m the greatest |x| of the group, scale = m / 127 and
 * q = x * (127 / m) rounded to nearest, ties to even (all 0 where m is 0); an x that is no finite
 * number leaves its group without meaning. Whoever reads the cache reads q * scale. */
#define SLUICE_OP_KV_WRITE 9u

/* P  state, block_table i32 [S, B] -> x f [S, B * tokens_per_block, part_width]
 * The cached vectors of each sequence in order; places in absent blocks are zero. */
#define SLUICE_OP_KV_GATHER 10u
typedef struct sluice_kv_gather_attributes {
    uint32_t struct_size;
    uint32_t part;
} sluice_kv_gather_attributes;

/* C  q f [T, Hq, dk], state, position i32 [T], sequence_of_row i32 [T], kv_length i32 [S],
 *    block_table i32 [S, B], (sinks [Hq]) -> o f [T, Hq, dv]
 * The state has parts k [kv_heads * dk] and v [kv_heads * dv]; query head h reads kv head
 * h / (Hq / kv_heads). Row t of sequence s attends to the places j < kv_length[s] with
 * j <= position[t] and, with a window, j > position[t] - window:
 *   z_j = scale * q.k_j, softcapped to c tanh(z_j / c) where softcap c > 0
 *   o = sum_j exp(z_j) v_j / (sum_j exp(z_j) + exp(sinks[h]) if given)
 * A row without a place to attend to, and a row of sequence -1, gives zeros. */
#define SLUICE_OP_ATTENTION 11u
typedef struct sluice_attention_attributes {
    uint32_t struct_size;
    uint32_t kv_heads;
    float scale;
    float softcap;   /* 0: none */
    uint32_t window; /* tokens, the row's own included; 0: none */
} sluice_attention_attributes;

/* C  q_nope f [T, H, n], q_pe f [T, H, r], state, W_uk [H, n, R], W_uv [H, dv, R],
 *    position i32 [T], sequence_of_row i32 [T], kv_length i32 [S], block_table i32 [S, B]
 *    -> o f [T, H, dv]
 * Multi-head latent attention (DeepSeek-V2, section 2.1). The state has parts c [R], the normalised
 * latent, and p [r], the rotated shared key. Places are masked as in attention.
 *   expanded: k_j = W_uk c_j, v_j = W_uv c_j; z_j = scale (q_nope.k_j + q_pe.p_j);
 *             o = sum_j a_j v_j
 *   absorbed: q' = W_uk^T q_nope; z_j = scale (q'.c_j + q_pe.p_j); o = W_uv sum_j a_j c_j
 * which are equal; the choice is the backend's, per sequence, unless `form` fixes it. */
#define SLUICE_OP_MLA_ATTENTION 12u
#define SLUICE_MLA_FORM_ANY      0u
#define SLUICE_MLA_FORM_EXPANDED 1u
#define SLUICE_MLA_FORM_ABSORBED 2u
typedef struct sluice_mla_attention_attributes {
    uint32_t struct_size;
    float scale; /* YaRN's squared mscale is folded in */
    uint32_t form;
} sluice_mla_attention_attributes;

/* ---- Experts ---- */

/* C  logits f32 [T, E], (choice_bias f32 [E]), (per_expert_scale f32 [E]), (position i32 [T]),
 *    (token_ids i32 [T]), (table i32 [V, k])
 *    -> index i32 [T, k], weight f32 [T, k], (count i32 [E]), (dropped i32 [1])
 * As router.h says; the attributes are its sluice_routing_specification. count[e] is the number of
 * assignments to e that are carried out; dropped the number that capacity took away. ONCE. */
#define SLUICE_OP_ROUTE 13u

/* C  x f [T, D], index i32 [T, k], weight f32 [T, k], (expert_map i32 [E]),
 *    W_gate [E', F, D], (W_up [E', F, D]), W_down [E', D, F],
 *    (b_gate [E', F]), (b_up [E', F]), (b_down [E', D]) -> y f [T, D]
 * y[t] = sum over j in rising order of weight[t, j] * expert(x[t], m), m = expert_map[index[t, j]]
 * (or index itself), with expert as gated_mlp plus biases. Choices with index or m of -1 add
 * nothing, so that y is a partial sum where experts live in several places. With a gate layout
 * other than SPLIT, W_gate is [E', 2F, D], b_gate [E', 2F], and W_up and b_up are absent. An index
 * of E' or more with no map names a zero-computation expert: IDENTITY adds weight * x, ZERO
 * nothing. weight_on_input multiplies x instead of the expert's output. */
#define SLUICE_OP_MOE_FFN 14u
#define SLUICE_ZERO_EXPERT_NONE     0u
#define SLUICE_ZERO_EXPERT_IDENTITY 1u
#define SLUICE_ZERO_EXPERT_ZERO     2u
typedef struct sluice_moe_ffn_attributes {
    uint32_t struct_size;
    uint32_t activation;
    uint32_t gate_layout;
    float alpha;
    float clamp;
    uint32_t weight_on_input;
    uint32_t zero_expert;
} sluice_moe_ffn_attributes;

/* P  index i32 [T, k], (expert_map i32 [E]) -> row i32 [T*k], choice i32 [T*k], place i32 [T, k],
 *    offset i32 [E'+1]
 * Sorts the choices by (mapped) expert, keeping the order of t, then j, within one. At sorted place
 * p: row[p] = t and choice[p] = t*k + j; place[t, j] = p. Expert m owns places offset[m] to
 * offset[m+1]-1. A choice whose (mapped) expert is not in 0..E'-1 has none and gets place -1; row
 * and choice of unused places are -1. */
#define SLUICE_OP_GROUP_ROWS 15u

/* P  x f [P, K], offset i32 [E'+1], W [E', N, K], (b [E', N]) -> y f [P, N]
 * y[p] = W[m] x[p] + b[m] for the expert m that owns place p; zeros from offset[E'] on. */
#define SLUICE_OP_GROUPED_LINEAR 16u

/* P  y f [P, D], place i32 [T, k], (weight f32 [T, k]) -> o f [T, D]
 * o[t] = sum over j in rising order of weight[t, j] * y[place[t, j]]; place -1 adds nothing. */
#define SLUICE_OP_COMBINE_ROWS 17u

/* ---- Data movement ---- */

/* P  x [R, ...], rows i32 [M] -> y [M, ...]:  y[m] = x[rows[m]]; a row outside 0..R-1 gives zeros.
 */
#define SLUICE_OP_GATHER_ROWS 18u

/* P  x [..., N], index i32 [..., M] -> y [..., M]: y[..., m] = x[..., index[..., m]]; leading
 * dimensions broadcast; an index outside 0..N-1 gives zero. */
#define SLUICE_OP_GATHER 19u

/* P  base f32 [R, ...], rows i32 [M], x f [M, ...] -> y f32 [R, ...]: y = base with x[m] added to
 * row rows[m], in rising m. Rows outside are skipped. */
#define SLUICE_OP_SCATTER_ADD 20u

/* P  x [...] -> y [...]: the same elements in the same order under another shape. */
#define SLUICE_OP_RESHAPE 21u

/* P  x -> y: axis i of y is axis order[i] of x. */
#define SLUICE_OP_TRANSPOSE 22u
typedef struct sluice_transpose_attributes {
    uint32_t struct_size;
    uint32_t order[SLUICE_RANK_MAX];
} sluice_transpose_attributes;

/* P  x -> y: elements begin .. begin + (size of y's axis) - 1 along the axis. */
#define SLUICE_OP_SLICE 23u
/* P  x0, x1, ... -> y: joined along the axis. */
#define SLUICE_OP_CONCAT 24u
typedef struct sluice_axis_attributes {
    uint32_t struct_size;
    uint32_t axis;
    int64_t begin; /* slice only */
} sluice_axis_attributes;

/* P  x -> y of another element type: to nearest even for floats, toward zero for integers. */
#define SLUICE_OP_CAST 25u

/* P  x -> y: the same bytes at another placement. */
#define SLUICE_OP_COPY 26u

/* P  W (weight of any format, any role with TENSOR) -> x f [its shape]: the real values. */
#define SLUICE_OP_DEQUANTIZE 27u

/* ---- Elementwise; operands broadcast as in NumPy ---- */

/* P  x f [...] -> y f [...] */
#define SLUICE_OP_UNARY 28u
#define SLUICE_UNARY_EXP        0u
#define SLUICE_UNARY_LOG        1u
#define SLUICE_UNARY_SQRT       2u
#define SLUICE_UNARY_SIGMOID    3u
#define SLUICE_UNARY_SOFTPLUS   4u /* log(1 + exp(x)), without overflow */
#define SLUICE_UNARY_TANH       5u
#define SLUICE_UNARY_RECIPROCAL 6u
#define SLUICE_UNARY_AFFINE     7u /* a x + b; also for i32, with a and b whole numbers */
#define SLUICE_UNARY_CLAMP      8u /* min(max(x, a), b) */
#define SLUICE_UNARY_ABS        9u
#define SLUICE_UNARY_CEIL       10u
typedef struct sluice_unary_attributes {
    uint32_t struct_size;
    uint32_t function;
    float a;
    float b;
} sluice_unary_attributes;

/* P  x, y of one type (f or i32) -> z of that type; comparisons give BOOL. Also AND and OR of BOOL.
 */
#define SLUICE_OP_BINARY 29u
#define SLUICE_BINARY_ADD           0u
#define SLUICE_BINARY_SUBTRACT      1u
#define SLUICE_BINARY_MULTIPLY      2u
#define SLUICE_BINARY_DIVIDE        3u /* i32: toward zero; by zero gives 0 */
#define SLUICE_BINARY_MAXIMUM       4u
#define SLUICE_BINARY_MINIMUM       5u
#define SLUICE_BINARY_LESS          6u
#define SLUICE_BINARY_LESS_EQUAL    7u
#define SLUICE_BINARY_EQUAL         8u
#define SLUICE_BINARY_GREATER       9u
#define SLUICE_BINARY_GREATER_EQUAL 10u
#define SLUICE_BINARY_AND           11u
#define SLUICE_BINARY_OR            12u
typedef struct sluice_binary_attributes {
    uint32_t struct_size;
    uint32_t function;
} sluice_binary_attributes;

/* P  condition BOOL, x, y -> z: x where true, else y. */
#define SLUICE_OP_SELECT 30u

/* P  -> y: every element `value` (f, i32 or BOOL). */
#define SLUICE_OP_FILL 31u
typedef struct sluice_fill_attributes {
    uint32_t struct_size;
    float value;
} sluice_fill_attributes;

/* P  -> y i32 [..., N]: y[..., n] = n. */
#define SLUICE_OP_IOTA 32u

/* ---- Along the last axis ---- */

/* P  x f [..., N] -> y f [..., N]: exp(x - max) / sum; a row that is all minus infinity gives
 * zeros. */
#define SLUICE_OP_SOFTMAX 33u

/* P  x [..., N] -> y [..., 1] */
#define SLUICE_OP_REDUCE 34u
#define SLUICE_REDUCE_SUM     0u
#define SLUICE_REDUCE_MAXIMUM 1u
#define SLUICE_REDUCE_MINIMUM 2u
#define SLUICE_REDUCE_MEAN    3u
typedef struct sluice_reduce_attributes {
    uint32_t struct_size;
    uint32_t function;
} sluice_reduce_attributes;

/* P  x f [..., N] -> value f [..., k], index i32 [..., k]: the k largest in falling order, ties to
 * the lower index; NaN counts as minus infinity. k is the size of the outputs' last axis. */
#define SLUICE_OP_TOPK 35u

/* P  x (f32 or i32) [..., N] -> y [..., N]: y[n] = sum of x[0..n]. */
#define SLUICE_OP_CUMSUM 36u

/* P  x f [..., M, K], y f [..., K, N] -> z f [..., M, N]; leading dimensions broadcast. */
#define SLUICE_OP_MATMUL 37u

/* ---- Statistics for calibration ---- */

/* P  x f [M, K], (index i32 [M, k]), sum f32 [K, K], rows f32 [1] -> sum f32 [K, K], rows f32 [1]
 * sum += x^T x over the valid rows, rows += their number. With an index operand only the rows whose
 * choices name `expert` count. ONCE. */
#define SLUICE_OP_ACCUMULATE_GRAM 38u
/* P  the same operands with maximum f32 [K] in place of sum: maximum = max(maximum, |x|). ONCE. */
#define SLUICE_OP_ACCUMULATE_ABS_MAX 39u
typedef struct sluice_accumulate_attributes {
    uint32_t struct_size;
    uint32_t expert;
} sluice_accumulate_attributes;

/* ---- The next token ---- */

/* C  logits f [L, V] -> token i32 [L], (log_probability f32 [L])
 * Which token follows each row, and the natural logarithm of its probability. Logits that are not
 * finite count as absent:
 *   token = the largest, ties to the lowest number                            (method GREEDY)
 *   log_probability = logits[token] - ln sum_i exp(logits[i])
 * A row without a finite logit gives token -1 and log_probability 0. */
#define SLUICE_OP_SAMPLE 40u
#define SLUICE_SAMPLE_GREEDY 0u
typedef struct sluice_sample_attributes {
    uint32_t struct_size;
    uint32_t method; /* SLUICE_SAMPLE_* */
} sluice_sample_attributes;

#define SLUICE_OP_COUNT 41u

#ifdef __cplusplus
}
#endif
#endif
