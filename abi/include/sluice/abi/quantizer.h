/*
 * Quantizers: pure functions from a matrix, and statistics of its inputs, to a published format.
 * The runtime owns calibration and files.
 */
#ifndef SLUICE_ABI_QUANTIZER_H
#define SLUICE_ABI_QUANTIZER_H

#include "plugin.h"
#include "weight.h"

#ifdef __cplusplus
extern "C" {
#endif

/* What part a matrix plays in the model. */
#define SLUICE_MODULE_EMBEDDING     1u /* token embedding, also when tied to the head */
#define SLUICE_MODULE_HEAD          2u
#define SLUICE_MODULE_ATTENTION     3u /* projections of attention, MLA's among them */
#define SLUICE_MODULE_MLP           4u /* dense feed-forward layers */
#define SLUICE_MODULE_SHARED_EXPERT 5u
#define SLUICE_MODULE_EXPERT        6u
#define SLUICE_MODULE_ROUTER        7u
#define SLUICE_MODULE_NORM          8u /* norms and other vectors */

typedef struct sluice_module {
    uint32_t struct_size;
    uint32_t kind; /* SLUICE_MODULE_* */
    int64_t row_count;    /* N */
    int64_t column_count; /* K */
    sluice_text name;     /* "model.layers.3.mlp.experts.5.up_proj" */
    uint32_t layer;
    sluice_element_type stored_type; /* of the checkpoint */
} sluice_module;

/* Statistics of the inputs of a matrix; absent (NULL) where the quantizer asked for none. */
typedef struct sluice_calibration {
    uint32_t struct_size;
    uint32_t reserved;
    const float* gram; /* [K, K]: sum of x x^T over the rows seen */
    double row_count;
    /* [K, K]: of all rows of the layer, for experts that saw few; or NULL */
    const float* prior_gram;
    double prior_row_count;
} sluice_calibration;

/* Where the result goes: the caller's buffers, sized by the format that `plan` answered. Codes are
 * one a byte here; the runtime packs them as the file format wants. */
typedef struct sluice_quantized {
    uint32_t struct_size;
    uint32_t reserved;
    uint8_t* codes;       /* [N, K], 0 to 2^bits - 1 */
    float* scales;        /* [N, groups] */
    uint8_t* zeros;       /* [N, groups]; 2^(bits-1) where the format says MIDDLE */
    int32_t* group_index; /* [K], written only if format.group_index is 1 */
} sluice_quantized;

typedef struct sluice_quantization_report {
    uint32_t struct_size;
    uint32_t fallback;        /* 1: the method could not be used as configured; `note` says why */
    double error_relative;    /* |W - W'|^2 / |W|^2, weighted by the inputs where they are known */
    double damping;           /* of methods that have one */
    char note[240];           /* ended by a zero byte */
    /* What rounding each weight to the nearest in the same format would lose, in the terms of
     * error_relative; 0 where the method knows of no other. */
    double rounding_error_relative;
} sluice_quantization_report;

#define SLUICE_QUANTIZER_EXTENSION "sluice.quantizer/0"

typedef struct sluice_quantizer {
    uint32_t struct_size;
    uint32_t needs_gram; /* 1: quantize wants calibration.gram */

    /* Which format the quantizer would give that module; `format` is the caller's to be written. A
     * format without scales of type BF16, F16 or F32 means: keep it in that type.
     * [thread: any, state: created, blocks: no, allocates: no] [required] */
    sluice_status (*plan)(sluice_plugin* plugin, const sluice_module* module,
                          sluice_weight_format* format, sluice_error* error);

    /* weights: float32 [N, K], borrowed. May use the team; polls for cancellation.
     * [thread: any but a worker, state: created, blocks: yes, allocates: yes] [required] */
    sluice_status (*quantize)(sluice_plugin* plugin, const sluice_module* module,
                              const float* weights, const sluice_weight_format* format,
                              const sluice_calibration* calibration,
                              const sluice_quantized* quantized,
                              sluice_quantization_report* report, sluice_error* error);
} sluice_quantizer;

#ifdef __cplusplus
}
#endif
#endif
