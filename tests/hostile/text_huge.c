/* A text that claims to be a terabyte long. */
#define HOSTILE_SUMMARY                                                                            \
    { "short", (uint64_t)1 << 40 }
#include "parts.h"
