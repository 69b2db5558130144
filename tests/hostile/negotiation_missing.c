/* A required function is NULL, the very first. */
#define HOSTILE_NEGOTIATE NULL
#include "parts.h"
