/* The configurations of kernels: what is chosen where a family leaves something open.
 *
 *     (target, family, shape, range of sizes)  ->  variants of the kernel, each for a part of the range: its choices
 *
 * For example, a product of 6144 columns and depth 4096 in bf16 has on one GPU a variant with tiles of 8 rows for steps
 * of 0 to 8 tokens, and others for larger steps. Answers come from the records that were added, a tuner's, else from
 * the target's defaults; both are checked against what the family can do on the target. Passes write them into the IR
 * as attributes (docs/ir.md, "choose-tiles"), and whoever sizes a buffer or makes a kernel reads them there. Knows
 * neither LLVM nor MLIR.
 */
#ifndef BACKENDS_COMMON_CONFIGURATION_H
#define BACKENDS_COMMON_CONFIGURATION_H

#include "backends/common/target.h"

#include <stddef.h>

/* Names are those of the kernel ops' attributes; which family has which is listed at kernel_question. */
/* clang-format off */
#define KERNEL_CHOICES(choice)                                                                                         \
  choice(TILE_M, "tile_m")               /* rows of x in a workgroup's tile */                                         \
  choice(PANEL, "panel")                 /* rows of w that are packed together */                                      \
  choice(GROUP, "group")                 /* columns of w that are: 2, or those of the matrix instructions */           \
  choice(SLICE, "slice")                 /* columns of out that a workgroup has at a time */                           \
  choice(WORKGROUPS, "workgroups")       /* that share the columns; 0: each slice has one */                           \
  choice(APART, "apart")                 /* 1: the shared expert has launches of its own, 0: it is one more expert */  \
  choice(SPLIT, "split")                 /* 1: what the op does is several launches, with memory between them */       \
  choice(FEW, "few")                     /* steps of more tokens have a kernel made for many; 0: none have */            \
  choice(MANY, "many")                   /* 1: made for many tokens */                                                 \
  choice(QUERY_TILE, "query_tile")       /* tokens of a query tile */                                                  \
  choice(PARTS, "parts")                 /* workgroups that share the keys; 0: tiles of tokens */                                          \
  choice(PART_ROWS, "part_rows")         /* rows of each one's partial result */                                       \
  choice(CLUSTER, "cluster")             /* workgroups that share the blocks of a token and kv head; 0: tiles of tokens */                 \
  choice(PER_PROCESSOR, "per_processor") /* workgroups that a processor has room for, at least */                      \
  choice(CACHE_FIRST, "cache_first")     /* see sluice_plan_kernel */                                                  \
  choice(TRANSPOSED, "transposed_values") /* 1: pages hold values transposed and keys as rows; 0: the other way round */ \
  choice(SCHEDULE, "schedule")           /* a kernel_schedule */                                                       \
  choice(LANES, "lanes")                 /* of a workgroup */                                                          \
  choice(STAGES, "stages")               /* steps of the depth, or pages, that are under way at a time; 1: none is ahead */

/* How a kernel goes about its work; in the IR by these names. */
#define KERNEL_SCHEDULES(schedule)                                                                                     \
  schedule(TILES, "tiles")     /* each workgroup has a tile; without matrix instructions, or with them inside it */    \
  schedule(ROWS, "rows")       /* few rows of x: weights go from memory to registers, waves share the depth */         \
  schedule(STREAM, "stream")   /* workgroups share the columns; what they read passes through workgroup memory */      \
  schedule(TURNS, "turns")     /* workgroups stay and make one large tile after the other */                           \
  schedule(PARTS, "parts")     /* workgroups share the keys of a token, and their results are merged */                \
  schedule(CLUSTER, "cluster") /* those of a cluster share the blocks of a token */
/* clang-format on */

#define KERNEL_CHOICE_NAME(name, text) CHOOSE_##name,
typedef enum kernel_choice { KERNEL_CHOICES(KERNEL_CHOICE_NAME) CHOICE_COUNT } kernel_choice;
#undef KERNEL_CHOICE_NAME
const char *choice_name(kernel_choice choice);

#define KERNEL_SCHEDULE_NAME(name, text) SCHEDULE_##name,
typedef enum kernel_schedule { KERNEL_SCHEDULES(KERNEL_SCHEDULE_NAME) SCHEDULE_COUNT } kernel_schedule;
#undef KERNEL_SCHEDULE_NAME
const char *schedule_name(kernel_schedule schedule); /* "?" when there is none */
/* The schedule of a name; SCHEDULE_COUNT: none. */
kernel_schedule schedule_find(const char *name, size_t length);

