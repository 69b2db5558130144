#include "tokenizer/bpe.hpp"

#include "base/error.hpp"
#include "base/text.hpp"
#include "tokenizer/unicode.hpp"

#include <algorithm>
#include <bit>
#include <limits>
#include <queue>
#include <utility>

namespace sluice::tokenization {

namespace {

constexpr std::size_t few_symbols = 32; // up to so many, scanning beats a queue
constexpr std::size_t piece_bytes_limit = std::size_t{1} << 30;
constexpr std::size_t cached_piece_bytes_max = 64;
constexpr std::size_t cached_pieces_max = 1 << 15;
constexpr uint32_t no_rank = std::numeric_limits<uint32_t>::max();

struct candidate {
    uint32_t rank;
    int32_t position; // of the left symbol
    int32_t id;       // of the result

    // For a queue whose top is the lowest rank, and of equal ranks the leftmost.
    bool operator<(const candidate& other) const {
        return rank != other.rank ? rank > other.rank : position > other.position;
    }
};

struct link {
    int32_t id;
    int32_t previous;
    int32_t next; // -1 at the end
    bool merged;  // into the symbol on its left
};

// "left right" or ["left", "right"].
std::pair<std::string_view, std::string_view> read_merge(const json_view& element) {
    constexpr const char* expected = "\"left right\" or [\"left\", \"right\"]";
    if (element.is_array()) {
        if (element.size() != 2) element.fail_expected(expected);
        return {element[0].as_text(), element[1].as_text()};
    }
    const std::string_view line = element.is_text() ? element.as_text() : std::string_view();
    const std::size_t space = line.find(' ');
    if (space == std::string_view::npos || line.find(' ', space + 1) != std::string_view::npos) {
        element.fail_expected(expected);
    }
    return {line.substr(0, space), line.substr(space + 1)};
}

} // namespace

merge_table::merge_table(std::size_t count)
    : slots_(std::bit_ceil(std::max<std::size_t>(count * 2, 16))), mask_(slots_.size() - 1) {}

void merge_table::set(int32_t left, int32_t right, merge value) {
    const uint64_t key = key_of(left, right);
    std::size_t slot = slot_of(key);
    while (slots_[slot].key != key && slots_[slot].key != empty_key) slot = (slot + 1) & mask_;
    slots_[slot] = {key, value};
}

struct bpe_model::workspace final : model_workspace {
    std::vector<int32_t> symbols;
    std::vector<uint32_t> ranks;
    std::vector<link> links;
    std::string text;

