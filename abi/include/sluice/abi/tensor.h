/*
 * Element types and the plain tensor view.
 */
#ifndef SLUICE_ABI_TENSOR_H
#define SLUICE_ABI_TENSOR_H

#include "status.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Element types. 0 is never valid, so that a forgotten field is found. Numbers are never reused. */
typedef uint32_t sluice_element_type;

#define SLUICE_ELEMENT_UNKNOWN ((sluice_element_type)0)
#define SLUICE_F32             ((sluice_element_type)1)  /* IEEE 754 binary32 */
#define SLUICE_F16             ((sluice_element_type)2)  /* IEEE 754 binary16 */
#define SLUICE_BF16            ((sluice_element_type)3)  /* the upper half of a binary32 */
#define SLUICE_F8_E4M3         ((sluice_element_type)4)  /* OCP 8-bit float, finite, one NaN */
#define SLUICE_F8_E5M2         ((sluice_element_type)5)  /* OCP 8-bit float */
#define SLUICE_F8_E8M0         ((sluice_element_type)6)  /* OCP microscaling power-of-two scale */
/* OCP microscaling 4-bit float, two a byte */
#define SLUICE_F4_E2M1         ((sluice_element_type)7)
#define SLUICE_I8              ((sluice_element_type)8)
#define SLUICE_U8              ((sluice_element_type)9)
#define SLUICE_I32             ((sluice_element_type)10)
#define SLUICE_I64             ((sluice_element_type)11)
/* unsigned 4-bit, packed as the format says */
#define SLUICE_U4              ((sluice_element_type)12)
#define SLUICE_I4              ((sluice_element_type)13) /* two's complement 4-bit, likewise */
#define SLUICE_F64             ((sluice_element_type)14)
#define SLUICE_BOOL            ((sluice_element_type)15) /* one byte, 0 or 1 */
#define SLUICE_I16             ((sluice_element_type)16)

#define SLUICE_RANK_MAX 6

/* A dense row-major tensor in host memory. Read under the zero-tail rule (see plugin.h). The bytes
 * are borrowed for the call, unless the function says otherwise. */
typedef struct sluice_tensor {
    uint32_t struct_size;
    sluice_element_type element_type;
    uint32_t rank;     /* 0 (a scalar) to SLUICE_RANK_MAX */
    uint32_t reserved; /* 0 */
    int64_t shape[SLUICE_RANK_MAX];
    const void* data;
    uint64_t size_bytes; /* of the data; at least what type and shape need */
} sluice_tensor;

#ifdef __cplusplus
}
#endif
#endif
