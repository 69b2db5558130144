/* Its manifest calls it a router, it calls itself a quantizer. */
#define HOSTILE_KIND HOSTILE_TEXT("quantizer")
#include "parts.h"
