// A model ready to run: program, prepared weights and executables, shared by everything that
// computes with it. Caches and bound executables are model_runner's.
//
// The program is cut into segments where [placement] puts operations on other backends, and around
// routers that are host functions; without either there is one segment on the one backend.
#pragma once

#include "config/configuration.hpp"
#include "engine/weight_store.hpp"
#include "model/checkpoint.hpp"
#include "model/expert_spread.hpp"
#include "model/model_program.hpp"
#include "plugin/plugin_host.hpp"
#include "program/partition.hpp"

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace sluice {

class tokenizer;

struct model_load_options {
    // Called as weights are prepared, from the loading thread: bytes done and in all.
    std::function<void(uint64_t done_bytes, uint64_t total_bytes)> on_progress;
    uint32_t mla_form = SLUICE_MLA_FORM_ANY; // for comparing the two forms
    // Composites that are expanded although the backend may claim them. Not set: none.
    std::function<bool(const program_operation& operation)> expand;
};

// How one operation of the final program runs.
struct operation_report {
    uint32_t operation = 0;
    std::string plugin;
    std::string kernel;
    std::string remark; // what the backend passed over and why; may be empty
};

// A composite that was expanded into primitives.
struct expansion_report {
    std::string name; // "layers.3.attention"
    std::string kind; // "attention"
    std::string plugin;
    std::string reason;
};

struct backend_report {
    std::string id;
    std::string version;
    std::string device;
};

// A value that is copied from backend to backend in each step.
struct crossing_report {
    std::string value; // "layers.3.post_attention_norm"
    std::string type;  // "f32[T, 64]"
    std::string from;  // the backends' ids
    std::string to;
    std::string unit;   // "token", "sequence", "logit row" or "step"
    uint64_t bytes = 0; // for each unit
};

struct explain_report {
    std::string backend; // the main one
    std::string backend_version;
    std::string device;
    std::vector<backend_report> backends; // all, by placement number
    std::string router;
    std::vector<operation_report> operations; // one for each operation of program()
    std::vector<expansion_report> expansions;
    std::string host_sampling; // why the host samples; empty: `sample` is one of the operations
    std::vector<weight_report> weights;
    uint32_t host_function_count = 0; // layers whose router the host runs in each step
    uint32_t segment_count = 1;
    std::vector<crossing_report> crossings; // in the order in which they are made
    double load_s = 0;
};

// Immutable after load(); safe to use from several threads.
class loaded_model {
  public:
    // Opens the checkpoint, asks the plugins, prepares the weights and compiles. Fails with the
    // error of whatever went wrong, which names file, plugin or operation.
    static std::shared_ptr<const loaded_model> load(const configuration& configuration,
                                                    plugin_host& plugins,
                                                    std::shared_ptr<host_services> services,
                                                    const model_load_options& options = {});
    ~loaded_model();
    loaded_model(const loaded_model&) = delete;
    loaded_model& operator=(const loaded_model&) = delete;

    const model_config& config() const { return config_; }
    const checkpoint& files() const { return *files_; }
    const program& step_program() const { return *program_; }
    const model_program& model() const { return *model_; } // before composites were expanded
    value_number logits() const { return model_->logits; }
    // Greedy sampling within the step; value_none where the backend leaves it to the host.
    const sampled_values& sampled() const { return model_->sampled; }
    // nullptr: the folder has no tokenizer.json, and only token ids can be computed.
    const std::shared_ptr<const tokenizer>& text_tokenizer() const { return tokenizer_; }
    // Tokens that end a text: of generation_config.json, or else of config.json.
    const std::vector<int32_t>& end_tokens() const { return end_tokens_; }
    const explain_report& report() const { return report_; }
    // Stands for configuration, weights, program, types and backend together: equal fingerprints
    // compute the same. 64 hexadecimal digits.
    const std::string& fingerprint() const { return fingerprint_; }

    // By placement number; 0 is the main backend.
    const plugin_instance& backend(uint32_t placement = 0) const { return *backends_[placement]; }
    uint32_t backend_count() const { return uint32_t(backends_.size()); }
    host_services& services() const { return *services_; }
    const program_partition& partition() const { return partition_; }
    sluice_executable* executable(uint32_t segment) const { return executables_[segment]; }
    // Inputs of step_program() that are the same in every step.
    const std::vector<constant_input>& constants() const { return placed_->constants; }

    // Sizes that everything bound to the executables stays within.
    extent_sizes extents_max() const;
    uint32_t tokens_per_step_max() const { return limits_.tokens_per_step_max; }
    uint32_t sequences_max() const { return limits_.sequences_max; }
    uint32_t context_tokens_max() const { return limits_.context_tokens_max; } // never 0
    uint32_t cache_tokens() const { return limits_.cache_tokens; }
    uint32_t tokens_per_block() const { return limits_.tokens_per_block; }
    bool prefix_reuse() const { return limits_.prefix_reuse; }

  private:
    loaded_model(const configuration& configuration, std::shared_ptr<host_services> services);

    void open_files(const configuration& configuration);
    void open_plugins(const configuration& configuration, plugin_host& plugins);
    void add_backend(const configuration& configuration, const std::string& key,
                     std::shared_ptr<plugin_instance> backend);
    void settle_limits(const configuration& configuration);
    void settle_cache(const configuration& configuration);
    void settle_context(const configuration& configuration);
    void build_program(const configuration& configuration, const model_load_options& options);
    void place(const configuration& configuration, plugin_host& plugins,
               const model_load_options& options);
    program settle_sampling(program step, const model_load_options& options);
    void ask_claims(const model_load_options& options);
    void cut();
    void prepare_weights(const model_load_options& options);
    void compile();
    router_answer ask_router(const sluice_router_request& request) const;
    std::map<std::string, uint32_t> host_routed_layers() const;
    std::string fingerprint_text() const;

    std::shared_ptr<host_services> services_;
    engine_configuration limits_;
    model_config config_;
    std::shared_ptr<const checkpoint> files_;
    std::shared_ptr<const tokenizer> tokenizer_;
    std::vector<int32_t> end_tokens_;
    std::vector<std::shared_ptr<plugin_instance>> backends_; // by placement number
    std::shared_ptr<plugin_instance> router_;
    std::string router_settings_; // as configured
    std::unique_ptr<model_program> model_;
    std::unique_ptr<spread_program> placed_; // model_ with placements, before expansion
    std::unique_ptr<program> program_;
    program_partition partition_;
    std::unique_ptr<weight_store> weights_;
    std::vector<sluice_executable*> executables_; // by segment, owned
    explain_report report_;
    std::string fingerprint_;
};

// Sizes that steps are padded to: 1, 2, 4 ... 32, 48, 64, 96 ... and the maximum itself. Finer
// steps waste less work, fewer cost less memory and compilation.
std::vector<uint32_t> size_ladder(uint32_t size_max);
uint32_t size_on_ladder(uint32_t size, uint32_t size_max);

// Likewise for the columns of block tables: 64, 256, 1024 ... and the maximum itself. Far between,
// since backends read no more of a table than is there, and a text that grows passes all of them.
std::vector<uint32_t> column_ladder(uint32_t column_count_max);
uint32_t columns_on_ladder(uint32_t column_count, uint32_t column_count_max);

} // namespace sluice
