// A buffer of a backend, with its owner.
#pragma once

#include "plugin/plugin_host.hpp"

#include <sluice/abi/backend.h>

#include <cstddef>
#include <cstdint>

namespace sluice {

// The backend outlives it. Movable.
class device_buffer {
  public:
    device_buffer() = default;
    device_buffer(const plugin_instance& backend, uint64_t size_bytes);
    ~device_buffer();
    device_buffer(device_buffer&& other) noexcept;
    device_buffer& operator=(device_buffer&& other) noexcept;

    sluice_buffer* handle() const { return handle_; }
    uint64_t size_bytes() const { return size_bytes_; }
    // The bytes themselves where the host can address them, else nullptr.
    std::byte* mapped() const;
    // Both wait for what was submitted before, where the memory is not the host's.
    void read(uint64_t offset_bytes, void* data, uint64_t size_bytes) const;
    void write(uint64_t offset_bytes, const void* data, uint64_t size_bytes) const;

  private:
    const plugin_instance* backend_ = nullptr;
    sluice_buffer* handle_ = nullptr;
    uint64_t size_bytes_ = 0;
};

} // namespace sluice