    // The ids of pieces seen before in this call.
    struct cached {
        std::size_t begin; // in cached_ids
        std::size_t end;
    };
    std::unordered_map<std::string, cached, text_hash, std::equal_to<>> cache;
    std::vector<int32_t> cached_ids;
};

bpe_model::bpe_model(const json_view& node)
    : tokens_(node.at("vocab")), merges_(node.array("merges").size()),
      continuing_prefix_(node.text("continuing_subword_prefix", "")),
      end_of_word_suffix_(node.text("end_of_word_suffix", "")),
      fuse_unknown_(node.boolean("fuse_unk", false)),
      byte_fallback_(node.boolean("byte_fallback", false)),
      ignore_merges_(node.boolean("ignore_merges", false)) {
    if (const auto unknown = node.find("unk_token")) {
        unknown_token_ = unknown->as_text();
        has_unknown_token_ = true;
    }
    if (const auto dropout = node.find("dropout")) {
        if (dropout->as_number() != 0.0) {
            dropout->fail_unsupported("expected null or 0, since encoding with dropout is random");
        }
    }
    for (std::size_t byte = 0; byte < byte_ids_.size(); ++byte) {
        byte_ids_[byte] = tokens_.find(fmt::format("<0x{:02X}>", byte));
    }
    for (uint32_t character = 0; character < character_ids_.size(); ++character) {
        std::string text;
        utf8_append(text, character);
        character_ids_[character] = tokens_.find(text);
    }
    add_merges(node.at("merges"));
}

void bpe_model::add_merges(const json_view& merges) {
    std::string text;
    uint32_t rank = 0;
    for (const json_view element : merges) {
        if (element.is_text() && element.as_text().starts_with("#version")) continue;
        const std::pair merge = read_merge(element);
        const std::string_view left = merge.first;
        const std::string_view right = merge.second;
        const auto id_of = [&](std::string_view token) {
            const int32_t id = tokens_.find(token);
            if (id < 0) {
                fail(SLUICE_INVALID,
                     "{}: expected a merge of tokens of the vocabulary, found {} + {}; {} is not "
                     "in model.vocab",
                     element.where(), quote(left), quote(right), quote(token));
            }
            return id;
        };
        const int32_t left_id = id_of(left);
        const int32_t right_id = id_of(right);
        if (right.size() < continuing_prefix_.size()) {
            fail(SLUICE_INVALID, "{}: expected {} to begin with the continuing_subword_prefix {}",
                 element.where(), quote(right), quote(continuing_prefix_));
        }
        text.assign(left).append(right.substr(continuing_prefix_.size()));
        merges_.set(left_id, right_id, {rank++, id_of(text)});
    }
}

std::unique_ptr<model_workspace> bpe_model::make_workspace() const {
    return std::make_unique<workspace>();
}

int32_t bpe_model::unknown_id() const {
    const int32_t id = tokens_.find(unknown_token_);
    if (id < 0) {
        fail(SLUICE_INVALID,
             "the text needs the unknown token {}, which the tokenizer's vocabulary lacks; use a "
             "tokenizer.json whose model.unk_token is in model.vocab",
             quote(unknown_token_));
    }
    return id;
}

// The id of the character at [begin, end) of the piece, with its affixes, or -1. If there are
// affixes, or no such token, the text with affixes is left in scratch.text.
int32_t bpe_model::find_symbol(std::string_view piece, std::size_t begin, std::size_t end,
                               workspace& scratch) const {
    const bool prefixed = begin > 0 && !continuing_prefix_.empty();
    const bool suffixed = end == piece.size() && !end_of_word_suffix_.empty();
    if (!prefixed && !suffixed) {
        std::size_t position = begin;
        const uint32_t character = utf8_next(piece, position);
        if (character < character_ids_.size() && character_ids_[character] >= 0) {
            return character_ids_[character];
        }
    }
    scratch.text.assign(prefixed ? std::string_view(continuing_prefix_) : std::string_view());
    scratch.text.append(piece.substr(begin, end - begin));
    if (suffixed) scratch.text += end_of_word_suffix_;
    return tokens_.find(scratch.text);
}

// Fails, and appends nothing, if one of the bytes has no token.
bool bpe_model::append_byte_symbols(std::string_view symbol, std::vector<int32_t>& symbols) const {
    const std::size_t size = symbols.size();
    for (const char byte : symbol) {
        const int32_t id = byte_ids_[static_cast<unsigned char>(byte)];
        if (id < 0) {
            symbols.resize(size);
            return false;
        }
        symbols.push_back(id);
    }
    return true;
}

void bpe_model::cut_into_symbols(std::string_view piece, workspace& scratch) const {
    std::vector<int32_t>& symbols = scratch.symbols;
    symbols.clear();
    int32_t unknown = -1; // an unknown token that is not appended yet, for the next may join it
    for (std::size_t begin = 0; begin < piece.size();) {
        const std::size_t end = begin + utf8_length(piece[begin]);
        const int32_t id = find_symbol(piece, begin, end, scratch);
        begin = end;
        if (id >= 0) {
            if (unknown >= 0) symbols.push_back(unknown);
            unknown = -1;
            symbols.push_back(id);
            continue;
        }
        // As in the reference, a pending unknown token stays pending across these.
        if (byte_fallback_ && append_byte_symbols(scratch.text, symbols)) continue;
        if (!has_unknown_token_) continue;
        if (unknown >= 0 && !fuse_unknown_) symbols.push_back(unknown);
        if (unknown < 0) unknown = unknown_id();
    }
    if (unknown >= 0) symbols.push_back(unknown);
}

// Scans for the lowest rank again after each merge.
void bpe_model::merge_few(std::vector<int32_t>& symbols, workspace& scratch) const {
    std::vector<uint32_t>& ranks = scratch.ranks; // of each symbol with the one on its right
    const auto rank_at = [&](std::size_t position) {
        const auto* merge = merges_.find(symbols[position], symbols[position + 1]);
        return merge != nullptr ? merge->rank : no_rank;
    };
    ranks.clear();
    for (std::size_t position = 0; position + 1 < symbols.size(); ++position) {
        ranks.push_back(rank_at(position));
    }
    while (!ranks.empty()) {
        const auto lowest = std::min_element(ranks.begin(), ranks.end());
        if (*lowest == no_rank) return;
        const auto position = static_cast<std::size_t>(lowest - ranks.begin());
        symbols[position] = merges_.find(symbols[position], symbols[position + 1])->id;
        symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(position) + 1);
        ranks.erase(lowest);
        if (position < ranks.size()) ranks[position] = rank_at(position);
        if (position > 0) ranks[position - 1] = rank_at(position - 1);
    }
}

