/* Agrees to speak the host's version, but was built for another. */
#define HOSTILE_ABI_VERSION 0x00090007u
#include "parts.h"
