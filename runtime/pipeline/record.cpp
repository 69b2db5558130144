#include "pipeline/record.hpp"

#include <array>

namespace sluice {

std::string_view field_type_name(field_type type) {
    switch (type) {
    case field_type::text:
        return "text";
    case field_type::integer:
        return "integer";
    case field_type::number:
        return "number";
    case field_type::boolean:
        return "boolean";
    case field_type::token_ids:
        return "token ids";
    }
    return "unknown";
}

field_type type_of(const field_value& value) {
    constexpr std::array types{field_type::text, field_type::integer, field_type::number,
                               field_type::boolean, field_type::token_ids};
    static_assert(types.size() == std::variant_size_v<field_value>);
    return types[value.index()];
}

} // namespace sluice
