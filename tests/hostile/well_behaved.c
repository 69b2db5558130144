/* Keeps every rule: the others differ from it in one thing each. */
#include "parts.h"
