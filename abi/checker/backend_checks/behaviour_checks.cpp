// What a backend promises besides its results: repeatability, errors, caches, queues.
#include "backend_checks.hpp"
#include "tolerance.hpp"

#include "program/operation_table.hpp"

#include <cstring>
#include <thread>

namespace sluice::checker {
namespace {

const generator& generator_named(std::string_view name) {
    static const std::vector<generator> all = all_generators();
    for (const auto& each : all)
        if (each.name == name) return each;
    fail(SLUICE_INTERNAL, "the checker has no cases of {}", name);
}

std::string properties_sound(context& with) {
    plugin_instance& plugin = with.plugin();
    const sluice_backend_properties properties = properties_of(plugin);
    const std::string device = text_of_array(properties.device_name, sizeof properties.device_name);
    require(!device.empty(), "its device has no name");
    require(has_activations(plugin, SLUICE_F32), "f32 is none of its types of activations");
    auto small = SLUICE_INIT(sluice_backend_properties);
    small.struct_size = offsetof(sluice_backend_properties, memory_bytes_total);
    small.memory_bytes_total = 77;
    plugin_call call = plugin.call("properties");
    call = plugin.backend().properties(plugin.handle(), &small, call.error());
    require(small.memory_bytes_total == 77, "it writes beyond a smaller struct of properties");
    return device;
}

// Every primitive must run; composites as the backend likes.
std::string primitives_claimed(context& with) {
    std::string composites;
    size_t primitives = 0;
    for (const auto& of : all_generators()) {
        if (!has_cache_of(with.plugin(), of)) continue;
        const operation_case given = draw_case(with, of, {}, 2);
        for (uint32_t i = 0; i < given.made.operations().size(); ++i) {
            const uint32_t kind = given.made.operations()[i].kind;
            const auto refused = first_refusal(with.plugin(), given.made);
            const bool claimed = !refused || refused->operation != i;
            require(claimed || is_composite(kind), "the primitive {} is not claimed: {}",
                    operation_name(kind), refused ? refused->reason : "");
            if (kind != of.kind) continue;
            if (!is_composite(kind))
                ++primitives;
            else if (claimed)
                composites += (composites.empty() ? "" : ", ") + std::string(of.name);
        }
    }
    return fmt::format("{} kinds of primitives; composites: {}", primitives,
                       composites.empty() ? "none" : composites);
}

bool same_bits(const std::vector<step_outputs>& left, const std::vector<step_outputs>& right) {
    for (size_t step = 0; step < left.size(); ++step)
        for (size_t i = 0; i < left[step].size(); ++i)
            if (left[step][i].bytes != right[step][i].bytes) return false;
    return true;
}

// The same shapes and inputs give the same bits: again, and with any number of workers.
std::string repeatable(context& with) {
    std::vector<std::shared_ptr<plugin_instance>> teams;
    for (const uint32_t workers : {1U, 2U, 3U}) teams.push_back(with.open({}, workers));
    for (const auto& of : all_generators()) {
        if (!has_cache_of(with.plugin(), of)) continue;
        const operation_case given = draw_case(with, of, {}, 5);
        if (first_refusal(with.plugin(), given.made)) continue;
        const auto first = run_case(*teams[0], given);
        require(same_bits(first, run_case(*teams[0], given)),
                "{}: the second time it gives other bits", of.name);
        for (size_t i = 1; i < teams.size(); ++i)
            require(same_bits(first, run_case(*teams[i], given)),
                    "{}: with {} workers it gives other bits than with 1", of.name, i + 1);
    }
    return {};
}

// One row alone gives the bits that it gives among others.
std::string batch_invariant(context& with) {
    plugin_instance& plugin = with.plugin();
    if (properties_of(plugin).batch_invariant == 0)
        skip_check("it does not claim to be batch-invariant");
    for (const char* const name : {"linear", "rms_norm", "softmax", "gated_mlp"}) {
        const operation_case given = draw_case(with, generator_named(name), {}, 6);
        if (first_refusal(plugin, given.made)) continue;
        const auto together = run_case(plugin, given);
        for (uint32_t row = 0; row < given.steps[0].token_count; ++row) {
            operation_case alone = given;
            batch_step& step = alone.steps[0];
            step.token_count = 1;
            for (auto& [number, tensor] : step.custom) {
                const auto& dimensions = alone.made.value(number).dimensions;
                if (dimensions.empty() || dimensions[0].extent != SLUICE_EXTENT_TOKENS) continue;
                const size_t row_bytes = tensor.bytes.size() / static_cast<size_t>(tensor.shape[0]);
                std::memmove(tensor.bytes.data(), tensor.bytes.data() + row * row_bytes, row_bytes);
            }
            const auto single = run_case(plugin, alone);
            const auto& whole = together[0][0].bytes;
            const auto& part = single[0][0].bytes;
            require(std::memcmp(whole.data() + row * part.size(), part.data(), part.size()) == 0,
                    "{}: row {} alone gives other bits than among {}", name, row,
                    given.steps[0].token_count);
        }
    }
    return {};
}

std::string padding_harmless(context& with) {
    // Bound to many more rows than there are: the results are those of the exact size.
    for (const char* const name : {"linear", "rms_norm", "route", "moe_ffn", "group_rows"}) {
        operation_case given = draw_case(with, generator_named(name), {}, 7);
        if (first_refusal(with.plugin(), given.made)) continue;
        const auto expected = run_case(with.plugin(), given);
        const extent_sizes before = bound_extents(given);
        given.bound[SLUICE_EXTENT_TOKENS] = 64;
        for (auto& [number, tensor] : given.steps[0].custom) {
            const auto sized = evaluate(given.made.value(number).dimensions, bound_extents(given));
            const bool whole = tensor.type == SLUICE_I32;
            tensor.bytes.resize(tensor.bytes.size() * static_cast<size_t>(count_of(sized))
                                    / static_cast<size_t>(count_of(tensor.shape)),
                                whole ? std::byte{0xff} : std::byte{0});
            tensor.shape = sized;
        }
        const auto found = run_case(with.plugin(), given);
        for (size_t i = 0; i < found[0].size(); ++i)
            compare(fmt::format("{}: bound to 64 rows instead of {}", name,
                                before[SLUICE_EXTENT_TOKENS]),
                    expected[0][i], found[0][i],
                    tolerance_of(SLUICE_OP_LINEAR, SLUICE_F32, found[0][i].type));
    }
    return {};
}

std::string wrong_use_refused(context& with) {
    plugin_instance& plugin = with.plugin();
    const sluice_backend& table = plugin.backend();
    const operation_case given = draw_case(with, generator_named("linear"), {}, 4);
    case_runner runner(plugin, given);
    batch_step large = given.steps[0];
    large.token_count = bound_extents(given)[SLUICE_EXTENT_TOKENS] + 1;
    std::string message;
    require(SLUICE_STATUS_CLASS(runner.plan(large, &message)) == SLUICE_INVALID && !message.empty(),
            "a batch of more rows than were bound is not refused as invalid with a reason");

    backend_objects objects(plugin);
    sluice_buffer* const buffer = objects.buffer(64);
    std::vector<char> bytes(128);
    require(
        table.buffer_write(plugin.handle(), buffer, 0, bytes.data(), 128, nullptr) != SLUICE_OK
            && table.buffer_write(plugin.handle(), buffer, 60, bytes.data(), 8, nullptr)
                   != SLUICE_OK
            && table.buffer_read(plugin.handle(), buffer, UINT64_MAX - 3, bytes.data(), 8, nullptr)
                   != SLUICE_OK,
        "reading or writing beyond a buffer's end is accepted");
    sluice_buffer* huge = nullptr;
    const sluice_status status =
        table.buffer_create(plugin.handle(), uint64_t{1} << 60, &huge, nullptr);
    require(SLUICE_STATUS_CLASS(status) == SLUICE_EXHAUSTED,
            "a buffer of 2^60 bytes ends as '{}', expected 'exhausted'", status_name(status));
    return {};
}

std::string missing_operands_refused(context& with) {
    plugin_instance& plugin = with.plugin();
    const sluice_backend& table = plugin.backend();
    const operation_case given = draw_case(with, generator_named("linear"), {}, 4);
    auto options = SLUICE_INIT(sluice_compile_options);
    const extent_sizes sizes = bound_extents(given);
    std::copy(sizes.begin(), sizes.end(), options.extent_max);
    const std::vector<sluice_weight*> none(given.made.values().size());
    sluice_executable* made = nullptr;
    auto error = SLUICE_INIT(sluice_error);
    const sluice_status status = table.executable_create(plugin.handle(), given.made.view(),
                                                         &options, none.data(), &made, &error);
    if (status == SLUICE_OK) table.executable_destroy(plugin.handle(), made);
    require(SLUICE_STATUS_CLASS(status) == SLUICE_INVALID && error.message[0] != '\0',
            "a program without its weights ends as '{}', expected 'invalid' with a reason",
            status_name(status));
    return {};
}

// A backend's cache through its block functions.
std::string cache_blocks_move(context& with) {
    plugin_instance& plugin = with.plugin();
    const sluice_backend& table = plugin.backend();
    const operation_case given = draw_case(with, generator_named("kv_write and kv_gather"), {}, 1);
    case_runner runner(plugin, given);
    runner.run(given.steps[0]);
    const auto expected = runner.run(given.steps[1]);
    const sluice_program& view = *given.made.view();
    uint64_t size = 0;
    runner.objects().call("cache_block_bytes", table.cache_block_bytes, plugin.handle(),
                          view.states, view.state_count, 0U, &size);
    require(size > 0, "a block has 0 bytes");

    // The last block is nobody's: move one there, then let the table name it.
    const auto spare = static_cast<int32_t>(given.block_count - 1);
    batch_step moved = given.steps[1];
    const int32_t first = moved.block_table[0];
    runner.objects().call("cache_copy_blocks", table.cache_copy_blocks, plugin.handle(),
                          runner.cache(), 0U, &first, &spare, 1U);
    moved.block_table[0] = spare;
    const auto rewritten = [&](batch_step& step) {
        // Nothing is written this time, so that what is read was moved.
        for (auto& slot : step.slot) slot = -1;
        return runner.run(step);
    };
    auto found = rewritten(moved);
    for (size_t i = 0; i < found.size(); ++i)
        require(found[i].bytes == expected[i].bytes, "a copied block reads differently");

    std::vector<std::byte> block(size + 16, std::byte{0x5a});
    runner.objects().call("cache_read_block", table.cache_read_block, plugin.handle(),
                          static_cast<const sluice_cache*>(runner.cache()), 0U, first,
                          static_cast<void*>(block.data()));
    for (size_t i = 0; i < 16; ++i)
        require(block[size + i] == std::byte{0x5a}, "it reads more than cache_block_bytes");
    std::vector<std::byte> zeros(size);
    runner.objects().call("cache_write_block", table.cache_write_block, plugin.handle(),
                          runner.cache(), 0U, spare, static_cast<const void*>(zeros.data()));
    runner.objects().call("cache_write_block", table.cache_write_block, plugin.handle(),
                          runner.cache(), 0U, spare, static_cast<const void*>(block.data()));
    found = rewritten(moved);
    for (size_t i = 0; i < found.size(); ++i)
        require(found[i].bytes == expected[i].bytes,
                "a block that was read and written back reads differently");
    const int32_t beyond = static_cast<int32_t>(given.block_count) + 5;
    require(table.cache_copy_blocks(plugin.handle(), runner.cache(), 0, &beyond, &spare, 1, nullptr)
                != SLUICE_OK,
            "copying a block that is not there is accepted");
    return fmt::format("{} bytes a block", size);
}

// Token ids that the step before left in a buffer, so that no step waits for the host.
std::string token_ids_fed(context& with) {
    plugin_instance& plugin = with.plugin();
    auto random = with.random("fed");
    draw drawn{random, SLUICE_F32, weight_format_named("f32").format, 5};
    case_builder to(drawn, 5);
    const value_number ids = to.program().batch_input(SLUICE_INPUT_TOKEN_IDS);
    const value_number scores =
        to.program().embed("scores", ids, to.weight({40, 40}, 1), SLUICE_F32, 1.0F);
    const auto next = to.program().topk("next", scores, 1);
    to.step().token_ids = {0, 7, 7, 39, 12};
    operation_case by_host = to.finish({next.index, scores});
    if (first_refusal(plugin, by_host.made)) skip_check("it does not claim embed and topk");
    constexpr int steps = 7;
    operation_case by_device = by_host;
    by_device.fed[ids] = next.index;
    case_runner host(plugin, by_host), device(plugin, by_device);
    batch_step& told = by_host.steps[0];
    batch_step& fed = by_device.steps[0];
    device.write(next.index, host_tensor::integers({5}, fed.token_ids));
    fed.token_ids_bound = true;
    step_outputs expected;
    for (int i = 0; i < steps; ++i) {
        expected = host.run(told);
        told.token_ids = expected[0].as_integers();
        require(device.plan(fed) == SLUICE_OK, "planning fails where token ids are bound");
        device.submit();
        device.wait();
    }
    const auto found = device.read_outputs(fed);
    for (size_t i = 0; i < found.size(); ++i)
        require(found[i].bytes == expected[i].bytes,
                "{} steps that read what the one before wrote differ from steps that are told",
                steps);
    return {};
}

// Submissions that wait for others, and events that outlive their queues or go before them.
std::string events_order(context& with) {
    plugin_instance& plugin = with.plugin();
    const sluice_backend& table = plugin.backend();
    const operation_case given = draw_case(with, generator_named("linear"), {}, 8);
    const auto expected = run_case(plugin, given);
    case_runner first(plugin, given);
    case_runner second(plugin, given);
    for (case_runner* const each : {&first, &second}) {
        each->write_inputs(given.steps[0]);
        require(each->plan(given.steps[0]) == SLUICE_OK, "planning fails");
    }
    first.submit();
    second.submit({first.done()});
    second.wait();
    first.wait();
    for (case_runner* const each : {&first, &second})
        require(each->read_outputs(given.steps[0])[0].bytes == expected[0][0].bytes,
                "two submissions in a row give other results than one");

    sluice_event* event = nullptr;
    plugin_call call = plugin.call("events");
    call = table.event_create(plugin.handle(), &event, call.error());
    require(table.event_wait(event, nullptr) == SLUICE_OK && table.event_ended(event) == 1,
            "an event that was never submitted does not count as ended");
    table.event_destroy(event);
    // The same executable again and again.
    for (int i = 0; i < 50; ++i) {
        require(first.plan(given.steps[0]) == SLUICE_OK, "planning fails the {}th time", i + 2);
        first.submit();
        first.wait();
    }
    require(first.read_outputs(given.steps[0])[0].bytes == expected[0][0].bytes,
            "the 51st submission gives another result than the first");
    return {};
}

std::string many_threads(context& with) {
    plugin_instance& plugin = with.plugin();
    const operation_case given = draw_case(with, generator_named("linear"), {}, 9);
    const auto expected = run_case(plugin, given);
    std::atomic<bool> differed{false};
    std::vector<std::thread> threads;
    for (int thread = 0; thread < 3; ++thread)
        threads.emplace_back([&] {
            try {
                for (int i = 0; i < 10; ++i)
                    if (!same_bits(run_case(plugin, given), expected)) differed = true;
            } catch (const std::exception&) {
                differed = true;
            }
        });
    for (auto& thread : threads) thread.join();
    require(!differed, "used by three threads at once it fails or gives other results");
    return {};
}

std::string weight_described(context& with) {
    plugin_instance& plugin = with.plugin();
    auto random = with.random("describe");
    const weight_case weight(random, weight_format_named("f32").format, 1, 32, 48, 1);
    backend_objects objects(plugin);
    sluice_weight* const made = objects.weight(weight.source(), SLUICE_ROLE_LINEAR);
    char text[40];
    std::memset(text, 'x', sizeof text);
    plugin.backend().weight_describe(plugin.handle(), made, text, sizeof text);
    require(std::memchr(text, '\0', sizeof text) != nullptr && text[0] != '\0',
            "weight_describe gives no text that ends");
    const std::string whole(text);
    std::memset(text, 'x', sizeof text);
    plugin.backend().weight_describe(plugin.handle(), made, text, 3);
    require(text[2] == '\0' && text[3] == 'x', "weight_describe does not keep to its size");
    return whole;
}

} // namespace

std::vector<check> behaviour_checks() {
    return {{"backend: properties", properties_sound},
            {"backend: primitives claimed", primitives_claimed},
            {"backend: weights described", weight_described},
            {"backend: wrong use", wrong_use_refused},
            {"backend: missing operands", missing_operands_refused},
            {"backend: cache blocks", cache_blocks_move},
            {"backend: token ids from a step", token_ids_fed},
            {"backend: events", events_order},
            {"backend: threads", many_threads},
            {"backend: repeatable", repeatable},
            {"backend: padding", padding_harmless},
            {"backend: batch-invariant", batch_invariant}};
}

} // namespace sluice::checker
