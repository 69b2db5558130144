/*
 * Status codes, error records and text: what every other header of the contract builds on.
 *
 * A status is one 32-bit number. Its high byte is the class and the low 24 bits a detail within the
 * class, so that a reader who does not know a detail still knows the class.
 */
#ifndef SLUICE_ABI_STATUS_H
#define SLUICE_ABI_STATUS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef uint32_t sluice_status;

#define SLUICE_OK          ((sluice_status)0x00000000u) /* done */
/* the caller's argument, file or key is wrong */
#define SLUICE_INVALID     ((sluice_status)0x01000000u)
#define SLUICE_UNSUPPORTED ((sluice_status)0x02000000u) /* well formed, but not offered here */
#define SLUICE_EXHAUSTED   ((sluice_status)0x03000000u) /* out of memory, blocks, handles or time */
/* the device, driver, file or server is not there */
#define SLUICE_UNAVAILABLE ((sluice_status)0x04000000u)
#define SLUICE_CANCELLED   ((sluice_status)0x05000000u) /* the caller asked to stop */
/* the device failed; its objects are gone */
#define SLUICE_DEVICE_LOST ((sluice_status)0x06000000u)
#define SLUICE_INTERNAL    ((sluice_status)0x07000000u) /* a defect of the callee */

/* UNSUPPORTED, detail 1: an optional function that the callee does not have; see plugin.h. */
#define SLUICE_UNIMPLEMENTED ((sluice_status)0x02000001u)

/* The class of any status, known or not. A class over INTERNAL is to be read as INTERNAL. */
#define SLUICE_STATUS_CLASS(status) ((sluice_status)((status) & 0xff000000u))

/* UTF-8 text, borrowed for the duration of the call that passes it unless the function says
 * otherwise. Not terminated by a zero byte. `data` may be NULL when `size` is 0. */
typedef struct sluice_text {
    const char* data;
    uint64_t size; /* bytes */
} sluice_text;

#define SLUICE_ERROR_MESSAGE_BYTES 1000

/* An error record. The caller owns it, and sets struct_size before the call; the callee writes
 * `status` and a message ended by a zero byte, cut at a character boundary to fit. A callee that
 * returns SLUICE_OK leaves the record alone. Nothing is allocated, so this works out of memory too.
 */
typedef struct sluice_error {
    uint32_t struct_size;
    sluice_status status;
    char message[SLUICE_ERROR_MESSAGE_BYTES];
} sluice_error;

/* Whether `pointer` (to a struct that begins with struct_size) is large enough to hold `field`. */
#define SLUICE_HAS_FIELD(type, pointer, field)                                                     \
    ((pointer)->struct_size >= offsetof(type, field) + sizeof(((type*)0)->field))

#ifdef __cplusplus
}
#endif

/* SLUICE_INIT(type): a value of a growing struct, all zero but for struct_size. */
#ifdef __cplusplus
extern "C++" {
template <typename Struct>
constexpr Struct sluice_init() {
    Struct value{};
    value.struct_size = (uint32_t)sizeof(Struct);
    return value;
}
}
#define SLUICE_INIT(type) (sluice_init<type>())
#else
#define SLUICE_INIT(type) ((type){.struct_size = (uint32_t)sizeof(type)})
#endif

#endif
