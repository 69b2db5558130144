#include "engine/stop_matcher.hpp"

#include "base/error.hpp"

#include <algorithm>
#include <utility>

namespace sluice {

stop_matcher::stop_matcher(std::vector<std::string> stops) : stops_(std::move(stops)) {
    for (const std::string& stop : stops_) {
        if (stop.empty()) {
            fail(SLUICE_INVALID, "a stop string is empty; every text would end at once: leave it "
                                 "out");
        }
    }
}

std::string stop_matcher::push(std::string_view piece) {
    if (matched_) return {};
    held_ += piece;
    // The stop string that ends first counts, as if the text had come byte by byte; of several that
    // end together, the longest.
    size_t match = std::string::npos;
    size_t match_end = std::string::npos;
    for (const std::string& stop : stops_) {
        const size_t found = held_.find(stop);
        if (found == std::string::npos) continue;
        const size_t end = found + stop.size();
        if (end < match_end || (end == match_end && found < match)) {
            match = found;
            match_end = end;
            matched_stop_ = stop;
        }
    }
    if (match != std::string::npos) {
        matched_ = true;
        std::string shown = held_.substr(0, match);
        held_.clear();
        return shown;
    }
    size_t keep = 0; // bytes at the end that begin a stop string
    for (const std::string& stop : stops_) {
        size_t length = std::min(stop.size() - 1, held_.size());
        while (length > keep
               && !stop.starts_with(std::string_view(held_).substr(held_.size() - length))) {
            --length;
        }
        keep = std::max(keep, length);
    }
    std::string shown = held_.substr(0, held_.size() - keep);
    held_.erase(0, shown.size());
    return shown;
}

std::string stop_matcher::flush() { return std::exchange(held_, {}); }

} // namespace sluice
