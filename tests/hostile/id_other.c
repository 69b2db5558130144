/* Its id is not the stem of its file. */
#define HOSTILE_DESCRIPTOR_ID HOSTILE_TEXT("somebody_else")
#include "parts.h"
