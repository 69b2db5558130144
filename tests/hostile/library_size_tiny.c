/* struct_size ends in the middle of the required functions. */
#define HOSTILE_LIBRARY_SIZE 32
#include "parts.h"
