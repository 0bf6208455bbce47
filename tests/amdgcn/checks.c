/* What hardware does not check: registers that are used while a load is on its way, and instructions that follow each
 * other too soon. The rules are those of the CDNA3 and CDNA4 ISA documents (section "manually inserted wait states") as
 * LLVM's hazard recogniser has them.
 *
 * A wave keeps a queue of memory operations that have been issued and not been waited for. s_waitcnt takes them off:
 * vmcnt(n) leaves the n newest of global, buffer and scratch operations, which return in order; lgkmcnt(n) leaves the n
 * newest LDS operations, which return in order among themselves, but nothing is sure of scalar loads, which come in any
 * order, unless n is 0. A flat access counts in both and returns whenever it likes: only zeros are sure of it. */
#include "machine.h"
#include <stdio.h>
#include <stdlib.h>

/* Clocks of the last events, by register: what later instructions may be too close to. */
struct hazard_state {
  uint64_t vector_write[VECTORS]; /* by vector arithmetic but matrix instructions */
  uint64_t matrix_write[VECTORS];
  const instruction *matrix_writer[VECTORS];
  uint64_t matrix_c[VECTORS]; /* read as an accumulator by a matrix instruction that is not float32 or float64 */
  const instruction *matrix_c_reader[VECTORS];
  const instruction *dot_writer[VECTORS];
  uint64_t wide_store[VECTORS];   /* data of a store of more than two registers */
  uint64_t scalar_write[SCALARS]; /* by vector arithmetic */
  uint64_t last_transcendental, last_partial, last_scalar, last_matrix, last_wide_store;
  uint64_t transcendental[VECTORS], partial[VECTORS];
  uint64_t m0_write, set_register;
};

sluice_status *checks_create(wave_storage *storage) {
  storage->queue = malloc(MAX_OUTSTANDING * sizeof *storage->queue);
  storage->hazards = calloc(1, sizeof *storage->hazards);
  return storage->queue && storage->hazards ? NULL : sluice_out_of_memory();
}

void checks_reset(wave *w) {
  w->queue_length = w->direct_loads = 0;
  memset(w->loading, 0, sizeof w->loading);
  memset(w->loading_scalars, 0, sizeof w->loading_scalars);
  w->clock += 1000; /* what is noted so far is long ago */
}

/* ---- The queue ---- */

static void rebuild(wave *w) {
  w->direct_loads = 0;
  memset(w->loading, 0, sizeof w->loading);
  memset(w->loading_scalars, 0, sizeof w->loading_scalars);
  for (uint32_t k = 0; k < w->queue_length; k++) {
    const instruction *i = w->queue[k].instruction;
    w->direct_loads += i->memory.to_lds;
    for (unsigned n = 0; n < REGISTER_WORDS; n++) w->loading[n] |= i->vector_writes[n];
    for (unsigned n = 0; n < 2; n++) w->loading_scalars[n] |= i->scalar_writes[n];
  }
}

outstanding *note_outstanding(wave *w, const instruction *i, outstanding_kind kind) {
  if (!w->launch->checked) return NULL;
  if (w->queue_length == MAX_OUTSTANDING) wait_for(w, 62, 14); /* the counters hold no more: issuing waits */
  outstanding *o = &w->queue[w->queue_length++];
  o->kind = kind;
  o->instruction = i;
  o->counted_vector = kind == OUTSTANDING_VECTOR_MEMORY || kind == OUTSTANDING_FLAT;
  o->counted_lds = kind != OUTSTANDING_VECTOR_MEMORY;
  o->store_time = 0;
  o->writes_lds = o->reads_lds = false;
  w->direct_loads += i->memory.to_lds;
  for (unsigned n = 0; n < REGISTER_WORDS; n++) w->loading[n] |= i->vector_writes[n];
  for (unsigned n = 0; n < 2; n++) w->loading_scalars[n] |= i->scalar_writes[n];
  return o;
}

