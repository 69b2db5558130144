/* Lets an exception cross the border. */
#define HOSTILE_CREATE create_throws
#include <sluice/abi/plugin.h>
#include <stdexcept>
static sluice_status create_throws(const sluice_host*, const sluice_settings*, sluice_plugin**,
                                   sluice_error*) {
    throw std::runtime_error("the coffee is cold");
}
#include "parts.h"
