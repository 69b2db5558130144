// The variants of a product, and how they are measured.
#include "multiply.hpp"

#include "../matmul_library.hpp"
#include "../tuning.hpp"

#include <numeric>
#include <random>

namespace sluice::cuda {

namespace {

using form = product_choice::product_form;

// Between the form for few rows and that for many both are tried, this far to either side of where
// the rule of thumb changes from one to the other.
constexpr int64_t form_doubt = 4;

const char* storage_name(weight_storage storage) {
    switch (storage) {
    case weight_storage::bfloat16:
        return "bfloat16";
    case weight_storage::float16:
        return "float16";
    case weight_storage::int8:
        return "int8";
    case weight_storage::int4:
        return "int4";
    default:
        return "float32";
    }
}

const char* type_name(uint32_t type) {
    return type == SLUICE_BF16 ? "bfloat16" : (type == SLUICE_F16 ? "float16" : "float32");
}

// "bfloat16 x int4/64 bfloat16 zeros"
std::string types_text(uint32_t x_type, const weight_view& weight) {
    const auto text = joined(type_name(x_type), " x ", storage_name(weight.storage));
    if (weight.group_columns == 0) return text;
    return joined(text, "/", weight.group_columns, " ", type_name(weight.scale_type),
                  weight.zeros != nullptr ? " zeros" : "");
}

std::string shape_of(const weight_view& weight) {
    return shape_text(weight.matrices, weight.rows, weight.columns);
}

// "bfloat16 x int4/64 bfloat16 zeros to float32, gate 1, [128 x 1536 x 2048]"
std::string operands_text(const product_call& call) {
    std::string gate;
    if (call.gate.gates) gate = joined(", gate ", call.gate.gate_layout);
    return joined(types_text(call.x_type, call.weight), " to ", type_name(call.y_type),
                  call.input_scale != nullptr ? ", scaled" : "", gate, ", ", shape_of(call.weight));
}

const char* copies_name(operand_copies copies) {
    switch (copies) {
    case operand_copies::copies:
        return ", plain copies";
    case operand_copies::mixed:
        return ", mixed copies";
    case operand_copies::tensor:
        return ", tensor copies";
    default:
        return "";
    }
}

std::string name_of(const product_choice& choice) {
    switch (choice.form) {
    case form::few:
        return joined("few rows, ", choice.warps, " warps");
    case form::many:
        return joined("many rows", copies_name(choice.copies));
    case form::library:
        return joined("cuBLASLt ", choice.algorithm);
    default:
        return "plain";
    }
}

// ---- Variants ----

void add_few(std::vector<product_choice>& to, const few_call& few) {
    for (const int32_t warps : few_warp_counts(few)) to.push_back({form::few, warps});
}

void add_many(std::vector<product_choice>& to, const bound& owner, row_order order) {
    if (!owner.card().is_hopper()) {
        to.push_back({form::many});
        return;
    }
    // What comes first is what `automatic` would be.
    if (order != row_order::gathered) to.push_back({form::many, 0, operand_copies::tensor});
    to.push_back({form::many, 0, operand_copies::mixed});
    to.push_back({form::many, 0, operand_copies::copies});
}

bool has_library_types(const product_call& call) {
    const bool same_type =
        (call.x_type == SLUICE_BF16 && call.weight.storage == weight_storage::bfloat16)
        || (call.x_type == SLUICE_F16 && call.weight.storage == weight_storage::float16);
    return same_type && (call.y_type == call.x_type || call.y_type == SLUICE_F32)
           && call.weight.columns % 8 == 0 && call.weight.rows % 8 == 0;
}

library_product library_product_of(const product_call& call) {
    return {call.places, call.weight.rows, call.weight.columns, call.x_type, call.y_type};
}

void add_library(std::vector<product_choice>& to, const bound& owner, const product_call& call) {
    int count = 0;
    try {
        auto& library = *owner.context().library;
        count = library.algorithm_count(library.choose(library_product_of(call)));
    } catch (const plugin::failure& caught) {
        if (caught.status() != SLUICE_UNSUPPORTED) throw; // else it has none for the shape
    }
    for (int i = 0; i < count; ++i) to.push_back({form::library, 0, operand_copies::automatic, i});
}

// All that can run it and may be the fastest; the first is the rule's.
std::vector<product_choice> variants_of(const bound& owner, const product_call& call,
                                        row_order order, bool may_use_library) {
    few_call few = few_call_of(owner, call);
    const int64_t most_few =
        order == row_order::dense ? few_rows : int64_t{few_rows_of_expert} * call.weight.matrices;
    // Places do not change what fits, but which rows a block takes.
    const int32_t some_offset = 0;
    if (order != row_order::dense) few.product.offset = &some_offset;
    const bool is_few = call.places <= most_few;
    const bool fits_few = call.places <= form_doubt * most_few && fits_product_few(few);
    const bool tries_many = call.places > most_few / form_doubt;
    const bool fits_library = may_use_library && tries_many && has_library_types(call);
    std::vector<product_choice> variants;
    if (is_few && fits_few) add_few(variants, few);
    if (fits_library && (!is_few || !variants.empty())) add_library(variants, owner, call);
    if ((tries_many || variants.empty()) && fits_product_many(call))
        add_many(variants, owner, order);
    if (!is_few && fits_few && !variants.empty()) add_few(variants, few);
    if (variants.empty()) variants.push_back({});
    return variants;
}

// ---- Rehearsals ----

// Which experts the rows of a step might choose: each row `choices` different ones, all of them
// alike. [rows, choices]
std::vector<int32_t> drawn_experts(int64_t rows, int32_t choices, int32_t experts) {
    std::mt19937 random(1); // the same for all variants, and each time
    std::vector<int32_t> order(static_cast<size_t>(experts));
    std::iota(order.begin(), order.end(), 0);
    std::vector<int32_t> drawn;
    for (int64_t row = 0; row < rows; ++row)
        for (int32_t i = 0; i < choices; ++i) {
            const auto first = static_cast<size_t>(std::min(i, experts - 1));
            const size_t other = first + random() % (order.size() - first);
            std::swap(order[first], order[other]);
            drawn.push_back(order[first]);
        }
    return drawn;
}

struct sorted_rows {
    std::vector<int32_t> offset; // [experts + 1]
    std::vector<int32_t> row;    // [places]: the row of x that place p multiplies
};
sorted_rows sorted(const std::vector<int32_t>& expert, int32_t choices, int32_t experts) {
    sorted_rows result;
    result.offset.assign(static_cast<size_t>(experts) + 1, 0);
    for (const int32_t each : expert) ++result.offset[static_cast<size_t>(each) + 1];
    std::partial_sum(result.offset.begin(), result.offset.end(), result.offset.begin());
    std::vector<int32_t> next(result.offset.begin(), result.offset.end() - 1);
    result.row.resize(expert.size());
    for (size_t i = 0; i < expert.size(); ++i)
        result.row[static_cast<size_t>(next[static_cast<size_t>(expert[i])]++)] =
            static_cast<int32_t>(i) / choices;
    return result;
}

int64_t width_of(const product_call& call) {
    const bool joins = call.gate.gates && call.gate.gate_layout != SLUICE_GATE_SPLIT;
    return joins ? call.weight.rows / 2 : call.weight.rows;
}

// The call with operands of the room in place of those that a step has; weights are the real ones.
product_call rehearsed(const product_call& call, row_order order, int32_t choice_count,
                       tuning_room& room) {
    product_call result = call;
    const int64_t places = call.places;
    const int64_t rows = order == row_order::gathered ? blocks_for(places, choice_count) : places;
    result.x = room.noise(call.x_type, rows * call.weight.columns);
    result.y = room.take(plugin::bytes_of(call.y_type, places * width_of(call)));
    if (call.input_scale != nullptr)
        result.input_scale = reinterpret_cast<const float*>(room.noise(SLUICE_F32, places));
    if (order == row_order::dense) return result;
    auto drawn =
        drawn_experts(blocks_for(places, choice_count), choice_count, call.weight.matrices);
    drawn.resize(static_cast<size_t>(places));
    const sorted_rows by_expert = sorted(drawn, choice_count, call.weight.matrices);
    result.offset = room.copy(by_expert.offset);
    if (order == row_order::gathered) result.row = room.copy(by_expert.row);
    return result;
}

} // namespace

product_choice choose_product(const bound& owner, const product_call& call, row_order order,
                              int32_t choice_count, bool may_use_library) {
    if (call.places == 0) return {};
    const auto variants = variants_of(owner, call, order, may_use_library);
    std::vector<std::string> names;
    for (const auto& each : variants) names.push_back(name_of(each));
    constexpr const char* families[] = {"product", "product, sorted rows",
                                        "product, gathered rows"};
    const tuning_key key{families[static_cast<int>(order)], operands_text(call),
                         tuning_bucket(call.places)};
    const size_t chosen = owner.context().tuning->choose(key, names, [&](tuning_room& room) {
        auto& library = *owner.context().library;
        const product_call tried = rehearsed(call, order, choice_count, room);
        std::byte* workspace =
            may_use_library ? room.take(matmul_library::workspace_bytes) : nullptr;
        const int64_t x_count = call.places * call.weight.columns;
        return rehearsal{
            [=, &owner, &library, &variants](size_t variant, cudaStream_t stream) {
                const product_choice& choice = variants[variant];
                if (choice.form == form::library)
                    library.launch(library.choose(library_product_of(tried)), choice.algorithm,
                                   tried.x, tried.weight.data, tried.y, workspace, stream);
                else
                    multiply(owner, tried, choice, false, stream);
            },
            tried.x,
            plugin::bytes_of(call.x_type,
                             order == row_order::gathered ? x_count / choice_count : x_count)};
    });
    return variants[chosen];
}

int32_t choose_few_warps(const bound& owner, const few_call& call) {
    if (call.product.places == 0) return 0;
    const auto counts = few_warp_counts(call);
    std::vector<std::string> names;
    for (const int32_t warps : counts) names.push_back(name_of({form::few, warps}));
    std::string operands = operands_text(call.product);
    for (int32_t i = 0; i < call.more_count; ++i)
        operands = joined(operands, " and ", shape_of(call.more[i].weight));
    const bool by_choice = call.index != nullptr;
    const tuning_key key{by_choice                       ? "product by choice"
                         : call.norm.residual != nullptr ? "normed product"
                                                         : "product",
                         std::move(operands), tuning_bucket(call.product.places)};
    const size_t chosen = owner.context().tuning->choose(key, names, [&](tuning_room& room) {
        const product_call& product = call.product;
        const int64_t columns = product.weight.columns;
        const int64_t rows = blocks_for(product.places, call.choice_count);
        few_call tried = call;
        tried.programmatic = false; // there is no kernel of this backend before it
        tried.product = rehearsed(product, row_order::dense, 1, room);
        if (by_choice) {
            tried.index =
                room.copy(drawn_experts(rows, call.choice_count, product.weight.matrices));
            tried.map = nullptr;
        }
        for (int32_t i = 0; i < call.more_count; ++i)
            tried.more[i].y = room.take(
                plugin::bytes_of(call.more[i].y_type, product.places * call.more[i].weight.rows));
        const void* recent = tried.product.x;
        if (call.norm.residual != nullptr) {
            recent = tried.norm.residual = room.noise(call.norm.residual_type, rows * columns);
            if (call.norm.addend != nullptr)
                tried.norm.addend = room.noise(call.norm.addend_type, rows * columns);
            if (call.norm.sum != nullptr)
                tried.norm.sum = room.take(plugin::bytes_of(call.norm.sum_type, rows * columns));
            if (call.norm.normed != nullptr)
                tried.norm.normed = room.take(plugin::bytes_of(product.x_type, rows * columns));
        }
        return rehearsal{[tried, &counts](size_t variant, cudaStream_t stream) {
                             few_call asked = tried;
                             asked.warps = counts[variant];
                             launch_product_few(asked, stream);
                         },
                         recent, plugin::bytes_of(product.x_type, rows * columns)};
    });
    return counts[chosen];
}

int32_t choose_few_combine_parts(const bound& owner, const few_combine_call& call) {
    const auto counts = few_combine_part_counts(call);
    std::vector<std::string> names;
    for (const int32_t parts : counts) names.push_back(joined(parts, " parts a choice"));
    const bool shares = call.shared.data != nullptr;
    const std::string shared = shares ? joined(" and ", shape_of(call.shared)) : "";
    const tuning_key key{"product of choices, summed",
                         joined(types_text(call.x_type, call.matrix), " to ",
                                type_name(call.y_type), ", ", call.choice_count, " choices, ",
                                shape_of(call.matrix), shared),
                         tuning_bucket(call.rows)};
    const size_t chosen = owner.context().tuning->choose(key, names, [&](tuning_room& room) {
        const int64_t places = int64_t{call.rows} * call.choice_count;
        few_combine_call tried = call;
        tried.programmatic = false; // there is no kernel of this backend before it
        tried.x = room.noise(call.x_type, places * call.matrix.columns);
        tried.index = room.copy(drawn_experts(call.rows, call.choice_count, call.matrix.matrices));
        tried.map = nullptr;
        tried.weight = reinterpret_cast<const float*>(room.noise(SLUICE_F32, places));
        tried.identity_from = 0;
        if (call.addend != nullptr)
            tried.addend = room.noise(call.addend_type, call.rows * call.matrix.rows);
        if (shares) tried.shared_x = room.noise(call.x_type, call.rows * call.shared.columns);
        tried.y = room.take(plugin::bytes_of(call.y_type, call.rows * call.matrix.rows));
        return rehearsal{[tried, &counts](size_t variant, cudaStream_t stream) {
                             few_combine_call asked = tried;
                             asked.parts = counts[variant];
                             launch_product_few_combine(asked, stream);
                         },
                         tried.x, plugin::bytes_of(call.x_type, places * call.matrix.columns)};
    });
    return counts[chosen];
}

} // namespace sluice::cuda
