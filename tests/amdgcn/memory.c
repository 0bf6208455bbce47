/* Memory outside LDS: allocations, and the global, flat, buffer and scratch instructions. */
#include "convert.h"
#include "machine.h"
#include <stdlib.h>

/* ---- Allocations, ascending by address ---- */

/* The first that ends behind `address`. */
static size_t allocation_index(const gcn_machine *m, uint64_t address) {
  size_t low = 0, high = m->allocation_count;
  while (low < high) {
    size_t middle = (low + high) / 2;
    if (m->allocations[middle].address + m->allocations[middle].bytes <= address)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

allocation *allocation_find(const gcn_machine *m, uint64_t address, uint64_t bytes) {
  size_t k = allocation_index(m, address);
  if (k == m->allocation_count) return NULL;
  allocation *a = &m->allocations[k];
  return address >= a->address && bytes <= a->bytes && address - a->address <= a->bytes - bytes ? a : NULL;
}

static sluice_status *allocation_add(gcn_machine *m, void *pointer, size_t bytes, void *owned) {
  uint64_t address = (uint64_t)(uintptr_t)pointer;
  size_t at = allocation_index(m, address);
  if (bytes == 0 || address == 0)
    return sluice_error(SLUICE_INVALID, "an allocation of %zu bytes at %p", bytes, pointer);
  if (at < m->allocation_count && m->allocations[at].address < address + bytes) {
    return sluice_error(SLUICE_INVALID, "%zu bytes at %p overlap an allocation", bytes, pointer);
  }
  if (m->allocation_count == m->allocation_room) {
    size_t room = m->allocation_room ? 2 * m->allocation_room : 64;
    allocation *grown = realloc(m->allocations, room * sizeof *grown);
    if (!grown) return sluice_out_of_memory();
    m->allocations = grown;
    m->allocation_room = room;
  }
  memmove(&m->allocations[at + 1], &m->allocations[at], (m->allocation_count - at) * sizeof *m->allocations);
  m->allocations[at] = (allocation){.address = address, .bytes = bytes, .owned = owned};
  m->allocation_count++;
  return NULL;
}

static sluice_status *allocation_remove(gcn_machine *m, void *pointer) {
  uint64_t address = (uint64_t)(uintptr_t)pointer;
  size_t at = allocation_index(m, address);
  if (at == m->allocation_count || m->allocations[at].address != address) {
    return sluice_error(SLUICE_INVALID, "%p is no allocation", pointer);
  }
  free(m->allocations[at].stamps);
  free(m->allocations[at].owned);
  m->allocation_count--;
  memmove(&m->allocations[at], &m->allocations[at + 1], (m->allocation_count - at) * sizeof *m->allocations);
  return NULL;
}

sluice_status *gcn_allocate(gcn_machine *m, size_t bytes, void **out) {
  enum { GUARD = 256 };
  *out = NULL;
  if (bytes == 0 || bytes > SIZE_MAX / 2) return sluice_error(SLUICE_INVALID, "an allocation of %zu bytes", bytes);
  size_t whole = (bytes + 2 * GUARD + 255) & ~(size_t)255;
  char *memory = aligned_alloc(256, whole);
  if (!memory) return sluice_out_of_memory();
  uint32_t *dwords = (uint32_t *)(void *)memory;
  for (size_t k = 0; k < whole / 4; k++) dwords[k] = POISON;
  sluice_status *status = allocation_add(m, memory + GUARD, bytes, memory);
  if (status)
    free(memory);
  else
    *out = memory + GUARD;
  return status;
}

sluice_status *gcn_release(gcn_machine *m, void *pointer) {
  return allocation_remove(m, pointer);
}

sluice_status *gcn_register(gcn_machine *m, void *pointer, size_t bytes) {
  return allocation_add(m, pointer, bytes, NULL);
}

sluice_status *gcn_unregister(gcn_machine *m, void *pointer) {
  return allocation_remove(m, pointer);
}

bool gcn_is_allocated(const gcn_machine *m, const void *pointer, size_t bytes) {
  return allocation_find(m, (uint64_t)(uintptr_t)pointer, bytes) != NULL;
}

void *global_bytes(wave *w, uint64_t address, uint32_t bytes, int lane) {
  allocation *a = w->last_allocation;
  if (!a || address < a->address || bytes > a->bytes || address - a->address > a->bytes - bytes) {
    a = allocation_find(w->launch->machine, address, bytes);
    if (!a) {
      wave_fault(w, GCN_FAULT_GLOBAL_BOUNDS, lane, "%u bytes at %#llx are in no allocation", bytes,
                 (unsigned long long)address);
      return NULL;
    }
    w->last_allocation = a;
  }
  return (void *)(uintptr_t)address;
}

/* ---- What lands in registers ---- */

bool access_by_name(const char *name, memory_access *access) {
  static const struct {
    const char *name;
    uint8_t bytes;
    bool sign, low, high;
  } table[] = {
      {"dword", 4, 0, 0, 0},        {"dwordx2", 8, 0, 0, 0},      {"dwordx3", 12, 0, 0, 0},
      {"dwordx4", 16, 0, 0, 0},     {"ubyte", 1, 0, 0, 0},        {"sbyte", 1, 1, 0, 0},
      {"ushort", 2, 0, 0, 0},       {"sshort", 2, 1, 0, 0},       {"byte", 1, 0, 0, 0},
      {"short", 2, 0, 0, 0},        {"ubyte_d16", 1, 0, 1, 0},    {"ubyte_d16_hi", 1, 0, 0, 1},
      {"sbyte_d16", 1, 1, 1, 0},    {"sbyte_d16_hi", 1, 1, 0, 1}, {"short_d16", 2, 0, 1, 0},
      {"short_d16_hi", 2, 0, 0, 1}, {"byte_d16_hi", 1, 0, 0, 1},  {"b8", 1, 0, 0, 0},
      {"b16", 2, 0, 0, 0},          {"b32", 4, 0, 0, 0},          {"b64", 8, 0, 0, 0},
      {"b96", 12, 0, 0, 0},         {"b128", 16, 0, 0, 0},        {"u8", 1, 0, 0, 0},
      {"i8", 1, 1, 0, 0},           {"u16", 2, 0, 0, 0},          {"i16", 2, 1, 0, 0},
      {"u8_d16", 1, 0, 1, 0},       {"u8_d16_hi", 1, 0, 0, 1},    {"i8_d16", 1, 1, 1, 0},
      {"i8_d16_hi", 1, 1, 0, 1},    {"u16_d16", 2, 0, 1, 0},      {"u16_d16_hi", 2, 0, 0, 1},
      {"b8_d16_hi", 1, 0, 0, 1},    {"b16_d16_hi", 2, 0, 0, 1},
  };
  for (size_t k = 0; k < sizeof table / sizeof *table; k++) {
    if (strcmp(table[k].name, name) != 0) continue;
    access->bytes = table[k].bytes;
    access->sign_extend = table[k].sign;
    access->low_half = table[k].low;
    access->high_half = table[k].high;
    return true;
  }
  return false;
}

void land(wave *w, const operand *o, const memory_access *access, unsigned lane, const void *bytes) {
  if (access->bytes >= 4) {
    for (unsigned k = 0; k < access->bytes / 4u; k++) {
      memcpy(&w->vector[o->index + k][lane], (const char *)bytes + 4 * k, 4);
    }
    return;
  }
  uint32_t value = 0;
  memcpy(&value, bytes, access->bytes);
  if (access->sign_extend)
    value = access->bytes == 1 ? (uint32_t)(int32_t)(int8_t)value : (uint32_t)(int32_t)(int16_t)value;
  uint32_t *d = &w->vector[o->index][lane];
  if (access->high_half)
    *d = (*d & 0xffff) | value << 16;
  else if (access->low_half)
    *d = (*d & 0xffff0000) | (value & 0xffff);
  else
    *d = value;
}

void take(const wave *w, const operand *o, const memory_access *access, unsigned lane, void *bytes) {
  if (access->bytes >= 4) {
    for (unsigned k = 0; k < access->bytes / 4u; k++) {
      memcpy((char *)bytes + 4 * k, &w->vector[o->index + k][lane], 4);
    }
    return;
  }
  uint32_t value = w->vector[o->index][lane];
  if (access->high_half) value >>= 16;
  memcpy(bytes, &value, access->bytes);
}

/* ---- Atomics ---- */

enum atomic_operation {
  ATOMIC_ADD,
  ATOMIC_SUB,
  ATOMIC_SWAP,
  ATOMIC_COMPARE_SWAP,
  ATOMIC_MIN_SIGNED,
  ATOMIC_MIN_UNSIGNED,
  ATOMIC_MAX_SIGNED,
  ATOMIC_MAX_UNSIGNED,
  ATOMIC_AND,
  ATOMIC_OR,
  ATOMIC_XOR,
  ATOMIC_INCREMENT,
  ATOMIC_DECREMENT,
  ATOMIC_ADD_FLOAT,
  ATOMIC_MIN_FLOAT,
  ATOMIC_MAX_FLOAT,
  ATOMIC_ADD_HALVES,
  ATOMIC_ADD_BFLOATS,
  ATOMIC_REVERSE_SUB,
};

bool atomic_by_name(const char *name, uint8_t *operation) {
  static const struct {
    const char *name;
    uint8_t operation;
  } table[] = {
      {"add", ATOMIC_ADD},
      {"sub", ATOMIC_SUB},
      {"swap", ATOMIC_SWAP},
      {"cmpswap", ATOMIC_COMPARE_SWAP},
      {"smin", ATOMIC_MIN_SIGNED},
      {"umin", ATOMIC_MIN_UNSIGNED},
      {"smax", ATOMIC_MAX_SIGNED},
      {"umax", ATOMIC_MAX_UNSIGNED},
      {"and", ATOMIC_AND},
      {"or", ATOMIC_OR},
      {"xor", ATOMIC_XOR},
      {"inc", ATOMIC_INCREMENT},
      {"dec", ATOMIC_DECREMENT},
      {"add_f32", ATOMIC_ADD_FLOAT},
      {"add_f64", ATOMIC_ADD_FLOAT},
      {"min_f64", ATOMIC_MIN_FLOAT},
      {"max_f64", ATOMIC_MAX_FLOAT},
      {"pk_add_f16", ATOMIC_ADD_HALVES},
      {"pk_add_bf16", ATOMIC_ADD_BFLOATS},
      /* LDS spells them otherwise. */
      {"add_u32", ATOMIC_ADD},
      {"add_u64", ATOMIC_ADD},
      {"sub_u32", ATOMIC_SUB},
      {"sub_u64", ATOMIC_SUB},
      {"rsub_u32", ATOMIC_REVERSE_SUB},
      {"rsub_u64", ATOMIC_REVERSE_SUB},
      {"wrxchg_b32", ATOMIC_SWAP},
      {"wrxchg_b64", ATOMIC_SWAP},
      {"cmpst_b32", ATOMIC_COMPARE_SWAP},
      {"cmpst_b64", ATOMIC_COMPARE_SWAP},
      {"cmpst_f32", ATOMIC_COMPARE_SWAP},
      {"cmpst_f64", ATOMIC_COMPARE_SWAP},
      {"min_i32", ATOMIC_MIN_SIGNED},
      {"min_i64", ATOMIC_MIN_SIGNED},
      {"min_u32", ATOMIC_MIN_UNSIGNED},
      {"min_u64", ATOMIC_MIN_UNSIGNED},
      {"max_i32", ATOMIC_MAX_SIGNED},
      {"max_i64", ATOMIC_MAX_SIGNED},
      {"max_u32", ATOMIC_MAX_UNSIGNED},
      {"max_u64", ATOMIC_MAX_UNSIGNED},
      {"and_b32", ATOMIC_AND},
      {"and_b64", ATOMIC_AND},
      {"or_b32", ATOMIC_OR},
      {"or_b64", ATOMIC_OR},
      {"xor_b32", ATOMIC_XOR},
      {"xor_b64", ATOMIC_XOR},
      {"inc_u32", ATOMIC_INCREMENT},
      {"inc_u64", ATOMIC_INCREMENT},
      {"dec_u32", ATOMIC_DECREMENT},
      {"dec_u64", ATOMIC_DECREMENT},
      {"min_f32", ATOMIC_MIN_FLOAT},
      {"max_f32", ATOMIC_MAX_FLOAT},
  };
  for (size_t k = 0; k < sizeof table / sizeof *table; k++) {
    if (strcmp(table[k].name, name) != 0) continue;
    *operation = table[k].operation;
    return true;
  }
  return false;
}

static uint32_t add_halves(uint32_t x, uint32_t y) {
  return half_of_float(float_of_half(x) + float_of_half(y)) |
         half_of_float(float_of_half(x >> 16) + float_of_half(y >> 16)) << 16;
}

static uint32_t add_bfloats(uint32_t x, uint32_t y) {
  return bfloat_of_float(as_float(x << 16) + as_float(y << 16)) |
         bfloat_of_float(as_float(x & 0xffff0000) + as_float(y & 0xffff0000)) << 16;
}

uint32_t atomic32(uint8_t operation, uint32_t old, uint32_t value, uint32_t compare) {
  switch (operation) {
  case ATOMIC_ADD:
    return old + value;
  case ATOMIC_SUB:
    return old - value;
  case ATOMIC_REVERSE_SUB:
    return value - old;
  case ATOMIC_SWAP:
    return value;
  case ATOMIC_COMPARE_SWAP:
    return old == compare ? value : old;
  case ATOMIC_MIN_SIGNED:
    return (int32_t)old < (int32_t)value ? old : value;
  case ATOMIC_MIN_UNSIGNED:
    return old < value ? old : value;
  case ATOMIC_MAX_SIGNED:
    return (int32_t)old > (int32_t)value ? old : value;
  case ATOMIC_MAX_UNSIGNED:
    return old > value ? old : value;
  case ATOMIC_AND:
    return old & value;
  case ATOMIC_OR:
    return old | value;
  case ATOMIC_XOR:
    return old ^ value;
  case ATOMIC_INCREMENT:
    return old >= value ? 0 : old + 1;
  case ATOMIC_DECREMENT:
    return old == 0 || old > value ? value : old - 1;
  case ATOMIC_ADD_FLOAT:
    return float_bits(as_float(old) + as_float(value));
  case ATOMIC_MIN_FLOAT:
    return float_bits(fminf(as_float(old), as_float(value)));
  case ATOMIC_MAX_FLOAT:
    return float_bits(fmaxf(as_float(old), as_float(value)));
  case ATOMIC_ADD_HALVES:
    return add_halves(old, value);
  default:
    return add_bfloats(old, value);
  }
}

uint64_t atomic64(uint8_t operation, uint64_t old, uint64_t value, uint64_t compare) {
  switch (operation) {
  case ATOMIC_ADD:
    return old + value;
  case ATOMIC_SUB:
    return old - value;
  case ATOMIC_REVERSE_SUB:
    return value - old;
  case ATOMIC_SWAP:
    return value;
  case ATOMIC_COMPARE_SWAP:
    return old == compare ? value : old;
  case ATOMIC_MIN_SIGNED:
    return (int64_t)old < (int64_t)value ? old : value;
  case ATOMIC_MIN_UNSIGNED:
    return old < value ? old : value;
  case ATOMIC_MAX_SIGNED:
    return (int64_t)old > (int64_t)value ? old : value;
  case ATOMIC_MAX_UNSIGNED:
    return old > value ? old : value;
  case ATOMIC_AND:
    return old & value;
  case ATOMIC_OR:
    return old | value;
  case ATOMIC_XOR:
    return old ^ value;
  case ATOMIC_INCREMENT:
    return old >= value ? 0 : old + 1;
  case ATOMIC_DECREMENT:
    return old == 0 || old > value ? value : old - 1;
  case ATOMIC_MIN_FLOAT:
    return double_bits(fmin(as_double(old), as_double(value)));
  case ATOMIC_MAX_FLOAT:
    return double_bits(fmax(as_double(old), as_double(value)));
  default:
    return double_bits(as_double(old) + as_double(value));
  }
}

/* ---- Addresses ---- */

/* Where each lane goes. Buffer accesses outside num_records are not in `valid`. */
typedef struct lane_addresses {
  uint64_t address[LANES];
  uint64_t valid;         /* lanes that are enabled and inside */
  uint64_t partly[LANES]; /* buffer: bytes inside, of those that are not whole; 0 otherwise */
} lane_addresses;

static void plain_addresses(const wave *w, const instruction *i, lane_addresses *out) {
  const memory_access *m = &i->memory;
  const operand *v = &i->operand[m->address], *s = m->scalar >= 0 ? &i->operand[m->scalar] : NULL;
  uint64_t offset = (uint64_t)(int64_t)m->offset;
  out->valid = exec_mask(w);
  bool paired = !(s && s->kind == OPERAND_SCALAR);
  if (!paired) offset += m->space == SPACE_SCRATCH ? w->scalar[s->index] : scalar_pair(w, s->index);
  if (v->kind != OPERAND_VECTOR) {
    for (unsigned l = 0; l < LANES; l++) out->address[l] = offset;
    return;
  }
  const uint32_t *low = w->vector[v->index];
  if (!paired || m->space == SPACE_SCRATCH) {
    for (unsigned l = 0; l < LANES; l++) out->address[l] = offset + low[l];
    return;
  }
  const uint32_t *high = w->vector[v->index + 1];
  for (unsigned l = 0; l < LANES; l++) out->address[l] = offset + (low[l] | (uint64_t)high[l] << 32);
}

/* A buffer descriptor: base in bits 0..47, stride in 48..61, num_records in 64..95. Without a stride bytes are counted,
 * with one records of that many bytes. */
static bool buffer_addresses(wave *w, const instruction *i, lane_addresses *out) {
  const memory_access *m = &i->memory;
  const operand *v = &i->operand[m->address], *o = &i->operand[m->scalar_offset];
  const uint32_t *descriptor = &w->scalar[i->operand[m->scalar].index];
  uint64_t base = descriptor[0] | (uint64_t)(descriptor[1] & 0xffff) << 32, records = descriptor[2];
  uint32_t stride = descriptor[1] >> 16 & 0x3fff, scalar_offset = read_scalar(w, o);
  if (descriptor[1] >> 31 || (descriptor[3] >> 23 & 1)) {
    wave_fault(w, GCN_FAULT_UNKNOWN_INSTRUCTION, -1,
               "swizzled buffers and buffers that add the lane are not interpreted");
    return false;
  }
  out->valid = 0;
  for (unsigned l = 0; l < LANES; l++) {
    if (!(exec_mask(w) >> l & 1)) continue;
    uint64_t index = m->idxen ? w->vector[v->index][l] : 0;
    uint64_t offset = (uint32_t)m->offset + (uint64_t)(m->offen ? w->vector[v->index + m->idxen][l] : 0);
    out->address[l] = base + scalar_offset + offset + (stride ? index * stride : 0);
    out->partly[l] = 0;
    bool in;
    if (stride) {
      in = index < records && (!m->offen || offset + m->bytes <= stride);
    } else {
      uint64_t end = records > scalar_offset ? records - scalar_offset : 0;
      in = offset + m->bytes <= end;
      if (!in && offset < end) out->partly[l] = (end - offset) & ~UINT64_C(3);
    }
    if (in) out->valid |= UINT64_C(1) << l;
  }
  return true;
}

static bool find_addresses(wave *w, const instruction *i, lane_addresses *out) {
  if (i->memory.space == SPACE_BUFFER) return buffer_addresses(w, i, out);
  plain_addresses(w, i, out);
  return true;
}

/* Host bytes of one lane: global memory, or what a flat address stands for. */
static uint8_t *lane_bytes(wave *w, const instruction *i, uint64_t address, unsigned lane) {
  const memory_access *m = &i->memory;
  uint64_t scratch = address;
  if (m->space == SPACE_FLAT && address >> 48 == LDS_APERTURE >> 48)
    return lds_bytes(w, (uint32_t)address, m->bytes, (int)lane);
  if (m->space == SPACE_FLAT && address >> 48 == SCRATCH_APERTURE >> 48)
    scratch = (uint32_t)address;
  else if (m->space != SPACE_SCRATCH)
    return global_bytes(w, address, m->bytes, (int)lane);
  uint32_t size = w->launch->scratch_bytes;
  if (scratch > size || m->bytes > size - scratch) {
    wave_fault(w, GCN_FAULT_SCRATCH_BOUNDS, (int)lane, "%u bytes at %#llx of %u", m->bytes, (unsigned long long)scratch,
               size);
    return NULL;
  }
  return w->scratch + (size_t)lane * size + scratch;
}

static bool is_global(const memory_access *m, uint64_t address) {
  return m->space == SPACE_GLOBAL || m->space == SPACE_BUFFER || (m->space == SPACE_FLAT && address >> 48 == 0);
}

/* ---- Loads and stores ---- */

static outstanding *note_vector_memory(wave *w, const instruction *i) {
  return note_outstanding(w, i, i->memory.space == SPACE_FLAT ? OUTSTANDING_FLAT : OUTSTANDING_VECTOR_MEMORY);
}

static bool is_poll(const instruction *i, const lane_addresses *at) {
  if (i->memory.bytes > 8 || !at->valid) return false;
  uint64_t first = at->address[__builtin_ctzll(at->valid)];
  for (uint64_t left = at->valid; left; left &= left - 1) {
    if (at->address[__builtin_ctzll(left)] != first) return false;
  }
  return true;
}

static void count_loaded(wave *w, const instruction *i, const lane_addresses *at) {
  uint64_t bytes = (uint64_t)__builtin_popcountll(at->valid) * i->memory.bytes;
  gcn_counts *c = &w->launch->counts;
  if (i->memory.space == SPACE_SCRATCH) {
    c->scratch_loaded += bytes;
    return;
  }
  if (i->memory.to_lds)
    c->direct_to_lds += bytes;
  else
    c->global_loaded += bytes;
  count_global(w, i, at->address, at->valid, i->memory.bytes);
}

/* Reads all lanes into `bytes`; zeros where a buffer has none. */
static bool load_lanes(wave *w, const instruction *i, const lane_addresses *at, uint8_t bytes[LANES][16]) {
  const memory_access *m = &i->memory;
  bool checked = w->launch->checked, poll = checked && is_poll(i, at);
  for (uint64_t left = exec_mask(w); left; left &= left - 1) {
    unsigned l = (unsigned)__builtin_ctzll(left);
    if (!(at->valid >> l & 1)) {
      memset(bytes[l], 0, 16);
      if (m->space == SPACE_BUFFER && at->partly[l]) {
        const void *part = global_bytes(w, at->address[l], (uint32_t)at->partly[l], (int)l);
        if (!part) return false;
        memcpy(bytes[l], part, at->partly[l]);
      }
      continue;
    }
    const uint8_t *from = lane_bytes(w, i, at->address[l], l);
    if (!from) return false;
    if (checked && is_global(m, at->address[l]) &&
        !global_load_check(w, w->last_allocation, at->address[l], m->bytes, m->sc1, poll, (int)l)) {
      return false;
    }
    if (m->bytes == 16)
      memcpy(bytes[l], from, 16);
    else if (m->bytes == 4)
      memcpy(bytes[l], from, 4);
    else
      memcpy(bytes[l], from, m->bytes);
  }
  return true;
}

static void execute_load(wave *w, const instruction *i) {
  lane_addresses at;
  uint8_t bytes[LANES][16];
  if (!find_addresses(w, i, &at) || !load_lanes(w, i, &at, bytes)) return;
  const operand *d = &i->operand[i->memory.result];
  uint64_t exec = exec_mask(w);
  if (i->memory.bytes >= 4) {
    for (unsigned k = 0; k < i->memory.bytes / 4u; k++) {
      uint32_t *row = w->vector[d->index + k];
      for (unsigned l = 0; l < LANES; l++) {
        uint32_t value;
        memcpy(&value, bytes[l] + 4 * k, 4);
        if (exec >> l & 1) row[l] = value;
      }
    }
  } else {
    for (uint64_t left = exec; left; left &= left - 1) {
      unsigned l = (unsigned)__builtin_ctzll(left);
      land(w, d, &i->memory, l, bytes[l]);
    }
  }
  count_loaded(w, i, &at);
  note_vector_memory(w, i);
}

/* Straight to LDS: lanes land side by side from M0 on, wherever they were read. */
static void execute_load_to_lds(wave *w, const instruction *i) {
  lane_addresses at;
  uint8_t bytes[LANES][16];
  if (!find_addresses(w, i, &at) || !load_lanes(w, i, &at, bytes)) return;
  uint32_t size = i->memory.bytes < 4 ? 4 : i->memory.bytes;
  uint32_t base = (w->scalar[REGISTER_M0] & 0xffff) + (uint32_t)i->memory.offset;
  if (w->launch->machine->target == GCN_GFX950) base = w->scalar[REGISTER_M0] + (uint32_t)i->memory.offset;
  outstanding *o = note_vector_memory(w, i);
  if (o) {
    o->writes_lds = true;
    o->lds_bytes = (uint8_t)size;
    o->lds_lanes = exec_mask(w);
  }
  uint32_t places[LANES];
  for (uint64_t left = exec_mask(w); left; left &= left - 1) {
    unsigned l = (unsigned)__builtin_ctzll(left);
    uint32_t value[4] = {0};
    memcpy(value, bytes[l], i->memory.bytes);
    if (i->memory.sign_extend)
      value[0] = i->memory.bytes == 1 ? (uint32_t)(int8_t)value[0] : (uint32_t)(int16_t)value[0];
    places[l] = base + l * size;
    uint8_t *to = lds_bytes(w, places[l], size, (int)l);
    if (!to || (w->launch->checked && !lds_write_check(w, places[l], size, false, (int)l))) return;
    memcpy(to, value, size);
    if (o) o->lds_address[l] = places[l];
  }
  count_loaded(w, i, &at);
}

static void execute_store(wave *w, const instruction *i) {
  lane_addresses at;
  if (!find_addresses(w, i, &at)) return;
  const memory_access *m = &i->memory;
  const operand *data = &i->operand[m->data];
  launch *l_ = w->launch;
  store_stamp stamp = {w->serial, ++l_->time & 0x3fffffff, m->sc1, 0};
  for (uint64_t left = at.valid; left; left &= left - 1) {
    unsigned l = (unsigned)__builtin_ctzll(left);
    uint8_t *to = lane_bytes(w, i, at.address[l], l);
    if (!to) return;
    take(w, data, m, l, to);
    if (l_->checked && is_global(m, at.address[l]))
      global_store_note(w, w->last_allocation, at.address[l], m->bytes, stamp);
  }
  uint64_t bytes = (uint64_t)__builtin_popcountll(at.valid) * m->bytes;
  if (m->space == SPACE_SCRATCH) {
    l_->counts.scratch_stored += bytes;
  } else {
    l_->counts.global_stored += bytes;
    count_global(w, i, at.address, at.valid, m->bytes);
  }
  outstanding *o = note_vector_memory(w, i);
  if (o && m->space != SPACE_SCRATCH) o->store_time = stamp.time;
}

/* One lane after the other, each on what the one before left. */
static void execute_atomic(wave *w, const instruction *i) {
  lane_addresses at;
  if (!find_addresses(w, i, &at)) return;
  const memory_access *m = &i->memory;
  const operand *data = &i->operand[m->data];
  bool wide = m->bytes == 8, returns = m->result >= 0;
  launch *l_ = w->launch;
  store_stamp stamp = {w->serial, ++l_->time & 0x3fffffff, 1, 1};
  uint64_t before[LANES];
  for (uint64_t left = at.valid; left; left &= left - 1) {
    unsigned l = (unsigned)__builtin_ctzll(left);
    uint8_t *to = lane_bytes(w, i, at.address[l], l);
    if (!to) return;
    if (at.address[l] % m->bytes != 0) {
      wave_fault(w, GCN_FAULT_GLOBAL_BOUNDS, (int)l, "an atomic at %#llx, which is not aligned",
                 (unsigned long long)at.address[l]);
      return;
    }
    if (l_->checked && is_global(m, at.address[l])) {
      if (!global_atomic_check(w, w->last_allocation, at.address[l], m->bytes, (int)l)) return;
      global_store_note(w, w->last_allocation, at.address[l], m->bytes, stamp);
    }
    const uint32_t (*v)[LANES] = (const uint32_t (*)[LANES])w->vector;
    unsigned k = data->index;
    if (wide) {
      uint64_t old, value = v[k][l] | (uint64_t)v[k + 1][l] << 32;
      uint64_t compare = m->operation == ATOMIC_COMPARE_SWAP ? v[k + 2][l] | (uint64_t)v[k + 3][l] << 32 : 0;
      memcpy(&old, to, 8);
      before[l] = old;
      old = atomic64(m->operation, old, value, compare);
      memcpy(to, &old, 8);
    } else {
      uint32_t old, compare = m->operation == ATOMIC_COMPARE_SWAP ? v[k + 1][l] : 0;
      memcpy(&old, to, 4);
      before[l] = old;
      old = atomic32(m->operation, old, v[k][l], compare);
      memcpy(to, &old, 4);
    }
  }
  if (returns) {
    for (uint64_t left = at.valid; left; left &= left - 1) {
      unsigned l = (unsigned)__builtin_ctzll(left);
      land(w, &i->operand[m->result], m, l, &before[l]);
    }
  }
  l_->counts.global_atomics += (uint64_t)__builtin_popcountll(at.valid);
  count_global(w, i, at.address, at.valid, m->bytes);
  outstanding *o = note_vector_memory(w, i);
  if (o) o->store_time = stamp.time;
}

/* ---- Caches ---- */

/* buffer_wbl2 sc1: what this wave has waited for, and all else in the L2 of its die, goes to memory. */
static void execute_write_back(wave *w, const instruction *i) {
  if (i->memory.sc1) w->launch->written_back[w->group->die] = w->launch->time;
  note_vector_memory(w, i);
}

/* buffer_inv sc1: later loads see what others have made visible. */
static void execute_invalidate(wave *w, const instruction *i) {
  if (i->memory.sc1) w->invalidated = w->launch->time + 1;
  note_vector_memory(w, i);
}

/* ---- Decoding ---- */

static bool resolve_operands(instruction *i) {
  memory_access *m = &i->memory;
  m->result = m->data = m->scalar = m->scalar_offset = -1;
  int8_t next = 0;
  bool buffer = m->space == SPACE_BUFFER, returns = m->atomic && m->sc0;
  if (buffer) {
    if (!m->to_lds) (m->store || m->atomic ? (m->data = next) : (m->result = next)), next++;
    if (m->atomic && m->sc0) m->result = m->data;
    m->address = next++;
    m->scalar = next++;
    m->scalar_offset = next++;
  } else {
    if ((!m->store && !m->atomic && !m->to_lds) || returns) m->result = next++;
    m->address = next++;
    if (m->store || m->atomic) m->data = next++;
    if (m->space != SPACE_FLAT) m->scalar = next++;
  }
  if (next != i->operands) return false;
  for (int8_t k = 0; k < next; k++) {
    operand *o = &i->operand[k];
    settle_constant(o, 'u');
    if (k == m->result) mark_writes(i, o);
    if (k != m->result || (buffer && m->atomic) || m->low_half || m->high_half) mark_reads(i, o);
  }
  unsigned registers = m->bytes < 4 ? 1 : m->bytes / 4u;
  if (m->result >= 0 && m->result != m->data && i->operand[m->result].registers != registers) return false;
  if (m->to_lds) i->scalar_reads[REGISTER_M0 / 64] |= UINT64_C(1) << (REGISTER_M0 % 64);
  return m->scalar < 0 || i->operand[m->scalar].kind == OPERAND_SCALAR || i->operand[m->scalar].kind == OPERAND_OFF;
}

static bool resolve_kind(instruction *i, const char *name) {
  memory_access *m = &i->memory;
  char text[48];
  if (strncmp(name, "load_lds_", 9) == 0) {
    m->to_lds = true;
    i->execute = execute_load_to_lds;
    return access_by_name(name + 9, m);
  }
  if (strncmp(name, "load_", 5) == 0) {
    i->execute = m->to_lds ? execute_load_to_lds : execute_load;
    return access_by_name(name + 5, m);
  }
  if (strncmp(name, "store_", 6) == 0) {
    m->store = true;
    i->execute = execute_store;
    return access_by_name(name + 6, m);
  }
  if (strncmp(name, "atomic_", 7) != 0) return false;
  strcpy(text, name + 7);
  size_t length = strlen(text);
  m->bytes = strstr(text, "f64") ? 8 : 4;
  if (length > 3 && strcmp(text + length - 3, "_x2") == 0) {
    text[length - 3] = 0;
    m->bytes = 8;
  }
  m->atomic = true;
  i->execute = execute_atomic;
  return atomic_by_name(text, &m->operation);
}

bool memory_resolve(instruction *i, gcn_target target) {
  (void)target;
  static const struct {
    const char *prefix;
    address_space space;
  } spaces[] = {
      {"global_", SPACE_GLOBAL}, {"flat_", SPACE_FLAT}, {"scratch_", SPACE_SCRATCH}, {"buffer_", SPACE_BUFFER}};
  i->class = CLASS_MEMORY;
  if (strcmp(i->mnemonic, "buffer_wbl2") == 0) i->execute = execute_write_back;
  if (strcmp(i->mnemonic, "buffer_inv") == 0) i->execute = execute_invalidate;
  if (i->execute) return true;
  for (size_t k = 0; k < 4; k++) {
    if (!mnemonic_starts(i, spaces[k].prefix)) continue;
    i->memory.space = spaces[k].space;
    return resolve_kind(i, i->mnemonic + strlen(spaces[k].prefix)) && resolve_operands(i);
  }
  return false;
}
