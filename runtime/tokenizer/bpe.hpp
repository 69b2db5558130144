// Byte pair encoding: a piece begins as its characters, and of all neighbours that may merge those
// of the lowest rank do, the leftmost first, until none may.
#pragma once

#include "tokenizer/token_model.hpp"

#include <array>
#include <cstddef>
#include <optional>
#include <string>

namespace sluice::tokenization {

// From a pair of ids to the rank of its merge and the id of the result. A flat hash table: it is
// asked several times for each character of text.
class merge_table {
  public:
    struct merge {
        uint32_t rank;
        int32_t id;
    };

    explicit merge_table(std::size_t count);
    void set(int32_t left, int32_t right, merge value); // replaces an earlier merge of the pair

    const merge* find(int32_t left, int32_t right) const {
        const uint64_t key = key_of(left, right);
        for (std::size_t slot = slot_of(key);; slot = (slot + 1) & mask_) {
            if (slots_[slot].key == key) return &slots_[slot].value;
            if (slots_[slot].key == empty_key) return nullptr;
        }
    }

  private:
    static constexpr uint64_t empty_key = ~uint64_t{0};

    struct entry {
        uint64_t key = empty_key;
        merge value{};
    };

    static uint64_t key_of(int32_t left, int32_t right) {
        return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32
               | static_cast<uint32_t>(right);
    }
    std::size_t slot_of(uint64_t key) const {
        return static_cast<std::size_t>(key * 0x9e3779b97f4a7c15u >> 20) & mask_; // Fibonacci hash
    }

    std::vector<entry> slots_;
    std::size_t mask_;
};

class bpe_model final : public token_model {
  public:
    explicit bpe_model(const json_view& node);

    const vocabulary& tokens() const override { return tokens_; }
    std::unique_ptr<model_workspace> make_workspace() const override;
    void encode(std::string_view piece, std::vector<int32_t>& ids,
                model_workspace& workspace) const override;

  private:
    struct workspace;

    void add_merges(const json_view& merges);
    void cut_into_symbols(std::string_view piece, workspace& scratch) const;
    int32_t find_symbol(std::string_view piece, std::size_t begin, std::size_t end,
                        workspace& scratch) const;
    bool append_byte_symbols(std::string_view symbol, std::vector<int32_t>& symbols) const;
    int32_t unknown_id() const;
    void merge_few(std::vector<int32_t>& symbols, workspace& scratch) const;
    void merge_many(std::vector<int32_t>& symbols, workspace& scratch) const;

    vocabulary tokens_;
    merge_table merges_;
    std::string unknown_token_;
    bool has_unknown_token_ = false;
    std::string continuing_prefix_;
    std::string end_of_word_suffix_;
    bool fuse_unknown_;
    bool byte_fallback_;
    bool ignore_merges_;
    std::array<int32_t, 256> byte_ids_{};        // of "<0x00>" ..., or -1
    std::array<int32_t, 0x180> character_ids_{}; // of the tokens of one character below, or -1
};

} // namespace sluice::tokenization