// A queue of candidates over a linked list: n log n for a piece of n characters.
void bpe_model::merge_many(std::vector<int32_t>& symbols, workspace& scratch) const {
    std::vector<link>& links = scratch.links;
    const auto count = static_cast<int32_t>(symbols.size());
    links.clear();
    for (int32_t index = 0; index < count; ++index) {
        links.push_back({symbols[static_cast<std::size_t>(index)], index - 1,
                         index + 1 < count ? index + 1 : -1, false});
    }
    const auto at = [&](int32_t index) -> link& { return links[static_cast<std::size_t>(index)]; };

    std::vector<candidate> found;
    for (int32_t index = 0; index + 1 < count; ++index) {
        const auto* merge = merges_.find(at(index).id, at(index + 1).id);
        if (merge != nullptr) found.push_back({merge->rank, index, merge->id});
    }
    std::priority_queue<candidate> queue(std::less<candidate>(), std::move(found));
    const auto add = [&](int32_t position) {
        const auto* merge = merges_.find(at(position).id, at(at(position).next).id);
        if (merge != nullptr) queue.push({merge->rank, position, merge->id});
    };
    while (!queue.empty()) {
        const candidate top = queue.top();
        queue.pop();
        link& left = at(top.position);
        if (left.merged || left.next < 0) continue;
        link& right = at(left.next);
        const auto* merge = merges_.find(left.id, right.id);
        if (merge == nullptr || merge->id != top.id) continue; // what was here has merged since
        left.id = top.id;
        left.next = right.next;
        right.merged = true;
        if (left.next >= 0) at(left.next).previous = top.position;
        if (left.previous >= 0) add(left.previous);
        if (left.next >= 0) add(top.position);
    }
    symbols.clear();
    for (int32_t index = 0; index >= 0; index = at(index).next) symbols.push_back(at(index).id);
}

void bpe_model::encode(std::string_view piece, std::vector<int32_t>& ids,
                       model_workspace& any_workspace) const {
    if (piece.size() > piece_bytes_limit) {
        fail(SLUICE_EXHAUSTED,
             "a piece of text of {} bytes without a place to cut it, the limit is {}", piece.size(),
             piece_bytes_limit);
    }
    if (ignore_merges_) {
        if (const int32_t id = tokens_.find(piece); id >= 0) {
            ids.push_back(id);
            return;
        }
    }
    auto& scratch = static_cast<workspace&>(any_workspace);
    const bool cacheable = piece.size() <= cached_piece_bytes_max;
    if (cacheable) {
        if (const auto found = scratch.cache.find(piece); found != scratch.cache.end()) {
            const auto first = scratch.cached_ids.begin();
            ids.insert(ids.end(), first + static_cast<std::ptrdiff_t>(found->second.begin),
                       first + static_cast<std::ptrdiff_t>(found->second.end));
            return;
        }
    }
    cut_into_symbols(piece, scratch);
    if (scratch.symbols.size() > few_symbols) {
        merge_many(scratch.symbols, scratch);
    } else {
        merge_few(scratch.symbols, scratch);
    }
    ids.insert(ids.end(), scratch.symbols.begin(), scratch.symbols.end());
    if (cacheable && scratch.cache.size() < cached_pieces_max) {
        const std::size_t begin = scratch.cached_ids.size();
        scratch.cached_ids.insert(scratch.cached_ids.end(), scratch.symbols.begin(),
                                  scratch.symbols.end());
        scratch.cache.emplace(piece, workspace::cached{begin, scratch.cached_ids.size()});
    }
}

} // namespace sluice::tokenization
