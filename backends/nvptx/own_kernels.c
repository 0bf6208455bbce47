#include "backends/nvptx/own_kernels.h"

const own_kernel nvptx_own_kernels[] = {{"block_score", nvptx_block_score},
                                        {"topk_blocks", nvptx_topk_blocks},
                                        {"topk_attention", nvptx_topk_attention},
                                        {"attention_part", nvptx_attention_part},
                                        {"attention_merge", nvptx_attention_merge},
                                        {"router_logits", nvptx_router_logits},
                                        {"attention", nvptx_tile_attention},
                                        {"block_attention", nvptx_tile_block_attention},
                                        {NULL, NULL}};
