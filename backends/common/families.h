/* All kernel families (docs/ir.md, "kernel ops"). Each is defined in the file named at its group. */
#ifndef BACKENDS_COMMON_FAMILIES_H
#define BACKENDS_COMMON_FAMILIES_H

#include "backends/common/emit.h"

/* Family name, in the order of the files that define them. */
#define KERNEL_FAMILIES(family)                                                                                        \
  family(embed) family(rms_norm) family(select_rows) family(add) family(swiglu) family(slice) family(combine)          \
      family(router) family(router_logits) family(topk_experts) family(sort_experts) family(route) family(head_norm)   \
          family(rope_table) family(rope) family(cache_append) family(norm_rope_append) family(gemm)                   \
              family(expert_gemm) family(index_score) family(block_max) family(block_score) family(topk_blocks)        \
                  family(index_select) family(attention) family(block_attention) family(select_attention)              \
                      family(sample) family(synthesize)

#define KERNEL_FAMILY_DECLARATION(name) kernel_family family_##name;
KERNEL_FAMILIES(KERNEL_FAMILY_DECLARATION)
#undef KERNEL_FAMILY_DECLARATION

#endif
