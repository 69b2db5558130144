#include "quantization/quantize_checkpoint.hpp"

#include "base/atomic_file.hpp"
#include "base/element_type.hpp"
#include "base/error.hpp"
#include "base/text.hpp"
#include "model/checkpoint.hpp"
#include "model/gptq_layout.hpp"
#include "model/weight_binding.hpp"
#include "quantization/gptq_plan.hpp"

#include <nlohmann/json.hpp>

#include <map>

namespace sluice {

namespace {

namespace fs = std::filesystem;

// What goes along with the weights. config.json is written last, and apart.
constexpr std::string_view copied_files[] = {"generation_config.json", "tokenizer.json",
                                             "tokenizer_config.json",  "special_tokens_map.json",
                                             "chat_template.jinja",    "LICENSE"};

bool is_plain(sluice_element_type type) {
    return type == SLUICE_F32 || type == SLUICE_F16 || type == SLUICE_BF16;
}

void check_target(const fs::path& source, const quantize_options& options) {
    std::error_code code;
    if (fs::exists(options.target, code) && !fs::is_directory(options.target, code))
        fail(SLUICE_INVALID, "{}: expected a folder to write the model to, found a file",
             options.target.string());
    if (fs::equivalent(source, options.target, code))
        fail(SLUICE_INVALID,
             "{}: the quantized model cannot replace the one it is made from; "
             "name another folder",
             options.target.string());
    if (!options.overwrite && fs::exists(options.target, code)
        && !fs::is_empty(options.target, code))
        fail(SLUICE_INVALID,
             "{}: the folder has files already; name an empty or new one, or allow overwriting "
             "(--force)",
             options.target.string());
    fs::create_directories(options.target, code);
    if (code)
        fail(SLUICE_UNAVAILABLE, "{}: cannot make the folder: {}", options.target.string(),
             code.message());
}

class checkpoint_quantizer {
  public:
    checkpoint_quantizer(const fs::path& source, const plugin_instance& quantizer,
                         const quantize_options& options)
        : quantizer_(quantizer), options_(options), weights_(open_checkpoint(source)) {
        if (weights_->config().find("quantization_config"))
            fail(SLUICE_INVALID,
                 "{}: config.json has a quantization_config: the model is quantized already; "
                 "quantize from its 16-bit weights",
                 source.string());
        if (quantizer.quantizer().needs_gram != 0)
            fail(SLUICE_UNSUPPORTED,
                 "quantizer {} wants statistics of the modules' inputs, which are not collected "
                 "here; name one that needs none, such as \"rtn\"",
                 quote(quantizer.id()));
        const model_config config = read_model_config(weights_->config());
        model_program_options program_options;
        program_options.weight_format = weight_formats_of(*weights_);
        format_of_ = program_options.weight_format;
        list_ = list_modules(build_model_program(config, program_options));
    }

    quantization_report run() {
        std::vector<sluice_element_type> stored_types;
        for (const stored_module& module : list_.modules)
            stored_types.push_back(format_of_(module.request.slices.front().tensor).element_type);
        plans_ = plan_modules(quantizer_, list_, stored_types);
        const gptq_config config = make_gptq_config(list_, plans_);
        format_ = config.format();
        find_stored_tensors();
        check_target(weights_->directory(), options_);
        safetensors_writer writer(options_.target / "model.safetensors");
        declare(writer);
        copy_tensors(writer);
        for (size_t i = 0; i < list_.modules.size(); ++i) {
            write_module(writer, i);
            if (options_.on_progress) options_.on_progress(i + 1, list_.modules.size());
        }
        report_.bytes_before = weights_->size_bytes();
        report_.bytes_after = writer.size_bytes();
        writer.finish();
        write_other_files(config);
        return std::move(report_);
    }

  private:
    bound_weight bind(const stored_module& module) const {
        const weight_request& request = module.request;
        return bind_weight(*weights_, request, format_of_(request.slices.front().tensor));
    }

