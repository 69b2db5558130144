/* Forgot to fill in struct_size. */
#define HOSTILE_LIBRARY_SIZE 0
#include "parts.h"
