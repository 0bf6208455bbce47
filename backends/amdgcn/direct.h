/* Loads from memory straight to LDS, and what keeps them on their way: waits that count, barriers that wait for
 * nothing.
 *
 * A wave's load writes LDS linearly: lane l's bytes come to `to` + l * bytes. Where in memory they come from is each
 * lane's own affair. So a layout of LDS that has no bank conflicts is made by the addresses in memory.
 *
 * The compiler does not know which load fills what is read: it is told that reads by direct_read have nothing to do
 * with these loads, and whoever uses both counts himself and hides that he reads a place again. Loads come in order, so
 * "all but the last N" is what direct_wait can wait for.
 */
#ifndef BACKENDS_AMDGCN_DIRECT_H
#define BACKENDS_AMDGCN_DIRECT_H

#include "backends/common/emit.h"

/* Bytes of a lane in one load: 16 on gfx950, 4 on gfx942. */
unsigned direct_bytes(const emitter *e);

/* LDS from generic `memory` (of workgroup_take) on. */
V direct_memory(emitter *e, V memory);

/* Loads direct_bytes a lane from buffer + lane_offset + offset to `to` + its lane's place, both plus `constant` (below
 * 4096). `to` (a pointer to LDS) and `offset` (i32) are the same in all lanes. */
void direct_load(emitter *e, V buffer, V to, V lane_offset, V offset, unsigned constant);

/* 16 bytes of LDS at from + offset + constant (bytes; `offset` is i32) as <8 x i16>. */
V direct_read(emitter *e, V from, V offset, int64_t constant);

/* Waits until all but the wave's last `count` (at most 63) loads are there. */
void direct_wait(emitter *e, unsigned count);
/* Waits until what the wave reads of LDS is in registers. */
void direct_wait_reads(emitter *e);

/* All waves of the workgroup come here before one goes on. What is not waited for before may come later. No instruction
 * is moved across it. */
void direct_barrier(emitter *e);

/* No instruction is moved across it. */
void wave_order(emitter *e);

/* Of a processor's waves those of the highest priority (0 to 3) issue first. No instruction is moved across it. */
void wave_priority(emitter *e, int priority);

/* One call after another says in which order instructions come between two barriers, waits or changes of priority. */
typedef enum scheduled { MATRIX_INSTRUCTIONS = 8, DIRECT_LOADS = 16 } scheduled;
void direct_schedule(emitter *e, scheduled kind, unsigned count);

#endif
