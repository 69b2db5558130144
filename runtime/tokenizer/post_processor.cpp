#include "tokenizer/post_processor.hpp"

#include "tokenizer/component_json.hpp"

#include <fmt/format.h>

#include <utility>

namespace sluice::tokenization {

namespace {

constexpr std::size_t template_pieces_max = 256;

} // namespace

post_processor::post_processor(const json_view& node) { read(node, false); }

void post_processor::read(const json_view& node, bool in_sequence) {
    const std::string type = node.text("type");
    if (type == "Sequence" && !in_sequence) {
        for (const json_view element : node.at("processors").as_array()) read(element, true);
    } else if (type == "TemplateProcessing") {
        read_template(node);
    } else if (type == "BertProcessing" || type == "RobertaProcessing") {
        read_pair(node);
    } else if (type != "ByteLevel") { // that one corrects offsets, which are not kept here
        fail_component(node, "post-processor",
                       "Sequence (not nested), TemplateProcessing, "
                       "BertProcessing, RobertaProcessing and ByteLevel");
    }
}

void post_processor::begin_parts(const json_view& node) {
    if (has_parts_) {
        node.fail_unsupported("expected one post-processor that adds tokens, found a second");
    }
    has_parts_ = true;
}

void post_processor::read_template(const json_view& node) {
    begin_parts(node);
    const json_view special_tokens = node.at("special_tokens");
    const json_view pieces = node.at("single").as_array();
    if (pieces.size() > template_pieces_max) {
        pieces.fail_expected(fmt::format("at most {} pieces", template_pieces_max));
    }
    for (const json_view piece : pieces) {
        if (const auto sequence = piece.find("Sequence")) {
            const json_view name = sequence->at("id");
            if (name.as_text() != "A") {
                name.fail_expected("\"A\", the one text of a single template");
            }
            parts_.push_back({true, {}});
            continue;
        }
        const std::string name = piece.at("SpecialToken").text("id");
        std::vector<int32_t> ids;
        for (const json_view id : special_tokens.at(name).at("ids").as_array()) {
            ids.push_back(read_token_id(id));
        }
        parts_.push_back({false, std::move(ids)});
    }
}

void post_processor::read_pair(const json_view& node) {
    begin_parts(node);
    const auto id_of = [&](const char* key) { // of ["[CLS]", 101]
        const json_view pair = node.at(key);
        if (pair.as_array().size() != 2) pair.fail_expected("an array of a token and its id");
        return std::vector<int32_t>{read_token_id(pair[1])};
    };
    parts_.push_back({false, id_of("cls")});
    parts_.push_back({true, {}});
    parts_.push_back({false, id_of("sep")});
}

std::vector<int32_t> post_processor::apply(std::vector<int32_t> ids,
                                           bool add_special_tokens) const {
    if (!has_parts_) return ids;
    std::vector<int32_t> output;
    output.reserve(ids.size() + parts_.size());
    for (const part& piece : parts_) {
        if (piece.is_text) {
            output.insert(output.end(), ids.begin(), ids.end());
        } else if (add_special_tokens) {
            output.insert(output.end(), piece.special.begin(), piece.special.end());
        }
    }
    return output;
}

} // namespace sluice::tokenization
