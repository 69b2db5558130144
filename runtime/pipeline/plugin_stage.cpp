#include "pipeline/stages.hpp"

#include "base/text.hpp"

#include <algorithm>
#include <atomic>
#include <deque>

// What the ABI's opaque request is: one call that a plugin has not ended yet. Owned by the plugin
// in between, through the pointer, and destroyed when it ends the call.
struct sluice_request {
    std::shared_ptr<sluice::stage_call> call;
    const std::vector<sluice::field_description>* outputs; // of the stage, which outlives its calls
    std::shared_ptr<std::atomic<bool>> ended;
};

namespace sluice {

namespace {

// ---- Records across the border ----

constexpr uint32_t field_count_max = 256;
constexpr uint64_t field_bytes_max = uint64_t(1) << 30;

// The ABI's form of a record, borrowing its values.
class record_view {
  public:
    explicit record_view(const record& source) {
        for (const auto& [name, value] : source) {
            sluice_field field = SLUICE_INIT(sluice_field);
            field.type = uint32_t(type_of(value));
            field.name = text_view(name);
            if (const auto* text = std::get_if<std::string>(&value)) field.text = text_view(*text);
            if (const auto* integer = std::get_if<int64_t>(&value)) field.integer = *integer;
            if (const auto* number = std::get_if<double>(&value)) field.number = *number;
            if (const auto* truth = std::get_if<bool>(&value)) field.integer = *truth ? 1 : 0;
            if (const auto* tokens = std::get_if<std::vector<int32_t>>(&value)) {
                field.token_ids = tokens->data();
                field.count = tokens->size();
            }
            fields_.push_back(field);
        }
        for (const sluice_field& field : fields_) pointers_.push_back(&field);
        view_.field_count = uint32_t(pointers_.size());
        view_.fields = pointers_.data();
    }
    const sluice_record* get() const { return &view_; }

  private:
    std::deque<sluice_field> fields_;
    std::vector<const sluice_field*> pointers_;
    sluice_record view_ = SLUICE_INIT(sluice_record);
};

field_value value_of(const sluice_field& field, const std::string& name) {
    switch (field.type) {
    case SLUICE_FIELD_TEXT:
        if (field.text.size > field_bytes_max
            || (field.text.data == nullptr && field.text.size > 0)) {
            break;
        }
        return std::string(field.text.size == 0 ? "" : field.text.data, field.text.size);
    case SLUICE_FIELD_INTEGER:
        return field.integer;
    case SLUICE_FIELD_NUMBER:
        return field.number;
    case SLUICE_FIELD_BOOLEAN:
        return field.integer != 0;
    case SLUICE_FIELD_TOKEN_IDS:
        if (field.count > field_bytes_max / sizeof(int32_t)
            || (field.token_ids == nullptr && field.count > 0)) {
            break;
        }
        return std::vector<int32_t>(field.token_ids, field.token_ids + field.count);
    default:
        fail(SLUICE_UNSUPPORTED,
             "field \"{}\" has type {}, which pipelines do not carry yet; expected text, integer, "
             "number, boolean or token ids",
             name, field.type);
    }
    fail(SLUICE_INVALID, "field \"{}\" points nowhere or is over {} bytes", name, field_bytes_max);
}

record record_of(const sluice_record* source) {
    if (source == nullptr || source->field_count > field_count_max
        || (source->fields == nullptr && source->field_count > 0)) {
        fail(SLUICE_INVALID, "a stage emitted no record, or one of over {} fields",
             field_count_max);
    }
    record result;
    for (uint32_t i = 0; i < source->field_count; ++i) {
        if (source->fields[i] == nullptr
            || !SLUICE_HAS_FIELD(sluice_field, source->fields[i], count)) {
            fail(SLUICE_INVALID, "field {} of an emitted record is missing or too short", i);
        }
        const std::string name = text_of(source->fields[i]->name, 256);
        result[name] = value_of(*source->fields[i], name);
    }
    return result;
}

void check_record(const record& given, const std::vector<field_description>& expected) {
    for (const field_description& field : expected) {
        const auto found = given.find(field.name);
        if (found == given.end() || type_of(found->second) != field.type) {
            fail(SLUICE_INVALID,
                 "the final record lacks the field \"{}\" ({}) that the stage "
                 "promised",
                 field.name, field_type_name(field.type));
        }
    }
}

// ---- The host's services ----

void emit(sluice_request* request, uint32_t, const sluice_record* emitted, uint32_t flags) {
    const bool final = (flags & SLUICE_EMIT_FINAL) != 0;
    if (final && request->ended->exchange(true)) return;
    const std::unique_ptr<sluice_request> owned(final ? request : nullptr);
    try {
        record given = record_of(emitted);
        if (final) {
            check_record(given, *request->outputs);
            request->call->finish(std::move(given), ended_normally());
            return;
        }
        const auto text = given.find("text");
        if (text == given.end() || type_of(text->second) != field_type::text) return;
        generation_event part;
        part.text = std::get<std::string>(text->second);
        request->call->stream(std::move(part));
    } catch (const error& caught) {
        request->call->fail(caught);
    } catch (const std::exception& caught) {
        request->call->fail(error(SLUICE_INTERNAL, caught.what()));
    }
}

void fail_request(sluice_request* request, const sluice_error* given) {
    if (request->ended->exchange(true)) return;
    const std::unique_ptr<sluice_request> owned(request);
    sluice_status status = given == nullptr ? SLUICE_INTERNAL : status_known(given->status);
    if (status == SLUICE_OK) status = SLUICE_INTERNAL;
    const std::string message = given == nullptr
                                    ? "the stage failed without a reason"
                                    : text_of_array(given->message, sizeof given->message);
    owned->call->fail(error(status, message));
}

uint32_t is_cancelled(sluice_request* request) { return request->call->cancelled() ? 1 : 0; }

uint64_t deadline_of(sluice_request* request) {
    const auto& deadline = request->call->options().deadline;
    if (!deadline) return 0;
    const auto since = deadline->time_since_epoch(); // steady_clock is the monotonic clock here
    return uint64_t(std::chrono::duration_cast<std::chrono::nanoseconds>(since).count());
}

constexpr sluice_stage_host stage_host_table{
    uint32_t(sizeof(sluice_stage_host)), 0, emit, fail_request, is_cancelled, deadline_of};

// ---- The stage ----

class plugin_stage final : public stage {
  public:
    plugin_stage(const stage_configuration& configured, plugin_host& plugins)
        : plugin_(plugins.open(SLUICE_KIND_STAGE, configured.kind, configured.settings)) {
        const sluice_stage& table = plugin_->stage();
        for (uint32_t i = 0; i < table.port_count; ++i) {
            if (table.ports == nullptr || table.ports[i] == nullptr) {
                fail(SLUICE_INVALID, "stage plugin \"{}\": port {} is missing", plugin_->id(), i);
            }
            read_port(*table.ports[i], i);
        }
        if (input_port_ == UINT32_MAX || output_ports_ != 1) {
            fail(SLUICE_UNSUPPORTED,
                 "stage plugin \"{}\" has {} input and {} output ports; pipelines carry exactly "
                 "one of each",
                 plugin_->id(), input_ports_, output_ports_);
        }
    }

