// Which kernels a backend uses, settled once when it is created.
#pragma once

#include "kernels/attend_kernels.hpp"
#include "kernels/integer_matmul.hpp"
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
    const kernels::attend_kernels& attend;
    std::shared_ptr<library_products> library; // for bfloat16 products; NULL: our own are used
    std::string why;                           // what the choice between the two rests on
    kernels::integer_kernel_set integers;      // int8 activations with int8 and int4 weights
    bool quantizes_float32 = false;            // whether steps of that type use them
    bool quantizes_bfloat16 = false;

    const kernels::kernel_set& of(sluice_element_type activations) const {
        return activations == SLUICE_F32 ? exact : fast;
    }
    // Whether rows of that type are rounded to int8 before int8 and int4 weights multiply them.
    bool quantizes(sluice_element_type activations) const {
        return activations == SLUICE_F32 ? quantizes_float32 : quantizes_bfloat16;
    }
};

// Measures where it must; takes some tens of milliseconds. matmul: "auto", "own" or "onednn".
// activations: "float", "int8", or "auto": int8 where a step's own type is bfloat16, whose rounding
// it is of a kind with, and the processor has vectors of integers; float32 steps stay exact.
kernel_choice choose_kernels(const plugin::host& host, kernels::instruction_set set,
                             std::string_view matmul, std::string_view activations);

} // namespace sluice::onednn
