// The device behind an instance of the backend: memory, and what the card is.
#pragma once

#include "errors.hpp"

#include <sluice/plugin/backend.hpp>

#include <mutex>

namespace sluice::cuda {

namespace plugin = sluice::plugin;

struct device_properties {
    int ordinal = 0;
    std::string name;
    int compute_capability = 0; // 80, 90
    int code_capability = 0;    // of the kernels that it runs; see kernels/measure.hpp
    int multiprocessor_count = 0;
    int shared_bytes_per_block = 0; // with opt-in
    int64_t l2_bytes = 0;
    uint64_t memory_bytes = 0;
};

// One card, made current on each calling thread by use(). Counts what was allocated on it, so that
// an error can say by what.
class device {
  public:
    explicit device(int ordinal);
    const device_properties& properties() const { return properties_; }
    void use() const { check(cudaSetDevice(properties_.ordinal), "choosing the device"); }
    uint64_t memory_bytes_free() const;

    // Whether Hopper's own instructions may be used.
    bool is_hopper() const {
        return allows_hopper_ && properties_.compute_capability == 90
               && properties_.code_capability >= 90;
    }
    void forbid_hopper() { allows_hopper_ = false; }

    // Held while a stream is captured, during which nobody may wait for the whole device.
    std::mutex& capture_mutex() const { return capture_mutex_; }
    // Waits for all that was submitted, to any queue.
    void settle(std::string_view doing) const {
        const std::lock_guard lock(capture_mutex_);
        use();
        check(cudaDeviceSynchronize(), doing);
    }

    // The stream of set-up work: uploads of weights, copies of blocks, reads and writes of buffers.
    cudaStream_t setup_stream() const { return setup_stream_; }
    ~device();
    device(const device&) = delete;
    device& operator=(const device&) = delete;

  private:
    device_properties properties_;
    bool allows_hopper_ = true;
    cudaStream_t setup_stream_ = nullptr;
    mutable std::mutex capture_mutex_;
};

// Memory that is given back by `release`. Moved, never copied.
template <cudaError_t (*release)(void*)>
class owned_memory {
  public:
    owned_memory() = default;
    ~owned_memory() { release(data_); }
    owned_memory(owned_memory&& other) noexcept { swap(other); }
    owned_memory& operator=(owned_memory&& other) noexcept {
        swap(other);
        return *this;
    }

    template <typename Element = std::byte>
    Element* as() const {
        return static_cast<Element*>(data_);
    }
    uint64_t size() const { return size_bytes_; }
    explicit operator bool() const { return data_ != nullptr; }

  protected:
    explicit owned_memory(uint64_t size_bytes) : size_bytes_(size_bytes) {}
    void* data_ = nullptr;

  private:
    void swap(owned_memory& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(size_bytes_, other.size_bytes_);
    }
    uint64_t size_bytes_ = 0;
};

// `purpose` is named when there is not enough: "the KV cache".
class device_memory : public owned_memory<cudaFree> {
  public:
    device_memory() = default;
    device_memory(const device& owner, uint64_t size_bytes, std::string_view purpose);
};

// Host memory that the card reads and writes directly, zero at first.
class pinned_memory : public owned_memory<cudaFreeHost> {
  public:
    pinned_memory() = default;
    pinned_memory(const device& owner, uint64_t size_bytes);
};

} // namespace sluice::cuda
