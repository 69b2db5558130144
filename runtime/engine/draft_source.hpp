// Where guesses at the tokens that follow a sequence come from: the seam for other methods. A wrong
// guess costs time and never changes what is generated, since each one is checked by the model.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

namespace sluice {

// Of one sequence. Called on the engine's thread, between two steps, which wait for it.
class draft_source {
  public:
    virtual ~draft_source() = default;
    // Appends at most count_max tokens of the vocabulary to `draft`, which comes empty: the
    // likeliest ones after `tokens`, and none where there is nothing to go by. From call to call,
    // `tokens` is the same sequence, and only grows at its end.
    virtual void propose(std::span<const int32_t> tokens, uint32_t count_max,
                         std::vector<int32_t>& draft) = 0;
};

using draft_source_factory = std::function<std::unique_ptr<draft_source>()>;

} // namespace sluice
