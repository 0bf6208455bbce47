/* All kernel families (docs/ir.md, "kernel ops") that every target has. */
#ifndef BACKENDS_COMMON_FAMILIES_H
#define BACKENDS_COMMON_FAMILIES_H

#include "backends/common/emit.h"

/* clang-format off */
#define KERNEL_FAMILIES(family)                                                                                        \
  /* rows.c */                                                                                                         \
  family(embed) family(rms_norm) family(select_rows) family(add) family(swiglu) family(slice) family(combine)          \
  /* ranks.c */                                                                                                        \
  family(add_ranks) family(join_ranks)                                                                                 \
  /* router.c */                                                                                                       \
  family(router) family(router_logits) family(topk_experts)                                                            \
  /* sort_experts.c, route.c */                                                                                        \
  family(sort_experts) family(route)                                                                                   \
  /* rope.c */                                                                                                         \
  family(head_norm) family(rope_table) family(rope) family(cache_append) family(norm_rope_append)                      \
  /* gemm.c */                                                                                                         \
  family(gemm) family(expert_gemm)                                                                                     \
  /* index.c */                                                                                                        \
  family(index_score) family(block_max) family(block_score) family(topk_blocks) family(index_select)                   \
  /* attention.c */                                                                                                    \
  family(attention) family(block_attention) family(select_attention)                                                   \
  /* sample.c, logprobs.c, synthetic.c */                                                                              \
  family(sample) family(logprobs) family(synthesize)
/* clang-format on */

#define KERNEL_FAMILY_DECLARATION(name) kernel_family family_##name;
KERNEL_FAMILIES(KERNEL_FAMILY_DECLARATION)
#undef KERNEL_FAMILY_DECLARATION

#endif
