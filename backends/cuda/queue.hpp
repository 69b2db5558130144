// Queues are streams; events are events.
#pragma once

#include "device.hpp"

namespace sluice::cuda {

class device_queue final : public sluice_queue {
  public:
    explicit device_queue(const device& owner) : owner_(owner) {
        owner.use();
        check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "creating a stream");
    }
    ~device_queue() override {
        cudaStreamSynchronize(stream_);
        cudaStreamDestroy(stream_);
    }
    cudaStream_t stream() const { return stream_; }

  private:
    const device& owner_;
    cudaStream_t stream_ = nullptr;
};

class device_event final : public sluice_event {
  public:
    explicit device_event(const device& owner) : owner_(owner) {
        owner.use();
        check(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming), "creating an event");
    }
    ~device_event() override { cudaEventDestroy(event_); }

    void record(cudaStream_t stream) {
        check(cudaEventRecord(event_, stream), "recording an event");
    }
    cudaEvent_t handle() const { return event_; }
    void wait() override { check(cudaEventSynchronize(event_), "running a step"); }
    bool ended() const override { return cudaEventQuery(event_) != cudaErrorNotReady; }

  private:
    const device& owner_;
    cudaEvent_t event_ = nullptr;
};

} // namespace sluice::cuda
