#include "quantization/partial_results.hpp"

#include "base/atomic_file.hpp"
#include "base/error.hpp"
#include "base/mapped_file.hpp"
#include "base/text.hpp"
#include "model/safetensors.hpp"

#include <nlohmann/json.hpp>

#include <cstring>
#include <system_error>

namespace sluice {

namespace {

namespace fs = std::filesystem;

constexpr std::string_view folder_name = "partial";
constexpr std::string_view key_file = "key.txt";
constexpr const char* report_key = "sluice.report";

std::string read_text(const fs::path& path) {
    const auto file = mapped_file::open(path);
    return {reinterpret_cast<const char*>(file->bytes().data()), file->bytes().size()};
}

template <typename Element>
std::vector<Element> elements_of(const safetensors_file& file, const std::string& name) {
    const safetensors_entry* entry = file.find_entry(name);
    if (entry == nullptr)
        fail(SLUICE_INVALID, "{}: expected the tensor {}, found none; remove the folder {}",
             file.path().string(), quote(name, 160), file.path().parent_path().string());
    const tensor_view tensor = file.tensor(*entry);
    std::vector<Element> elements(tensor.bytes.size() / sizeof(Element));
    std::memcpy(elements.data(), tensor.bytes.data(), elements.size() * sizeof(Element));
    return elements;
}

} // namespace

bool partial_results::is_all_of(const fs::path& target) {
    std::error_code code;
    size_t others = 0, own = 0;
    for (const fs::directory_entry& entry : fs::directory_iterator(target, code))
        ++(entry.path().filename() == folder_name ? own : others);
    return own == 1 && others == 0;
}

partial_results::partial_results(const fs::path& target, std::string key, bool overwrite)
    : folder_(target / folder_name) {
    const fs::path key_path = folder_ / key_file;
    if (fs::exists(key_path)) {
        if (read_text(key_path) == key) return;
        if (!overwrite)
            fail(SLUICE_INVALID,
                 "{}: results of an interrupted run with another model, text or settings are here; "
                 "run it again as it was to finish it, remove the folder, or allow overwriting "
                 "(--force)",
                 folder_.string());
        remove();
    }
    fs::create_directories(folder_);
    write_file_atomically(key_path, key);
}

fs::path partial_results::file_of(uint32_t unit) const {
    return folder_ / fmt::format("unit-{}.safetensors", unit);
}

bool partial_results::has(uint32_t unit) const { return fs::exists(file_of(unit)); }

void partial_results::save(uint32_t unit, const module_list& list,
                           const std::vector<module_plan>& plans,
                           const std::vector<size_t>& modules,
                           const std::vector<quantized_module>& results) {
    auto reports = nlohmann::ordered_json::array();
    for (const quantized_module& result : results) reports.push_back(to_json(result.report));
    safetensors_writer writer(file_of(unit), {{"format", "pt"}, {report_key, reports.dump()}});
    for (const size_t module : modules)
        declare_gptq_module(writer, list.modules[module].name, *plans[module].parameters,
                            list.modules[module].row_count, list.modules[module].column_count,
                            plans[module].format.scale_type);
    for (size_t i = 0; i < modules.size(); ++i)
        append_gptq_module(writer, list.modules[modules[i]].name, results[i].packed);
    writer.finish();
}

std::vector<quantized_module> partial_results::load(uint32_t unit,
                                                    const std::vector<size_t>& modules) const {
    const auto file = safetensors_file::open(file_of(unit));
    const auto report = file->header().metadata.find(report_key);
    const auto reports =
        report == file->header().metadata.end()
            ? nlohmann::ordered_json()
            : nlohmann::ordered_json::parse(report->second, nullptr, /*allow_exceptions=*/false);
    if (!reports.is_array() || reports.size() != modules.size())
        fail(SLUICE_INVALID, "{}: expected reports of {} modules; remove the folder {}",
             file->path().string(), modules.size(), folder_.string());
    std::vector<quantized_module> results;
    for (const auto& json : reports) {
        quantized_module result;
        result.report = module_report_from_json(json);
        const std::string& name = result.report.name;
        result.packed.qweight = elements_of<int32_t>(*file, name + ".qweight");
        result.packed.qzeros = elements_of<int32_t>(*file, name + ".qzeros");
        result.packed.scales = elements_of<std::byte>(*file, name + ".scales");
        result.packed.g_idx = elements_of<int32_t>(*file, name + ".g_idx");
        results.push_back(std::move(result));
    }
    return results;
}

void partial_results::remove() { fs::remove_all(folder_); }

} // namespace sluice