void wait_for(wave *w, unsigned vector_memory, unsigned lds_and_scalar) {
  unsigned in_vector = 0, in_lds = 0;
  bool flat = false;
  for (uint32_t k = 0; k < w->queue_length; k++) {
    in_vector += w->queue[k].counted_vector;
    in_lds += w->queue[k].counted_lds && w->queue[k].kind == OUTSTANDING_LDS;
    flat = flat || w->queue[k].kind == OUTSTANDING_FLAT;
  }
  uint32_t kept = 0, *completed = &w->launch->completed_stores[w->serial - w->launch->first_serial];
  for (uint32_t k = 0; k < w->queue_length; k++) {
    outstanding *o = &w->queue[k];
    if (o->counted_vector && (vector_memory == 0 || (!flat && in_vector > vector_memory))) {
      o->counted_vector = false;
      in_vector--;
    }
    if (o->counted_lds && (lds_and_scalar == 0 || (o->kind == OUTSTANDING_LDS && !flat && in_lds > lds_and_scalar))) {
      o->counted_lds = false;
      in_lds -= o->kind == OUTSTANDING_LDS;
    }
    if (o->counted_vector || o->counted_lds) {
      if (kept != k) w->queue[kept] = *o;
      kept++;
    } else if (o->store_time > *completed) {
      *completed = o->store_time;
    }
  }
  if (kept == w->queue_length) return;
  w->queue_length = kept;
  rebuild(w);
}

static const char *loader_of(const wave *w, bool vector, unsigned index) {
  for (uint32_t k = w->queue_length; k-- > 0;) {
    const instruction *i = w->queue[k].instruction;
    uint64_t bits = vector ? i->vector_writes[index / 64] : i->scalar_writes[index / 64];
    if (bits >> (index % 64) & 1) return i->text;
  }
  return "?";
}

static void register_name(char *text, size_t size, bool vector, unsigned index) {
  if (!vector && index >= REGISTER_VCC)
    snprintf(text, size, "%s", index < REGISTER_TTMP ? "vcc" : index == REGISTER_M0 ? "m0" : "exec");
  else
    snprintf(text, size, "%c%u", vector ? (index < 256 ? 'v' : 'a') : 's', vector ? index % 256 : index);
}

static bool fault_outstanding(wave *w, gcn_fault_kind kind, bool vector, unsigned index) {
  char name[8];
  register_name(name, sizeof name, vector, index);
  wave_fault(w, kind, -1, "%s, before s_waitcnt for %s", name, loader_of(w, vector, index));
  return false;
}

/* Global loads return in order, so one may follow another into the same register. */
static bool is_ordered_load(const wave *w, const instruction *i) {
  if (i->class != CLASS_MEMORY || i->memory.space == SPACE_FLAT) return false;
  for (uint32_t k = 0; k < w->queue_length; k++) {
    const instruction *other = w->queue[k].instruction;
    if (w->queue[k].kind == OUTSTANDING_VECTOR_MEMORY) continue;
    for (unsigned n = 0; n < REGISTER_WORDS; n++) {
      if (other->vector_writes[n] & i->vector_writes[n]) return false;
    }
  }
  return true;
}

static bool check_outstanding(wave *w, const instruction *i) {
  for (unsigned n = 0; n < REGISTER_WORDS; n++) {
    uint64_t hit = i->vector_reads[n] & w->loading[n];
    if (hit) return fault_outstanding(w, GCN_FAULT_OUTSTANDING_READ, true, 64 * n + (unsigned)__builtin_ctzll(hit));
  }
  for (unsigned n = 0; n < 2; n++) {
    uint64_t hit = i->scalar_reads[n] & w->loading_scalars[n];
    if (hit) return fault_outstanding(w, GCN_FAULT_OUTSTANDING_READ, false, 64 * n + (unsigned)__builtin_ctzll(hit));
    hit = i->scalar_writes[n] & w->loading_scalars[n];
    if (hit) return fault_outstanding(w, GCN_FAULT_OUTSTANDING_WRITE, false, 64 * n + (unsigned)__builtin_ctzll(hit));
  }
  for (unsigned n = 0; n < REGISTER_WORDS; n++) {
    uint64_t hit = i->vector_writes[n] & w->loading[n];
    if (hit && !is_ordered_load(w, i)) {
      return fault_outstanding(w, GCN_FAULT_OUTSTANDING_WRITE, true, 64 * n + (unsigned)__builtin_ctzll(hit));
    }
  }
  return true;
}

/* ---- Wait states ---- */

static bool fault_hazard(wave *w, uint64_t since, unsigned needed, bool vector, unsigned index, const char *rule) {
  char name[8];
  register_name(name, sizeof name, vector, index);
  wave_fault(w, GCN_FAULT_HAZARD, -1, "%s: %s needs %u wait states, has %u", name, rule, needed,
             (unsigned)(w->clock - since - 1));
  return false;
}

static inline bool too_soon(const wave *w, uint64_t since, unsigned needed) {
  return w->clock - since <= needed;
}

#define EACH_REGISTER(words, count, index)                                                                             \
  for (unsigned word_ = 0; word_ < (count); word_++)                                                                   \
    for (uint64_t bits_ = (words)[word_], once_ = 0; bits_; bits_ &= bits_ - 1)                                        \
      for (unsigned index = (once_ = 1, 64 * word_ + (unsigned)__builtin_ctzll(bits_)); once_; once_ = 0)

