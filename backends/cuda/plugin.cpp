// The CUDA backend: NVIDIA cards of compute capability 8.0 (A100) and later.
#include "executable.hpp"
#include "measure.hpp"
#include "rope_tables.hpp"
#include "steps/step.hpp"
#include "tuning.hpp"

#include <cstring>

namespace {

constexpr uint64_t transfer_bytes = uint64_t{4} << 20;

namespace plugin = sluice::plugin;
namespace cuda = sluice::cuda;

class cuda_backend final : public plugin::backend {
  public:
    static const plugin::definition& define() {
        static const plugin::definition made{
            .id = "cuda",
            .kind = SLUICE_KIND_BACKEND,
            .version = "0.1.0",
            .summary = "NVIDIA GPUs: one graph a step, weights of 4 to 32 bits",
            .needs = "an NVIDIA GPU of compute capability 8.0 or later and its driver",
            .thread_count = 8, // at most, the driver's own
            .settings =
                plugin::schema()
                    .integer("device", "number of the card", 0, 0, 255)
                    .text("instruction_set",
                          "the highest set of instructions to use: sm_80 leaves out Hopper's own",
                          "auto", {"auto", "sm_80"})
                    .boolean("graphs", "capture each size of step into a CUDA graph", true)
                    .boolean("fusion", "run neighbouring operations in one kernel", true)
                    .text("tuning",
                          "kernels for each size of step: as measured on this card (what is not "
                          "known is measured when a size is prepared), as measured before, or by "
                          "rules of thumb",
                          "measure", {"measure", "cached", "off"})
                    .path("tuning_cache",
                          "folder for what was measured; \"\": kept nowhere; by default "
                          "sluice/cuda in $XDG_CACHE_HOME or ~/.cache",
                          "")
                    .boolean(
                        "profile",
                        "take the time of each operation, which keeps kernels from overlapping",
                        false),
            .extensions = {SLUICE_BACKEND_EXTENSION},
        };
        return made;
    }

    static const void* extension(std::string_view id) {
        return id == SLUICE_BACKEND_EXTENSION ? plugin::backend_table<cuda_backend>() : nullptr;
    }

    // Counts cards, which loads the driver but initialises none of them.
    static void probe(plugin::host, sluice_probe_report& report) {
        int count = 0;
        const cudaError_t error = cudaGetDeviceCount(&count);
        if (error != cudaSuccess || count == 0) {
            cudaGetLastError();
            plugin::copy_text(
                report.reason,
                std::string("the driver says: ")
                    + cudaGetErrorString(error == cudaSuccess ? cudaErrorNoDevice : error));
            return;
        }
        report.score = 100;
        plugin::copy_text(report.reason, std::to_string(count) + " CUDA devices");
    }

    cuda_backend(plugin::host host, const plugin::settings& settings)
        : host_(host), card_(static_cast<int>(settings.integer("device"))), library_(card_),
          uploader_(card_), transfer_(card_, transfer_bytes),
          tables_(card_), context_{.host = host,
                                   .card = &card_,
                                   .library = &library_,
                                   .tables = &tables_,
                                   .uses_graphs = settings.boolean("graphs"),
                                   .takes_profile = settings.boolean("profile"),
                                   .fuses = settings.boolean("fusion")} {
        if (settings.text("instruction_set") == "sm_80") card_.forbid_hopper();
        const auto folder = settings.given("tuning_cache")
                                ? std::filesystem::path(settings.path("tuning_cache"))
                                : cuda::default_tuning_folder();
        tuning_ = std::make_unique<cuda::tuner>(
            card_, host, cuda::tuning_mode_named(settings.text("tuning")), folder,
            card_.is_hopper() ? "sm90a" : "sm80", cublasLtGetVersion());
        context_.tuning = tuning_.get();
    }

    void properties(sluice_backend_properties& found) const override {
        plugin::copy_text(found.device_name, card_.properties().name);
        found.memory_bytes_total = card_.properties().memory_bytes;
        found.memory_bytes_free = card_.memory_bytes_free();
        found.batch_invariant = 0; // kernels are chosen by the number of rows
        found.tokens_per_block = 16;
        found.activation_types = (1u << SLUICE_F32) | (1u << SLUICE_F16) | (1u << SLUICE_BF16);
    }

    std::string claim(const sluice_program& program, const plugin::operation& which,
                      std::string& remark) const override {
        return cuda::claim(program, which, *tuning_, remark);
    }

    uint64_t weight_size(const sluice_weight_source& source, uint32_t roles) const override {
        return cuda::plan_weight(source, roles).size_bytes();
    }
    std::unique_ptr<sluice_weight> weight_prepare(const sluice_weight_source& source,
                                                  uint32_t roles, bool&) override {
        const std::lock_guard lock(upload_mutex_);
        return cuda::upload_weight(card_, uploader_, host_, source, roles);
    }

