// The two dialects of docs/ir.md. IRDL checks operand counts, result counts, and which attributes there are and of what
// kind; everything that relates them is in verify_model.c and verify_kernel.c. In IRDL one constraint value means one
// type, so each slot has its own. A list of operands that may be absent is the last one, so that no segment sizes are
// needed.
irdl.dialect @model {
  irdl.type @batch
  irdl.type @cache
  irdl.operation @weight {
    %0 = irdl.base "!builtin.tensor"
    irdl.results(result: %0)
    %1 = irdl.base "#builtin.string"
    irdl.attributes {"name" = %1}
  }
  irdl.operation @embed {
    %0 = irdl.base @model::@batch
    %1 = irdl.base "!builtin.tensor"
    irdl.operands(batch: %0, table: %1)
    %2 = irdl.base "!builtin.tensor"
    irdl.results(result: %2)
  }
  irdl.operation @rms_norm {
    %0 = irdl.base "!builtin.tensor"
    %1 = irdl.base "!builtin.tensor"
    irdl.operands(x: %0, w: %1)
    %2 = irdl.base "!builtin.tensor"
    irdl.results(result: %2)
    %3 = irdl.base "#builtin.float"
    irdl.attributes {"eps" = %3}
  }
  irdl.operation @linear {
    %0 = irdl.base "!builtin.tensor"
    %1 = irdl.base "!builtin.tensor"
    irdl.operands(x: %0, w: %1)
    %2 = irdl.base "!builtin.tensor"
    irdl.results(result: %2)
  }
  irdl.operation @lm_head {
    %0 = irdl.base "!builtin.tensor"
    %1 = irdl.base "!builtin.tensor"
    irdl.operands(x: %0, w: %1)
    %2 = irdl.base "!builtin.tensor"
    irdl.results(result: %2)
  }
  irdl.operation @head_norm {
    %0 = irdl.base "!builtin.tensor"
    %1 = irdl.base "!builtin.tensor"
    irdl.operands(x: %0, w: %1)
    %2 = irdl.base "!builtin.tensor"
    irdl.results(result: %2)
    %3 = irdl.base "#builtin.integer"
    %4 = irdl.base "#builtin.float"
    irdl.attributes {"heads" = %3, "eps" = %4}
  }
  irdl.operation @rope_table {
    %0 = irdl.base @model::@batch
    irdl.operands(batch: %0)
    %1 = irdl.base "!builtin.tensor"
    irdl.results(result: %1)
    %2 = irdl.base "#builtin.float"
    %3 = irdl.base "#builtin.integer"
    irdl.attributes {"theta" = %2, "rotary_dim" = %3}
  }
  irdl.operation @rope {
    %0 = irdl.base "!builtin.tensor"
    %1 = irdl.base "!builtin.tensor"
    irdl.operands(x: %0, table: %1)
    %2 = irdl.base "!builtin.tensor"
    irdl.results(result: %2)
    %3 = irdl.base "#builtin.integer"
    irdl.attributes {"heads" = %3}
  }
  irdl.operation @cache_append {
    %0 = irdl.base @model::@cache
    %1 = irdl.base @model::@batch
    %2 = irdl.base "!builtin.tensor"
    irdl.operands(cache: %0, batch: %1, x: %2)
    %3 = irdl.base @model::@cache
    irdl.results(result: %3)
    %4 = irdl.base "#builtin.integer"
    %5 = irdl.base "#builtin.string"
    %6 = irdl.base "#builtin.integer"
    irdl.attributes {"layer" = %4, "part" = %5, "heads" = %6}
  }
  irdl.operation @index_score {
    %0 = irdl.base "!builtin.tensor"
    %1 = irdl.base @model::@cache
    %2 = irdl.base @model::@batch
    irdl.operands(iq: %0, cache: %1, batch: %2)
    %3 = irdl.base "!builtin.tensor"
    irdl.results(scores: %3)
    %4 = irdl.base "#builtin.integer"
    %5 = irdl.base "#builtin.integer"
    %6 = irdl.base "#builtin.integer"
    irdl.attributes {"layer" = %4, "heads" = %5, "dim" = %6}
  }
  irdl.operation @block_max {
    %0 = irdl.base "!builtin.tensor"
    %1 = irdl.base @model::@batch
    irdl.operands(scores: %0, batch: %1)
    %2 = irdl.base "!builtin.tensor"
    irdl.results(maxima: %2)
    %3 = irdl.base "#builtin.integer"
    irdl.attributes {"block" = %3}
  }
  irdl.operation @topk_blocks {
    %0 = irdl.base "!builtin.tensor"
    %1 = irdl.base @model::@batch
    irdl.operands(maxima: %0, batch: %1)
    %2 = irdl.base "!builtin.tensor"
    irdl.results(blocks: %2)
    %3 = irdl.base "#builtin.integer"
    %4 = irdl.base "#builtin.integer"
    %5 = irdl.base "#builtin.integer"
    %6 = irdl.base "#builtin.integer"
    irdl.attributes {"k" = %3, "init" = %4, "local" = %5, "block" = %6}
  }
  irdl.operation @block_attention {
    %0 = irdl.base "!builtin.tensor"
    %1 = irdl.base @model::@cache
    %2 = irdl.base @model::@batch
    %3 = irdl.base "!builtin.tensor"
    irdl.operands(q: %0, cache: %1, batch: %2, blocks: %3)
    %4 = irdl.base "!builtin.tensor"
    irdl.results(result: %4)
    %5 = irdl.base "#builtin.integer"
    %6 = irdl.base "#builtin.integer"
    %7 = irdl.base "#builtin.integer"
    %8 = irdl.base "#builtin.integer"
    %9 = irdl.base "#builtin.float"
    irdl.attributes {"layer" = %5, "heads" = %6, "kv_heads" = %7, "block" = %8, "scale" = %9}
  }
  irdl.operation @attention {
    %0 = irdl.base "!builtin.tensor"
    %1 = irdl.base @model::@cache
    %2 = irdl.base @model::@batch
    irdl.operands(q: %0, cache: %1, batch: %2)
    %3 = irdl.base "!builtin.tensor"
    irdl.results(result: %3)
    %4 = irdl.base "#builtin.integer"
    %5 = irdl.base "#builtin.integer"
    %6 = irdl.base "#builtin.integer"
    %7 = irdl.base "#builtin.float"
    irdl.attributes {"layer" = %4, "heads" = %5, "kv_heads" = %6, "scale" = %7}
  }
  irdl.operation @topk_experts {
    %0 = irdl.base "!builtin.tensor"
    %1 = irdl.base "!builtin.tensor"
    irdl.operands(logits: %0, bias: %1)
    %2 = irdl.base "!builtin.tensor"
    %3 = irdl.base "!builtin.tensor"
    irdl.results(experts: %2, weights: %3)
    %4 = irdl.base "#builtin.integer"
    irdl.attributes {"k" = %4}
  }
  irdl.operation @expert_linear {
    %0 = irdl.base "!builtin.tensor"
    %1 = irdl.base "!builtin.tensor"
    %2 = irdl.base "!builtin.tensor"
    irdl.operands(x: %0, experts: %1, w: %2)
    %3 = irdl.base "!builtin.tensor"
    irdl.results(result: %3)
  }
  irdl.operation @swiglu_oai {
    %0 = irdl.base "!builtin.tensor"
    %1 = irdl.base "!builtin.tensor"
    irdl.operands(gate: %0, up: %1)
    %2 = irdl.base "!builtin.tensor"
    irdl.results(result: %2)
    %3 = irdl.base "#builtin.float"
    %4 = irdl.base "#builtin.float"
    irdl.attributes {"alpha" = %3, "limit" = %4}
  }
  irdl.operation @combine {
    %0 = irdl.base "!builtin.tensor"
    %1 = irdl.base "!builtin.tensor"
    irdl.operands(y: %0, weights: %1)
    %2 = irdl.base "!builtin.tensor"
    irdl.results(result: %2)
    %3 = irdl.base "#builtin.float"
    irdl.attributes {"scale" = %3}
  }
  irdl.operation @add {
    %0 = irdl.base "!builtin.tensor"
    %1 = irdl.base "!builtin.tensor"
    irdl.operands(a: %0, b: %1)
    %2 = irdl.base "!builtin.tensor"
    irdl.results(result: %2)
  }
  irdl.operation @slice {
    %0 = irdl.base "!builtin.tensor"
    irdl.operands(x: %0)
    %1 = irdl.base "!builtin.tensor"
    irdl.results(result: %1)
    %2 = irdl.base "#builtin.integer"
    irdl.attributes {"offset" = %2}
  }
  irdl.operation @select_rows {
    %0 = irdl.base "!builtin.tensor"
    %1 = irdl.base @model::@batch
    irdl.operands(x: %0, batch: %1)
    %2 = irdl.base "!builtin.tensor"
    irdl.results(result: %2)
  }
  irdl.operation @sample {
    %0 = irdl.base "!builtin.tensor"
    %1 = irdl.base @model::@batch
    irdl.operands(logits: %0, batch: %1)
    %2 = irdl.base "!builtin.tensor"
    irdl.results(sampled: %2)
  }
  irdl.operation @observe {
    %0 = irdl.base "!builtin.tensor"
    irdl.operands(x: %0)
    %1 = irdl.base "#builtin.string"
    irdl.attributes {"name" = %1}
  }
  irdl.operation @all_reduce {
    %0 = irdl.base "!builtin.tensor"
    irdl.operands(x: %0)
    %1 = irdl.base "!builtin.tensor"
    irdl.results(result: %1)
    %2 = irdl.base "#builtin.integer"
    irdl.attributes {"group" = %2}
  }
  irdl.operation @all_gather {
    %0 = irdl.base "!builtin.tensor"
    irdl.operands(x: %0)
    %1 = irdl.base "!builtin.tensor"
    irdl.results(result: %1)
    %2 = irdl.base "#builtin.integer"
    irdl.attributes {"group" = %2}
  }
  irdl.operation @all_to_all {
    %0 = irdl.base "!builtin.tensor"
    irdl.operands(x: %0)
    %1 = irdl.base "!builtin.tensor"
    irdl.results(result: %1)
    %2 = irdl.base "#builtin.integer"
    irdl.attributes {"group" = %2}
  }

  // Made by fusion.
  irdl.operation @concat_weights {
    %0 = irdl.base "!builtin.tensor"
    %1 = irdl.base "!builtin.tensor"
    irdl.operands(a: %0, b: %1)
    %2 = irdl.base "!builtin.tensor"
    irdl.results(result: %2)
  }
  irdl.operation @linear_add {
    %0 = irdl.base "!builtin.tensor"
    %1 = irdl.base "!builtin.tensor"
    %2 = irdl.base "!builtin.tensor"
    irdl.operands(x: %0, w: %1, residual: %2)
    %3 = irdl.base "!builtin.tensor"
    irdl.results(result: %3)
  }
  irdl.operation @linear_swiglu {
    %0 = irdl.base "!builtin.tensor"
    %1 = irdl.base "!builtin.tensor"
    %2 = irdl.base "!builtin.tensor"
    irdl.operands(x: %0, w_gate: %1, w_up: %2)
    %3 = irdl.base "!builtin.tensor"
    irdl.results(result: %3)
    %4 = irdl.base "#builtin.float"
    %5 = irdl.base "#builtin.float"
    irdl.attributes {"alpha" = %4, "limit" = %5}
  }
  irdl.operation @norm_rope_append {
    %0 = irdl.base @model::@cache
    %1 = irdl.base @model::@batch
    %2 = irdl.base "!builtin.tensor"
    %3 = irdl.base "!builtin.tensor"
    %4 = irdl.base "!builtin.tensor"
    %5 = irdl.base "!builtin.tensor"
    %6 = irdl.base "!builtin.tensor"
    irdl.operands(cache: %0, batch: %1, projection: %2, table: %3, q_norm: %4, k_norm: %5, index_norms: variadic %6)
    %7 = irdl.base @model::@cache
    %8 = irdl.base "!builtin.tensor"
    %9 = irdl.base "!builtin.tensor"
    irdl.results(updated: %7, q: %8, iq: variadic %9)
    %10 = irdl.base "#builtin.integer"
    %11 = irdl.base "#builtin.integer"
    %12 = irdl.base "#builtin.integer"
    %13 = irdl.base "#builtin.integer"
    %14 = irdl.base "#builtin.integer"
    %15 = irdl.base "#builtin.integer"
    %16 = irdl.base "#builtin.float"
    irdl.attributes {"layer" = %10, "heads" = %11, "kv_heads" = %12, "head_dim" = %13, "index_heads" = %14,
                     "index_dim" = %15, "eps" = %16}
  }
  irdl.operation @index_select {
    %0 = irdl.base "!builtin.tensor"
    %1 = irdl.base @model::@cache
    %2 = irdl.base @model::@batch
    irdl.operands(iq: %0, cache: %1, batch: %2)
    %3 = irdl.base "!builtin.tensor"
    irdl.results(blocks: %3)
    %4 = irdl.base "#builtin.integer"
    %5 = irdl.base "#builtin.integer"
    %6 = irdl.base "#builtin.integer"
    %7 = irdl.base "#builtin.integer"
    %8 = irdl.base "#builtin.integer"
    %9 = irdl.base "#builtin.integer"
    %10 = irdl.base "#builtin.integer"
    irdl.attributes {"layer" = %4, "heads" = %5, "dim" = %6, "block" = %7, "k" = %8, "init" = %9, "local" = %10}
  }
  irdl.operation @select_attention {
    %0 = irdl.base "!builtin.tensor"
    %1 = irdl.base "!builtin.tensor"
    %2 = irdl.base @model::@cache
    %3 = irdl.base @model::@batch
    irdl.operands(q: %0, iq: %1, cache: %2, batch: %3)
    %4 = irdl.base "!builtin.tensor"
    %5 = irdl.base "!builtin.tensor"
    irdl.results(result: %4, blocks: %5)
    %6 = irdl.base "#builtin.integer"
    %7 = irdl.base "#builtin.integer"
    %8 = irdl.base "#builtin.integer"
    %9 = irdl.base "#builtin.float"
    %10 = irdl.base "#builtin.integer"
    %11 = irdl.base "#builtin.integer"
    %12 = irdl.base "#builtin.integer"
    %13 = irdl.base "#builtin.integer"
    %14 = irdl.base "#builtin.integer"
    %15 = irdl.base "#builtin.integer"
    irdl.attributes {"layer" = %6, "heads" = %7, "kv_heads" = %8, "scale" = %9, "index_heads" = %10,
                     "index_dim" = %11, "block" = %12, "k" = %13, "init" = %14, "local" = %15}
  }
  irdl.operation @router {
    %0 = irdl.base "!builtin.tensor"
    %1 = irdl.base "!builtin.tensor"
    %2 = irdl.base "!builtin.tensor"
    irdl.operands(x: %0, gate: %1, bias: %2)
    %3 = irdl.base "!builtin.tensor"
    %4 = irdl.base "!builtin.tensor"
    irdl.results(experts: %3, weights: %4)
    %5 = irdl.base "#builtin.integer"
    irdl.attributes {"k" = %5}
  }
  irdl.operation @experts {
    %0 = irdl.base "!builtin.tensor"
    %1 = irdl.base "!builtin.tensor"
    %2 = irdl.base "!builtin.tensor"
    %3 = irdl.base "!builtin.tensor"
    %4 = irdl.base "!builtin.tensor"
    %5 = irdl.base "!builtin.tensor"
    %6 = irdl.base "!builtin.tensor"
    irdl.operands(x: %0, experts: %1, weights: %2, w_gate: %3, w_up: %4, w_down: %5, residual: variadic %6)
    %7 = irdl.base "!builtin.tensor"
    irdl.results(result: %7)
    %8 = irdl.base "#builtin.float"
    %9 = irdl.base "#builtin.float"
    %10 = irdl.base "#builtin.float"
    irdl.attributes {"alpha" = %8, "limit" = %9, "scale" = %10}
  }
  irdl.operation @experts_shared {
    %0 = irdl.base "!builtin.tensor"
    %1 = irdl.base "!builtin.tensor"
    %2 = irdl.base "!builtin.tensor"
    %3 = irdl.base "!builtin.tensor"
    %4 = irdl.base "!builtin.tensor"
    %5 = irdl.base "!builtin.tensor"
    %6 = irdl.base "!builtin.tensor"
    %7 = irdl.base "!builtin.tensor"
    %8 = irdl.base "!builtin.tensor"
    %9 = irdl.base "!builtin.tensor"
    irdl.operands(x: %0, experts: %1, weights: %2, w_gate: %3, w_up: %4, w_down: %5, shared_gate: %6, shared_up: %7,
                  shared_down: %8, residual: variadic %9)
    %10 = irdl.base "!builtin.tensor"
    irdl.results(result: %10)
    %11 = irdl.base "#builtin.float"
    %12 = irdl.base "#builtin.float"
    %13 = irdl.base "#builtin.float"
    irdl.attributes {"alpha" = %11, "limit" = %12, "scale" = %13}
  }
}
irdl.dialect @kernel {
  irdl.type @buffer
  irdl.operation @arena {
    %0 = irdl.base @kernel::@buffer
    irdl.results(result: %0)
    %1 = irdl.base "#builtin.string"
    %2 = irdl.base "#builtin.string"
    %3 = irdl.base "#builtin.integer"
    %4 = irdl.base "#builtin.integer"
    %5 = irdl.base "#builtin.string"
    %6 = irdl.base "#builtin.integer"
    irdl.attributes {"name" = %1, "size" = %2, "offset" = %3, "bytes" = %4, "dtype" = %5, "width" = %6}
  }
  irdl.operation @weight {
    %0 = irdl.base @kernel::@buffer
    irdl.results(result: %0)
    %1 = irdl.base "#builtin.string"
    %2 = irdl.base "#builtin.array"
    %3 = irdl.base "#builtin.array"
    %4 = irdl.base "#builtin.integer"
    %5 = irdl.base "#builtin.string"
    %6 = irdl.base "#builtin.string"
    %7 = irdl.base "#builtin.integer"
    %8 = irdl.base "#builtin.integer"
    %9 = irdl.base "#builtin.integer"
    %10 = irdl.base "#builtin.integer"
    %11 = irdl.base "#builtin.integer"
    irdl.attributes {"name" = %1, "sources" = %2, "source_rows" = %3, "rank" = %4, "layout" = %5, "dtype" = %6,
                     "rows" = %7, "columns" = %8, "batch" = %9, "panel" = %10, "group" = %11}
  }
  irdl.operation @input {
    %0 = irdl.base @kernel::@buffer
    irdl.results(result: %0)
    %1 = irdl.base "#builtin.string"
    irdl.attributes {"name" = %1}
  }
  irdl.operation @output {
    %0 = irdl.base @kernel::@buffer
    irdl.results(result: %0)
    %1 = irdl.base "#builtin.string"
    irdl.attributes {"name" = %1}
  }
  irdl.operation @cache {
    %0 = irdl.base @kernel::@buffer
    irdl.results(result: %0)
    %1 = irdl.base "#builtin.integer"
    %2 = irdl.base "#builtin.integer"
    %3 = irdl.base "#builtin.integer"
    irdl.attributes {"layer" = %1, "page_bytes" = %2, "has_index" = %3}
  }
  irdl.operation @none {
    %0 = irdl.base @kernel::@buffer
    irdl.results(result: %0)
  }
  irdl.operation @join {
    %0 = irdl.base "#builtin.integer"
    %1 = irdl.base "#builtin.array"
    %2 = irdl.base "#builtin.array"
    irdl.attributes {"launches" = %0, "waits" = %1, "late" = %2}
  }
  irdl.operation @observe {
    %0 = irdl.base @kernel::@buffer
    irdl.operands(buffer: %0)
    %1 = irdl.base "#builtin.string"
    %2 = irdl.base "#builtin.integer"
    %3 = irdl.base "#builtin.string"
    irdl.attributes {"name" = %1, "dimension" = %2, "dtype" = %3}
  }

  // Launches.
  irdl.operation @embed {
    %0 = irdl.base @kernel::@buffer
    %1 = irdl.base @kernel::@buffer
    %2 = irdl.base @kernel::@buffer
    irdl.operands(tokens: %0, table: %1, out: %2)
    %3 = irdl.base "#builtin.string"
    %4 = irdl.base "#builtin.integer"
    %5 = irdl.base "#builtin.string"
    %6 = irdl.base "#builtin.array"
    %7 = irdl.base "#builtin.integer"
    %8 = irdl.base "#builtin.integer"
    %9 = irdl.base "#builtin.string"
    %10 = irdl.base "#builtin.string"
    irdl.attributes {"label" = %3, "layer" = %4, "target" = %5, "cost" = %6, "width" = %7, "vocabulary" = %8,
                     "weight_dtype" = %9, "dtype" = %10}
  }
  irdl.operation @rms_norm {
    %0 = irdl.base @kernel::@buffer
    %1 = irdl.base @kernel::@buffer
    %2 = irdl.base @kernel::@buffer
    irdl.operands(x: %0, w: %1, out: %2)
    %3 = irdl.base "#builtin.string"
    %4 = irdl.base "#builtin.integer"
    %5 = irdl.base "#builtin.string"
    %6 = irdl.base "#builtin.array"
    %7 = irdl.base "#builtin.string"
    %8 = irdl.base "#builtin.integer"
    %9 = irdl.base "#builtin.float"
    %10 = irdl.base "#builtin.string"
    %11 = irdl.base "#builtin.string"
    irdl.attributes {"label" = %3, "layer" = %4, "target" = %5, "cost" = %6, "size" = %7, "width" = %8, "eps" = %9,
                     "dtype" = %10, "weight_dtype" = %11}
  }
  irdl.operation @head_norm {
    %0 = irdl.base @kernel::@buffer
    %1 = irdl.base @kernel::@buffer
    %2 = irdl.base @kernel::@buffer
    irdl.operands(x: %0, w: %1, out: %2)
    %3 = irdl.base "#builtin.string"
    %4 = irdl.base "#builtin.integer"
    %5 = irdl.base "#builtin.string"
    %6 = irdl.base "#builtin.array"
    %7 = irdl.base "#builtin.integer"
    %8 = irdl.base "#builtin.integer"
    %9 = irdl.base "#builtin.float"
    %10 = irdl.base "#builtin.string"
    %11 = irdl.base "#builtin.string"
    irdl.attributes {"label" = %3, "layer" = %4, "target" = %5, "cost" = %6, "heads" = %7, "head_dim" = %8,
                     "eps" = %9, "dtype" = %10, "weight_dtype" = %11}
  }
  irdl.operation @rope_table {
    %0 = irdl.base @kernel::@buffer
    %1 = irdl.base @kernel::@buffer
    irdl.operands(positions: %0, out: %1)
    %2 = irdl.base "#builtin.string"
    %3 = irdl.base "#builtin.integer"
    %4 = irdl.base "#builtin.string"
    %5 = irdl.base "#builtin.array"
    %6 = irdl.base "#builtin.float"
    %7 = irdl.base "#builtin.integer"
    irdl.attributes {"label" = %2, "layer" = %3, "target" = %4, "cost" = %5, "theta" = %6, "rotary_dim" = %7}
  }
  irdl.operation @rope {
    %0 = irdl.base @kernel::@buffer
    %1 = irdl.base @kernel::@buffer
    %2 = irdl.base @kernel::@buffer
    irdl.operands(x: %0, table: %1, out: %2)
    %3 = irdl.base "#builtin.string"
    %4 = irdl.base "#builtin.integer"
    %5 = irdl.base "#builtin.string"
    %6 = irdl.base "#builtin.array"
    %7 = irdl.base "#builtin.integer"
    %8 = irdl.base "#builtin.integer"
    %9 = irdl.base "#builtin.integer"
    %10 = irdl.base "#builtin.string"
    irdl.attributes {"label" = %3, "layer" = %4, "target" = %5, "cost" = %6, "heads" = %7, "head_dim" = %8,
                     "rotary_dim" = %9, "dtype" = %10}
  }
  irdl.operation @cache_append {
    %0 = irdl.base @kernel::@buffer
    %1 = irdl.base @kernel::@buffer
    %2 = irdl.base @kernel::@buffer
    %3 = irdl.base @kernel::@buffer
    %4 = irdl.base @kernel::@buffer
    irdl.operands(x: %0, positions: %1, sequence: %2, page_table: %3, cache: %4)
    %5 = irdl.base "#builtin.string"
    %6 = irdl.base "#builtin.integer"
    %7 = irdl.base "#builtin.string"
    %8 = irdl.base "#builtin.array"
    %9 = irdl.base "#builtin.string"
    %10 = irdl.base "#builtin.integer"
    %11 = irdl.base "#builtin.integer"
    %12 = irdl.base "#builtin.integer"
    %13 = irdl.base "#builtin.integer"
    %14 = irdl.base "#builtin.integer"
    %15 = irdl.base "#builtin.string"
    %16 = irdl.base "#builtin.string"
    irdl.attributes {"label" = %5, "layer" = %6, "target" = %7, "cost" = %8, "part" = %9, "heads" = %10,
                     "head_dim" = %11, "page" = %12, "page_bytes" = %13, "part_offset" = %14, "dtype" = %15, "transposed" = %16}
  }
  irdl.operation @norm_rope_append {
    %0 = irdl.base @kernel::@buffer
    %1 = irdl.base @kernel::@buffer
    %2 = irdl.base @kernel::@buffer
    %3 = irdl.base @kernel::@buffer
    %4 = irdl.base @kernel::@buffer
    %5 = irdl.base @kernel::@buffer
    %6 = irdl.base @kernel::@buffer
    %7 = irdl.base @kernel::@buffer
    %8 = irdl.base @kernel::@buffer
    %9 = irdl.base @kernel::@buffer
    %10 = irdl.base @kernel::@buffer
    %11 = irdl.base @kernel::@buffer
    irdl.operands(projection: %0, table: %1, q_norm: %2, k_norm: %3, index_q_norm: %4, index_k_norm: %5, positions: %6, sequence: %7, page_table: %8, cache: %9, q: %10, iq: %11)
    %12 = irdl.base "#builtin.string"
    %13 = irdl.base "#builtin.integer"
    %14 = irdl.base "#builtin.string"
    %15 = irdl.base "#builtin.array"
    %16 = irdl.base "#builtin.integer"
    %17 = irdl.base "#builtin.integer"
    %18 = irdl.base "#builtin.integer"
    %19 = irdl.base "#builtin.integer"
    %20 = irdl.base "#builtin.integer"
    %21 = irdl.base "#builtin.integer"
    %22 = irdl.base "#builtin.float"
    %23 = irdl.base "#builtin.integer"
    %24 = irdl.base "#builtin.integer"
    %25 = irdl.base "#builtin.integer"
    %26 = irdl.base "#builtin.integer"
    %27 = irdl.base "#builtin.string"
    %28 = irdl.base "#builtin.string"
    %29 = irdl.base "#builtin.string"
    irdl.attributes {"label" = %12, "layer" = %13, "target" = %14, "cost" = %15, "heads" = %16, "kv_heads" = %17,
                     "head_dim" = %18, "index_heads" = %19, "index_dim" = %20, "rotary_dim" = %21, "eps" = %22,
                     "page" = %23, "page_bytes" = %24, "value_offset" = %25, "index_offset" = %26, "dtype" = %27,
                     "weight_dtype" = %28, "transposed" = %29}
  }
  irdl.operation @gemm {
    %0 = irdl.base @kernel::@buffer
    %1 = irdl.base @kernel::@buffer
    %2 = irdl.base @kernel::@buffer
    %3 = irdl.base @kernel::@buffer
    irdl.operands(x: %0, w: %1, residual: %2, out: %3)
    %4 = irdl.base "#builtin.string"
    %5 = irdl.base "#builtin.integer"
    %6 = irdl.base "#builtin.string"
    %7 = irdl.base "#builtin.array"
    %8 = irdl.base "#builtin.string"
    %9 = irdl.base "#builtin.integer"
    %10 = irdl.base "#builtin.integer"
    %11 = irdl.base "#builtin.string"
    %12 = irdl.base "#builtin.float"
    %13 = irdl.base "#builtin.float"
    %14 = irdl.base "#builtin.string"
    %15 = irdl.base "#builtin.string"
    %16 = irdl.base "#builtin.string"
    %17 = irdl.base "#builtin.integer"
    %18 = irdl.base "#builtin.integer"
    %19 = irdl.base "#builtin.integer"
    %20 = irdl.base "#builtin.integer"
    irdl.attributes {"label" = %4, "layer" = %5, "target" = %6, "cost" = %7, "size" = %8, "n" = %9, "k" = %10,
                     "epilogue" = %11, "alpha" = %12, "limit" = %13, "x_dtype" = %14, "weight_dtype" = %15,
                     "out_dtype" = %16, "tile_m" = %17, "panel" = %18, "group" = %19, "slice" = %20}
  }
  irdl.operation @index_score {
    %0 = irdl.base @kernel::@buffer
    %1 = irdl.base @kernel::@buffer
    %2 = irdl.base @kernel::@buffer
    %3 = irdl.base @kernel::@buffer
    %4 = irdl.base @kernel::@buffer
    irdl.operands(iq: %0, tiles: %1, page_table: %2, cache: %3, scores: %4)
    %5 = irdl.base "#builtin.string"
    %6 = irdl.base "#builtin.integer"
    %7 = irdl.base "#builtin.string"
    %8 = irdl.base "#builtin.array"
    %9 = irdl.base "#builtin.integer"
    %10 = irdl.base "#builtin.integer"
    %11 = irdl.base "#builtin.integer"
    %12 = irdl.base "#builtin.integer"
    %13 = irdl.base "#builtin.integer"
    %14 = irdl.base "#builtin.string"
    %15 = irdl.base "#builtin.string"
    irdl.attributes {"label" = %5, "layer" = %6, "target" = %7, "cost" = %8, "heads" = %9, "dim" = %10, "page" = %11,
                     "page_bytes" = %12, "index_offset" = %13, "dtype" = %14, "transposed" = %15}
  }
  irdl.operation @block_score {
    %0 = irdl.base @kernel::@buffer
    %1 = irdl.base @kernel::@buffer
    %2 = irdl.base @kernel::@buffer
    %3 = irdl.base @kernel::@buffer
    %4 = irdl.base @kernel::@buffer
    irdl.operands(iq: %0, tiles: %1, page_table: %2, cache: %3, maxima: %4)
    %5 = irdl.base "#builtin.string"
    %6 = irdl.base "#builtin.integer"
    %7 = irdl.base "#builtin.string"
    %8 = irdl.base "#builtin.array"
    %9 = irdl.base "#builtin.integer"
    %10 = irdl.base "#builtin.integer"
    %11 = irdl.base "#builtin.integer"
    %12 = irdl.base "#builtin.integer"
    %13 = irdl.base "#builtin.integer"
    %14 = irdl.base "#builtin.string"
    %15 = irdl.base "#builtin.string"
    %16 = irdl.base "#builtin.integer"
    %17 = irdl.base "#builtin.integer"
    %18 = irdl.base "#builtin.integer"
    %19 = irdl.base "#builtin.integer"
    %20 = irdl.base "#builtin.integer"
    irdl.attributes {"label" = %5, "layer" = %6, "target" = %7, "cost" = %8, "heads" = %9, "dim" = %10, "page" = %11,
                     "page_bytes" = %12, "index_offset" = %13, "dtype" = %14, "transposed" = %15, "k" = %16, "query_tile" = %17,
                     "local" = %18, "cache_first" = %19, "many" = %20}
  }
  irdl.operation @block_max {
    %0 = irdl.base @kernel::@buffer
    %1 = irdl.base @kernel::@buffer
    %2 = irdl.base @kernel::@buffer
    irdl.operands(scores: %0, positions: %1, maxima: %2)
    %3 = irdl.base "#builtin.string"
    %4 = irdl.base "#builtin.integer"
    %5 = irdl.base "#builtin.string"
    %6 = irdl.base "#builtin.array"
    %7 = irdl.base "#builtin.integer"
    %8 = irdl.base "#builtin.integer"
    irdl.attributes {"label" = %3, "layer" = %4, "target" = %5, "cost" = %6, "heads" = %7, "block" = %8}
  }
  irdl.operation @topk_blocks {
    %0 = irdl.base @kernel::@buffer
    %1 = irdl.base @kernel::@buffer
    %2 = irdl.base @kernel::@buffer
    irdl.operands(maxima: %0, positions: %1, blocks: %2)
    %3 = irdl.base "#builtin.string"
    %4 = irdl.base "#builtin.integer"
    %5 = irdl.base "#builtin.string"
    %6 = irdl.base "#builtin.array"
    %7 = irdl.base "#builtin.integer"
    %8 = irdl.base "#builtin.integer"
    %9 = irdl.base "#builtin.integer"
    %10 = irdl.base "#builtin.integer"
    %11 = irdl.base "#builtin.integer"
    irdl.attributes {"label" = %3, "layer" = %4, "target" = %5, "cost" = %6, "heads" = %7, "k" = %8, "init" = %9,
                     "local" = %10, "block" = %11}
  }
  irdl.operation @index_select {
    %0 = irdl.base @kernel::@buffer
    %1 = irdl.base @kernel::@buffer
    %2 = irdl.base @kernel::@buffer
    %3 = irdl.base @kernel::@buffer
    %4 = irdl.base @kernel::@buffer
    irdl.operands(iq: %0, tiles: %1, page_table: %2, cache: %3, blocks: %4)
    %5 = irdl.base "#builtin.string"
    %6 = irdl.base "#builtin.integer"
    %7 = irdl.base "#builtin.string"
    %8 = irdl.base "#builtin.array"
    %9 = irdl.base "#builtin.integer"
    %10 = irdl.base "#builtin.integer"
    %11 = irdl.base "#builtin.integer"
    %12 = irdl.base "#builtin.integer"
    %13 = irdl.base "#builtin.integer"
    %14 = irdl.base "#builtin.integer"
    %15 = irdl.base "#builtin.integer"
    %16 = irdl.base "#builtin.integer"
    %17 = irdl.base "#builtin.string"
    %18 = irdl.base "#builtin.integer"
    %19 = irdl.base "#builtin.integer"
    %20 = irdl.base "#builtin.string"
    irdl.attributes {"label" = %5, "layer" = %6, "target" = %7, "cost" = %8, "heads" = %9, "dim" = %10, "k" = %11,
                     "init" = %12, "local" = %13, "page" = %14, "page_bytes" = %15, "index_offset" = %16,
                     "dtype" = %17, "query_tile" = %18, "max_pages" = %19, "transposed" = %20}
  }
  irdl.operation @attention {
    %0 = irdl.base @kernel::@buffer
    %1 = irdl.base @kernel::@buffer
    %2 = irdl.base @kernel::@buffer
    %3 = irdl.base @kernel::@buffer
    %4 = irdl.base @kernel::@buffer
    irdl.operands(q: %0, tiles: %1, page_table: %2, cache: %3, out: %4)
    %5 = irdl.base "#builtin.string"
    %6 = irdl.base "#builtin.integer"
    %7 = irdl.base "#builtin.string"
    %8 = irdl.base "#builtin.array"
    %9 = irdl.base "#builtin.integer"
    %10 = irdl.base "#builtin.integer"
    %11 = irdl.base "#builtin.integer"
    %12 = irdl.base "#builtin.float"
    %13 = irdl.base "#builtin.integer"
    %14 = irdl.base "#builtin.integer"
    %15 = irdl.base "#builtin.integer"
    %16 = irdl.base "#builtin.string"
    %17 = irdl.base "#builtin.integer"
    %18 = irdl.base "#builtin.string"
    irdl.attributes {"label" = %5, "layer" = %6, "target" = %7, "cost" = %8, "heads" = %9, "kv_heads" = %10,
                     "head_dim" = %11, "scale" = %12, "page" = %13, "page_bytes" = %14, "value_offset" = %15,
                     "dtype" = %16, "query_tile" = %17, "transposed" = %18}
  }
  irdl.operation @attention_part {
    %0 = irdl.base @kernel::@buffer
    %1 = irdl.base @kernel::@buffer
    %2 = irdl.base @kernel::@buffer
    %3 = irdl.base @kernel::@buffer
    %4 = irdl.base @kernel::@buffer
    %19 = irdl.base @kernel::@buffer
    %20 = irdl.base @kernel::@buffer
    irdl.operands(q: %0, positions: %1, sequence: %20, page_table: %2, cache: %3, out: %4, partials: %19)
    %5 = irdl.base "#builtin.string"
    %6 = irdl.base "#builtin.integer"
    %7 = irdl.base "#builtin.string"
    %8 = irdl.base "#builtin.array"
    %9 = irdl.base "#builtin.integer"
    %10 = irdl.base "#builtin.integer"
    %11 = irdl.base "#builtin.integer"
    %12 = irdl.base "#builtin.float"
    %13 = irdl.base "#builtin.integer"
    %14 = irdl.base "#builtin.integer"
    %15 = irdl.base "#builtin.integer"
    %16 = irdl.base "#builtin.string"
    %17 = irdl.base "#builtin.integer"
    %18 = irdl.base "#builtin.string"
    irdl.attributes {"label" = %5, "layer" = %6, "target" = %7, "cost" = %8, "heads" = %9, "kv_heads" = %10,
                     "head_dim" = %11, "scale" = %12, "page" = %13, "page_bytes" = %14, "value_offset" = %15,
                     "dtype" = %16, "transposed" = %18}
  }
  irdl.operation @attention_merge {
    %0 = irdl.base @kernel::@buffer
    %1 = irdl.base @kernel::@buffer
    irdl.operands(partials: %0, out: %1)
    %2 = irdl.base "#builtin.string"
    %3 = irdl.base "#builtin.integer"
    %4 = irdl.base "#builtin.string"
    %5 = irdl.base "#builtin.array"
    %6 = irdl.base "#builtin.integer"
    %7 = irdl.base "#builtin.integer"
    %8 = irdl.base "#builtin.integer"
    %9 = irdl.base "#builtin.string"
    %10 = irdl.base "#builtin.integer"
    irdl.attributes {"label" = %2, "layer" = %3, "target" = %4, "cost" = %5, "heads" = %6, "kv_heads" = %7,
                     "head_dim" = %8, "k" = %10, "dtype" = %9}
  }
  irdl.operation @block_attention {
    %0 = irdl.base @kernel::@buffer
    %1 = irdl.base @kernel::@buffer
    %2 = irdl.base @kernel::@buffer
    %3 = irdl.base @kernel::@buffer
    %4 = irdl.base @kernel::@buffer
    %5 = irdl.base @kernel::@buffer
    irdl.operands(q: %0, blocks: %1, tiles: %2, page_table: %3, cache: %4, out: %5)
    %6 = irdl.base "#builtin.string"
    %7 = irdl.base "#builtin.integer"
    %8 = irdl.base "#builtin.string"
    %9 = irdl.base "#builtin.array"
    %10 = irdl.base "#builtin.integer"
    %11 = irdl.base "#builtin.integer"
    %12 = irdl.base "#builtin.integer"
    %13 = irdl.base "#builtin.float"
    %14 = irdl.base "#builtin.integer"
    %15 = irdl.base "#builtin.integer"
    %16 = irdl.base "#builtin.integer"
    %17 = irdl.base "#builtin.string"
    %18 = irdl.base "#builtin.integer"
    %19 = irdl.base "#builtin.integer"
    %20 = irdl.base "#builtin.string"
    irdl.attributes {"label" = %6, "layer" = %7, "target" = %8, "cost" = %9, "heads" = %10, "kv_heads" = %11,
                     "head_dim" = %12, "scale" = %13, "page" = %14, "page_bytes" = %15, "value_offset" = %16,
                     "dtype" = %17, "query_tile" = %18, "k" = %19, "transposed" = %20}
  }
  irdl.operation @topk_attention {
    %0 = irdl.base @kernel::@buffer
    %1 = irdl.base @kernel::@buffer
    %2 = irdl.base @kernel::@buffer
    %3 = irdl.base @kernel::@buffer
    %4 = irdl.base @kernel::@buffer
    %5 = irdl.base @kernel::@buffer
    %21 = irdl.base @kernel::@buffer
    %24 = irdl.base @kernel::@buffer
    irdl.operands(q: %0, maxima: %1, positions: %2, sequence: %24, page_table: %3, cache: %4, out: %5, chosen: %21)
    %6 = irdl.base "#builtin.string"
    %7 = irdl.base "#builtin.integer"
    %8 = irdl.base "#builtin.string"
    %9 = irdl.base "#builtin.array"
    %10 = irdl.base "#builtin.integer"
    %11 = irdl.base "#builtin.integer"
    %12 = irdl.base "#builtin.integer"
    %13 = irdl.base "#builtin.float"
    %14 = irdl.base "#builtin.integer"
    %15 = irdl.base "#builtin.integer"
    %16 = irdl.base "#builtin.integer"
    %17 = irdl.base "#builtin.string"
    %18 = irdl.base "#builtin.integer"
    %19 = irdl.base "#builtin.integer"
    %20 = irdl.base "#builtin.string"
    %22 = irdl.base "#builtin.integer"
    %23 = irdl.base "#builtin.integer"
    %25 = irdl.base "#builtin.integer"
    irdl.attributes {"label" = %6, "layer" = %7, "target" = %8, "cost" = %9, "heads" = %10, "kv_heads" = %11,
                     "head_dim" = %12, "scale" = %13, "page" = %14, "page_bytes" = %15, "value_offset" = %16,
                     "dtype" = %17, "per_processor" = %25, "cluster" = %18, "k" = %19, "transposed" = %20, "init" = %22, "local" = %23}
  }
  irdl.operation @topk_attention_part {
    %0 = irdl.base @kernel::@buffer
    %1 = irdl.base @kernel::@buffer
    %2 = irdl.base @kernel::@buffer
    %3 = irdl.base @kernel::@buffer
    %4 = irdl.base @kernel::@buffer
    %5 = irdl.base @kernel::@buffer
    %21 = irdl.base @kernel::@buffer
    %24 = irdl.base @kernel::@buffer
    %26 = irdl.base @kernel::@buffer
    irdl.operands(q: %0, maxima: %1, positions: %2, sequence: %24, page_table: %3, cache: %4, out: %5, chosen: %21,
                  partials: %26)
    %6 = irdl.base "#builtin.string"
    %7 = irdl.base "#builtin.integer"
    %8 = irdl.base "#builtin.string"
    %9 = irdl.base "#builtin.array"
    %10 = irdl.base "#builtin.integer"
    %11 = irdl.base "#builtin.integer"
    %12 = irdl.base "#builtin.integer"
    %13 = irdl.base "#builtin.float"
    %14 = irdl.base "#builtin.integer"
    %15 = irdl.base "#builtin.integer"
    %16 = irdl.base "#builtin.integer"
    %17 = irdl.base "#builtin.string"
    %19 = irdl.base "#builtin.integer"
    %20 = irdl.base "#builtin.string"
    %22 = irdl.base "#builtin.integer"
    %23 = irdl.base "#builtin.integer"
    irdl.attributes {"label" = %6, "layer" = %7, "target" = %8, "cost" = %9, "heads" = %10, "kv_heads" = %11,
                     "head_dim" = %12, "scale" = %13, "page" = %14, "page_bytes" = %15, "value_offset" = %16,
                     "dtype" = %17, "k" = %19, "transposed" = %20, "init" = %22, "local" = %23}
  }
  irdl.operation @select_attention {
    %0 = irdl.base @kernel::@buffer
    %1 = irdl.base @kernel::@buffer
    %2 = irdl.base @kernel::@buffer
    %3 = irdl.base @kernel::@buffer
    %4 = irdl.base @kernel::@buffer
    %5 = irdl.base @kernel::@buffer
    %6 = irdl.base @kernel::@buffer
    irdl.operands(q: %0, iq: %1, tiles: %2, page_table: %3, cache: %4, out: %5, blocks: %6)
    %7 = irdl.base "#builtin.string"
    %8 = irdl.base "#builtin.integer"
    %9 = irdl.base "#builtin.string"
    %10 = irdl.base "#builtin.array"
    %11 = irdl.base "#builtin.integer"
    %12 = irdl.base "#builtin.integer"
    %13 = irdl.base "#builtin.integer"
    %14 = irdl.base "#builtin.float"
    %15 = irdl.base "#builtin.integer"
    %16 = irdl.base "#builtin.integer"
    %17 = irdl.base "#builtin.integer"
    %18 = irdl.base "#builtin.string"
    %19 = irdl.base "#builtin.integer"
    %20 = irdl.base "#builtin.integer"
    %21 = irdl.base "#builtin.integer"
    %22 = irdl.base "#builtin.integer"
    %23 = irdl.base "#builtin.integer"
    %24 = irdl.base "#builtin.integer"
    %25 = irdl.base "#builtin.integer"
    %26 = irdl.base "#builtin.string"
    irdl.attributes {"label" = %7, "layer" = %8, "target" = %9, "cost" = %10, "heads" = %11, "kv_heads" = %12,
                     "head_dim" = %13, "scale" = %14, "page" = %15, "page_bytes" = %16, "value_offset" = %17,
                     "dtype" = %18, "query_tile" = %19, "index_dim" = %20, "k" = %21, "init" = %22, "local" = %23,
                     "index_offset" = %24, "max_pages" = %25, "transposed" = %26}
  }
  irdl.operation @router {
    %0 = irdl.base @kernel::@buffer
    %1 = irdl.base @kernel::@buffer
    %2 = irdl.base @kernel::@buffer
    %3 = irdl.base @kernel::@buffer
    %4 = irdl.base @kernel::@buffer
    irdl.operands(x: %0, gate: %1, bias: %2, experts: %3, weights: %4)
    %5 = irdl.base "#builtin.string"
    %6 = irdl.base "#builtin.integer"
    %7 = irdl.base "#builtin.string"
    %8 = irdl.base "#builtin.array"
    %9 = irdl.base "#builtin.integer"
    %10 = irdl.base "#builtin.integer"
    %11 = irdl.base "#builtin.integer"
    %12 = irdl.base "#builtin.string"
    %13 = irdl.base "#builtin.integer"
    irdl.attributes {"label" = %5, "layer" = %6, "target" = %7, "cost" = %8, "width" = %9, "experts" = %10, "k" = %11,
                     "dtype" = %12, "panel" = %13}
  }
  irdl.operation @router_logits {
    %0 = irdl.base @kernel::@buffer
    %1 = irdl.base @kernel::@buffer
    %2 = irdl.base @kernel::@buffer
    irdl.operands(x: %0, gate: %1, logits: %2)
    %3 = irdl.base "#builtin.string"
    %4 = irdl.base "#builtin.integer"
    %5 = irdl.base "#builtin.string"
    %6 = irdl.base "#builtin.array"
    %7 = irdl.base "#builtin.integer"
    %8 = irdl.base "#builtin.integer"
    %9 = irdl.base "#builtin.string"
    irdl.attributes {"label" = %3, "layer" = %4, "target" = %5, "cost" = %6, "width" = %7, "experts" = %8, "dtype" = %9}
  }
  irdl.operation @topk_experts {
    %0 = irdl.base @kernel::@buffer
    %1 = irdl.base @kernel::@buffer
    %2 = irdl.base @kernel::@buffer
    %3 = irdl.base @kernel::@buffer
    irdl.operands(logits: %0, bias: %1, experts: %2, weights: %3)
    %4 = irdl.base "#builtin.string"
    %5 = irdl.base "#builtin.integer"
    %6 = irdl.base "#builtin.string"
    %7 = irdl.base "#builtin.array"
    %8 = irdl.base "#builtin.integer"
    %9 = irdl.base "#builtin.integer"
    irdl.attributes {"label" = %4, "layer" = %5, "target" = %6, "cost" = %7, "experts" = %8, "k" = %9}
  }
  irdl.operation @route {
    %0 = irdl.base @kernel::@buffer
    %1 = irdl.base @kernel::@buffer
    %2 = irdl.base @kernel::@buffer
    %3 = irdl.base @kernel::@buffer
    %4 = irdl.base @kernel::@buffer
    %5 = irdl.base @kernel::@buffer
    %6 = irdl.base @kernel::@buffer
    irdl.operands(logits: %0, bias: %1, counts: %2, order: %3, expert_tiles: %4, experts: %5, weights: %6)
    %7 = irdl.base "#builtin.string"
    %8 = irdl.base "#builtin.integer"
    %9 = irdl.base "#builtin.string"
    %10 = irdl.base "#builtin.array"
    %11 = irdl.base "#builtin.integer"
    %12 = irdl.base "#builtin.integer"
    %13 = irdl.base "#builtin.integer"
    %14 = irdl.base "#builtin.integer"
    %15 = irdl.base "#builtin.integer"
    irdl.attributes {"label" = %7, "layer" = %8, "target" = %9, "cost" = %10, "experts" = %11, "k" = %12,
                     "shared" = %13, "tile_m" = %14, "tokens" = %15}
  }
  irdl.operation @sort_experts {
    %0 = irdl.base @kernel::@buffer
    %1 = irdl.base @kernel::@buffer
    %2 = irdl.base @kernel::@buffer
    %3 = irdl.base @kernel::@buffer
    irdl.operands(experts: %0, counts: %1, order: %2, expert_tiles: %3)
    %4 = irdl.base "#builtin.string"
    %5 = irdl.base "#builtin.integer"
    %6 = irdl.base "#builtin.string"
    %7 = irdl.base "#builtin.array"
    %8 = irdl.base "#builtin.integer"
    %9 = irdl.base "#builtin.integer"
    %10 = irdl.base "#builtin.integer"
    %11 = irdl.base "#builtin.integer"
    irdl.attributes {"label" = %4, "layer" = %5, "target" = %6, "cost" = %7, "experts" = %8, "k" = %9, "tile_m" = %10,
                     "shared" = %11}
  }
  irdl.operation @expert_gemm {
    %0 = irdl.base @kernel::@buffer
    %1 = irdl.base @kernel::@buffer
    %2 = irdl.base @kernel::@buffer
    %3 = irdl.base @kernel::@buffer
    %4 = irdl.base @kernel::@buffer
    %5 = irdl.base @kernel::@buffer
    %6 = irdl.base @kernel::@buffer
    irdl.operands(x: %0, w: %1, shared_w: %2, counts: %3, order: %4, expert_tiles: %5, out: %6)
    %7 = irdl.base "#builtin.string"
    %8 = irdl.base "#builtin.integer"
    %9 = irdl.base "#builtin.string"
    %10 = irdl.base "#builtin.array"
    %11 = irdl.base "#builtin.integer"
    %12 = irdl.base "#builtin.integer"
    %13 = irdl.base "#builtin.integer"
    %14 = irdl.base "#builtin.integer"
    %15 = irdl.base "#builtin.integer"
    %16 = irdl.base "#builtin.string"
    %17 = irdl.base "#builtin.string"
    %18 = irdl.base "#builtin.float"
    %19 = irdl.base "#builtin.float"
    %20 = irdl.base "#builtin.string"
    %21 = irdl.base "#builtin.string"
    %22 = irdl.base "#builtin.string"
    %23 = irdl.base "#builtin.integer"
    %24 = irdl.base "#builtin.integer"
    %25 = irdl.base "#builtin.integer"
    %26 = irdl.base "#builtin.integer"
    %27 = irdl.base "#builtin.integer"
    %28 = irdl.base "#builtin.string"
    irdl.attributes {"label" = %7, "layer" = %8, "target" = %9, "cost" = %10, "n" = %11, "k" = %12, "experts" = %13,
                     "top_k" = %14, "shared" = %15, "gather" = %16, "epilogue" = %17, "alpha" = %18, "limit" = %19,
                     "x_dtype" = %20, "weight_dtype" = %21, "out_dtype" = %22, "tile_m" = %23, "panel" = %24,
                     "slice" = %25, "group" = %26, "batch_bytes" = %27, "overlap" = %28}
  }
  irdl.operation @combine {
    %0 = irdl.base @kernel::@buffer
    %1 = irdl.base @kernel::@buffer
    %2 = irdl.base @kernel::@buffer
    %3 = irdl.base @kernel::@buffer
    %4 = irdl.base @kernel::@buffer
    irdl.operands(y: %0, weights: %1, shared_y: %2, residual: %3, out: %4)
    %5 = irdl.base "#builtin.string"
    %6 = irdl.base "#builtin.integer"
    %7 = irdl.base "#builtin.string"
    %8 = irdl.base "#builtin.array"
    %9 = irdl.base "#builtin.integer"
    %10 = irdl.base "#builtin.integer"
    %11 = irdl.base "#builtin.float"
    %12 = irdl.base "#builtin.string"
    %13 = irdl.base "#builtin.integer"
    %14 = irdl.base "#builtin.integer"
    irdl.attributes {"label" = %5, "layer" = %6, "target" = %7, "cost" = %8, "width" = %9, "k" = %10, "scale" = %11,
                     "dtype" = %12, "shared" = %13, "shared_rows" = %14}
  }
  irdl.operation @swiglu {
    %0 = irdl.base @kernel::@buffer
    %1 = irdl.base @kernel::@buffer
    %2 = irdl.base @kernel::@buffer
    irdl.operands(gate: %0, up: %1, out: %2)
    %3 = irdl.base "#builtin.string"
    %4 = irdl.base "#builtin.integer"
    %5 = irdl.base "#builtin.string"
    %6 = irdl.base "#builtin.array"
    %7 = irdl.base "#builtin.string"
    %8 = irdl.base "#builtin.integer"
    %9 = irdl.base "#builtin.float"
    %10 = irdl.base "#builtin.float"
    %11 = irdl.base "#builtin.string"
    %12 = irdl.base "#builtin.integer"
    irdl.attributes {"label" = %3, "layer" = %4, "target" = %5, "cost" = %6, "size" = %7, "width" = %8, "alpha" = %9,
                     "limit" = %10, "dtype" = %11, "slots" = %12}
  }
  irdl.operation @add {
    %0 = irdl.base @kernel::@buffer
    %1 = irdl.base @kernel::@buffer
    %2 = irdl.base @kernel::@buffer
    irdl.operands(a: %0, b: %1, out: %2)
    %3 = irdl.base "#builtin.string"
    %4 = irdl.base "#builtin.integer"
    %5 = irdl.base "#builtin.string"
    %6 = irdl.base "#builtin.array"
    %7 = irdl.base "#builtin.string"
    %8 = irdl.base "#builtin.integer"
    %9 = irdl.base "#builtin.string"
    irdl.attributes {"label" = %3, "layer" = %4, "target" = %5, "cost" = %6, "size" = %7, "width" = %8, "dtype" = %9}
  }
  irdl.operation @add_ranks {
    %0 = irdl.base @kernel::@buffer
    %1 = irdl.base @kernel::@buffer
    %2 = irdl.base @kernel::@buffer
    irdl.operands(x: %0, parts: %1, out: %2)
    %3 = irdl.base "#builtin.string"
    %4 = irdl.base "#builtin.integer"
    %5 = irdl.base "#builtin.string"
    %6 = irdl.base "#builtin.array"
    %7 = irdl.base "#builtin.string"
    %8 = irdl.base "#builtin.integer"
    %9 = irdl.base "#builtin.integer"
    %10 = irdl.base "#builtin.string"
    irdl.attributes {"label" = %3, "layer" = %4, "target" = %5, "cost" = %6, "size" = %7, "width" = %8,
                     "ranks" = %9, "dtype" = %10}
  }
  irdl.operation @join_ranks {
    %0 = irdl.base @kernel::@buffer
    %1 = irdl.base @kernel::@buffer
    %2 = irdl.base @kernel::@buffer
    irdl.operands(x: %0, parts: %1, out: %2)
    %3 = irdl.base "#builtin.string"
    %4 = irdl.base "#builtin.integer"
    %5 = irdl.base "#builtin.string"
    %6 = irdl.base "#builtin.array"
    %7 = irdl.base "#builtin.string"
    %8 = irdl.base "#builtin.integer"
    %9 = irdl.base "#builtin.integer"
    %10 = irdl.base "#builtin.string"
    irdl.attributes {"label" = %3, "layer" = %4, "target" = %5, "cost" = %6, "size" = %7, "width" = %8,
                     "ranks" = %9, "dtype" = %10}
  }
  irdl.operation @slice {
    %0 = irdl.base @kernel::@buffer
    %1 = irdl.base @kernel::@buffer
    irdl.operands(x: %0, out: %1)
    %2 = irdl.base "#builtin.string"
    %3 = irdl.base "#builtin.integer"
    %4 = irdl.base "#builtin.string"
    %5 = irdl.base "#builtin.array"
    %6 = irdl.base "#builtin.string"
    %7 = irdl.base "#builtin.integer"
    %8 = irdl.base "#builtin.integer"
    %9 = irdl.base "#builtin.integer"
    %10 = irdl.base "#builtin.string"
    irdl.attributes {"label" = %2, "layer" = %3, "target" = %4, "cost" = %5, "size" = %6, "x_width" = %7,
                     "width" = %8, "offset" = %9, "dtype" = %10}
  }
  irdl.operation @select_rows {
    %0 = irdl.base @kernel::@buffer
    %1 = irdl.base @kernel::@buffer
    %2 = irdl.base @kernel::@buffer
    irdl.operands(x: %0, logit_rows: %1, out: %2)
    %3 = irdl.base "#builtin.string"
    %4 = irdl.base "#builtin.integer"
    %5 = irdl.base "#builtin.string"
    %6 = irdl.base "#builtin.array"
    %7 = irdl.base "#builtin.integer"
    %8 = irdl.base "#builtin.string"
    irdl.attributes {"label" = %3, "layer" = %4, "target" = %5, "cost" = %6, "width" = %7, "dtype" = %8}
  }
  irdl.operation @sample {
    %0 = irdl.base @kernel::@buffer
    %1 = irdl.base @kernel::@buffer
    %2 = irdl.base @kernel::@buffer
    irdl.operands(logits: %0, sampling: %1, sampled: %2)
    %3 = irdl.base "#builtin.string"
    %4 = irdl.base "#builtin.integer"
    %5 = irdl.base "#builtin.string"
    %6 = irdl.base "#builtin.array"
    %7 = irdl.base "#builtin.integer"
    irdl.attributes {"label" = %3, "layer" = %4, "target" = %5, "cost" = %6, "vocabulary" = %7}
  }
  irdl.operation @logprobs {
    %0 = irdl.base @kernel::@buffer
    %1 = irdl.base @kernel::@buffer
    %2 = irdl.base @kernel::@buffer
    %3 = irdl.base @kernel::@buffer
    irdl.operands(logits: %0, sampling: %1, sampled: %2, logprobs: %3)
    %4 = irdl.base "#builtin.string"
    %5 = irdl.base "#builtin.integer"
    %6 = irdl.base "#builtin.string"
    %7 = irdl.base "#builtin.array"
    %8 = irdl.base "#builtin.integer"
    irdl.attributes {"label" = %4, "layer" = %5, "target" = %6, "cost" = %7, "vocabulary" = %8}
  }
}
