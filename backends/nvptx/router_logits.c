/* Logits of the router for many tokens with matrix instructions: family router_logits (m3.md 2.11).
 *
 * Its weights are float32. Each is the sum of three bf16, which three instructions multiply: the products are exact,
 * and only their additions round, as they do in the common kernel. A workgroup has 16 experts (the m side of
 * mma.m16n8k16) and 8 tokens; its warps share the depth.
 */
#include "backends/common/router.h"
#include "backends/nvptx/mma.h"
#include "backends/nvptx/own_kernels.h"

#include <string.h>

enum { EXPERTS = 16, TOKENS = 8, STEP = 16, WARPS = 8, MOST_UNROLL = 16, SPLITS = 3 };

/* Four f32 as SPLITS parts of two pairs of bf16, the largest first; the sum of the parts is the value. */
static void split(emitter *e, const words *value, V part[SPLITS][2]) {
  V rest[4];
  for (unsigned i = 0; i < 4; i++) rest[i] = bitcast(e, value->word[i], e->f32);
  for (unsigned s = 0; s < SPLITS; s++)
    for (unsigned i = 0; i < 2; i++) {
      V *pair = &rest[2 * i];
      part[s][i] = pack_bf16(e, pair[0], pair[1]);
      pair[0] = fsub_(e, pair[0], bitcast(e, shl(e, part[s][i], int32(e, 16)), e->f32));
      pair[1] = fsub_(e, pair[1], bitcast(e, and_(e, part[s][i], int32(e, (int32_t)0xffff0000)), e->f32));
    }
}

/* Logits of EXPERTS experts and TOKENS tokens. */
static void logits_of_tile(emitter *e, const router_logits *r, V first_expert, V first_token) {
  lane_place lane = lane_place_of(e);
  int64_t steps = r->width / STEP;
  unsigned unroll = 1;
  while (unroll < MOST_UNROLL && steps % (WARPS * unroll * 2) == 0) unroll *= 2;
  V last = sub(e, size_of(e, SLUICE_SIZE_TOKENS), int64(e, 1));
  V token = imin(e, add(e, first_token, lane.g), last);
  V column = mul(e, lane.t, int64(e, 4)); /* a lane has 4 neighbouring columns of each step */
  V x = element_of(e, SLUICE_BF16, e->argument[0], add(e, mul(e, token, int64(e, r->width)), column));
  V low = element(e, e->f32, e->argument[1], add(e, mul(e, add(e, first_expert, lane.g), int64(e, r->width)), column));
  V high = element(e, e->f32, low, int64(e, 8 * r->width));
  V sum[4];
  for (unsigned i = 0; i < 4; i++) sum[i] = local_set(e, e->f32, float32(e, 0));
  loop each = loop_begin(e, mul(e, lane.warp, int64(e, unroll)), int64(e, steps), int64(e, WARPS * unroll));
  words w[2][MOST_UNROLL], row[MOST_UNROLL];
  for (unsigned u = 0; u < unroll; u++) {
    V at = mul(e, add(e, each.index, int64(e, u)), int64(e, STEP));
    w[0][u] = load_words(e, element(e, e->f32, low, at), READ);
    w[1][u] = load_words(e, element(e, e->f32, high, at), READ);
    row[u] = load_two_words(e, element_of(e, SLUICE_BF16, x, at));
  }
  for (unsigned u = 0; u < unroll; u++) {
    V part[2][SPLITS][2], value[4];
    for (unsigned i = 0; i < 2; i++) split(e, &w[i][u], part[i]);
    for (unsigned i = 0; i < 4; i++) value[i] = get(e, e->f32, sum[i]);
    for (unsigned s = SPLITS; s-- > 0;) { /* the smallest first */
      V a[] = {part[0][s][0], part[1][s][0], part[0][s][1], part[1][s][1]};
      mma_bf16(e, value, a, row[u].word);
    }
    for (unsigned i = 0; i < 4; i++) set(e, sum[i], value[i]);
  }
  loop_end(e, &each);
  /* The warps' sums, added in their order: f32 [warp][token][expert]. */
  enum { TILE = EXPERTS * TOKENS };
  V partial = workgroup_take(e, WARPS * TILE * sizeof(float)), own = mul(e, lane.warp, int64(e, TILE));
  for (unsigned i = 0; i < 4; i++) {
    V of_token = add(e, mul(e, lane.t, int64(e, 2)), int64(e, i % 2)), of_expert = add(e, lane.g, int64(e, i / 2 * 8));
    V at = add(e, own, add(e, mul(e, of_token, int64(e, EXPERTS)), of_expert));
    store_f32(e, SLUICE_F32, get(e, e->f32, sum[i]), partial, at);
  }
  e->atoms->barrier(e);
  loop place = lane_loop(e, int64(e, 0), int64(e, TILE));
  V total = add_parts(e, partial, place.index, TILE, WARPS);
  V to = imin(e, add(e, first_token, udiv(e, place.index, int64(e, EXPERTS))), last);
  V expert = add(e, first_expert, urem(e, place.index, int64(e, EXPERTS)));
  store_f32(e, SLUICE_F32, total, e->argument[2], add(e, mul(e, to, int64(e, r->experts)), expert));
  loop_end(e, &place);
}

bool nvptx_router_logits(emitter *e, const kernel_spec *spec) {
  router_logits r;
  if (!read_router_logits(e, spec, &r)) return false;
  if (!attribute(e, "many")) return decline(e, "it is for few tokens");
  if (e->facts->lanes != WARPS * 32 || r.dtype != SLUICE_BF16 || r.experts % EXPERTS || r.width % STEP)
    return decline(e, "%lld experts and rows of %lld, expected multiples of %d and %d, and bf16", (long long)r.experts,
                   (long long)r.width, EXPERTS, STEP);
  kernel_begin(e, spec,
               (kernel_shape){.x = {SLUICE_SIZE_ONE, 1, (uint32_t)(r.experts / EXPERTS), 0},
                              .y = {SLUICE_SIZE_TOKENS, TOKENS, 1, 0},
                              .begins_early = true});
  V first_expert = mul(e, e->x, int64(e, EXPERTS));
  loop rows = loop_begin(e, e->y, int64(e, EXPERTS), extent_of(e, &e->grid[1]));
  V row = mul(e, add(e, first_expert, rows.index), int64(e, r.width));
  prefetch(e, element(e, e->f32, e->argument[1], row), r.width * (int64_t)sizeof(float));
  loop_end(e, &rows);
  await_previous(e);
  logits_of_tile(e, &r, first_expert, mul(e, e->y, int64(e, TOKENS)));
  kernel_end(e);
  return true;
}
