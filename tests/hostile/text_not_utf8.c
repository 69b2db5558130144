/* A text that is not UTF-8. */
#define HOSTILE_SUMMARY HOSTILE_TEXT("broken \xff\xfe text")
#include "parts.h"
