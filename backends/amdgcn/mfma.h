/* Matrix instructions of CDNA 3 and 4 (MFMA) as data, bf16 in and f32 out. "AMD Instinct MI300 ISA" and "... CDNA4
 * ISA", chapter "Matrix Arithmetic Instructions", say which lane holds what. */
#ifndef BACKENDS_AMDGCN_MFMA_H
#define BACKENDS_AMDGCN_MFMA_H

#include "backends/common/fragment.h"

/* Both chips: operands of 8 bf16 a lane, 16 bytes, whose depths lie together. gfx950 multiplies them by one
 * instruction, gfx942 by two, each with four of a lane's depths. */
extern const matrix_instruction mfma_16x16; /* 16 x 16, depth 32 */
extern const matrix_instruction mfma_32x32; /* 32 x 32, depth 16 */

/* Machine instructions of one of them. */
unsigned mfma_instructions(const emitter *e);

#endif