static bool is_wide_float(const instruction *i) {
  return i->class == CLASS_MATRIX && i->matrix.type_a == 9;
}

/* Wait states before the result of a matrix instruction may be read, or overwritten, by anything but one of its kind.
 */
static unsigned after_matrix(const wave *w, const instruction *writer, bool memory) {
  const matrix_shape *m = &writer->matrix;
  bool newer = w->launch->machine->target == GCN_GFX950;
  if (is_wide_float(writer)) {
    if (m->rows == 4) return memory ? 9 : 6;
    return memory ? 18 : newer ? 19 : 11;
  }
  if (!m->xdl) return m->passes + 2u;
  return m->passes + 3u + (newer && m->passes > 2);
}

static unsigned matrix_after_matrix(const wave *w, const instruction *i, const instruction *writer, bool same_c,
                                    bool is_c) {
  const matrix_shape *m = &writer->matrix;
  bool newer = w->launch->machine->target == GCN_GFX950;
  if (!is_c) return after_matrix(w, writer, false);
  if (same_c) {
    if (is_wide_float(writer) && m->rows == 4) return is_wide_float(i) && i->matrix.rows == 4 ? 4 : 0;
    return m->passes == 2 ? 2 : 0;
  }
  if (i->matrix.xdl && !m->xdl) return 0;
  if (is_wide_float(writer)) return m->rows == 4 ? 4 : newer ? 17 : 9;
  if (!m->xdl) return m->passes;
  return m->passes + 1u + (newer && m->passes > 2);
}

static bool check_matrix(wave *w, const instruction *i) {
  struct hazard_state *h = w->hazards;
  for (unsigned k = 1; k < i->operands; k++) {
    const operand *o = &i->operand[k];
    if (o->kind != OPERAND_VECTOR) continue;
    for (unsigned r = o->index; r < o->index + (unsigned)o->registers; r++) {
      if (too_soon(w, h->vector_write[r], 2)) {
        return fault_hazard(w, h->vector_write[r], 2, true, r,
                            "vector arithmetic, then a matrix instruction that reads it,");
      }
      if (!too_soon(w, h->matrix_write[r], 40)) continue;
      const instruction *writer = h->matrix_writer[r];
      bool same = k == 3 && writer->operand[0].index == o->index && writer->operand[0].registers == o->registers;
      unsigned needed = matrix_after_matrix(w, i, writer, same, k == 3);
      if (too_soon(w, h->matrix_write[r], needed)) {
        return fault_hazard(w, h->matrix_write[r], needed, true, r,
                            "a matrix instruction, then another that reads it,");
      }
    }
  }
  for (unsigned r = REGISTER_EXEC; r < SCALARS; r++) {
    if (too_soon(w, h->scalar_write[r], 4))
      return fault_hazard(w, h->scalar_write[r], 4, false, r, "v_cmpx, then a matrix instruction,");
  }
  return true;
}

/* Vector arithmetic and memory instructions behind matrix and dot product instructions. */
static bool check_behind_matrix(wave *w, const instruction *i) {
  struct hazard_state *h = w->hazards;
  bool memory = i->class != CLASS_VECTOR;
  EACH_REGISTER(i->vector_reads, REGISTER_WORDS, r) {
    if (!too_soon(w, h->matrix_write[r], 40)) continue;
    unsigned needed = after_matrix(w, h->matrix_writer[r], memory);
    if (too_soon(w, h->matrix_write[r], needed)) {
      return fault_hazard(w, h->matrix_write[r], needed, true, r, "reading what a matrix instruction wrote");
    }
  }
  EACH_REGISTER(i->vector_writes, REGISTER_WORDS, r) {
    if (too_soon(w, h->matrix_write[r], 40)) {
      unsigned needed = after_matrix(w, h->matrix_writer[r], false);
      if (too_soon(w, h->matrix_write[r], needed)) {
        return fault_hazard(w, h->matrix_write[r], needed, true, r, "writing over what a matrix instruction wrote");
      }
    }
    if (!too_soon(w, h->matrix_c[r], 16)) continue;
    unsigned needed = h->matrix_c_reader[r]->matrix.passes - 1u;
    if (too_soon(w, h->matrix_c[r], needed)) {
      return fault_hazard(w, h->matrix_c[r], needed, true, r, "writing over a matrix instruction's accumulator");
    }
  }
  return true;
}

