/* struct_size is no size at all. */
#define HOSTILE_LIBRARY_SIZE 0xfffffff0u
#include "parts.h"
