/* A required function of the kind's table is NULL. */
#define HOSTILE_DESCRIBE NULL
#include "parts.h"
