/* Kernels of NVIDIA GPUs alone, for families that are hot; see atoms.own_kernels. Each emits the kernel at hand, or
 * says why its shape is not one of its own (`decline`) before it has emitted anything. */
#ifndef BACKENDS_NVPTX_OWN_KERNELS_H
#define BACKENDS_NVPTX_OWN_KERNELS_H

#include "backends/common/emit.h"
#include "backends/common/legal.h"

extern const own_kernel nvptx_own_kernels[];
/* What they can do, and the lanes and stages that they have by default; see backend. */
extern const family_schedule nvptx_schedules[];
void nvptx_complete(const char *target, const kernel_question *question, kernel_variant *variant);
void nvptx_rows_complete(const kernel_question *question, kernel_variant *variant);
illegal_choice nvptx_rows_relate(const char *target, const kernel_question *question, const int64_t choice[]);
void nvptx_stream_complete(const kernel_question *question, kernel_variant *variant);
illegal_choice nvptx_stream_relate(const char *target, const kernel_question *question, const int64_t choice[]);

extern const struct gemm_engine nvptx_gemm;               /* skinny.c */
extern const struct gemm_stream_engine nvptx_gemm_stream; /* stream.c, and wide.c for tiles in turns */

bool nvptx_router_logits(emitter *e, const kernel_spec *spec); /* router_logits.c */
bool nvptx_block_score(emitter *e, const kernel_spec *spec);   /* block_score.c */
bool nvptx_tile_score(emitter *e, const kernel_spec *spec);    /* tile_score.c */
bool nvptx_topk_blocks(emitter *e, const kernel_spec *spec);   /* topk.c */

bool nvptx_tile_attention(emitter *e, const kernel_spec *spec); /* tile_attention.c */
bool nvptx_tile_block_attention(emitter *e, const kernel_spec *spec);

bool nvptx_topk_attention(emitter *e, const kernel_spec *spec); /* token_attention.c */
bool nvptx_attention_part(emitter *e, const kernel_spec *spec);
bool nvptx_attention_merge(emitter *e, const kernel_spec *spec);

#endif
