// Checks that an action fails with a status and a message that says certain things.
#pragma once

#include "base/error.hpp"

#include <doctest/doctest.h>

#include <functional>
#include <string>
#include <vector>

namespace sluice::test {

inline void check_error(const std::function<void()>& action, sluice_status status,
                        const std::vector<std::string>& message_parts) {
    try {
        action();
    } catch (const error& problem) {
        std::string message = problem.what();
        CHECK_MESSAGE(SLUICE_STATUS_CLASS(problem.status()) == status, message);
        for (const std::string& part : message_parts) {
            CHECK_MESSAGE(message.find(part) != std::string::npos, message, " <- lacks: ", part);
        }
        CHECK_MESSAGE(message.size() < 2000, "a message must stay readable");
        return;
    }
    FAIL_CHECK("expected an error, found none");
}

} // namespace sluice::test
