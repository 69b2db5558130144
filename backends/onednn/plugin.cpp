// The oneDNN backend: x86-64 and other CPUs, float32 and bfloat16, on the host's worker team.
#include "executable.hpp"

#include "kernel_choice.hpp"
#include "kernels/measure.hpp"
#include "steps/step.hpp"

#include <fstream>
#include <limits>

namespace {

namespace plugin = sluice::plugin;
namespace kernels = sluice::kernels;
namespace onednn = sluice::onednn;

constexpr uint64_t bandwidth_bytes = uint64_t{1} << 30; // several times any last-level cache

// MemTotal or MemAvailable of /proc/meminfo, in bytes; 0 where it cannot be read.
uint64_t memory_bytes(std::string_view wanted) {
    std::ifstream file("/proc/meminfo");
    std::string name;
    uint64_t kibibytes = 0;
    while (file >> name >> kibibytes) {
        if (name == wanted) return kibibytes * 1024;
        file.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
    }
    return 0;
}

class onednn_backend final : public plugin::host_backend {
  public:
    static const plugin::definition& define() {
        static const plugin::definition made{
            .id = "onednn",
            .kind = SLUICE_KIND_BACKEND,
            .version = "0.1.0",
            .summary = "CPU backend: packed weights, grouped experts, vectorised kernels",
            .needs = "AVX2 or AVX-512 to be fast; runs without",
            .settings =
                plugin::schema()
                    .text("instruction_set", "the highest set of instructions to use", "auto",
                          {"auto", "plain", "avx2", "avx512", "avx512_bf16"})
                    .text("matmul",
                          "what multiplies bfloat16 matrices: our kernels, oneDNN's, or the "
                          "faster as measured at the start",
                          "auto", {"auto", "own", "onednn"})
                    .text("activations",
                          "what int8 and int4 weights are multiplied by: rows as they are, rows "
                          "rounded to int8 (integer dot products), or int8 in bfloat16 steps",
                          "auto", {"auto", "float", "int8"})
                    .boolean("profile", "take the time of each operation", false),
            .extensions = {SLUICE_BACKEND_EXTENSION},
        };
        return made;
    }

    static const void* extension(std::string_view id) {
        return id == SLUICE_BACKEND_EXTENSION ? plugin::backend_table<onednn_backend>() : nullptr;
    }

    onednn_backend(plugin::host host, const plugin::settings& settings)
        : host_backend(host), set_(choose_set(settings.text("instruction_set"))),
          kernels_(onednn::choose_kernels(host, set_, settings.text("matmul"),
                                          settings.text("activations"))),
          takes_profile_(settings.boolean("profile")) {}

    void properties(sluice_backend_properties& found) const override {
        plugin::copy_text(found.device_name, "CPU, " + std::string(kernels::name_of(set_)));
        found.memory_bytes_total = memory_bytes("MemTotal:");
        found.memory_bytes_free = memory_bytes("MemAvailable:");
        found.batch_invariant = 0; // the form of attention depends on the rows of a sequence
        found.activation_types = (1u << SLUICE_F32) | (1u << SLUICE_BF16);
        found.cache_types = 1u << SLUICE_I8;
    }

    std::string claim(const sluice_program& program, const plugin::operation& which,
                      std::string& remark) const override {
        auto verdict = onednn::claim(program, which);
        if (verdict.multiplies) remark = kernels_.why;
        return verdict.kernel;
    }

    uint32_t activation_bits(const sluice_program& program,
                             const plugin::operation& which) const override {
        const auto value = [&](uint32_t number) { return plugin::read_value(program, number); };
        return onednn::rounds_rows(which, value, kernels_) ? 8 : 0;
    }

    uint64_t weight_size(const sluice_weight_source& source, uint32_t roles) const override {
        return onednn::plan_packing(source, roles).size_bytes;
    }
    std::unique_ptr<sluice_weight> weight_prepare(const sluice_weight_source& source,
                                                  uint32_t roles, bool&) override {
        return onednn::pack(owner(), source, roles);
    }

    std::unique_ptr<sluice_executable>
    executable_create(const sluice_program& program, const sluice_compile_options&,
                      std::span<sluice_weight* const> weights) override {
        return std::make_unique<onednn::executable>(owner(), kernels_, takes_profile_, program,
                                                    weights);
    }

    double measure(uint32_t measurement) override {
        if (measurement == SLUICE_MEASURE_READ_BANDWIDTH) return measure_bandwidth();
        if (measurement > SLUICE_MEASURE_I8_PEAK)
            plugin::fail(SLUICE_UNSUPPORTED, "measurement ", measurement, " is not known here");
        std::vector<double> found(owner().worker_count());
        owner().run([&](const plugin::worker& self) {
            self.meet.wait();
            found[self.index] = peak(measurement);
        });
        double total = 0;
        for (const double one : found) total += one;
        return total;
    }

  private:
    static kernels::instruction_set choose_set(std::string_view wanted) {
        const auto available = kernels::detect_cpu_features();
        if (wanted == "auto") return kernels::highest_instruction_set(available);
        const auto limit = *kernels::instruction_set_named(wanted);
        const auto chosen = kernels::highest_instruction_set(available, limit);
        if (chosen != limit)
            plugin::fail(SLUICE_UNAVAILABLE, "instruction_set = \"", wanted,
                         "\" was asked for, but this processor has ", kernels::name_of(chosen),
                         " at most; use \"auto\"");
        return chosen;
    }

    double peak(uint32_t measurement) const {
        switch (measurement) {
        case SLUICE_MEASURE_F32_PEAK:
            return kernels::peak_operations_per_second(kernels::operation_kind::float32, set_, 0.2);
        case SLUICE_MEASURE_BF16_PEAK:
            return kernels::peak_bfloat16_matrix_operations_per_second(set_, 0.4);
        default:
            return kernels::peak_operations_per_second(kernels::operation_kind::int8_dot, set_,
                                                       0.2);
        }
    }

    // The best of several passes over a large buffer, each worker reading its share.
    double measure_bandwidth() {
        const plugin::memory data(owner(), bandwidth_bytes);
        std::vector<double> best(owner().worker_count());
        owner().run([&](const plugin::worker& self) {
            const auto share = self.share(static_cast<int64_t>(bandwidth_bytes / 64));
            std::byte* first = data.as() + share.begin * 64;
            const int64_t size = (share.end - share.begin) * 64;
            std::memset(first, 1, static_cast<size_t>(size));
            for (int pass = 0; pass < 5; ++pass) {
                self.meet.wait();
                best[self.index] = std::max(best[self.index],
                                            kernels::read_bandwidth_bytes_per_second(first, size));
            }
        });
        double total = 0;
        for (const double one : best) total += one;
        return total;
    }

    kernels::instruction_set set_;
    onednn::kernel_choice kernels_;
    bool takes_profile_;
};

} // namespace

SLUICE_PLUGIN(onednn_backend)