    // The tensor of the file that each module lies in: its own, or one of all experts of a layer.
    // A tensor is left out of the new file when all its elements are quantized.
    void find_stored_tensors() {
        std::map<const std::byte*, std::string> by_address;
        std::map<std::string, uint64_t> sizes;
        for (const std::string& name : weights_->names()) {
            // Types that no model here reads are not touched, and only copied.
            const auto tensor = weights_->find(name);
            if (!tensor || tensor->bytes.empty()) continue;
            by_address.emplace(tensor->bytes.data(), name);
            sizes[name] = tensor->elements();
        }
        std::map<std::string, uint64_t> quantized;
        for (size_t i = 0; i < list_.modules.size(); ++i) {
            const stored_module& module = list_.modules[i];
            if (!plans_[i].parameters) {
                stored_names_.push_back(module.request.slices.front().tensor);
                continue;
            }
            const bound_weight bound = bind(module);
            const auto* data = static_cast<const std::byte*>(
                bound.source()->slices[0]->parts[SLUICE_PART_DATA]->data);
            const auto after = by_address.upper_bound(data);
            if (after == by_address.begin())
                fail(SLUICE_INTERNAL, "{}: its bytes belong to no tensor", module.name);
            stored_names_.push_back(std::prev(after)->second);
            quantized[stored_names_.back()] += uint64_t(module.row_count * module.column_count);
        }
        for (const std::string& name : weights_->names()) {
            const auto found = quantized.find(name);
            if (found != quantized.end() && found->second == sizes[name]) continue;
            copied_.push_back(name);
        }
    }

    // The type that a module which is not quantized gets: the quantizer may ask for another.
    sluice_element_type kept_type(size_t index, sluice_element_type stored_type) const {
        const module_plan& plan = plans_[index];
        const sluice_element_type wanted = plan.format.element_type;
        const bool may_change = plan.kept_reason.empty() && !list_.modules[index].in_stack;
        return may_change && is_plain(wanted) && is_plain(stored_type) ? wanted : stored_type;
    }

    void declare(safetensors_writer& writer) {
        std::map<std::string, size_t> kept;
        for (size_t i = 0; i < list_.modules.size(); ++i)
            if (!plans_[i].parameters) kept.emplace(stored_names_[i], i);
        for (const std::string& name : copied_) {
            const auto tensor = weights_->find(name);
            const auto module = kept.find(name);
            copy_types_.push_back(module == kept.end()
                                      ? tensor->element_type
                                      : kept_type(module->second, tensor->element_type));
            writer.declare(name, copy_types_.back(), tensor->shape);
        }
        for (size_t i = 0; i < list_.modules.size(); ++i) {
            const stored_module& module = list_.modules[i];
            if (plans_[i].parameters)
                declare_gptq_module(writer, module.name, *plans_[i].parameters, module.row_count,
                                    module.column_count, plans_[i].format.scale_type);
        }
    }

    void copy_tensors(safetensors_writer& writer) {
        std::map<std::string, uint64_t> other;
        for (size_t i = 0; i < copied_.size(); ++i) {
            const tensor_view tensor = *weights_->find(copied_[i]);
            if (copy_types_[i] == tensor.element_type) {
                writer.append(tensor.name, tensor.bytes);
            } else {
                const std::vector<float> values = tensor.to_f32();
                std::vector<std::byte> bytes(values.size() * element_bits(copy_types_[i]) / 8);
                convert_from_f32(copy_types_[i], values.data(), bytes.data(), values.size());
                writer.append(tensor.name, bytes);
            }
            other[tensor.name] = tensor.bytes.size();
        }
        for (const std::string& name : stored_names_) other.erase(name);
        report_.other_tensors = other.size();
        for (const auto& [name, size] : other) report_.other_bytes += size;
    }

    std::vector<float> read_matrix(const stored_module& module) const {
        const bound_weight bound = bind(module);
        const sluice_weight_slice& slice = *bound.source()->slices[0];
        const sluice_tensor& data = *slice.parts[SLUICE_PART_DATA];
        if (!is_plain(data.element_type))
            fail(SLUICE_UNSUPPORTED, "{}: {}: expected f32, f16 or bf16 to quantize, found {}",
                 weights_->directory().string(), quote(module.name, 160),
                 element_type_name(data.element_type));
        std::vector<float> values(size_t(module.row_count) * size_t(module.column_count));
        const size_t offset = size_t(slice.row_begin) * size_t(module.column_count)
                              * element_bits(data.element_type) / 8;
        convert_to_f32(data.element_type, static_cast<const std::byte*>(data.data) + offset,
                       values.data(), values.size());
        return values;
    }

