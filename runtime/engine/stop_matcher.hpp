// Finds stop strings in streamed text without ever letting a part of one through.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace sluice {

// Fed with pieces of any size; not for several threads at once.
class stop_matcher {
  public:
    // Fails with SLUICE_INVALID for an empty stop string.
    explicit stop_matcher(std::vector<std::string> stops);

    // Returns the text that can be shown: everything up to the stop string that ends first, or,
    // where there is none, all but the longest end that could still become one. After a match
    // nothing more comes.
    std::string push(std::string_view piece);
    // What was held back and turned out to be no stop string. Call it when the text has ended.
    std::string flush();

    bool matched() const { return matched_; }
    const std::string& matched_stop() const { return matched_stop_; }

  private:
    std::vector<std::string> stops_;
    std::string held_;
    std::string matched_stop_;
    bool matched_ = false;
};

} // namespace sluice
