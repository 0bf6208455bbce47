/* LDS instructions: reads, writes, atomics, transposed reads, and the permutations that use its crossbar. */
#include "machine.h"

uint8_t *lds_bytes(wave *w, uint32_t address, uint32_t bytes, int lane) {
  workgroup *g = w->group;
  if (address > g->lds_bytes || bytes > g->lds_bytes - address) {
    wave_fault(w, GCN_FAULT_LDS_BOUNDS, lane, "%u bytes at %#x of %u", bytes, address, g->lds_bytes);
    return NULL;
  }
  return g->lds + address;
}

/* Atomics alone must be aligned: for the others the driver chooses the mode in which any address will do. */
static bool aligned(wave *w, uint32_t address, uint32_t bytes, unsigned lane) {
  if (address % bytes == 0) return true;
  wave_fault(w, GCN_FAULT_LDS_BOUNDS, (int)lane, "an atomic of %u bytes at %#x, which is not aligned", bytes, address);
  return false;
}

static const uint8_t *read_place(wave *w, uint32_t address, uint32_t bytes, unsigned lane) {
  const uint8_t *from = lds_bytes(w, address, bytes, (int)lane);
  if (!from) return NULL;
  if (w->launch->checked && !lds_read_check(w, address, bytes, false, (int)lane)) return NULL;
  return from;
}

static uint8_t *write_place(wave *w, uint32_t address, uint32_t bytes, unsigned lane, bool atomic) {
  uint8_t *to = lds_bytes(w, address, bytes, (int)lane);
  if (!to || (atomic && !aligned(w, address, bytes, lane))) return NULL;
  if (w->launch->checked && !lds_write_check(w, address, bytes, atomic, (int)lane)) return NULL;
  return to;
}

/* ---- One address a lane ---- */

static void addresses_of(const wave *w, const instruction *i, uint32_t address[LANES]) {
  const uint32_t *row = w->vector[i->operand[i->memory.address].index];
  for (unsigned l = 0; l < LANES; l++) address[l] = row[l] + (uint32_t)i->memory.offset;
}

static void note_lds(wave *w, const instruction *i, const uint32_t address[LANES], unsigned bytes, bool writes) {
  outstanding *o = note_outstanding(w, i, OUTSTANDING_LDS);
  if (!o) return;
  o->writes_lds = writes;
  o->reads_lds = !writes || i->memory.atomic;
  o->lds_bytes = (uint8_t)bytes;
  o->lds_lanes = exec_mask(w);
  memcpy(o->lds_address, address, sizeof o->lds_address);
}

static void execute_read(wave *w, const instruction *i) {
  uint32_t address[LANES];
  uint8_t bytes[LANES][16];
  unsigned size = i->memory.bytes;
  uint64_t exec = exec_mask(w);
  addresses_of(w, i, address);
  for (uint64_t left = exec; left; left &= left - 1) {
    unsigned l = (unsigned)__builtin_ctzll(left);
    const uint8_t *from = read_place(w, address[l], size, l);
    if (!from) return;
    memcpy(bytes[l], from, size);
  }
  const operand *d = &i->operand[i->memory.result];
  for (uint64_t left = exec; left; left &= left - 1) {
    unsigned l = (unsigned)__builtin_ctzll(left);
    land(w, d, &i->memory, l, bytes[l]);
  }
  count_lds(w, i, address, exec, size, false);
  note_lds(w, i, address, size, false);
}

static void execute_write(wave *w, const instruction *i) {
  uint32_t address[LANES];
  uint64_t exec = exec_mask(w);
  addresses_of(w, i, address);
  for (uint64_t left = exec; left; left &= left - 1) {
    unsigned l = (unsigned)__builtin_ctzll(left);
    uint8_t *to = write_place(w, address[l], i->memory.bytes, l, false);
    if (!to) return;
    take(w, &i->operand[i->memory.data], &i->memory, l, to);
  }
  count_lds(w, i, address, exec, i->memory.bytes, true);
  note_lds(w, i, address, i->memory.bytes, true);
}

/* ---- Two addresses a lane: offsets in elements, or in 64 of them ---- */

