/* Buffer loads: memory from a scalar base, at the sum of a lane's offset, a scalar one and a constant. Against ordinary
 * loads they take one register for an address, not two, and the compiler leaves them where they are written: what is
 * loaded for the next turn of a loop is under way during this one.
 */
#ifndef BACKENDS_AMDGCN_BUFFER_H
#define BACKENDS_AMDGCN_BUFFER_H

#include "backends/common/emit.h"

/* Memory from `pointer` (the same in all lanes) on. Offsets are 32 bits: what is read must be within 4 GB. */
V buffer_open(emitter *e, V pointer);

typedef enum buffer_reading {
  BUFFER_READ,
  BUFFER_READ_ONCE /* the first to leave the caches, which keep what others come back for */
} buffer_reading;

/* 16 bytes (aligned) at buffer + lane_offset + offset + constant as <8 x i16>; the offsets are i32, `offset` is the
 * same in all lanes. */
V buffer_load(emitter *e, V buffer, V lane_offset, V offset, int64_t constant, buffer_reading how);

/* to - from, in bytes, i64. */
V byte_distance(emitter *e, V from, V to);

#endif