/* What is asked. Fields that a family does not list are 0.
 *
 *   family          shape                                    sizes   choices
 *   gemm            n, k, pairs, matrix                      tokens  schedule tile_m panel group slice workgroups
 *                                                                    lanes stages
 *   expert_gemm     n, k, pairs, matrix                      tokens  the same, and apart
 *   router          n (experts), k (width)                   tokens  split panel many
 *   norm_rope_append  matrix                                 tokens  many
 *   attention       -                                        tokens  query_tile
 *   attention_part  heads, kv_heads, head_dim, page, matrix  tokens  schedule parts part_rows
 *   block_score     heads, head_dim, page, matrix            pages   split cache_first few many
 *   topk_attention  heads, kv_heads, head_dim, page, matrix  tokens  schedule cluster per_processor
 *   route           -                                        tokens  -
 *   join            -                                        tokens  -
 *   cache           -                                        tokens  transposed_values
 *
 * No variant at all: the target has no such kernel, or does not want it (route and join: in those steps). */
typedef struct kernel_question {
  const char *family;
  int64_t n, k; /* columns of out; depth */
  bool pairs;   /* two matrices, whose products become one */
  bool matrix;  /* operands are bf16 */
  int64_t heads, kv_heads, head_dim, page;
  uint32_t from, to; /* sizes, both included; 0 and UINT32_MAX: all */
} kernel_question;

/* Whether they differ in sizes at most. */
bool question_same_shape(const kernel_question *a, const kernel_question *b);

enum { MOST_VARIANTS = 16 };
typedef struct kernel_variant {
  uint32_t from, to;
  int64_t choice[CHOICE_COUNT];
} kernel_variant;
typedef struct kernel_variants {
  size_t count;
  kernel_variant item[MOST_VARIANTS]; /* ascending, one behind the other */
} kernel_variants;

typedef struct configuration configuration;

/* The defaults of a canonical target; free with configuration_close. */
SLUICE_MUST_USE sluice_status *configuration_open(const char *target, configuration **out_configuration);
void configuration_close(configuration *c); /* NULL is allowed */

/* From now on the kernels of all sizes add up alike: what a row's result is does not depend on the size of the step
 * (docs/kernels.md, "The same answer whatever the batch"). Records are not looked at: they were found for single sizes.
 */
void configuration_make_invariant(configuration *c);
const target_facts *configuration_facts(const configuration *c);

/* `variants` become the answer to `question`, whose `from` and `to` say for which sizes; later records go first. An
 * error when they are not legal. `question.family` is not copied. */
SLUICE_MUST_USE sluice_status *configuration_add(configuration *c, const kernel_question *question,
                                                 const kernel_variants *variants);

/* The answer, cut to the question's sizes. */
SLUICE_MUST_USE sluice_status *configuration_find(const configuration *c, const kernel_question *question,
                                                  kernel_variants *out_variants);

/* What has been asked for all sizes so far, each question once, in order; NULL behind the last. `*out_recorded`: a
 * record answered. */
const kernel_question *configuration_asked(const configuration *c, size_t index, bool *out_recorded);

/* The choices of a family; returns their number. */
size_t family_choices(const char *family, const kernel_choice **out_choices);

/* Whether there is a variant for each size. */
bool variants_cover(const kernel_variants *variants, uint32_t from, uint32_t to);
/* The variant for `size`; NULL: there is none. */
const kernel_variant *variants_at(const kernel_variants *variants, uint32_t size);
/* Puts `part` in the place of what the variants say for its sizes. False, and nothing done, when they become too many.
 */
bool variants_replace(kernel_variants *variants, const kernel_variant *part);
/* Makes one of neighbours that agree in all choices. */
void variants_merge(kernel_variants *variants);
/* Cuts each of two lists where the other has an end, so that both have variants for the same ranges. False, and nothing
 * done, when they become too many. */
bool variants_align(kernel_variants *a, kernel_variants *b);

/* SLUICE_INVALID unless the variants ascend and the family can do what they say on the target (legal.h). Of a question
 * without a shape only what does not depend on one is looked at. */
