/* The table ends before a required function. */
#define HOSTILE_TABLE_SIZE 8
#include "parts.h"
