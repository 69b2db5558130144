/* Declares an extension that it does not answer. */
#define HOSTILE_EXTENSIONS HOSTILE_TEXT("sluice.router/0"), HOSTILE_TEXT("acme.telepathy/1")
#include "parts.h"
