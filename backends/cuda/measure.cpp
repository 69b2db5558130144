#include "measure.hpp"

#include "kernels/measure.hpp"

#include <functional>

namespace sluice::cuda {

namespace {

constexpr uint64_t read_bytes_wanted = uint64_t{2} << 30; // many times any L2 cache
constexpr uint64_t read_bytes_least = uint64_t{256} << 20;

// The best time of several passes, in seconds.
double best_seconds(const device& card, const std::function<void(cudaStream_t)>& pass) {
    const cudaStream_t stream = card.setup_stream();
    cudaEvent_t begin = nullptr, end = nullptr;
    check(cudaEventCreate(&begin), "measuring the device");
    check(cudaEventCreate(&end), "measuring the device");
    float best_ms = 1e9f;
    for (int i = 0; i < 8; ++i) {
        check(cudaEventRecord(begin, stream), "measuring the device");
        pass(stream);
        check(cudaEventRecord(end, stream), "measuring the device");
        check(cudaEventSynchronize(end), "measuring the device");
        float elapsed_ms = 0;
        check(cudaEventElapsedTime(&elapsed_ms, begin, end), "measuring the device");
        best_ms = std::min(best_ms, elapsed_ms);
    }
    cudaEventDestroy(begin);
    cudaEventDestroy(end);
    return static_cast<double>(best_ms) / 1000.0;
}

double read_bandwidth(const device& card) {
    // A full card leaves less: half of what is free, as long as it dwarfs the cache.
    const uint64_t size =
        std::max(read_bytes_least, std::min(read_bytes_wanted, card.memory_bytes_free() / 2)) / 4096
        * 4096;
    const device_memory data(card, size, "a measurement"), sink(card, 256, "a measurement");
    check(cudaMemset(data.as(), 0x5a, size), "measuring the device");
    const double seconds = best_seconds(card, [&](cudaStream_t stream) {
        launch_read(data.as(), static_cast<int64_t>(size), card.properties().multiprocessor_count,
                    sink.as<float>(), stream);
    });
    return static_cast<double>(size) / seconds;
}

double f32_peak(const device& card) {
    const device_memory sink(card, 256, "a measurement");
    double operations = 0;
    const double seconds = best_seconds(card, [&](cudaStream_t stream) {
        operations =
            launch_f32_work(card.properties().multiprocessor_count, sink.as<float>(), stream);
    });
    return operations / seconds;
}

} // namespace

double measure(const device& card, matmul_library& library, uint32_t quantity) {
    card.use();
    switch (quantity) {
    case SLUICE_MEASURE_READ_BANDWIDTH:
        return read_bandwidth(card);
    case SLUICE_MEASURE_F32_PEAK:
        return f32_peak(card);
    case SLUICE_MEASURE_BF16_PEAK:
        return library.peak(SLUICE_BF16);
    case SLUICE_MEASURE_I8_PEAK:
        return library.peak(SLUICE_I8);
    default:
        plugin::fail(SLUICE_UNSUPPORTED, "measurement ", quantity, " is not known here");
    }
}

} // namespace sluice::cuda