SLUICE_MUST_USE sluice_status *configuration_check(const configuration *c, const kernel_question *question,
                                                   const kernel_variants *variants);

/* Sets those choices of a variant that follow from the others and the shape (lanes, stages) to the target's defaults.
 */
void configuration_complete(const configuration *c, const kernel_question *question, kernel_variant *variant);

/* ---- a target's defaults, for those who write one ---- */

/* A kernel for products with a number of rows in [from, to]. */
typedef struct gemm_range {
  uint32_t tile_m, slice; /* rows of x and columns of out of one workgroup */
  uint32_t from, to;
  /* At most so many workgroups share a product's columns, each with at most `slice` at a time, those of both matrices
   * of a pair counted; 0: each slice has a workgroup. */
  uint32_t workgroups;
  /* For experts: the shared expert's products are launches of their own, tiled as these or, where they share columns,
   * as other products with so many rows; otherwise it is one more expert. */
  bool apart;
  /* In turns: the workgroups make tiles of the whole product, where its columns and its depth are multiples of
   * turn_multiple and at least turn_least; otherwise the range before goes on, which may have `from` behind `to` if it
   * is for such products alone. The rule is the same for both products
   * of experts, one's columns being the other's depth. 0: not in turns. */
  uint32_t turn_multiple, turn_least;
} gemm_range;
enum { MOST_GEMM_RANGES = 8 };

typedef struct target_tiles {
  uint32_t gemm_tile_m; /* rows of x of one workgroup */
  uint32_t gemm_panel;  /* rows of w in a panel = columns of out of one workgroup */
  uint32_t expert_tile_m;
  /* Products of bf16 with matrix instructions, when their depth suits facts.matrix: weights lie in panels of
   * matrix_panel rows; 0: the target has none. Ranges ascend and cover everything, the last one ends with UINT32_MAX;
   * for experts they are of the step's tokens. */
  uint32_t matrix_panel;
  gemm_range ranges[MOST_GEMM_RANGES], expert_ranges[MOST_GEMM_RANGES];
  uint32_t query_tile;  /* tokens of a query tile */
  bool split_selection; /* block scores go through memory: scoring, choosing and attention are launches of their own */
  /* With split_selection: scores of steps whose contexts have more pages than this prefer the cache, at the price of
   * sharing no processor with the attention before them; 0: there is no such choice. */
  uint32_t cache_first_pages;
  bool split_router; /* the router's logits and its choice are launches of their own */
  /* Steps of at most so many tokens have another kernel for the logits than larger ones; 0: all have the same. */
  uint32_t router_few;
  /* The same for heads on their way to attention and the cache: a wave has a head, beyond a workgroup a token. */
  uint32_t rope_few;
  uint32_t route_tokens; /* steps of at most this many tokens choose and sort in one launch; 0: none do */
  uint32_t join_tokens;  /* steps of at most this many tokens join launches; 0: none do */
  /* Attention in bf16 has kernels with matrix instructions, where heads have matrix_head_dim dimensions or less, a
   * multiple of matrix_head_step, groups at most matrix_group heads, and pages 16, 32, 64 or 128 tokens, at least
   * matrix_page; matrix_head_dim 0: no such kernels. Dense attention shares its keys among at most attention_parts
   * workgroups, each with a partial result of f32 [matrix_group][head_dim + 2] (outputs, then maximum and sum). Sparse
   * attention shares the blocks of a token and kv head among the workgroups of a cluster, the more the fewer of them a
   * step has, of which a processor has room for `per_processor` at least; no clusters: it does not. */
  uint32_t matrix_head_dim, matrix_head_step, matrix_group, matrix_page, attention_parts, cluster_count;
  struct {
    uint32_t size;
    uint32_t heads; /* for steps of at most so many tokens times kv heads; ascending, the last one for all others */
    uint32_t per_processor;
  } clusters[6];
  /* Steps of more tokens than many_tokens attend in tiles of several tokens, where pages have many_page tokens (0: any
   * number); many_tokens 0: none do. */
  uint32_t many_tokens, many_page;
  uint32_t many_rows;     /* rows of queries of a query tile whose blocks are scored so, at most */
  bool many_scores;       /* the kernel for many tokens scores blocks in all steps */
  bool transposed_values; /* pages hold values transposed and keys as rows, not the other way round */
} target_tiles;

#endif
