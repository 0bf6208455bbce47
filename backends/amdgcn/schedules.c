/* What the kernels of AMD GPUs can do: rows of the table of legal values, and the lanes and stages they have when
 * nobody chooses them. */
#include "backends/amdgcn/amdgcn.h"

enum { PANEL = 16, GROUP = 8, MANY_LANES = 512, MOST_WORKGROUPS = 1 << 20 };

#define PANELS {CHOOSE_PANEL, PANEL, PANEL, 1}, {CHOOSE_GROUP, GROUP, GROUP, 1}
#define ROWS_VALUES                                                                                                    \
  {CHOOSE_TILE_M, 8, 128, 8}, PANELS, {CHOOSE_SLICE, 16, 128, 16}, {CHOOSE_LANES, 64, 256, 64}, {CHOOSE_STAGES, 1, 8, 1}
#define STREAM_VALUES                                                                                                  \
  {CHOOSE_TILE_M, 8, 256, 8}, PANELS, {CHOOSE_SLICE, 16, 256, 16}, {CHOOSE_WORKGROUPS, 1, MOST_WORKGROUPS, 1},         \
      {CHOOSE_LANES, MANY_LANES, MANY_LANES, 1}, {CHOOSE_STAGES, 2, 10, 1}
#define APART {CHOOSE_APART, 0, 1, 1}

const family_schedule amdgcn_schedules[] = {
    {"gemm", SCHEDULE_ROWS, {ROWS_VALUES}, amdgcn_rows_relate},
    {"gemm", SCHEDULE_STREAM, {STREAM_VALUES}, amdgcn_stream_relate},
    {"expert_gemm", SCHEDULE_ROWS, {ROWS_VALUES, APART}, amdgcn_rows_relate},
    {"expert_gemm", SCHEDULE_STREAM, {STREAM_VALUES, APART}, amdgcn_stream_relate},
    {"attention_part", SCHEDULE_PARTS, {{CHOOSE_PARTS, 1, 2048, 1}, {CHOOSE_PART_ROWS, 16, 16, 1}}, NULL},
    {"attention_part", SCHEDULE_TILES, {{0}}, NULL},
    NO_SCHEDULE};

void amdgcn_complete(const char *target, const kernel_question *question, kernel_variant *variant) {
  if (variant->choice[CHOOSE_SCHEDULE] == SCHEDULE_ROWS)
    amdgcn_rows_complete(question, variant);
  else
    amdgcn_stream_complete(target, question, variant);
}
