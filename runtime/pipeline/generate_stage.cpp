#include "pipeline/stages.hpp"

namespace sluice {

namespace {

class generate_stage final : public stage {
  public:
    generate_stage(const stage_configuration& configured, const generation_configuration& defaults,
                   engine& generator)
        : engine_(generator), parameters_(parameters_of(defaults)) {
        overrides_from_settings(configured.settings, configured.name).apply_to(parameters_);
    }

    const std::vector<field_description>& inputs() const override {
        static const std::vector<field_description> fields{
            {"prompt", field_type::text, false}, {"token_ids", field_type::token_ids, false}};
        return fields;
    }

    const std::vector<field_description>& outputs() const override {
        static const std::vector<field_description> fields{
            {"text", field_type::text, true}, {"token_ids", field_type::token_ids, true}};
        return fields;
    }

    void start(const record& input, std::shared_ptr<stage_call> call) override {
        generation_request request;
        request.parameters = parameters_;
        call->options().generation.apply_to(request.parameters);
        request.add_special_tokens = call->options().add_special_tokens;
        request.use_result_cache = call->options().use_result_cache;
        request.tenant = call->options().tenant;
        request.deadline = call->options().deadline;
        if (const auto tokens = input.find("token_ids"); tokens != input.end()) {
            request.token_ids = std::get<std::vector<int32_t>>(tokens->second);
        } else if (const auto prompt = input.find("prompt"); prompt != input.end()) {
            request.prompt = std::get<std::string>(prompt->second);
        }
        auto answer = std::make_shared<answer_so_far>();
        auto stream = std::make_shared<generation>(
            [call, answer](const generation_event& event) { pass_on(*call, *answer, event); });
        engine_.submit(std::move(request), stream);
        call->on_cancel([stream] { stream->cancel(); });
    }

  private:
    struct answer_so_far {
        std::string text;
        std::vector<int32_t> token_ids;
    };

    static void pass_on(stage_call& call, answer_so_far& answer, const generation_event& event) {
        if (!event.finished) {
            answer.text += event.text;
            answer.token_ids.insert(answer.token_ids.end(), event.token_ids.begin(),
                                    event.token_ids.end());
            call.stream(event);
        } else if (event.reason == finish_reason::failed) {
            call.fail(error(event.status, event.message));
        } else {
            record output;
            output["text"] = std::move(answer.text);
            output["token_ids"] = std::move(answer.token_ids);
            call.finish(std::move(output), event);
        }
    }

    engine& engine_;
    generation_parameters parameters_;
};

} // namespace

std::unique_ptr<stage> make_generate_stage(const stage_configuration& configured,
                                           const generation_configuration& defaults,
                                           engine& generator) {
    return std::make_unique<generate_stage>(configured, defaults, generator);
}

} // namespace sluice
