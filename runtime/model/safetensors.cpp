#include "model/safetensors.hpp"

#include "base/element_type.hpp"
#include "base/error.hpp"
#include "base/json.hpp"
#include "base/text.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <array>
#include <cstring>
#include <numeric>

namespace sluice {
namespace {

constexpr uint64_t length_field_bytes = 8;
constexpr uint64_t header_bytes_max = 100'000'000; // the reference implementation's own limit
constexpr uint64_t data_alignment_bytes = 64;      // of what the writer makes

struct dtype_information {
    std::string_view name;
    uint32_t bits;
    sluice_element_type element_type;
};

// Every type of the format; those that no model here uses have no element type.
constexpr std::array<dtype_information, 20> dtypes = {{
    {"F32", 32, SLUICE_F32},
    {"F16", 16, SLUICE_F16},
    {"BF16", 16, SLUICE_BF16},
    {"F64", 64, SLUICE_F64},
    {"I64", 64, SLUICE_I64},
    {"I32", 32, SLUICE_I32},
    {"I16", 16, SLUICE_I16},
    {"I8", 8, SLUICE_I8},
    {"U8", 8, SLUICE_U8},
    {"BOOL", 8, SLUICE_BOOL},
    {"F8_E4M3", 8, SLUICE_F8_E4M3},
    {"F8_E5M2", 8, SLUICE_F8_E5M2},
    {"F8_E8M0", 8, SLUICE_F8_E8M0},
    {"F4", 4, SLUICE_F4_E2M1},
    {"F6_E2M3", 6, SLUICE_ELEMENT_UNKNOWN},
    {"F6_E3M2", 6, SLUICE_ELEMENT_UNKNOWN},
    {"U16", 16, SLUICE_ELEMENT_UNKNOWN},
    {"U32", 32, SLUICE_ELEMENT_UNKNOWN},
    {"U64", 64, SLUICE_ELEMENT_UNKNOWN},
    {"C64", 64, SLUICE_ELEMENT_UNKNOWN},
}};

const dtype_information& dtype_of(const json_view& view) {
    std::string_view name = view.as_text();
    for (const dtype_information& dtype : dtypes) {
        if (dtype.name == name) return dtype;
    }
    std::vector<std::string> names;
    for (const dtype_information& dtype : dtypes) names.emplace_back(dtype.name);
    fail(SLUICE_UNSUPPORTED, "{}: expected one of {}, found {}", view.where(), join(names, ", "),
         quote(name));
}

uint64_t read_length_field(std::span<const std::byte> file, const std::string& source) {
    if (file.size() < length_field_bytes) {
        fail(
            SLUICE_INVALID,
            "{}: expected a safetensors file (an 8-byte header length first), found only {} bytes; "
            "is the download complete?",
            source, file.size());
    }
    uint64_t length = 0;
    for (size_t i = 0; i < length_field_bytes; ++i) length |= uint64_t(file[i]) << (8 * i);
    uint64_t available = file.size() - length_field_bytes;
    if (length < 2 || length > header_bytes_max || length > available) {
        fail(SLUICE_INVALID,
             "{}: header length: expected 2 to {} bytes, found {}; the file is not safetensors, or "
             "cut short",
             source, std::min(available, header_bytes_max), length);
    }
    return length;
}

// Reads one tensor's member of the header. Offsets are still relative to the data.
safetensors_entry parse_entry(const json_view& view, uint64_t data_bytes) {
    view.as_object();
    view.expect_only({"dtype", "shape", "data_offsets"});
    const dtype_information& dtype = dtype_of(view.at("dtype"));
    safetensors_entry entry;
    entry.name = view.key();
    entry.dtype = dtype.name;
    entry.element_type = dtype.element_type;
    json_view shape = view.at("shape");
    if (shape.as_array().size() > SLUICE_RANK_MAX) {
        shape.fail_unsupported(
            fmt::format("expected at most {} dimensions, found {}", SLUICE_RANK_MAX, shape.size()));
    }
    entry.shape = shape.as_integer_list(0, INT64_MAX, SLUICE_RANK_MAX);
    std::optional<uint64_t> count = element_count(entry.shape);
    uint64_t size_bits = 0;
    if (!count || __builtin_mul_overflow(*count, uint64_t(dtype.bits), &size_bits)) {
        fail(SLUICE_INVALID, "{}: the shape {} overflows: it has more elements than any memory",
             shape.where(), shape_text(entry.shape));
    }
    if (size_bits % 8 != 0) {
        fail(SLUICE_INVALID, "{}: expected {} elements of {} to fill whole bytes, found shape {}",
             shape.where(), dtype.name, dtype.bits, shape_text(entry.shape));
    }
    entry.size_bytes = size_bits / 8;
    json_view offsets = view.at("data_offsets");
    std::vector<int64_t> range = offsets.as_integer_list(0, INT64_MAX, 2);
    if (range.size() != 2) offsets.fail_expected("two offsets, begin and end");
    if (range[0] > range[1] || uint64_t(range[1]) > data_bytes) {
        fail(SLUICE_INVALID, "{}: expected begin <= end <= {} (the file's data), found {}",
             offsets.where(), data_bytes, shape_text(range));
    }
    entry.offset_bytes = uint64_t(range[0]);
    if (uint64_t(range[1] - range[0]) != entry.size_bytes) {
        fail(SLUICE_INVALID, "{}: expected {} bytes for {} {}, found {} ({})", offsets.where(),
             entry.size_bytes, dtype.name, shape_text(entry.shape), range[1] - range[0],
             shape_text(range));
    }
    return entry;
}

// Sorted ranges must follow each other exactly: holes could hide content, and overlaps alias it.
void check_coverage(const std::vector<safetensors_entry>& entries, uint64_t data_bytes,
                    const std::string& source) {
    uint64_t covered = 0;
    for (const safetensors_entry& entry : entries) {
        if (entry.offset_bytes != covered) {
            fail(
                SLUICE_INVALID,
                "{}: {}.data_offsets: expected to begin at {}, where the tensor before ends, found "
                "{} ({})",
                source, quote(entry.name, 160), covered, entry.offset_bytes,
                entry.offset_bytes < covered ? "overlapping tensors" : "a hole in the data");
        }
        covered += entry.size_bytes;
    }
    if (covered != data_bytes) {
        fail(SLUICE_INVALID,
             "{}: expected {} bytes of data after the header, found {} that no tensor covers",
             source, covered, data_bytes - covered);
    }
}

std::map<std::string, std::string> parse_metadata(const json_view& view) {
    std::map<std::string, std::string> metadata;
    for (json_view member : view.as_object()) {
        metadata.emplace(member.key(), member.as_text());
    }
    return metadata;
}

} // namespace

uint64_t tensor_view::elements() const { return element_count(shape).value_or(0); }

sluice_tensor tensor_view::to_abi() const {
    sluice_tensor tensor{};
    tensor.struct_size = sizeof(tensor);
    tensor.element_type = element_type;
    tensor.rank = uint32_t(std::min<size_t>(shape.size(), SLUICE_RANK_MAX));
    std::copy_n(shape.begin(), tensor.rank, tensor.shape);
    tensor.data = bytes.data();
    tensor.size_bytes = bytes.size();
    return tensor;
}

std::vector<float> tensor_view::to_f32() const {
    std::vector<float> values(elements());
    convert_to_f32(element_type, bytes.data(), values.data(), values.size());
    return values;
}

safetensors_header parse_safetensors_header(std::span<const std::byte> file,
                                            const std::string& source) {
    uint64_t length = read_length_field(file, source);
    std::string_view text(reinterpret_cast<const char*>(file.data()) + length_field_bytes, length);
    if (text.front() != '{') {
        fail(SLUICE_INVALID, "{}: expected the header to begin with '{{', found {}", source,
             quote(text.substr(0, 1)));
    }
    json_limits limits;
    limits.size_bytes_max = header_bytes_max;
    limits.depth_max = 4;
    json_view root = parse_json(text, source, limits);
    uint64_t data_bytes = file.size() - length_field_bytes - length;
    safetensors_header header;
    for (json_view member : root) {
        if (member.key() == "__metadata__") {
            header.metadata = parse_metadata(member);
        } else {
            header.entries.push_back(parse_entry(member, data_bytes));
        }
    }
    std::stable_sort(header.entries.begin(), header.entries.end(),
                     [](const safetensors_entry& left, const safetensors_entry& right) {
                         // An empty tensor comes before the one that begins where it lies.
                         return std::pair(left.offset_bytes, left.size_bytes)
                                < std::pair(right.offset_bytes, right.size_bytes);
                     });
    check_coverage(header.entries, data_bytes, source);
    for (safetensors_entry& entry : header.entries) {
        entry.offset_bytes += length_field_bytes + length;
    }
    return header;
}

safetensors_file::safetensors_file(std::shared_ptr<const mapped_file> file)
    : file_(std::move(file)),
      header_(parse_safetensors_header(file_->bytes(), file_->path().string())) {
    by_name_.reserve(header_.entries.size());
    for (const safetensors_entry& entry : header_.entries) by_name_.emplace(entry.name, &entry);
}

std::shared_ptr<const safetensors_file> safetensors_file::open(const std::filesystem::path& path) {
    return std::shared_ptr<const safetensors_file>(new safetensors_file(mapped_file::open(path)));
}

const safetensors_entry* safetensors_file::find_entry(std::string_view name) const {
    auto place = by_name_.find(name);
    return place == by_name_.end() ? nullptr : place->second;
}

tensor_view safetensors_file::tensor(const safetensors_entry& entry) const {
    if (entry.element_type == SLUICE_ELEMENT_UNKNOWN) {
        fail(SLUICE_UNSUPPORTED, "{}: {}.dtype: elements of type {} cannot be used",
             path().string(), quote(entry.name, 160), entry.dtype);
    }
    tensor_view view;
    view.name = entry.name;
    view.element_type = entry.element_type;
    view.shape = entry.shape;
    view.bytes = file_->bytes().subspan(entry.offset_bytes, entry.size_bytes);
    uint64_t element_bytes = std::max<uint64_t>(1, element_bits(entry.element_type) / 8);
    // The mapping itself begins on a page, so the offset alone decides.
    if (entry.offset_bytes % element_bytes != 0) view.bytes = aligned_copy(entry);
    view.file = path().string();
    view.offset_bytes = entry.offset_bytes;
    view.owner = shared_from_this();
    return view;
}

std::span<const std::byte> safetensors_file::aligned_copy(const safetensors_entry& entry) const {
    std::lock_guard lock(copies_mutex_);
    std::vector<std::max_align_t>& copy = copies_[&entry];
    if (copy.empty() && entry.size_bytes > 0) {
        copy.resize((entry.size_bytes + sizeof(std::max_align_t) - 1) / sizeof(std::max_align_t));
        std::memcpy(copy.data(), file_->bytes().data() + entry.offset_bytes, entry.size_bytes);
    }
    return {reinterpret_cast<const std::byte*>(copy.data()), entry.size_bytes};
}

std::string_view safetensors_dtype(sluice_element_type type) {
    for (const dtype_information& dtype : dtypes) {
        if (dtype.element_type == type && type != SLUICE_ELEMENT_UNKNOWN) return dtype.name;
    }
    return {};
}

safetensors_writer::safetensors_writer(const std::filesystem::path& path,
                                       std::map<std::string, std::string> metadata)
    : file_(path), metadata_(std::move(metadata)) {}

void safetensors_writer::declare(std::string name, sluice_element_type type,
                                 std::vector<int64_t> shape) {
    std::string where = file_.path().string() + ": " + quote(name, 160);
    if (data_start_bytes_ != 0) {
        fail(SLUICE_INTERNAL, "{}: declared after bytes were appended", where);
    }
    if (!is_utf8(name) || name == "__metadata__") {
        fail(SLUICE_INTERNAL, "{}: expected a UTF-8 tensor name other than __metadata__", where);
    }
    std::optional<uint64_t> size_bytes = tensor_bytes(type, shape);
    if (safetensors_dtype(type).empty() || !size_bytes) {
        fail(SLUICE_INTERNAL, "{}: cannot be stored as {} {}", where, element_type_name(type),
             shape_text(shape));
    }
    if (!by_name_.emplace(name, tensors_.size()).second) {
        fail(SLUICE_INTERNAL, "{}: declared twice", where);
    }
    data_bytes_ += *size_bytes;
    tensors_.push_back({std::move(name), type, std::move(shape), *size_bytes});
}

void safetensors_writer::write_header() {
    // Wider elements first: with no holes allowed, that alone aligns every tensor.
    std::vector<size_t> order(tensors_.size());
    std::iota(order.begin(), order.end(), size_t(0));
    std::stable_sort(order.begin(), order.end(), [&](size_t left, size_t right) {
        return element_bits(tensors_[left].type) > element_bits(tensors_[right].type);
    });
    std::string text = "{";
    if (!metadata_.empty()) text += "\"__metadata__\":" + nlohmann::json(metadata_).dump();
    uint64_t offset_bytes = 0;
    for (size_t index : order) {
        pending_tensor& tensor = tensors_[index];
        tensor.offset_bytes = offset_bytes;
        offset_bytes += tensor.size_bytes;
        nlohmann::ordered_json entry = {{"dtype", safetensors_dtype(tensor.type)},
                                        {"shape", tensor.shape},
                                        {"data_offsets", {tensor.offset_bytes, offset_bytes}}};
        if (text.size() > 1) text += ",";
        text += nlohmann::ordered_json(tensor.name).dump() + ":" + entry.dump();
    }
    text += "}";
    // Trailing spaces are allowed; they align the data, and with it every tensor to its element.
    text.resize((text.size() + length_field_bytes + data_alignment_bytes - 1) / data_alignment_bytes
                        * data_alignment_bytes
                    - length_field_bytes,
                ' ');
    std::array<std::byte, length_field_bytes> length;
    for (size_t i = 0; i < length.size(); ++i) length[i] = std::byte(text.size() >> (8 * i));
    file_.write(std::span<const std::byte>(length));
    file_.write(text);
    data_start_bytes_ = length_field_bytes + text.size();
}

void safetensors_writer::append(std::string_view name, std::span<const std::byte> bytes) {
    if (data_start_bytes_ == 0) write_header();
    auto place = by_name_.find(name);
    if (place == by_name_.end()) {
        fail(SLUICE_INTERNAL, "{}: {}: appended without being declared", file_.path().string(),
             quote(name, 160));
    }
    pending_tensor& tensor = tensors_[place->second];
    if (bytes.size() > tensor.size_bytes - tensor.written_bytes) {
        fail(SLUICE_INTERNAL, "{}: {}: expected {} bytes in all, found {} more",
             file_.path().string(), quote(name, 160), tensor.size_bytes,
             tensor.written_bytes + bytes.size() - tensor.size_bytes);
    }
    file_.write_at(data_start_bytes_ + tensor.offset_bytes + tensor.written_bytes, bytes);
    tensor.written_bytes += bytes.size();
}

void safetensors_writer::finish() {
    if (data_start_bytes_ == 0) write_header();
    for (const pending_tensor& tensor : tensors_) {
        if (tensor.written_bytes == tensor.size_bytes) continue;
        fail(SLUICE_INTERNAL, "{}: {}: expected {} bytes, only {} were appended",
             file_.path().string(), quote(tensor.name, 160), tensor.size_bytes,
             tensor.written_bytes);
    }
    file_.commit();
}

} // namespace sluice
