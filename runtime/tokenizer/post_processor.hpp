// The last step of encoding: the special tokens around the text.
#pragma once

#include "base/json.hpp"

#include <cstdint>
#include <optional>
#include <vector>

namespace sluice::tokenization {

class post_processor {
  public:
    post_processor() = default; // adds nothing
    // Of the member "post_processor" of tokenizer.json.
    explicit post_processor(const json_view& node);

    std::vector<int32_t> apply(std::vector<int32_t> ids, bool add_special_tokens) const;

  private:
    struct part {
        bool is_text;                 // the ids of the text
        std::vector<int32_t> special; // else these
    };

    void read(const json_view& node, bool in_sequence);
    void read_template(const json_view& node);
    void read_pair(const json_view& node);
    void begin_parts(const json_view& node);

    bool has_parts_ = false;
    std::vector<part> parts_;
};

} // namespace sluice::tokenization
