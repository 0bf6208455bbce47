/* Matrix instructions of a warpgroup, four warps beside each other: they read workgroup memory themselves, and run
 * beside what the lanes do until these wait for them. For kernels whose tensor cores are the bottleneck.
 *
 *     wgmma_begin                     registers and memory are ready
 *     wgmma, wgmma, ...               sums += A B
 *     wgmma_commit                    ends a group
 *     ...                             anything that touches neither the sums nor the memory
 *     wgmma_wait(0)                   the groups are done
 *     wgmma_settle                    the sums may be read
 *
 * In between nothing may read or write the sums: ptxas would put waits between the instructions, says so (C75xx), and
 * the kernel is refused (ptxas.c).
 */
#ifndef BACKENDS_NVPTX_WGMMA_H
#define BACKENDS_NVPTX_WGMMA_H

#include "backends/nvptx/mma.h"

enum {
  WARPGROUP = 128,     /* lanes */
  WGMMA_ROWS = 64,     /* of A */
  WGMMA_DEPTH = 16,    /* columns of A and B, bf16 */
  WGMMA_COLUMNS = 192, /* rows of B, at most here; multiples of 8 */
  SWIZZLE_ROW_BYTES = 128
};

/* Sums of 64 x `columns`, f32: locals. Value 4j + i of a lane is that of row 16 w + g (i < 2) or 16 w + g + 8 and of
 * column 8j + 2t + i % 2, where w is its warp's number in the warpgroup, g = lane / 4 and t = lane % 4 in the warp. */
typedef struct wgmma_sums {
  unsigned columns;
  V value[WGMMA_COLUMNS / 2];
} wgmma_sums;
wgmma_sums wgmma_take(emitter *e, unsigned columns);
void wgmma_set_zero(emitter *e, const wgmma_sums *sums);

/* Where an operand lies in workgroup memory, as the instruction takes it (i64). Rows of A and rows of B are alike: each
 * has its columns, 16 bytes of 8 of them at a time.
 *
 *   core      8 rows of 16 bytes, one behind the other (128 bytes); `depth_bytes` from those to the ones of the next 8
 *             columns, `row_bytes` to those of the next 8 rows
 *   swizzled  rows of 64 columns, 128 bytes, one behind the other from a multiple of 1024: piece p of 16 bytes of row r
 *             lies at piece p ^ (r % 8) */
V wgmma_core_operand(emitter *e, V address, int64_t depth_bytes, int64_t row_bytes);
V wgmma_swizzled_operand(emitter *e, V address);
/* The same operand `bytes` further on, a multiple of 16. */
V wgmma_operand_at(emitter *e, V operand, int64_t bytes);

void wgmma_begin(emitter *e);
/* sums += A B for 16 columns of A and B; sums = A B where nothing is to be `added`. */
void wgmma(emitter *e, const wgmma_sums *sums, V a, V b, bool added);
/* The same with A in registers: a lane's words of mma_bf16, rows as the sums have them. */
void wgmma_registers(emitter *e, const wgmma_sums *sums, const V a[4], V b);
void wgmma_commit(emitter *e);
/* Until all of the warpgroup's groups but the last `left` are done. */
void wgmma_wait(emitter *e, unsigned left);
void wgmma_settle(emitter *e, const wgmma_sums *sums);

/* What lanes wrote to workgroup memory, or saw written, can be read by matrix instructions and the copy engine. */
void async_fence(emitter *e);
/* The warpgroup's lanes have `count` registers from here on, a multiple of 8: fewer than the kernel began with, or,
 * once others gave theirs back, more. */
void registers_release(emitter *e, unsigned count);
void registers_claim(emitter *e, unsigned count);

#endif
