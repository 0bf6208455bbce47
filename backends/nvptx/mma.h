/* Matrix instructions and the fragments they work on, for kernels of warps of 32 lanes. All names of lanes are those of
 * the PTX manual: g = lane / 4, t = lane % 4.
 */
#ifndef BACKENDS_NVPTX_MMA_H
#define BACKENDS_NVPTX_MMA_H

#include "backends/common/emit.h"

typedef struct lane_place {
  V warp; /* i64: number of the warp in the workgroup */
  V lane; /* i64: 0 .. 31 */
  V g, t; /* i64: lane / 4, lane % 4 */
} lane_place;
lane_place lane_place_of(emitter *e);
/* The same for the lane of this number (i64) in the workgroup. */
lane_place lane_place_from(emitter *e, V number);

/* PTX with operands $0, $1, ...: the result, if any, then `count` arguments. */
typedef enum assembly_kind {
  ASSEMBLY_PURE,      /* depends on its arguments alone */
  ASSEMBLY_EFFECT,    /* is neither moved nor dropped */
  ASSEMBLY_CONVERGENT /* nor made to depend on more conditions: lanes come to it together */
} assembly_kind;
V assembly(emitter *e, T result, const char *text, const char *constraints, V *arguments, unsigned count,
           assembly_kind kind);
/* The policy of READ_ONCE, as instructions with L2::cache_hint take it: i64. */
V read_once_policy(emitter *e);
/* Workgroup memory as its own instructions name it: i32. */
V shared_address(emitter *e, V pointer);

/* How memory is read: through all caches; past the L1 cache; or past it and so that it is the first to leave the L2
 * cache, which then keeps what others come back for. The last two stay where they are written, before a wait, say. */
typedef enum reading { READ, READ_PAST_L1, READ_ONCE } reading;

/* 16 bytes at `pointer` (aligned) as four i32; of global memory unless all caches are asked. */
typedef struct words {
  V word[4];
} words;
words load_words(emitter *e, V pointer, reading how);
/* The same into four locals. */
void load_words_into(emitter *e, V pointer, reading how, const V slots[4]);
/* 8 bytes likewise, in words 0 and 1. */
words load_two_words(emitter *e, V pointer);

/* ldmatrix: `count` (2 or 4) matrices of 8 rows of 16 bytes in workgroup memory; lane i has the address (i32) of row
 * i % 8 of matrix i / 8, and gets bytes 4t to 4t + 3 of row g of each. All lanes of the warp together. */
void load_matrices(emitter *e, V address, unsigned count, V out_words[4]);

/* accumulator (f32 x 4) += A (16 x 16 bf16) B (16 x 8 bf16): a[0], a[2] hold row g, a[1], a[3] row g + 8; a[0], a[1]
 * and b[0] hold columns (rows of B) 2t, 2t + 1, the others those plus 8; b[*] column g of B. The accumulator is row g
 * columns 2t, 2t + 1, then row g + 8. Which columns of A are called 2t is free, as long as B agrees. */
void mma_bf16(emitter *e, V accumulator[4], const V a[4], const V b[2]);

/* Two f32 as a pair of bf16, rounded to nearest even, `low` in the low half. */
V pack_bf16(emitter *e, V low, V high);

/* Word i of lane t of a quad becomes word t of lane i. */
void exchange_in_quad(emitter *e, const lane_place *lane, V word[4]);

/* A value (i64) that the compiler takes for a new one: what is computed from it again does not stay in registers
 * meanwhile. */
V renewed(emitter *e, V value);

/* The number of the lane's warp (i64), known to be the same in all its lanes. */
V uniform_warp(emitter *e, const lane_place *lane);

/* The value (f32, i32) of the lane whose number differs in the bits `distance`. */
V exchange_f32(emitter *e, V value, unsigned distance);
V exchange_i32(emitter *e, V value, unsigned distance);

#endif