    void write_module(safetensors_writer& writer, size_t index) {
        const stored_module& module = list_.modules[index];
        const module_plan& plan = plans_[index];
        module_report result;
        result.name = module.name;
        result.kind = module.kind;
        result.row_count = module.row_count;
        result.column_count = module.column_count;
        const auto stored_type = format_of_(module.request.slices.front().tensor).element_type;
        const uint64_t elements = uint64_t(module.row_count) * uint64_t(module.column_count)
                                  * (module.in_stack ? module.request.matrix_count : 1);
        result.bytes_before = elements * element_bits(stored_type) / 8;
        if (plan.parameters) {
            quantize_module(writer, module, plan, result);
        } else {
            result.bits = element_bits(kept_type(index, stored_type));
            result.bytes_after = elements * result.bits / 8;
            result.fallback = !plan.kept_reason.empty();
            result.note = plan.kept_reason;
        }
        report_.modules.push_back(std::move(result));
    }

    void quantize_module(safetensors_writer& writer, const stored_module& module,
                         const module_plan& plan, module_report& result) {
        const gptq_parameters& parameters = *plan.parameters;
        const auto rows = size_t(module.row_count);
        const auto columns = size_t(module.column_count);
        const auto groups = size_t(gptq_group_count(parameters.group_size, module.column_count));
        std::vector<uint8_t> codes(rows * columns);
        std::vector<float> scales(rows * groups);
        std::vector<uint8_t> zeros(rows * groups, parameters.bits == 4 ? 8 : 128);
        std::vector<int32_t> group_index(parameters.activation_order ? columns : 0);
        auto target = SLUICE_INIT(sluice_quantized);
        target.codes = codes.data();
        target.scales = scales.data();
        target.zeros = zeros.data();
        target.group_index = group_index.empty() ? nullptr : group_index.data();

        const std::vector<float> weights = read_matrix(module);
        auto description = SLUICE_INIT(sluice_module);
        description.kind = module.kind;
        description.row_count = module.row_count;
        description.column_count = module.column_count;
        description.name = text_view(module.name);
        description.layer = module.layer;
        description.stored_type = format_of_(module.request.slices.front().tensor).element_type;
        auto answer = SLUICE_INIT(sluice_quantization_report);
        plugin_call call = quantizer_.call("quantize");
        call =
            quantizer_.quantizer().quantize(quantizer_.handle(), &description, weights.data(),
                                            &plan.format, nullptr, &target, &answer, call.error());
        try {
            const gptq_packed packed =
                gptq_pack(parameters, format_, module.row_count, module.column_count, codes, zeros,
                          scales, plan.format.scale_type, group_index);
            append_gptq_module(writer, module.name, packed);
            result.bytes_after = packed.qweight.size() * 4 + packed.qzeros.size() * 4
                                 + packed.scales.size() + packed.g_idx.size() * 4;
        } catch (const error& problem) {
            fail(problem.status(), "quantizer {}: what it made of {}: {}", quote(quantizer_.id()),
                 quote(module.name, 160), problem.what());
        }
        result.is_quantized = true;
        result.bits = parameters.bits;
        result.group_size = parameters.group_size;
        result.is_symmetric = parameters.symmetric;
        result.error_relative = answer.error_relative;
        result.fallback = answer.fallback != 0;
        result.note = text_of_array(answer.note, sizeof answer.note);
    }

    void write_other_files(const gptq_config& config) const {
        for (const std::string_view name : copied_files) {
            const fs::path from = weights_->directory() / name;
            std::error_code code;
            if (!fs::exists(from, code)) continue;
            fs::copy_file(from, options_.target / name, fs::copy_options::overwrite_existing, code);
            if (code)
                fail(SLUICE_UNAVAILABLE, "{}: cannot copy to {}: {}", from.string(),
                     options_.target.string(), code.message());
            // The source may be read-only, and the copy is its own.
            fs::permissions(options_.target / name, fs::perms::owner_write, fs::perm_options::add,
                            code);
        }
        nlohmann::ordered_json json = weights_->config().to_json();
        json["quantization_config"] = config.to_json("sluice:" SLUICE_VERSION);
        write_file_atomically(options_.target / "config.json", json.dump(2) + "\n");
    }

    const plugin_instance& quantizer_;
    const quantize_options& options_;
    std::shared_ptr<const checkpoint> weights_;
    weight_format_function format_of_;
    module_list list_;
    std::vector<module_plan> plans_; // one for each module
    gptq_format format_ = gptq_format::gptq;
    std::vector<std::string> stored_names_; // one for each module
    std::vector<std::string> copied_;       // tensors of the new file that are in the old one
    std::vector<sluice_element_type> copy_types_;
    quantization_report report_;
};

} // namespace

quantization_report quantize_checkpoint(const std::filesystem::path& source,
                                        const plugin_instance& quantizer,
                                        const quantize_options& options) {
    return checkpoint_quantizer(source, quantizer, options).run();
}

} // namespace sluice
