/* A required function of the library is NULL. */
#define HOSTILE_CREATE NULL
#include "parts.h"
