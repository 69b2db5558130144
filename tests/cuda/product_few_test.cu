// The products for few rows against the plain product, with every number of warps and parts that
// may be chosen by measurement.
#include "kernels/product_few.hpp"

#include "kernel_test.cuh"

#include <sluice/abi/operations.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

using namespace sluice::cuda;

namespace {

std::mt19937 generator(1);
int multiprocessors = 1, failures = 0, cases = 0;

struct pool : device_pool {
    float* floats(int64_t count) {
        return copied(std::vector<float>(static_cast<size_t>(count), NAN));
    }
    // bfloat16 of either sign from 0.5 to 2, times 2^exponent.
    uint16_t* halves(int64_t count, int exponent = 0) {
        std::vector<uint16_t> values(static_cast<size_t>(count));
        for (auto& value : values)
            value = static_cast<uint16_t>(((generator() & 0x80ffu) | 0x3f00u) + exponent * 0x80);
        return copied(values);
    }
    uint8_t* bytes(int64_t count) {
        std::vector<uint8_t> values(static_cast<size_t>(count));
        for (auto& value : values) value = static_cast<uint8_t>(generator());
        return copied(values);
    }
};

weight_view make_weight(pool& memory, weight_storage storage, int matrices, int64_t rows,
                        int64_t columns) {
    weight_view weight;
    weight.storage = storage;
    weight.matrices = matrices;
    weight.rows = rows;
    weight.columns = columns;
    const int64_t count = matrices * rows * columns;
    if (storage == weight_storage::bfloat16) {
        weight.data = memory.halves(count);
        return weight;
    }
    weight.data = memory.bytes(storage == weight_storage::int4 ? count / 2 : count);
    weight.group_columns = 64;
    weight.scale_type = SLUICE_BF16;
    weight.scales = memory.halves(count / 64, storage == weight_storage::int4 ? -3 : -7);
    return weight;
}

std::vector<float> read(const float* from, int64_t count) {
    std::vector<float> values(static_cast<size_t>(count));
    CHECK_CUDA(cudaMemcpy(values.data(), from, values.size() * 4, cudaMemcpyDeviceToHost));
    return values;
}

// The largest difference in root mean squares of what was wanted.
void compare(const char* what, int variant, weight_storage storage, int rows, int64_t columns,
             const std::vector<float>& found, const std::vector<float>& wanted) {
    double square = 0, worst = 0;
    for (const float value : wanted) square += static_cast<double>(value) * value;
    const double size = std::sqrt(square / static_cast<double>(wanted.size()));
    for (size_t i = 0; i < wanted.size(); ++i) {
        const double difference = std::fabs(found[i] - wanted[i]) / size;
        worst = std::isfinite(found[i]) ? std::max(worst, difference) : INFINITY;
    }
    ++cases;
    if (worst < 2e-3) return;
    ++failures;
    std::printf("FAIL %s, variant %d, storage %d, %d rows of %d columns: off by %g\n", what,
                variant, static_cast<int>(storage), rows, static_cast<int>(columns), worst);
}

void check_dense(weight_storage storage, int rows, int64_t width, int64_t columns, bool gates) {
    pool memory;
    few_call call;
    call.multiprocessor_count = multiprocessors;
    product_call& product = call.product;
    product.x = memory.halves(rows * columns);
    product.x_type = SLUICE_BF16;
    product.places = rows;
    product.weight = make_weight(memory, storage, 1, width, columns);
    if (gates) {
        product.up = make_weight(memory, storage, 1, width, columns);
        product.gate.gates = true;
        product.gate.activation = SLUICE_ACTIVATION_RELU;
        product.gate.gate_layout = SLUICE_GATE_SPLIT;
    }
    product.y_type = SLUICE_F32;
    float* wanted = memory.floats(rows * width);
    product.y = wanted;
    launch_product_plain(product, nullptr);
    for (const int32_t warps : few_warp_counts(call)) {
        float* found = memory.floats(rows * width);
        product.y = found;
        call.warps = warps;
        launch_product_few(call, nullptr);
        CHECK_CUDA(cudaGetLastError());
        compare(gates ? "gated" : "dense", warps, storage, rows, columns, read(found, rows * width),
                read(wanted, rows * width));
    }
}

// Choice c of row t takes matrix c + t. `shared`: columns of a matrix for all rows, or 0; then rows
// of another kind are added, too.
void check_combine(weight_storage storage, int rows, int choices, int64_t width, int64_t columns,
                   int64_t shared) {
    constexpr int matrices = 8;
    pool memory;
    few_combine_call call;
    std::vector<int32_t> index;
    std::vector<float> weight;
    for (int t = 0; t < rows; ++t)
        for (int c = 0; c < choices; ++c) {
            index.push_back((c + t) % matrices);
            weight.push_back(0.25f + 0.125f * static_cast<float>(c));
        }
    call.x = memory.halves(rows * choices * columns);
    call.x_type = SLUICE_BF16;
    call.index = memory.copied(index);
    call.weight = memory.copied(weight);
    call.rows = rows;
    call.choice_count = choices;
    call.matrix = make_weight(memory, storage, matrices, width, columns);
    call.y_type = SLUICE_F32;

    std::vector<int32_t> row, offset{0};
    for (int m = 0; m < matrices; ++m) {
        for (size_t i = 0; i < index.size(); ++i)
            if (index[i] == m) row.push_back(static_cast<int32_t>(i));
        offset.push_back(static_cast<int32_t>(row.size()));
    }
    product_call plain;
    plain.x = call.x;
    plain.x_type = call.x_type;
    plain.row = memory.copied(row);
    plain.offset = memory.copied(offset);
    plain.places = rows * choices;
    plain.weight = call.matrix;
    plain.y_type = SLUICE_F32;
    float* each = memory.floats(plain.places * width);
    plain.y = each;
    launch_product_plain(plain, nullptr);
    const auto products = read(each, plain.places * width);
    std::vector<float> wanted(static_cast<size_t>(rows * width));
    for (size_t p = 0; p < row.size(); ++p)
        for (int64_t n = 0; n < width; ++n)
            wanted[static_cast<size_t>(row[p] / choices * width + n)] +=
                weight[static_cast<size_t>(row[p])]
                * products[static_cast<size_t>(static_cast<int64_t>(p) * width + n)];
    if (shared > 0) {
        call.shared = make_weight(memory, storage, 1, width, shared);
        call.shared_x = memory.halves(rows * shared);
        product_call of_all;
        of_all.x = call.shared_x;
        of_all.x_type = call.x_type;
        of_all.places = rows;
        of_all.weight = call.shared;
        of_all.y_type = SLUICE_F32;
        float* sum = memory.floats(rows * width);
        of_all.y = sum;
        launch_product_plain(of_all, nullptr);
        const auto added = read(sum, rows * width); // once more, as the addend
        for (size_t i = 0; i < wanted.size(); ++i) wanted[i] += 2 * added[i];
        call.addend = sum;
        call.addend_type = SLUICE_F32;
    }
    for (const int32_t parts : few_combine_part_counts(call)) {
        float* found = memory.floats(rows * width);
        call.y = found;
        call.parts = parts;
        launch_product_few_combine(call, nullptr);
        CHECK_CUDA(cudaGetLastError());
        compare(shared > 0 ? "combine with shared" : "combine", parts, storage, rows, columns,
                read(found, rows * width), wanted);
    }
}

} // namespace

int main() {
    cudaDeviceProp properties{};
    CHECK_CUDA(cudaGetDeviceProperties(&properties, 0));
    multiprocessors = properties.multiProcessorCount;
    for (const auto storage :
         {weight_storage::bfloat16, weight_storage::int8, weight_storage::int4}) {
        for (const int rows : {1, 5, 8, 33, 64})
            for (const int64_t columns : {64, 704, 2048, 6144})
                for (const bool gates : {false, true})
                    check_dense(storage, rows, 272, columns, gates);
        for (const int rows : {1, 3, 8})
            for (const int choices : {1, 2, 6, 8})
                for (const int64_t columns : {64, 768, 1408})
                    for (const int64_t shared : {int64_t{0}, int64_t{64}, 2 * columns})
                        check_combine(storage, rows, choices, 272, columns, shared);
    }
    std::printf("%d cases, %d failures\n", cases, failures);
    return failures == 0 ? 0 : 1;
}