static bool check_dots(wave *w, const instruction *i) {
  struct hazard_state *h = w->hazards;
  EACH_REGISTER(i->vector_reads, REGISTER_WORDS, r) {
    const instruction *writer = h->dot_writer[r];
    if (!writer || !too_soon(w, h->vector_write[r], 3)) continue;
    const operand *c = i->op && (i->op->flags & OP_ACCUMULATE) ? &i->operand[0] : &i->operand[3];
    bool accumulates = i->op == writer->op && c->kind == OPERAND_VECTOR && c->index == r;
    if (!accumulates) return fault_hazard(w, h->vector_write[r], 3, true, r, "reading what a dot product wrote");
  }
  EACH_REGISTER(i->vector_writes, REGISTER_WORDS, r) {
    const instruction *writer = h->dot_writer[r];
    if (!writer || !too_soon(w, h->vector_write[r], 3) || i->op == writer->op) continue;
    return fault_hazard(w, h->vector_write[r], 3, true, r, "writing over what a dot product wrote");
  }
  return true;
}

static bool check_vector_sources(wave *w, const instruction *i) {
  struct hazard_state *h = w->hazards;
  bool transcendental = i->op && (i->op->flags & OP_TRANSCENDENTAL), swap = i->rule == RULE_PERMLANE,
       access = i->rule == RULE_LANE_ACCESS;
  if (!too_soon(w, h->last_transcendental, 1) && !too_soon(w, h->last_partial, 1) && !i->dpp && !access && !swap)
    return true;
  EACH_REGISTER(i->vector_reads, REGISTER_WORDS, r) {
    if (!transcendental && too_soon(w, h->transcendental[r], 1)) {
      return fault_hazard(w, h->transcendental[r], 1, true, r, "reading what a transcendental instruction wrote");
    }
    if (too_soon(w, h->partial[r], 1)) {
      return fault_hazard(w, h->partial[r], 1, true, r, "reading a register of which a part was written");
    }
    if (i->dpp && too_soon(w, h->vector_write[r], 2))
      return fault_hazard(w, h->vector_write[r], 2, true, r, "reading it through DPP");
    if (swap && too_soon(w, h->vector_write[r], 2))
      return fault_hazard(w, h->vector_write[r], 2, true, r, "v_permlane_swap");
    /* v_writelane keeps the other lanes of its register, and does not read it for that. */
    bool written = i->vector_writes[r / 64] >> r % 64 & 1;
    if (access && !written && too_soon(w, h->vector_write[r], 1)) {
      return fault_hazard(w, h->vector_write[r], 1, true, r, "reading a lane of it");
    }
  }
  return true;
}

static bool check_vector_scalars(wave *w, const instruction *i) {
  struct hazard_state *h = w->hazards;
  if (!too_soon(w, h->last_scalar, 5)) return true;
  const operand *lane = &i->operand[2];
  bool access = i->rule == RULE_LANE_ACCESS, selects = access && i->operands == 3 && lane->kind == OPERAND_SCALAR;
  if (selects && too_soon(w, h->scalar_write[lane->index], 4)) {
    return fault_hazard(w, h->scalar_write[lane->index], 4, false, lane->index, "selecting a lane by it");
  }
  EACH_REGISTER(i->scalar_reads, 2, r) {
    unsigned needed = i->rule == RULE_DIVISION && (r == REGISTER_VCC || r == REGISTER_VCC + 1) ? 4 : 2;
    if (too_soon(w, h->scalar_write[r], needed)) {
      return fault_hazard(w, h->scalar_write[r], needed, false, r,
                          "vector arithmetic that reads what vector arithmetic wrote");
    }
  }
  unsigned needed = i->dpp ? 5 : access || i->rule == RULE_PERMLANE ? 4 : 0;
  if (needed && too_soon(w, h->scalar_write[REGISTER_EXEC], needed)) {
    return fault_hazard(w, h->scalar_write[REGISTER_EXEC], needed, false, REGISTER_EXEC,
                        "v_cmpx, then DPP or lane access,");
  }
  return true;
}

static bool check_memory(wave *w, const instruction *i) {
  struct hazard_state *h = w->hazards;
  if (i->class == CLASS_MEMORY && too_soon(w, h->last_scalar, 5)) {
    EACH_REGISTER(i->scalar_reads, 2, r) {
      if (too_soon(w, h->scalar_write[r], 5)) {
        return fault_hazard(w, h->scalar_write[r], 5, false, r,
                            "a memory instruction that reads what vector arithmetic wrote");
      }
    }
  }
  if (i->memory.to_lds && too_soon(w, h->m0_write, 1)) {
    return fault_hazard(w, h->m0_write, 1, false, REGISTER_M0, "a load to LDS behind the write of M0");
  }
  return true;
}

