#include "matmul_library.hpp"

#include <algorithm>

namespace sluice::cuda {

namespace {

void check_library(cublasStatus_t status, std::string_view doing) {
    if (status == CUBLAS_STATUS_SUCCESS) return;
    plugin::fail(status == CUBLAS_STATUS_NOT_SUPPORTED ? SLUICE_UNSUPPORTED : SLUICE_INTERNAL,
                 "cuBLASLt: ", doing, ": ", cublasLtGetStatusString(status));
}

cudaDataType_t data_type(sluice_element_type type) {
    switch (type) {
    case SLUICE_BF16:
        return CUDA_R_16BF;
    case SLUICE_F16:
        return CUDA_R_16F;
    case SLUICE_I8:
        return CUDA_R_8I;
    case SLUICE_I32:
        return CUDA_R_32I;
    default:
        return CUDA_R_32F;
    }
}

} // namespace

// In cuBLASLt's column-major words: y^T [n, m] = (W^T)^T [n, k] x^T [k, m].
struct matmul_library::choice {
    cublasLtMatmulDesc_t operation = nullptr;
    cublasLtMatrixLayout_t weight = nullptr, x = nullptr, y = nullptr;
    cublasLtMatmulHeuristicResult_t algorithms[algorithms_max] = {}; // by falling expectation
    int algorithm_count = 0;
    bool is_integer = false;

    choice(cublasLtHandle_t handle, const library_product& shape)
        : is_integer(shape.type == SLUICE_I8) {
        const auto compute = is_integer ? CUBLAS_COMPUTE_32I : CUBLAS_COMPUTE_32F;
        const auto scale = is_integer ? CUDA_R_32I : CUDA_R_32F;
        const auto rows = [](int64_t count) { return static_cast<uint64_t>(count); };
        check_library(cublasLtMatmulDescCreate(&operation, compute, scale), "describing a product");
        const cublasOperation_t transposed = CUBLAS_OP_T;
        check_library(cublasLtMatmulDescSetAttribute(operation, CUBLASLT_MATMUL_DESC_TRANSA,
                                                     &transposed, sizeof transposed),
                      "describing a product");
        const auto type = data_type(shape.type);
        check_library(
            cublasLtMatrixLayoutCreate(&weight, type, rows(shape.k), rows(shape.n), shape.k),
            "describing a matrix");
        check_library(cublasLtMatrixLayoutCreate(&x, type, rows(shape.k), rows(shape.m), shape.k),
                      "describing a matrix");
        check_library(cublasLtMatrixLayoutCreate(&y, data_type(shape.y_type), rows(shape.n),
                                                 rows(shape.m), shape.n),
                      "describing a matrix");
        cublasLtMatmulPreference_t preference = nullptr;
        check_library(cublasLtMatmulPreferenceCreate(&preference), "choosing an algorithm");
        const uint64_t workspace = workspace_bytes;
        cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                                             &workspace, sizeof workspace);
        const auto status =
            cublasLtMatmulAlgoGetHeuristic(handle, operation, weight, x, y, y, preference,
                                           algorithms_max, algorithms, &algorithm_count);
        cublasLtMatmulPreferenceDestroy(preference);
        check_library(algorithm_count == 0 && status == CUBLAS_STATUS_SUCCESS
                          ? CUBLAS_STATUS_NOT_SUPPORTED
                          : status,
                      "choosing an algorithm");
        // Those that cannot run come with the reason.
        algorithm_count =
            static_cast<int>(std::stable_partition(algorithms, algorithms + algorithm_count,
                                                   [](const auto& each) {
                                                       return each.state == CUBLAS_STATUS_SUCCESS;
                                                   })
                             - algorithms);
        check_library(algorithm_count == 0 ? CUBLAS_STATUS_NOT_SUPPORTED : CUBLAS_STATUS_SUCCESS,
                      "choosing an algorithm");
    }
    ~choice() {
        cublasLtMatrixLayoutDestroy(y);
        cublasLtMatrixLayoutDestroy(x);
        cublasLtMatrixLayoutDestroy(weight);
        cublasLtMatmulDescDestroy(operation);
    }
    choice(const choice&) = delete;
    choice& operator=(const choice&) = delete;
};

matmul_library::matmul_library(const device& owner) : owner_(owner) {
    owner.use();
    check_library(cublasLtCreate(&handle_), "starting");
}

matmul_library::~matmul_library() {
    choices_.clear();
    cublasLtDestroy(handle_);
}

const matmul_library::choice& matmul_library::choose(const library_product& shape) {
    const std::lock_guard lock(mutex_);
    auto& chosen = choices_[shape];
    if (!chosen) chosen = std::make_unique<choice>(handle_, shape);
    return *chosen;
}

int matmul_library::algorithm_count(const choice& chosen) { return chosen.algorithm_count; }

void matmul_library::launch(const choice& chosen, int algorithm, const void* x, const void* weight,
                            void* y, void* workspace, cudaStream_t stream) const {
    const float one = 1, zero = 0;
    const int32_t whole_one = 1, whole_zero = 0;
    const void* alpha = chosen.is_integer ? static_cast<const void*>(&whole_one) : &one;
    const void* beta = chosen.is_integer ? static_cast<const void*>(&whole_zero) : &zero;
    check_library(cublasLtMatmul(handle_, chosen.operation, alpha, weight, chosen.weight, x,
                                 chosen.x, beta, y, chosen.y, y, chosen.y,
                                 &chosen.algorithms[algorithm].algo, workspace, workspace_bytes,
                                 stream),
                  "a product");
}

double matmul_library::peak(sluice_element_type type) {
    constexpr int64_t size = 8192;
    const uint64_t bytes = plugin::bytes_of(type, size * size);
    const auto y_type = type == SLUICE_I8 ? SLUICE_I32 : type;
    const device_memory x(owner_, bytes, "a measurement"), weight(owner_, bytes, "a measurement"),
        y(owner_, plugin::bytes_of(y_type, size * size), "a measurement"),
        workspace(owner_, workspace_bytes, "a measurement");
    // Products of zeros run faster than those of data: halves of either sign between 0.5 and 2.
    std::vector<uint16_t> noise(bytes / 2);
    uint32_t state = 1;
    for (auto& half : noise) {
        state = state * 1664525u + 1013904223u;
        half = static_cast<uint16_t>((state >> 16 & 0x80ffu) | 0x3f00u);
    }
    const cudaStream_t stream = owner_.setup_stream();
    for (const auto* target : {&x, &weight})
        check(cudaMemcpy(target->as(), noise.data(), bytes, cudaMemcpyHostToDevice),
              "measuring the device");
    const auto& chosen = choose({size, size, size, type, y_type});
    cudaEvent_t begin = nullptr, end = nullptr;
    check(cudaEventCreate(&begin), "measuring the device");
    check(cudaEventCreate(&end), "measuring the device");
    float best_ms = 1e9f;
    for (int pass = 0; pass < 12; ++pass) {
        check(cudaEventRecord(begin, stream), "measuring the device");
        launch(chosen, 0, x.as(), weight.as(), y.as(), workspace.as(), stream);
        check(cudaEventRecord(end, stream), "measuring the device");
        check(cudaEventSynchronize(end), "measuring the device");
        float elapsed_ms = 0;
        check(cudaEventElapsedTime(&elapsed_ms, begin, end), "measuring the device");
        best_ms = std::min(best_ms, elapsed_ms);
    }
    cudaEventDestroy(begin);
    cudaEventDestroy(end);
    return 2.0 * size * size * size / (static_cast<double>(best_ms) / 1000.0);
}

} // namespace sluice::cuda
