/* Is of a kind that does not exist. */
#define HOSTILE_KIND HOSTILE_TEXT("ruoter")
#include "parts.h"
