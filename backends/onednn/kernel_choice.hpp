// Which kernels a backend uses, settled once when it is created.
#pragma once

#include "kernels/matmul.hpp"
#include "kernels/row_kernels.hpp"
#include "library_matmul.hpp"

#include <sluice/abi/tensor.h>
#include <sluice/plugin/host.hpp>

namespace sluice::onednn {

namespace plugin = sluice::plugin;

// The kernels in use, chosen when the backend is created.
struct kernel_choice {
    kernels::kernel_set exact; // float32 activations: every product exact
    kernels::kernel_set fast;  // bfloat16 activations
    const kernels::row_kernels& rows;
    std::shared_ptr<library_products> library; // for bfloat16 products; NULL: our own are used
    std::string why;                           // what the choice between the two rests on

    const kernels::kernel_set& of(sluice_element_type activations) const {
        return activations == SLUICE_F32 ? exact : fast;
    }
};

// Measures where it must; takes some tens of milliseconds. matmul: "auto", "own" or "onednn".
kernel_choice choose_kernels(const plugin::host& host, kernels::instruction_set set,
                             std::string_view matmul);

} // namespace sluice::onednn
