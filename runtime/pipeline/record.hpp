// Records: what stages of a pipeline exchange. Named, typed fields; immutable once they are passed
// on.
#pragma once

#include <sluice/abi/draft/stage.h>

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace sluice {

// The types of draft/stage.h that pipelines carry.
enum class field_type : uint32_t {
    text = SLUICE_FIELD_TEXT, // UTF-8
    integer = SLUICE_FIELD_INTEGER,
    number = SLUICE_FIELD_NUMBER,
    boolean = SLUICE_FIELD_BOOLEAN,
    token_ids = SLUICE_FIELD_TOKEN_IDS,
};
std::string_view field_type_name(field_type type); // "text"

using field_value = std::variant<std::string, int64_t, double, bool, std::vector<int32_t>>;
field_type type_of(const field_value& value);

using record = std::map<std::string, field_value, std::less<>>;

struct field_description {
    std::string name;
    field_type type = field_type::text;
    bool required = true;
};

} // namespace sluice
