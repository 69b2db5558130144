// Which modules a quantizer of this tree changes and to what: settings, formats and what they round
// like. Routers, norms and embeddings stay in 16 bits unless asked: they lose most for the bytes
// they save.
#pragma once

#include "rounding.hpp"

#include <sluice/plugin/quantizer.hpp>

#include <array>
#include <functional>

namespace sluice::quantizers {

// What holds where nothing is set; bits are "4", "8" or "16".
struct default_bits {
    bool symmetric = true;
    std::string_view shared_experts = "4";
    std::string_view mlp = "4";
    std::string_view attention = "8";
    std::string_view head = "16";
};
void declare_module_bits(plugin::schema& schema, const default_bits& defaults);

class module_bits {
  public:
    explicit module_bits(const plugin::settings& settings);

    // See sluice_quantizer.plan.
    sluice_weight_format plan(const sluice_module& module) const;
    // Of a format that `plan` answered; fails with SLUICE_UNSUPPORTED, naming the quantizer, for
    // another.
    rounding rounding_of(const sluice_weight_format& format, std::string_view quantizer) const;

  private:
    uint32_t group_columns_; // 0: the whole row
    bool symmetric_;
    bool scale_search_;
    std::array<uint32_t, SLUICE_MODULE_NORM + 1> bits_{}; // by kind of module
};

// Columns of a group of a module's row, and how many there are.
struct group_cut {
    int64_t width;
    int64_t count;
};
group_cut groups_of(const sluice_weight_format& format, int64_t columns);

// Whether a row can be said with binary16 scales; and the error, SLUICE_INVALID, where one cannot.
// Apart, since workers must not throw.
group_check check_row(const plugin::quantizer_request& request, const rounding& how, int64_t row);
void require_rows(const plugin::quantizer_request& request, std::span<const group_check> found);

// Calls run(begin, end) on the host's workers until all rows of the module had their turn, each
// worker with a part of `rows_at_once`; polls for cancellation in between. Cut by shape, so that
// neither the result nor how soon a cancellation is seen depends on the number of workers. `run`
// must not throw.
void run_rows(const plugin::host& host, const plugin::quantizer_request& request,
              int64_t rows_at_once, const std::function<void(int64_t begin, int64_t end)>& run);

} // namespace sluice::quantizers
