#include "engine/device_buffer.hpp"

#include <utility>

namespace sluice {

device_buffer::device_buffer(const plugin_instance& backend, uint64_t size_bytes)
    : backend_(&backend), size_bytes_(size_bytes) {
    plugin_call call = backend.call("buffer_create");
    call = backend.backend().buffer_create(backend.handle(), size_bytes, &handle_, call.error());
}

device_buffer::~device_buffer() {
    if (handle_ != nullptr) backend_->backend().buffer_destroy(backend_->handle(), handle_);
}

device_buffer::device_buffer(device_buffer&& other) noexcept
    : backend_(other.backend_), handle_(std::exchange(other.handle_, nullptr)),
      size_bytes_(other.size_bytes_) {}

device_buffer& device_buffer::operator=(device_buffer&& other) noexcept {
    std::swap(backend_, other.backend_);
    std::swap(handle_, other.handle_);
    std::swap(size_bytes_, other.size_bytes_);
    return *this;
}

std::byte* device_buffer::mapped() const {
    return static_cast<std::byte*>(backend_->backend().buffer_map(backend_->handle(), handle_));
}

void device_buffer::read(uint64_t offset_bytes, void* data, uint64_t size_bytes) const {
    plugin_call call = backend_->call("buffer_read");
    call = backend_->backend().buffer_read(backend_->handle(), handle_, offset_bytes, data,
                                           size_bytes, call.error());
}

void device_buffer::write(uint64_t offset_bytes, const void* data, uint64_t size_bytes) const {
    plugin_call call = backend_->call("buffer_write");
    call = backend_->backend().buffer_write(backend_->handle(), handle_, offset_bytes, data,
                                            size_bytes, call.error());
}

} // namespace sluice
