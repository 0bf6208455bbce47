/* What the kernels of NVIDIA GPUs can do: rows of the table of legal values, and the lanes and stages they have when
 * nobody chooses them. */
#include "backends/nvptx/own_kernels.h"
#include "backends/nvptx/wide.h"

#include <string.h>

enum { PANEL = 16, GROUP = 8, MOST_WORKGROUPS = 1 << 16 };

/* The most panels of all matrices in a tile. */
static illegal_choice relate_turns(const char *target, const kernel_question *q, const int64_t v[]) {
  (void)target;
  const int64_t most = WIDE_PANELS / (q->pairs ? 2 : 1) * PANEL;
  return v[CHOOSE_SLICE] > most ? (illegal_choice){CHOOSE_SLICE, "at most", most} : (illegal_choice){0};
}

static illegal_choice relate_cluster(const char *target, const kernel_question *q, const int64_t v[]) {
  (void)target;
  (void)q;
  const int64_t size = v[CHOOSE_CLUSTER];
  return size & (size - 1) ? (illegal_choice){CHOOSE_CLUSTER, "a power of", 2} : (illegal_choice){0};
}

#define PANELS {CHOOSE_PANEL, PANEL, PANEL, 1}, {CHOOSE_GROUP, GROUP, GROUP, 1}
#define ROWS_VALUES                                                                                                    \
  {CHOOSE_TILE_M, 8, 64, 8}, PANELS, {CHOOSE_SLICE, 16, 128, 16}, {CHOOSE_LANES, 32, 256, 32}, {CHOOSE_STAGES, 1, 8, 1}
#define STREAM_VALUES                                                                                                  \
  {CHOOSE_TILE_M, 8, 128, 8}, PANELS, {CHOOSE_SLICE, 16, 96, 16}, {CHOOSE_WORKGROUPS, 1, MOST_WORKGROUPS, 1},          \
      {CHOOSE_LANES, 32, 256, 32}, {CHOOSE_STAGES, 2, 6, 1}
#define TURNS_VALUES                                                                                                   \
  {CHOOSE_TILE_M, WIDE_ROWS, WIDE_ROWS, 1}, PANELS, {CHOOSE_SLICE, 16, 256, 16},                                       \
      {CHOOSE_WORKGROUPS, 1, MOST_WORKGROUPS, 1}, {CHOOSE_LANES, WIDE_LANES, WIDE_LANES, 1},                           \
      {CHOOSE_STAGES, WIDE_STAGES, WIDE_STAGES, 1}
#define APART {CHOOSE_APART, 0, 1, 1}

const family_schedule nvptx_schedules[] = {
    {"gemm", SCHEDULE_ROWS, {ROWS_VALUES}, nvptx_rows_relate},
    {"gemm", SCHEDULE_STREAM, {STREAM_VALUES}, nvptx_stream_relate},
    {"gemm", SCHEDULE_TURNS, {TURNS_VALUES}, relate_turns},
    {"expert_gemm", SCHEDULE_ROWS, {ROWS_VALUES, APART}, nvptx_rows_relate},
    {"expert_gemm", SCHEDULE_STREAM, {STREAM_VALUES, APART}, nvptx_stream_relate},
    {"expert_gemm", SCHEDULE_TURNS, {TURNS_VALUES, APART}, relate_turns},
    {"attention_part", SCHEDULE_PARTS, {{CHOOSE_PARTS, 1, 528, 1}, {CHOOSE_PART_ROWS, 16, 16, 1}}, NULL},
    {"attention_part", SCHEDULE_TILES, {{0}}, NULL},
    {"topk_attention", SCHEDULE_CLUSTER, {{CHOOSE_CLUSTER, 1, 16, 1}, {CHOOSE_PER_PROCESSOR, 1, 4, 1}}, relate_cluster},
    {"topk_attention", SCHEDULE_TILES, {{0}}, NULL},
    NO_SCHEDULE};

void nvptx_complete(const char *target, const kernel_question *question, kernel_variant *variant) {
  (void)target;
  int64_t *choice = variant->choice;
  switch ((kernel_schedule)choice[CHOOSE_SCHEDULE]) {
  case SCHEDULE_ROWS:
    nvptx_rows_complete(question, variant);
    break;
  case SCHEDULE_STREAM:
    nvptx_stream_complete(question, variant);
    break;
  case SCHEDULE_TURNS:
    choice[CHOOSE_LANES] = WIDE_LANES;
    choice[CHOOSE_STAGES] = WIDE_STAGES;
    break;
  default:
    break;
  }
}