static void execute_read2(wave *w, const instruction *i) {
  uint32_t address[LANES], second[LANES];
  uint8_t bytes[LANES][16];
  unsigned size = i->memory.bytes, step = i->variant ? 64 * size : size;
  uint64_t exec = exec_mask(w);
  addresses_of(w, i, address);
  for (uint64_t left = exec; left; left &= left - 1) {
    unsigned l = (unsigned)__builtin_ctzll(left);
    second[l] = address[l] + i->memory.offset1 * step;
    address[l] += i->memory.offset0 * step;
    const uint8_t *from = read_place(w, address[l], size, l), *also = from ? read_place(w, second[l], size, l) : NULL;
    if (!also) return;
    memcpy(bytes[l], from, size);
    memcpy(bytes[l] + size, also, size);
  }
  memory_access both = i->memory;
  both.bytes = (uint8_t)(2 * size);
  for (uint64_t left = exec; left; left &= left - 1) {
    unsigned l = (unsigned)__builtin_ctzll(left);
    land(w, &i->operand[0], &both, l, bytes[l]);
  }
  count_lds(w, i, address, exec, size, false);
  count_lds(w, i, second, exec, size, false);
  note_lds(w, i, address, size, false);
}

static void execute_write2(wave *w, const instruction *i) {
  uint32_t address[LANES], second[LANES];
  unsigned size = i->memory.bytes, step = i->variant ? 64 * size : size;
  uint64_t exec = exec_mask(w);
  addresses_of(w, i, address);
  for (uint64_t left = exec; left; left &= left - 1) {
    unsigned l = (unsigned)__builtin_ctzll(left);
    second[l] = address[l] + i->memory.offset1 * step;
    address[l] += i->memory.offset0 * step;
    uint8_t *to = write_place(w, address[l], size, l, false);
    if (!to) return;
    take(w, &i->operand[1], &i->memory, l, to);
    to = write_place(w, second[l], size, l, false);
    if (!to) return;
    take(w, &i->operand[2], &i->memory, l, to);
  }
  count_lds(w, i, address, exec, size, true);
  count_lds(w, i, second, exec, size, true);
  note_lds(w, i, address, size, true);
  outstanding *o = w->launch->checked ? &w->queue[w->queue_length - 1] : NULL;
  if (!o) return;
  /* One operation, two places: an entry of its own for the second would count twice, so it carries the span. */
  for (unsigned l = 0; l < LANES; l++) {
    uint32_t low = address[l] < second[l] ? address[l] : second[l];
    if (address[l] + size == second[l] || second[l] + size == address[l]) {
      o->lds_address[l] = low;
      o->lds_bytes = (uint8_t)(2 * size);
    }
  }
}

/* ---- Atomics ---- */

static void execute_atomic(wave *w, const instruction *i) {
  const memory_access *m = &i->memory;
  uint32_t address[LANES];
  uint64_t before[LANES], exec = exec_mask(w);
  bool swaps = m->operation == 3; /* data0 is compared, data1 stored */
  addresses_of(w, i, address);
  const operand *first = &i->operand[m->data], *value = swaps ? first + 1 : first;
  for (uint64_t left = exec; left; left &= left - 1) {
    unsigned l = (unsigned)__builtin_ctzll(left);
    uint8_t *to = write_place(w, address[l], m->bytes, l, true);
    if (!to) return;
    if (m->bytes == 8) {
      uint64_t old, x = w->vector[value->index][l] | (uint64_t)w->vector[value->index + 1][l] << 32;
      uint64_t compare = w->vector[first->index][l] | (uint64_t)w->vector[first->index + 1][l] << 32;
      memcpy(&old, to, 8);
      before[l] = old;
      old = atomic64(m->operation, old, x, compare);
      memcpy(to, &old, 8);
    } else {
      uint32_t old;
      memcpy(&old, to, 4);
      before[l] = old;
      old = atomic32(m->operation, old, w->vector[value->index][l], w->vector[first->index][l]);
      memcpy(to, &old, 4);
    }
  }
  for (uint64_t left = m->result >= 0 ? exec : 0; left; left &= left - 1) {
    unsigned l = (unsigned)__builtin_ctzll(left);
    land(w, &i->operand[m->result], m, l, &before[l]);
  }
  count_lds(w, i, address, exec, m->bytes, true);
  note_lds(w, i, address, m->bytes, true);
}

