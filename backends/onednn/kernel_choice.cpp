#include "kernel_choice.hpp"

#include "kernels/measure.hpp"

#include <chrono>
#include <functional>
#include <sstream>

namespace sluice::onednn {

namespace {

// The shape that the choice is measured on: the rows of one expert in a prefill.
constexpr int64_t measured_rows = 64;
constexpr int64_t measured_columns = 256;
constexpr int64_t measured_depth = 1024;

// Operations a second of the best of several runs.
double speed_of(const std::function<void()>& run) {
    constexpr double operations = 2.0 * measured_rows * measured_columns * measured_depth;
    double best_s = 1e9;
    for (int i = 0; i < 8; ++i) {
        const auto start = std::chrono::steady_clock::now();
        run();
        best_s = std::min(
            best_s,
            std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
    }
    return operations / best_s;
}

struct speeds {
    double own = 0;
    double library = 0;
};

speeds measure(const plugin::host& host, const kernels::kernel_set& set,
               const library_product& library) {
    const auto weights = kernels::make_packed_layout(kernels::weight_storage::bfloat16,
                                                     measured_columns, measured_depth);
    const auto own_rows = set.rows_layout(weights.storage, measured_rows, measured_depth);
    const auto library_rows = library_product::rows_layout(measured_rows, measured_depth);
    const auto bytes = [&](int64_t size) {
        plugin::memory made(host, static_cast<uint64_t>(size) + 64);
        made.clear(); // zeros take as long as other numbers
        return made;
    };
    const auto data = bytes(weights.total_bytes);
    const auto rows = bytes(std::max(own_rows.total_bytes, library_rows.total_bytes));
    const auto scratch = bytes(std::max(set.scratch_bytes(weights), library.scratch_bytes()));
    const auto target = bytes(measured_rows * measured_columns * 4);
    const kernels::packed_matrix_view view{weights, data.as<const std::byte>()};
    speeds found;
    found.own = speed_of([&] {
        set.multiply(view, {own_rows, rows.as<const std::byte>()}, 0, weights.block_count,
                     target.as<float>(), measured_columns, false, scratch.as());
    });
    found.library = speed_of([&] {
        library.multiply(view, {library_rows, rows.as<const std::byte>()}, 0, weights.block_count,
                         target.as<float>(), measured_columns, scratch.as());
    });
    return found;
}

} // namespace

kernel_choice choose_kernels(const plugin::host& host, kernels::instruction_set set,
                             std::string_view matmul, std::string_view activations) {
    kernel_choice choice{kernels::kernel_set(std::min(set, kernels::instruction_set::avx512)),
                         kernels::kernel_set(kernels::preferred_bfloat16_set(set)),
                         kernels::row_kernels_of(set),
                         kernels::attend_kernels_of(set),
                         nullptr,
                         "",
                         kernels::integer_kernel_set(set)};
    const bool has_vectors = set >= kernels::instruction_set::avx2;
    choice.quantizes_float32 = activations == "int8";
    choice.quantizes_bfloat16 = activations == "int8" || (activations == "auto" && has_vectors);
    if (matmul == "own") return choice;
    auto library = std::make_shared<library_products>();
    if (matmul == "onednn") {
        choice.library = std::move(library);
        choice.why = "oneDNN multiplies bfloat16 matrices, as configured";
        return choice;
    }
    const auto found = measure(host, choice.fast, library->of(measured_depth));
    const bool takes_library = found.library > 1.1 * found.own;
    std::ostringstream why;
    why << "bfloat16 by " << (takes_library ? "oneDNN" : "our kernels") << ": one thread made "
        << static_cast<int64_t>(found.library / 1e9) << " GFLOP/s with oneDNN, "
        << static_cast<int64_t>(found.own / 1e9) << " with ours";
    choice.why = why.str();
    if (takes_library) choice.library = std::move(library);
    return choice;
}

} // namespace sluice::onednn
