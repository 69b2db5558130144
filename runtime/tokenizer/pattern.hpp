// What a text is searched for: a literal or a regular expression. Patterns are immutable and may
// be used by several threads at once; what a search writes lives in the caller's workspace.
#pragma once

#include "base/json.hpp"

#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace sluice::tokenization {

// A part of a text, and whether it is a match or what lies between matches.
struct match_span {
    std::size_t begin;
    std::size_t end;
    bool is_match;
};

// Scratch memory for searches; one for each thread at work.
class match_workspace {
  public:
    match_workspace();
    ~match_workspace();
    match_workspace(const match_workspace&) = delete;
    match_workspace& operator=(const match_workspace&) = delete;

    std::vector<match_span> spans;

  private:
    friend class pattern;
    struct state;
    std::unique_ptr<state> state_;
};

class pattern {
  public:
    // Of {"String": ...} or {"Regex": ...}.
    static pattern from_json(const json_view& node);
    static pattern literal(std::string text);
    // `where` names the place of the expression in errors.
    static pattern regex(std::string_view oniguruma, const std::string& where);

    ~pattern();
    pattern(pattern&&) noexcept;
    pattern& operator=(pattern&&) noexcept;

    // Cuts `text` (valid UTF-8) into its matches and what lies between them, in order, without
    // gaps. Matches may be empty. Throws SLUICE_EXHAUSTED if the expression backtracks without end.
    void find(std::string_view text, std::vector<match_span>& spans,
              match_workspace& workspace) const;

    // The text if this is a literal, else null.
    const std::string* literal_text() const { return code_ ? nullptr : &literal_; }

  private:
    struct compiled;

    pattern();
    void find_regex(std::string_view text, std::vector<match_span>& spans,
                    match_workspace& workspace) const;
    bool search(std::string_view text, std::size_t from, match_workspace& workspace,
                match_span& found) const;

    std::string literal_;
    std::unique_ptr<compiled> code_;
};

} // namespace sluice::tokenization