/* ---- Permutations: no memory is touched, but the data goes through LDS hardware and must be waited for ---- */

static void finish_permutation(wave *w, const instruction *i, const uint32_t row[LANES]) {
  uint64_t exec = exec_mask(w);
  uint32_t *d = w->vector[i->operand[0].index];
  for (unsigned l = 0; l < LANES; l++) d[l] = exec >> l & 1 ? row[l] : d[l];
  w->launch->counts.lds++;
  w->launch->counts.lds_cycles += 2;
  note_outstanding(w, i, OUTSTANDING_LDS);
}

/* ds_bpermute: every lane fetches from the lane that its address names. */
static void execute_fetch_permute(wave *w, const instruction *i) {
  const uint32_t *address = w->vector[i->operand[1].index], *from = w->vector[i->operand[2].index];
  uint64_t exec = exec_mask(w);
  uint32_t row[LANES];
  for (unsigned l = 0; l < LANES; l++) {
    unsigned lane = (address[l] + (uint32_t)i->memory.offset) >> 2 & 63;
    row[l] = exec >> lane & 1 ? from[lane] : 0;
  }
  finish_permutation(w, i, row);
}

/* ds_permute: every lane sends; of several that reach one lane the last wins; who gets nothing gets 0. */
static void execute_send_permute(wave *w, const instruction *i) {
  const uint32_t *address = w->vector[i->operand[1].index], *from = w->vector[i->operand[2].index];
  uint32_t row[LANES] = {0};
  for (uint64_t left = exec_mask(w); left; left &= left - 1) {
    unsigned l = (unsigned)__builtin_ctzll(left);
    row[(address[l] + (uint32_t)i->memory.offset) >> 2 & 63] = from[l];
  }
  finish_permutation(w, i, row);
}

static void execute_swizzle(wave *w, const instruction *i) {
  const uint32_t *from = w->vector[i->operand[1].index];
  uint32_t row[LANES], bits = i->immediate;
  uint64_t exec = exec_mask(w);
  for (unsigned l = 0; l < LANES; l++) {
    unsigned lane = bits & 0x8000 ? (l & ~3u) | (bits >> (2 * (l & 3)) & 3)
                                  : (l & 32) | ((((l & 31) & (bits & 31)) | (bits >> 5 & 31)) ^ (bits >> 10 & 31));
    row[l] = exec >> lane & 1 ? from[lane] : 0;
  }
  finish_permutation(w, i, row);
}

/* ---- Transposed reads of gfx950 ---- */

/* Groups of 16 lanes read a block of rows together: lane l of a group gives the address of 8 (or 12) bytes, and gets
 * element l of what is read, row by row. For 16 bits: lane l's k-th element is element l & 3 of the bytes at lane 4 k +
 * l / 4's address; narrower elements likewise with more in a row. */
static void execute_transposed_read(wave *w, const instruction *i) {
  unsigned bits = i->variant, size = i->memory.bytes, count = 8 * size / bits;
  uint32_t address[LANES];
  uint8_t bytes[LANES][16] = {{0}};
  addresses_of(w, i, address);
  if (exec_mask(w) != UINT64_MAX) {
    wave_fault(w, GCN_FAULT_MASKED_MFMA, -1, "a transposed read with lanes switched off");
    return;
  }
  for (unsigned l = 0; l < LANES; l++) {
    const uint8_t *from = read_place(w, address[l], size, l);
    if (!from) return;
    memcpy(bytes[l], from, size);
  }
  uint32_t result[LANES][4] = {{0}};
  unsigned rows = 16 / count; /* lanes that share one row of 16 elements */
  for (unsigned l = 0; l < LANES; l++) {
    for (unsigned k = 0; k < count; k++) {
      unsigned place = l & 15, lane = (l & ~15u) | (rows * k + place / count), element = place % count;
      unsigned at = element * bits;
      uint32_t window;
      memcpy(&window, &bytes[lane][at / 8], 4);
      uint32_t value = window >> (at % 8) & ((1u << bits) - 1);
      unsigned to = k * bits;
      result[l][to / 32] |= value << (to % 32);
      if (to % 32 + bits > 32) result[l][to / 32 + 1] |= value >> (32 - to % 32);
    }
  }
  for (unsigned l = 0; l < LANES; l++) land(w, &i->operand[0], &i->memory, l, result[l]);
  count_lds(w, i, address, UINT64_MAX, size, false);
  note_lds(w, i, address, size, false);
}

