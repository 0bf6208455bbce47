/* What a target is, in figures: what every kernel is checked against and what choices are made from. One table for each
 * target, in its folder of backends/. Knows neither LLVM nor MLIR.
 *
 * The words are those of any GPU: a PROCESSOR (NVIDIA: streaming multiprocessor, AMD: compute unit) runs WORKGROUPS,
 * each of a number of LANES (threads), a WAVE of which (warp, wavefront) runs in step; the lanes of a workgroup share
 * WORKGROUP MEMORY (shared memory, LDS). On the host a workgroup is one lane, and a core is the processor.
 */
#ifndef BACKENDS_COMMON_TARGET_H
#define BACKENDS_COMMON_TARGET_H

#include "sluice/status.h"

#include <stdbool.h>
#include <stdint.h>

/* Products of bf16 by matrix instructions, out = x w^T summed in f32, as the families gemm and expert_gemm use them: a
 * kernel's sizes are multiples of these. All 0: the target has none. */
typedef struct matrix_facts {
  uint32_t rows;    /* rows of x in a tile */
  uint32_t columns; /* columns of out, which are rows of w: in a panel, in a slice */
  uint32_t depth;   /* columns of x and w */
  uint32_t group;   /* columns of w that lie together in a panel, see SLUICE_LAYOUT_PANELS */
} matrix_facts;

typedef struct target_facts {
  uint32_t wave;        /* lanes, a power of two; 1 on the host */
  uint32_t lanes;       /* of a workgroup unless a family asks for another number; 1 on the host */
  uint32_t most_lanes;  /* of any workgroup */
  uint32_t processors;  /* 0: not known when compiling */
  uint32_t dies;        /* that share them, each with a cache of its own; workgroup i of a launch is on die i % dies;
                           0 counts as 1 */
  uint32_t registers;   /* of a lane, at most: words of 32 bits, on the host vectors of the widest kind */
  uint32_t vector;      /* f32 elements of a lane's widest useful vector: 16, 8, 4 */
  bool aligned_vectors; /* vectors lie at multiples of their size, see emitter.vector */
  uint32_t workgroup_bytes; /* workgroup memory of one workgroup, at most */
  uint32_t processor_bytes; /* workgroup memory of a processor, for all workgroups that it holds */
  uint32_t line_bytes;      /* of memory that is fetched together */
  bool overlaps;            /* launches may begin while those before them still run (atoms.overlap) */
  uint64_t grid[2];         /* workgroups of a launch in x and y, at most */
  matrix_facts matrix;
} target_facts;

/* Splits and checks a target name. "host" becomes the best level this machine has, e.g. "host:x86-64-v4-bf16"; products
 * ("h100") become what they stand for. `canonical` gets at most 32 bytes. An unknown target is an error that lists the
 * known ones. */
SLUICE_MUST_USE sluice_status *target_canonicalise(const char *name, char canonical[32]);

/* The facts of a canonical target. */
SLUICE_MUST_USE sluice_status *target_find_facts(const char *target, const target_facts **out_facts);

#endif
