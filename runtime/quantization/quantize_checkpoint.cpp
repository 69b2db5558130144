#include "quantization/quantize_checkpoint.hpp"

#include "base/atomic_file.hpp"
#include "base/element_type.hpp"
#include "base/error.hpp"
#include "base/text.hpp"
#include "engine/model_fingerprint.hpp"
#include "model/checkpoint.hpp"
#include "model/gptq_layout.hpp"
#include "model/weight_binding.hpp"
#include "quantization/module_quantizer.hpp"
#include "quantization/partial_results.hpp"

#include <nlohmann/json.hpp>

#include <map>

namespace sluice {

namespace {

namespace fs = std::filesystem;

// What goes along with the weights. config.json is written last, and apart.
constexpr std::string_view copied_files[] = {"generation_config.json", "tokenizer.json",
                                             "tokenizer_config.json",  "special_tokens_map.json",
                                             "chat_template.jinja",    "LICENSE"};

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
        && !fs::is_empty(options.target, code) && !partial_results::is_all_of(options.target))
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
        if (wants_statistics() && options.backend == nullptr)
            fail(SLUICE_INVALID,
                 "quantizer {} wants statistics of the modules' inputs; give it text to calibrate "
                 "with (--calibration), or name one that needs none, such as \"rtn\"",
                 quote(quantizer.id()));
        const model_config config = read_model_config(weights_->config());
        model_program_options program_options;
        program_options.weight_format = weight_formats_of(*weights_);
        format_of_ = program_options.weight_format;
        model_ = std::make_unique<model_program>(build_model_program(config, program_options));
        list_ = list_modules(*model_);
    }

    quantization_report run() {
        std::vector<sluice_element_type> stored_types;
        for (const stored_module& module : list_.modules)
            stored_types.push_back(format_of_(module.request.slices.front().tensor).element_type);
        plans_ = plan_modules(quantizer_, list_, stored_types, options_.formats);
        const gptq_config config = make_gptq_config(list_, plans_);
        format_ = config.format();
        find_stored_tensors();
        check_target(weights_->directory(), options_);
        std::optional<partial_results> partial;
        if (wants_statistics()) {
            partial.emplace(options_.target, key(), options_.overwrite);
            quantize_by_unit(*partial);
        }
        safetensors_writer writer(options_.target / "model.safetensors");
        declare(writer);
        copy_tensors(writer);
        if (partial)
            write_units(writer, *partial);
        else
            write_modules(writer);
        report_.bytes_before = weights_->size_bytes();
        report_.bytes_after = writer.size_bytes();
        writer.finish();
        write_other_files(config);
        if (partial) partial->remove();
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
        return may_change && is_plain_float(wanted) && is_plain_float(stored_type) ? wanted
                                                                                   : stored_type;
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

    bool wants_statistics() const { return quantizer_.quantizer().needs_gram != 0; }
    module_quantizer each() const { return {quantizer_, *weights_, format_of_, format_}; }

    void advance_progress() {
        ++done_;
        if (options_.on_progress) options_.on_progress(done_, list_.modules.size());
    }

    // What a module that stays as it is, or only changes its type, is reported as.
    module_report report_of_kept(size_t index) const {
        module_report result = each().describe(list_.modules[index]);
        const auto stored =
            format_of_(list_.modules[index].request.slices.front().tensor).element_type;
        const uint32_t bits = element_bits(kept_type(index, stored));
        result.bytes_after = result.bytes_before / result.bits * bits;
        result.bits = bits;
        result.fallback = !plans_[index].kept_reason.empty();
        result.note = plans_[index].kept_reason;
        return result;
    }

    void write_modules(safetensors_writer& writer) {
        for (size_t i = 0; i < list_.modules.size(); ++i) {
            if (plans_[i].parameters) {
                const quantized_module made =
                    each().quantize(list_.modules[i], plans_[i], /*inputs=*/nullptr);
                append_gptq_module(writer, list_.modules[i].name, made.packed);
                report_.modules.push_back(made.report);
            } else {
                report_.modules.push_back(report_of_kept(i));
            }
            advance_progress();
        }
    }

    // ---- With statistics ----

    // Everything that partial results depend on.
    std::string key() const {
        std::string text =
            fmt::format("{} {}\n{}\nbackend {}, few rows {}, {}\n", quantizer_.id(),
                        quantizer_.manifest().version, options_.settings, options_.backend->id(),
                        options_.calibration.few_rows, options_.calibration.weigh_by_router);
        for (const module_plan& plan : plans_) {
            const auto& wanted = plan.parameters;
            text += wanted ? fmt::format("{}/{}/{}/{} ", wanted->bits, wanted->group_size,
                                         wanted->symmetric, wanted->activation_order)
                           : "- ";
        }
        for (const std::vector<int32_t>& window : options_.calibration.windows)
            text += fmt::format("\n{}", fmt::join(window, " "));
        return model_fingerprint(*weights_, text);
    }

    void quantize_by_unit(partial_results& partial) {
        calibrator text(*model_, list_, weights_, options_.backend, options_.calibration);
        unit_modules_.resize(text.unit_count());
        for (size_t i = 0; i < list_.modules.size(); ++i)
            if (plans_[i].parameters)
                unit_modules_[text.unit_of(i)].push_back(i);
            else
                advance_progress();
        // The text goes as far as there is something to quantize.
        uint32_t end = 0;
        for (uint32_t unit = 0; unit < text.unit_count(); ++unit)
            if (!unit_modules_[unit].empty() && !partial.has(unit)) end = unit + 1;
        for (uint32_t unit = 0; unit < text.unit_count(); ++unit) {
            if (partial.has(unit))
                take_over(text, partial, unit, /*goes_on=*/unit < end);
            else if (!unit_modules_[unit].empty())
                quantize_unit(text, partial, unit);
            if (unit + 1 < end) text.advance();
        }
        for (const std::vector<int32_t>& window : options_.calibration.windows)
            report_.calibration_tokens += window.size();
    }

    // goes_on: later units see what these modules became.
    void take_over(calibrator& text, const partial_results& partial, uint32_t unit, bool goes_on) {
        const std::vector<size_t>& modules = unit_modules_[unit];
        const std::vector<quantized_module> results = partial.load(unit, modules);
        for (size_t i = 0; i < modules.size(); ++i) {
            if (goes_on)
                text.replace(modules[i], each().values(list_.modules[modules[i]],
                                                       plans_[modules[i]], results[i].packed));
            advance_progress();
        }
        report_.resumed_modules += modules.size();
    }

    void quantize_unit(calibrator& text, partial_results& partial, uint32_t unit) {
        const std::vector<size_t>& modules = unit_modules_[unit];
        std::map<size_t, quantized_module> made;
        text.calibrate(modules, [&](size_t module, const module_inputs& inputs) {
            check_coverage(list_.modules[module], inputs);
            const auto [result, is_new] = made.emplace(
                module, each().quantize(list_.modules[module], plans_[module], &inputs));
            advance_progress();
            return each().values(list_.modules[module], plans_[module], result->second.packed);
        });
        std::vector<quantized_module> results;
        for (const size_t module : modules) results.push_back(std::move(made.at(module)));
        partial.save(unit, list_, plans_, modules, results);
    }

    void check_coverage(const stored_module& module, const module_inputs& inputs) const {
        if (module.kind != SLUICE_MODULE_EXPERT || inputs.row_count >= options_.expert_tokens_min)
            return;
        fail(SLUICE_INVALID,
             "{}: only {} tokens of the calibration text came to this expert, expected at least "
             "{}; give more text or text of other kinds, or allow fewer (--expert-tokens-min), "
             "and it leans on the statistics of all of its layer's tokens. What is done is kept",
             quote(module.name, 160), inputs.row_count, options_.expert_tokens_min);
    }

    void write_units(safetensors_writer& writer, const partial_results& partial) {
        std::map<size_t, module_report> reports;
        for (uint32_t unit = 0; unit < unit_modules_.size(); ++unit) {
            const std::vector<size_t>& modules = unit_modules_[unit];
            if (modules.empty()) continue;
            std::vector<quantized_module> results = partial.load(unit, modules);
            for (size_t i = 0; i < modules.size(); ++i) {
                append_gptq_module(writer, list_.modules[modules[i]].name, results[i].packed);
                reports[modules[i]] = std::move(results[i].report);
            }
        }
        for (size_t i = 0; i < list_.modules.size(); ++i) {
            const auto found = reports.find(i);
            report_.modules.push_back(found == reports.end() ? report_of_kept(i) : found->second);
        }
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
        write_file_atomically(options_.target / "quantization_report.json",
                              to_json(report_).dump(1) + "\n");
        nlohmann::ordered_json json = weights_->config().to_json();
        json["quantization_config"] = config.to_json("sluice:" SLUICE_VERSION);
        write_file_atomically(options_.target / "config.json", json.dump(2) + "\n");
    }

    const plugin_instance& quantizer_;
    const quantize_options& options_;
    std::shared_ptr<const checkpoint> weights_;
    weight_format_function format_of_;
    std::unique_ptr<const model_program> model_;
    module_list list_;
    std::vector<module_plan> plans_; // one for each module
    gptq_format format_ = gptq_format::gptq;
    std::vector<std::string> stored_names_; // one for each module
    std::vector<std::string> copied_;       // tensors of the new file that are in the old one
    std::vector<sluice_element_type> copy_types_;
    std::vector<std::vector<size_t>> unit_modules_; // that are quantized, by the calibrator's unit
    uint64_t done_ = 0;                             // modules
    quantization_report report_;
};

} // namespace

quantization_report quantize_checkpoint(const std::filesystem::path& source,
                                        const plugin_instance& quantizer,
                                        const quantize_options& options) {
    return checkpoint_quantizer(source, quantizer, options).run();
}

} // namespace sluice