    const std::vector<field_description>& inputs() const override { return inputs_; }
    const std::vector<field_description>& outputs() const override { return outputs_; }

    void start(const record& input, std::shared_ptr<stage_call> call) override {
        const auto ended = std::make_shared<std::atomic<bool>>(false);
        auto request = std::make_unique<sluice_request>(sluice_request{call, &outputs_, ended});
        const record_view view(input);
        plugin_call accepting = plugin_->call("accept");
        // From here on the plugin owns the request; on an error it is ours again, unless the plugin
        // has ended it all the same.
        sluice_request* const lent = request.release();
        const sluice_status status = plugin_->stage().accept(plugin_->handle(), input_port_,
                                                             view.get(), lent, accepting.error());
        if (status == SLUICE_OK) return;
        if (ended->exchange(true)) return;
        delete lent;
        accepting.check(status);
    }

  private:
    void read_port(const sluice_port_description& port, uint32_t number) {
        const bool output = port.is_output != 0;
        if (output) {
            ++output_ports_;
        } else {
            ++input_ports_;
            input_port_ = input_ports_ == 1 ? number : UINT32_MAX;
        }
        if (port.field_count > field_count_max
            || (port.field_count > 0
                && (port.field_names == nullptr || port.field_types == nullptr))) {
            fail(SLUICE_INVALID, "stage plugin \"{}\": the fields of port {} are missing",
                 plugin_->id(), number);
        }
        for (uint32_t i = 0; i < port.field_count; ++i) {
            const std::string name = text_of(port.field_names[i], 256);
            const uint32_t type = port.field_types[i];
            if (field_type_name(field_type(type)) == "unknown") {
                fail(SLUICE_UNSUPPORTED,
                     "stage plugin \"{}\": field \"{}\" has type {}, which pipelines do not carry "
                     "yet",
                     plugin_->id(), name, type);
            }
            (output ? outputs_ : inputs_).push_back({name, field_type(type), true});
        }
    }

    std::shared_ptr<plugin_instance> plugin_;
    std::vector<field_description> inputs_;
    std::vector<field_description> outputs_;
    uint32_t input_port_ = UINT32_MAX;
    uint32_t input_ports_ = 0;
    uint32_t output_ports_ = 0;
};

} // namespace

std::unique_ptr<stage> make_plugin_stage(const stage_configuration& configured,
                                         plugin_host& plugins) {
    return std::make_unique<plugin_stage>(configured, plugins);
}

void offer_stage_host(host_services& services) {
    services.extension_add(SLUICE_STAGE_HOST_EXTENSION, &stage_host_table, true);
}

} // namespace sluice
