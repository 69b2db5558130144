#include "quantization/overlay_checkpoint.hpp"

#include "base/error.hpp"
#include "base/text.hpp"

#include <algorithm>

namespace sluice {

overlay_checkpoint::overlay_checkpoint(std::shared_ptr<const checkpoint> below)
    : checkpoint(below->directory()), below_(std::move(below)) {}

void overlay_checkpoint::replace(const std::string& tensor, int64_t rows, int64_t columns,
                                 std::vector<float> values) {
    const auto owned = std::make_shared<const std::vector<float>>(std::move(values));
    tensor_view& view = replaced_[tensor];
    view.name = tensor;
    view.element_type = SLUICE_F32;
    view.shape = {rows, columns};
    view.bytes = std::as_bytes(std::span(*owned));
    view.file = "quantized weights";
    view.owner = owned;
}

bool overlay_checkpoint::contains(std::string_view name) const {
    return replaced_.contains(name) || below_->contains(name);
}

tensor_view overlay_checkpoint::tensor(std::string_view name,
                                       std::span<const int64_t> expected_shape) const {
    const auto found = replaced_.find(name);
    if (found == replaced_.end()) return below_->tensor(name, expected_shape);
    if (!std::ranges::equal(found->second.shape, expected_shape)) {
        fail(SLUICE_INTERNAL, "{} was replaced as {}, but is read as {}", quote(name, 160),
             shape_text(found->second.shape), shape_text(expected_shape));
    }
    return found->second;
}

std::optional<tensor_view> overlay_checkpoint::find(std::string_view name) const {
    const auto found = replaced_.find(name);
    return found == replaced_.end() ? below_->find(name) : found->second;
}

} // namespace sluice