/* ---- Decoding ---- */

static bool resolve_transposed(instruction *i) {
  static const struct {
    const char *name;
    uint8_t bytes, bits;
  } table[] = {{"ds_read_b64_tr_b16", 8, 16},
               {"ds_read_b64_tr_b8", 8, 8},
               {"ds_read_b64_tr_b4", 8, 4},
               {"ds_read_b96_tr_b6", 12, 6}};
  for (size_t k = 0; k < 4; k++) {
    if (strcmp(table[k].name, i->mnemonic) != 0) continue;
    i->memory.bytes = table[k].bytes;
    i->variant = table[k].bits;
    i->memory.result = 0;
    i->memory.address = 1;
    i->execute = execute_transposed_read;
    return true;
  }
  return false;
}

static bool resolve_pairs(instruction *i, bool read) {
  const char *name = i->mnemonic + (read ? 8 : 9);
  i->variant = strncmp(name, "st64_", 5) == 0;
  i->memory.bytes = strcmp(name + (i->variant ? 5 : 1), "b64") == 0 ? 8 : 4;
  i->execute = read ? execute_read2 : execute_write2;
  i->memory.address = read ? 1 : 0;
  if (read)
    i->memory.result = 0;
  else
    i->memory.data = 1;
  return i->operands == (read ? 2 : 3);
}

static bool resolve_atomic(instruction *i) {
  memory_access *m = &i->memory;
  char name[48];
  strcpy(name, i->mnemonic + 3);
  char *returns = strstr(name, "_rtn");
  if (returns) memmove(returns, returns + 4, strlen(returns + 4) + 1);
  if (!atomic_by_name(name, &m->operation)) return false;
  m->bytes = strstr(name, "64") ? 8 : 4;
  m->atomic = true;
  m->result = returns ? 0 : -1;
  m->address = returns ? 1 : 0;
  m->data = (int8_t)(m->address + 1);
  i->execute = execute_atomic;
  return i->operands == m->data + 1 + (m->operation == 3);
}

static bool resolve_kind(instruction *i) {
  memory_access *m = &i->memory;
  static const struct {
    const char *name;
    execute_function execute;
    uint8_t operands;
  } permutations[] = {{"ds_bpermute_b32", execute_fetch_permute, 3},
                      {"ds_permute_b32", execute_send_permute, 3},
                      {"ds_swizzle_b32", execute_swizzle, 2}};
  for (size_t k = 0; k < 3; k++) {
    if (strcmp(permutations[k].name, i->mnemonic) != 0) continue;
    i->execute = permutations[k].execute;
    m->result = 0;
    return i->operands == permutations[k].operands;
  }
  if (resolve_transposed(i)) return i->operands == 2;
  if (mnemonic_starts(i, "ds_read2")) return resolve_pairs(i, true);
  if (mnemonic_starts(i, "ds_write2")) return resolve_pairs(i, false);
  if (mnemonic_starts(i, "ds_read_")) {
    m->result = 0;
    m->address = 1;
    i->execute = execute_read;
    return i->operands == 2 && access_by_name(i->mnemonic + 8, m);
  }
  if (mnemonic_starts(i, "ds_write_")) {
    m->address = 0;
    m->data = 1;
    m->store = true;
    i->execute = execute_write;
    return i->operands == 2 && access_by_name(i->mnemonic + 9, m);
  }
  return resolve_atomic(i);
}

bool lds_resolve(instruction *i, gcn_target target) {
  (void)target;
  if (!mnemonic_starts(i, "ds_")) return false;
  i->class = CLASS_LDS;
  i->memory.space = SPACE_LDS;
  i->memory.result = i->memory.data = i->memory.address = -1;
  if (!resolve_kind(i)) return false;
  for (int8_t k = 0; k < i->operands; k++) {
    if (i->operand[k].kind != OPERAND_VECTOR) return false;
    if (k == i->memory.result) mark_writes(i, &i->operand[k]);
    if (k != i->memory.result || i->memory.low_half || i->memory.high_half) mark_reads(i, &i->operand[k]);
  }
  return true;
}