static bool check_wide_stores(wave *w, const instruction *i) {
  struct hazard_state *h = w->hazards;
  if (!too_soon(w, h->last_wide_store, 2)) return true;
  EACH_REGISTER(i->vector_writes, REGISTER_WORDS, r) {
    if (too_soon(w, h->wide_store[r], 2))
      return fault_hazard(w, h->wide_store[r], 2, true, r, "writing over a wide store's data");
  }
  return true;
}

static bool check_hazards(wave *w, const instruction *i) {
  struct hazard_state *h = w->hazards;
  bool vector = i->class == CLASS_VECTOR || i->class == CLASS_MATRIX,
       memory = i->class == CLASS_MEMORY || i->class == CLASS_LDS;
  if (vector && !(check_vector_sources(w, i) && check_vector_scalars(w, i) && check_wide_stores(w, i))) return false;
  if (i->class == CLASS_MATRIX) return check_matrix(w, i);
  if (memory && !check_memory(w, i)) return false;
  if ((vector || memory) && too_soon(w, h->last_matrix, 40) && !check_behind_matrix(w, i)) return false;
  if (vector || memory) return check_dots(w, i);
  if ((i->rule == RULE_SET_REGISTER || i->rule == RULE_GET_REGISTER) && too_soon(w, h->set_register, 2)) {
    wave_fault(w, GCN_FAULT_HAZARD, -1, "s_setreg needs 2 wait states before it");
    return false;
  }
  return true;
}

bool check_instruction(wave *w, const instruction *i) {
  w->clock++;
  if (w->queue_length && !check_outstanding(w, i)) return false;
  return check_hazards(w, i);
}

/* ---- After the instruction ---- */

static void note_vector(wave *w, const instruction *i) {
  struct hazard_state *h = w->hazards;
  bool transcendental = i->op && (i->op->flags & OP_TRANSCENDENTAL), dot = i->op && (i->op->flags & OP_DOT);
  EACH_REGISTER(i->vector_writes, REGISTER_WORDS, r) {
    h->vector_write[r] = w->clock;
    h->dot_writer[r] = dot ? i : NULL;
    if (transcendental) h->transcendental[r] = w->clock;
    if (i->partial_write) h->partial[r] = w->clock;
  }
  if (transcendental) h->last_transcendental = w->clock;
  if (i->partial_write) h->last_partial = w->clock;
  if (!(i->scalar_writes[0] | i->scalar_writes[1])) return;
  EACH_REGISTER(i->scalar_writes, 2, r) h->scalar_write[r] = w->clock;
  h->last_scalar = w->clock;
}

static void note_matrix(wave *w, const instruction *i) {
  struct hazard_state *h = w->hazards;
  h->last_matrix = w->clock;
  EACH_REGISTER(i->vector_writes, REGISTER_WORDS, r) {
    h->matrix_write[r] = w->clock;
    h->matrix_writer[r] = i;
  }
  const operand *c = &i->operand[3];
  if (!i->matrix.xdl || c->kind != OPERAND_VECTOR) return;
  for (unsigned r = c->index; r < c->index + (unsigned)c->registers; r++) {
    h->matrix_c[r] = w->clock;
    h->matrix_c_reader[r] = i;
  }
}

static void note_store(wave *w, const instruction *i) {
  struct hazard_state *h = w->hazards;
  const memory_access *m = &i->memory;
  bool soffset = m->space == SPACE_BUFFER && i->operand[m->scalar_offset].kind == OPERAND_SCALAR;
  if (!m->store || m->bytes <= 8 || soffset) return;
  h->last_wide_store = w->clock;
  const operand *o = &i->operand[m->data];
  for (unsigned r = o->index; r < o->index + (unsigned)o->registers; r++) h->wide_store[r] = w->clock;
}

void note_instruction(wave *w, const instruction *i) {
  switch (i->class) {
  case CLASS_VECTOR:
    note_vector(w, i);
    break;
  case CLASS_MATRIX:
    note_matrix(w, i);
    break;
  case CLASS_MEMORY:
    note_store(w, i);
    break;
  case CLASS_NOP:
    if (i->mnemonic[2] == 'n') w->clock += i->immediate; /* s_nop n: n + 1 wait states */
    break;
  case CLASS_SCALAR:
    if (i->scalar_writes[1] >> (REGISTER_M0 - 64) & 1) w->hazards->m0_write = w->clock;
    if (i->rule == RULE_SET_REGISTER) w->hazards->set_register = w->clock;
    break;
  default:
    break;
  }
}