    std::unique_ptr<sluice_buffer> buffer_create(uint64_t size_bytes) override {
        card_.use();
        return std::make_unique<cuda::device_buffer>(card_, size_bytes);
    }
    void buffer_write(sluice_buffer& buffer, uint64_t offset, const void* data,
                      uint64_t size_bytes) override {
        transfer(static_cast<cuda::device_buffer&>(buffer).at(offset, size_bytes), data, size_bytes,
                 cudaMemcpyHostToDevice, "writing a buffer");
    }
    void buffer_read(const sluice_buffer& buffer, uint64_t offset, void* data,
                     uint64_t size_bytes) const override {
        transfer(data, static_cast<const cuda::device_buffer&>(buffer).at(offset, size_bytes),
                 size_bytes, cudaMemcpyDeviceToHost, "reading a buffer");
    }

    void* buffer_map(sluice_buffer& buffer) override {
        return static_cast<cuda::device_buffer&>(buffer).on_host();
    }

    uint64_t cache_block_bytes(std::span<const sluice_state> states,
                               uint32_t group) const override {
        return cuda::device_cache::block_bytes(states, group);
    }
    std::unique_ptr<sluice_cache> cache_create(std::span<const sluice_state> states,
                                               std::span<const uint32_t> block_count) override {
        card_.use();
        return std::make_unique<cuda::device_cache>(card_, states, block_count);
    }
    void cache_copy_blocks(sluice_cache& cache, uint32_t group, std::span<const int32_t> from,
                           std::span<const int32_t> to) override {
        const auto& blocks = static_cast<cuda::device_cache&>(cache);
        card_.settle("copying cache blocks");
        for (size_t i = 0; i < from.size(); ++i) {
            std::vector<std::byte*> sources;
            blocks.each_part_of_block(group, from[i],
                                      [&](std::byte* data, uint64_t) { sources.push_back(data); });
            size_t part = 0;
            blocks.each_part_of_block(group, to[i], [&](std::byte* data, uint64_t size) {
                cuda::check(cudaMemcpyAsync(data, sources[part++], size, cudaMemcpyDeviceToDevice,
                                            card_.setup_stream()),
                            "copying cache blocks");
            });
        }
        cuda::check(cudaStreamSynchronize(card_.setup_stream()), "copying cache blocks");
    }
    void cache_read_block(const sluice_cache& cache, uint32_t group, int32_t block,
                          void* data) const override {
        auto* target = static_cast<std::byte*>(data);
        static_cast<const cuda::device_cache&>(cache).each_part_of_block(
            group, block, [&](const std::byte* part, uint64_t size) {
                transfer(target, part, size, cudaMemcpyDeviceToHost, "reading a cache block");
                target += size;
            });
    }
    void cache_write_block(sluice_cache& cache, uint32_t group, int32_t block,
                           const void* data) override {
        const auto* from = static_cast<const std::byte*>(data);
        static_cast<cuda::device_cache&>(cache).each_part_of_block(
            group, block, [&](std::byte* part, uint64_t size) {
                transfer(part, from, size, cudaMemcpyHostToDevice, "writing a cache block");
                from += size;
            });
    }

    std::unique_ptr<sluice_executable>
    executable_create(const sluice_program& program, const sluice_compile_options&,
                      std::span<sluice_weight* const> weights) override {
        card_.use();
        return std::make_unique<cuda::executable>(context_, program, weights);
    }
    std::unique_ptr<sluice_queue> queue_create() override {
        return std::make_unique<cuda::device_queue>(card_);
    }
    std::unique_ptr<sluice_event> event_create() override {
        return std::make_unique<cuda::device_event>(card_);
    }

    double measure(uint32_t quantity) override { return cuda::measure(card_, library_, quantity); }

  private:
    // Queues do not wait for each other: what reads or writes from outside waits for all of them.
    // Large pieces go through pinned memory, which travels several times as fast. A buffer may lie
    // in the host's memory itself, so the driver sees from the addresses what lies where.
    void transfer(void* target, const void* from, uint64_t size_bytes, cudaMemcpyKind kind,
                  const char* doing) const {
        card_.settle(doing);
        const std::lock_guard lock(transfer_mutex_);
        for (uint64_t at = 0; at < size_bytes; at += transfer_.size()) {
            const uint64_t size = std::min(size_bytes - at, transfer_.size());
            auto* piece = static_cast<std::byte*>(target) + at;
            const auto* source = static_cast<const std::byte*>(from) + at;
            const bool to_device = kind == cudaMemcpyHostToDevice;
            if (to_device) std::memcpy(transfer_.as(), source, size);
            cuda::check(cudaMemcpyAsync(to_device ? piece : transfer_.as(),
                                        to_device ? transfer_.as() : source, size,
                                        cudaMemcpyDefault, card_.setup_stream()),
                        doing);
            cuda::check(cudaStreamSynchronize(card_.setup_stream()), doing);
            if (!to_device) std::memcpy(piece, transfer_.as(), size);
        }
    }

    plugin::host host_;
    cuda::device card_;
    cuda::matmul_library library_;
    cuda::uploader uploader_;
    std::mutex upload_mutex_;
    cuda::pinned_memory transfer_;
    mutable std::mutex transfer_mutex_;
    cuda::rope_tables tables_;
    std::unique_ptr<cuda::tuner> tuning_;
    cuda::execution_context context_;
};

} // namespace

SLUICE_PLUGIN(cuda_backend)
