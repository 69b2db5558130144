#include "tokenizer/token_model.hpp"

#include "tokenizer/bpe.hpp"
#include "tokenizer/component_json.hpp"
#include "tokenizer/word_piece.hpp"

namespace sluice::tokenization {

namespace {

// Files older than the member "type" are told by their other members.
std::string type_of(const json_view& node) {
    if (!node.find("type")) {
        if (node.find("merges")) return "BPE";
        if (node.find("max_input_chars_per_word")) return "WordPiece";
    }
    return node.text("type");
}

} // namespace

std::unique_ptr<const token_model> make_token_model(const json_view& node) {
    const std::string type = type_of(node);
    if (type == "BPE") return std::make_unique<bpe_model>(node);
    if (type == "WordPiece") return std::make_unique<word_piece_model>(node);
    fail_component(node, "model", "BPE and WordPiece");
}

} // namespace sluice::tokenization
