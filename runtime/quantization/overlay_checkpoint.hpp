// A checkpoint some of whose matrices have other values: the layer that is being quantized, as it
// will be.
#pragma once

#include "model/checkpoint.hpp"

#include <map>
#include <memory>
#include <string>
#include <vector>

namespace sluice {

// Not for several threads while it is changed.
class overlay_checkpoint final : public checkpoint {
  public:
    explicit overlay_checkpoint(std::shared_ptr<const checkpoint> below);

    // The matrix `tensor` is float32 `values` [rows, columns] from then on, also where the
    // checkpoint below has it as a part of another tensor. Views taken before stay valid.
    void replace(const std::string& tensor, int64_t rows, int64_t columns,
                 std::vector<float> values);
    void clear() { replaced_.clear(); }

    bool is_dummy() const override { return below_->is_dummy(); }
    bool contains(std::string_view name) const override;
    tensor_view tensor(std::string_view name,
                       std::span<const int64_t> expected_shape) const override;
    using checkpoint::tensor;
    std::optional<tensor_view> find(std::string_view name) const override;
    std::vector<std::string> names() const override { return below_->names(); }
    std::map<std::string, element_type_total> totals() const override { return below_->totals(); }

  private:
    std::shared_ptr<const checkpoint> below_;
    std::map<std::string, tensor_view, std::less<>> replaced_;
};

} // namespace sluice
