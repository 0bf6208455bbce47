/* Kernels of NVIDIA GPUs alone, for families that are hot; see atoms.own_kernels. Each emits the kernel at hand, or
 * says why its shape is not one of its own (`decline`) before it has emitted anything. */
#ifndef BACKENDS_NVPTX_OWN_KERNELS_H
#define BACKENDS_NVPTX_OWN_KERNELS_H

#include "backends/common/emit.h"

extern const own_kernel nvptx_own_kernels[];
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
