#include "plugin/host_services.hpp"
#include "../base/error_check.hpp"
#include "plugin/plugin_call.hpp"

#include <doctest/doctest.h>

#include <cstring>
#include <limits>
#include <thread>
#include <vector>

namespace {

using namespace sluice;
using sluice::test::check_error;

struct logged {
    log_level level;
    std::string message;
};

} // namespace

TEST_CASE("the log carries the plugin's id, keeps its level and takes any bytes") {
    std::vector<logged> lines;
    host_options options;
    options.worker_count = 1;
    options.log_level_min = log_level::info;
    options.on_log = [&](log_level level, std::string_view message) {
        lines.push_back({level, std::string(message)});
    };
    host_table table(std::make_shared<host_services>(options), "acme");
    const sluice_host* host = table.get();
    host->log(host->context, SLUICE_LOG_DEBUG, text_view("not wanted"));
    host->log(host->context, SLUICE_LOG_WARNING, text_view("50% {} \x1b[2J"));
    host->log(host->context, 99, text_view("level unknown"));
    host->log(host->context, SLUICE_LOG_INFO, {nullptr, 12});
    REQUIRE(lines.size() == 3);
    CHECK(lines[0].level == log_level::warning);
    CHECK(lines[0].message == "acme: 50% {} ?[2J");
    CHECK(lines[1].level == log_level::error);
    CHECK(lines[2].message == "acme: ");
}

TEST_CASE("two runtimes have two logs, two teams and two sets of metrics") {
    int first_lines = 0;
    int second_lines = 0;
    host_services first({.worker_count = 1, .on_log = [&](auto, auto) { ++first_lines; }});
    host_services second({.worker_count = 2, .on_log = [&](auto, auto) { ++second_lines; }});
    first.log(log_level::error, "{}", 1);
    CHECK(first_lines == 1);
    CHECK(second_lines == 0);
    CHECK(first.workers().worker_count() == 1);
    CHECK(second.workers().worker_count() == 2);
    first.metrics().add(SLUICE_METRIC_COUNTER, "hits_total", "Hits.");
    CHECK(second.metrics().snapshot().empty());
}

TEST_CASE("memory is aligned, usable to its end, and refused where nobody could give it") {
    host_table table(std::make_shared<host_services>(host_options{.worker_count = 1}), "acme");
    const sluice_host* host = table.get();
    for (const uint64_t size : {uint64_t{0}, uint64_t{1}, uint64_t{100}, uint64_t{3} << 20}) {
        for (const uint64_t alignment : {uint64_t{1}, uint64_t{64}, uint64_t{4096}}) {
            void* memory = host->allocate(host->context, size, alignment);
            REQUIRE(memory != nullptr);
            CHECK(reinterpret_cast<uintptr_t>(memory) % alignment == 0);
            std::memset(memory, 0x5a, size);
            host->release(host->context, memory, size);
        }
    }
    CHECK(host->allocate(host->context, 64, 48) == nullptr); // no power of two
    CHECK(host->allocate(host->context, 64, 0) == nullptr);
    CHECK(host->allocate(host->context, std::numeric_limits<uint64_t>::max(), 64) == nullptr);
    host->release(host->context, nullptr, 0);
}

TEST_CASE("metrics: the same name is the same handle, and wrong descriptions are refused") {
    metric_registry registry;
    sluice_metric* hits = registry.add(SLUICE_METRIC_COUNTER, "hits_total", "Hits.");
    CHECK(registry.add(SLUICE_METRIC_COUNTER, "hits_total", "Hits.") == hits);
    check_error([&] { registry.add(SLUICE_METRIC_GAUGE, "hits_total", "Hits."); }, SLUICE_INVALID,
                {"hits_total", "another type"});
    check_error([&] { registry.add(SLUICE_METRIC_GAUGE, "Hits", ""); }, SLUICE_INVALID,
                {"\"Hits\""});
    check_error([&] { registry.add(9, "x", ""); }, SLUICE_INVALID, {"type 9"});
    check_error(
        [&] {
            registry.add(SLUICE_METRIC_HISTOGRAM, "x", "", {1, 1});
        },
        SLUICE_INVALID, {"rising"});
    check_error([&] { registry.add(SLUICE_METRIC_COUNTER, "x", "", {1}); }, SLUICE_INVALID,
                {"not a histogram"});
}

TEST_CASE("metrics: counters rise from many threads, histograms fill their buckets") {
    metric_registry registry;
    sluice_metric* hits =
        registry.add(SLUICE_METRIC_COUNTER, "hits_total", "Hits \\ all\nof them.");
    sluice_metric* free_blocks = registry.add(SLUICE_METRIC_GAUGE, "blocks_free", "");
    sluice_metric* step = registry.add(SLUICE_METRIC_HISTOGRAM, "step_seconds", "", {0.1, 1, 10});
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
        threads.emplace_back([&] {
            for (int i = 0; i < 1000; ++i) {
                hits->record(1);
                step->record(0.5);
            }
        });
    }
    for (std::thread& thread : threads) thread.join();
    hits->record(-5);                                       // a counter never falls
    hits->record(std::numeric_limits<double>::quiet_NaN()); // and takes no nonsense
    free_blocks->record(12);
    free_blocks->record(7);
    step->record(0.1); // a bound belongs to its bucket
    step->record(100);
    const std::vector<metric_snapshot> all = registry.snapshot();
    REQUIRE(all.size() == 3);
    CHECK(all[0].name == "blocks_free");
    CHECK(all[0].value == 7);
    CHECK(all[1].value == 4000);
    CHECK(all[2].bucket_counts == std::vector<uint64_t>{1, 4000, 0, 1});
    CHECK(all[2].count == 4002);
    CHECK(all[2].value == doctest::Approx(2100.1));
    const std::string text = prometheus_text(all);
    CHECK(text.find("# HELP hits_total Hits \\\\ all\\nof them.\n# TYPE hits_total counter\n"
                    "hits_total 4000\n")
          != std::string::npos);
    CHECK(text.find("step_seconds_bucket{le=\"1\"} 4001\n") != std::string::npos);
    CHECK(text.find("step_seconds_bucket{le=\"+Inf\"} 4002\n") != std::string::npos);
    CHECK(text.find("step_seconds_count 4002\n") != std::string::npos);
}

TEST_CASE("extensions of the host: by id, drafts only by leave") {
    const int table_one = 1;
    const int table_two = 2;
    for (const bool allow_draft : {false, true}) {
        auto services = std::make_shared<host_services>(
            host_options{.worker_count = 1, .allow_draft = allow_draft});
        services->extension_add("acme.one/1", &table_one, false);
        services->extension_add("acme.two/1", &table_two, true);
        host_table table(services, "acme");
        const sluice_host* host = table.get();
        CHECK(host->extension(host->context, text_view("acme.one/1")) == &table_one);
        CHECK(host->extension(host->context, text_view("acme.two/1"))
              == (allow_draft ? &table_two : nullptr));
        CHECK(host->extension(host->context, text_view("acme.one/2")) == nullptr);
        CHECK(host->extension(host->context, {nullptr, 5}) == nullptr);
    }
}
