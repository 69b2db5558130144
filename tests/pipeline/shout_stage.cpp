// A stage plugin for the tests: gives its text in capitals, from a thread of its own. A text that
// begins with "fail" is failed, one with "refuse" refused at once, one with "wrong" answered
// without the promised field, and one with "wait" when it has been cancelled.
#include <sluice/abi/draft/stage.h>
#include <sluice/plugin/entry.hpp>

#include <chrono>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace {

using namespace sluice::plugin;

class shout {
  public:
    static const definition& define() {
        static const definition made{.id = "shout",
                                     .kind = SLUICE_KIND_STAGE,
                                     .version = "1.0.0",
                                     .summary = "Gives a text in capitals.",
                                     .thread_count = 1,
                                     .extensions = {SLUICE_STAGE_EXTENSION}};
        return made;
    }

    static const void* extension(std::string_view id) {
        static const sluice_text fields[] = {text("text")};
        static const uint32_t types[] = {SLUICE_FIELD_TEXT};
        static const sluice_port_description input{
            sizeof(sluice_port_description), 0, text("in"), fields, types, 1, 0};
        static const sluice_port_description output{
            sizeof(sluice_port_description), 1, text("out"), fields, types, 1, 1};
        static const sluice_port_description* const ports[] = {&output, &input};
        static const sluice_stage table{sizeof(sluice_stage), 2, ports, accept};
        return id == SLUICE_STAGE_EXTENSION ? &table : nullptr;
    }

    shout(host given, const settings&)
        : services_(static_cast<const sluice_stage_host*>(
            given.table().extension(given.table().context, text(SLUICE_STAGE_HOST_EXTENSION)))) {
        if (services_ == nullptr) fail(SLUICE_UNAVAILABLE, "the host offers no stage services");
    }
    ~shout() {
        for (std::thread& thread : threads_) thread.join();
    }

  private:
    static sluice_status accept(sluice_plugin* plugin, uint32_t port, const sluice_record* record,
                                sluice_request* request, sluice_error* error) {
        return guard(error, [&] {
            auto& self = instance<shout>(plugin);
            if (port != 1) fail(SLUICE_INVALID, "port ", port, " is no input");
            const std::string given(view(record->fields[0]->text));
            if (given.starts_with("refuse")) fail(SLUICE_INVALID, "refused: ", given);
            const std::lock_guard lock(self.mutex_);
            self.threads_.emplace_back([&self, given, request] { self.answer(given, request); });
        });
    }

    void answer(const std::string& given, sluice_request* request) const {
        if (given.starts_with("fail")) {
            sluice_error error = SLUICE_INIT(sluice_error);
            report(&error, SLUICE_UNAVAILABLE, "failed: " + given);
            services_->fail(request, &error);
            return;
        }
        if (given.starts_with("wait")) {
            while (services_->cancelled(request) == 0) {
                std::this_thread::sleep_for(std::chrono::milliseconds(1));
            }
        }
        std::string loud;
        for (const char c : given) {
            loud += c >= 'a' && c <= 'z' ? char(c - 'a' + 'A') : c;
            emit(request, "text", std::string(1, loud.back()), 0);
        }
        emit(request, given.starts_with("wrong") ? "txt" : "text", loud, SLUICE_EMIT_FINAL);
    }

    void emit(sluice_request* request, std::string_view name, const std::string& value,
              uint32_t flags) const {
        sluice_field field = SLUICE_INIT(sluice_field);
        field.type = SLUICE_FIELD_TEXT;
        field.name = text(name);
        field.text = text(value);
        const sluice_field* const fields[] = {&field};
        sluice_record record = SLUICE_INIT(sluice_record);
        record.field_count = 1;
        record.fields = fields;
        services_->emit(request, 0, &record, flags);
    }

    const sluice_stage_host* services_;
    std::mutex mutex_;
    std::vector<std::thread> threads_;
};

} // namespace

SLUICE_PLUGIN(shout)
