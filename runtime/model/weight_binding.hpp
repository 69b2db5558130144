// Finds what a program's weights are made of in a checkpoint.
#pragma once

#include "model/model_program.hpp"

#include <sluice/abi/weight.h>

#include <deque>
#include <memory>
#include <vector>

namespace sluice {

class checkpoint;
class weight_binder;

// A sluice_weight_source with everything it points to, except the tensors' bytes, which belong to
// the checkpoint. Movable; the source stays where it is.
class bound_weight {
  public:
    const sluice_weight_source* source() const { return &storage_->source; }

  private:
    friend class weight_binder;
    struct storage {
        sluice_weight_source source{};
        sluice_weight_format format{};
        std::string name;
        std::deque<sluice_tensor> tensors; // a deque: their addresses must not change
        std::deque<sluice_weight_slice> slices;
        std::vector<const sluice_weight_slice*> slice_pointers;
        std::vector<int64_t> slice_rows;
        std::vector<std::shared_ptr<const void>> owners; // of the tensors' bytes
        std::deque<std::vector<std::byte>> copies;       // tensors that had to be changed
    };
    std::unique_ptr<storage> storage_ = std::make_unique<storage>();
};

// Fails with SLUICE_INVALID naming tensor, expected and found shape or type, and the file.
// `format` is the value's weight_format. The checkpoint outlives the result.
bound_weight bind_weight(const checkpoint& weights, const weight_request& request,
                         const sluice_weight_format& format);

// For model_program_options::weight_format. The checkpoint outlives the function.
weight_format_function weight_formats_of(const checkpoint& weights);

} // namespace sluice
