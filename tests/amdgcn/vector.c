/* Vector arithmetic: rows of 64 lanes go in, an operation's `lanes` computes on all of them, and the lanes that EXEC
 * enables are written. All that instructions have in common is here: scalar and constant sources, neg, abs, op_sel,
 * DPP, SDWA, clamp. */
#include "machine.h"
#include <math.h>
#include <stdlib.h>

static bool is_wide(char type) {
  return type == 'd' || type == 'w' || type == 'l' || type == 'P';
}

static bool is_half(char type) {
  return type == 'h' || type == 'b' || type == 's' || type == 'j';
}

static bool is_packed(char type) {
  return type == 'p' || type == 'q';
}

static bool is_float(char type) {
  return type == 'f' || type == 'h' || type == 'd' || type == 'p' || type == 'P' || type == 'x';
}

/* ---- Sources ---- */

static void fetch32(const wave *w, const operand *o, uint32_t row[LANES]) {
  if (o->kind == OPERAND_VECTOR) {
    memcpy(row, w->vector[o->index], LANES * 4);
    return;
  }
  uint32_t value = read_scalar(w, o);
  for (unsigned l = 0; l < LANES; l++) row[l] = value;
}

static void fetch64(const wave *w, const operand *o, uint64_t row[LANES]) {
  if (o->kind == OPERAND_VECTOR) {
    const uint32_t *low = w->vector[o->index], *high = w->vector[o->index + 1];
    for (unsigned l = 0; l < LANES; l++) row[l] = low[l] | (uint64_t)high[l] << 32;
    return;
  }
  uint64_t value = read_scalar64(w, o);
  for (unsigned l = 0; l < LANES; l++) row[l] = value;
}

static void fetch_mask(const wave *w, const operand *o, uint32_t row[LANES]) {
  uint64_t mask = read_scalar64(w, o);
  for (unsigned l = 0; l < LANES; l++) row[l] = mask >> l & 1;
}

/* Two halves picked by op_sel and op_sel_hi, signs flipped by neg_lo and neg_hi. */
static void fetch_packed16(const wave *w, const instruction *i, const operand *o, unsigned source,
                           uint32_t row[LANES]) {
  fetch32(w, o, row);
  unsigned low = i->op_sel >> source & 1 ? 16 : 0, high = i->op_sel_hi >> source & 1 ? 16 : 0;
  uint32_t flip = (i->neg_lo >> source & 1 ? 0x8000u : 0) | (i->neg_hi >> source & 1 ? 0x80000000u : 0);
  for (unsigned l = 0; l < LANES; l++) row[l] = ((row[l] >> low & 0xffff) | (row[l] >> high & 0xffff) << 16) ^ flip;
}

static void fetch_packed32(const wave *w, const instruction *i, const operand *o, unsigned source,
                           uint64_t row[LANES]) {
  unsigned low = i->op_sel >> source & 1, high = i->op_sel_hi >> source & 1;
  uint64_t flip =
      (i->neg_lo >> source & 1 ? UINT64_C(0x80000000) : 0) | (i->neg_hi >> source & 1 ? UINT64_C(1) << 63 : 0);
  if (o->kind == OPERAND_VECTOR) {
    const uint32_t *a = w->vector[o->index + low], *b = w->vector[o->index + high];
    for (unsigned l = 0; l < LANES; l++) row[l] = (a[l] | (uint64_t)b[l] << 32) ^ flip;
    return;
  }
  uint32_t a = o->kind == OPERAND_SCALAR ? w->scalar[o->index + low] : (uint32_t)o->integer;
  uint32_t b = o->kind == OPERAND_SCALAR ? w->scalar[o->index + high] : (uint32_t)o->integer;
  for (unsigned l = 0; l < LANES; l++) row[l] = (a | (uint64_t)b << 32) ^ flip;
}

static float half_to_float(uint32_t bits) {
  uint16_t low = (uint16_t)bits;
  _Float16 half;
  memcpy(&half, &low, sizeof half);
  return (float)half;
}

static void change_sign(const operand *o, char type, void *row) {
  uint32_t *narrow = row;
  uint64_t *wide = row;
  uint64_t sign = is_wide(type) ? UINT64_C(1) << 63 : is_half(type) ? 0x8000 : 0x80000000;
  for (unsigned l = 0; l < LANES; l++) {
    if (is_wide(type)) {
      if (o->absolute) wide[l] &= ~sign;
      if (o->negate) wide[l] ^= sign;
    } else {
      if (o->absolute) narrow[l] &= ~(uint32_t)sign;
      if (o->negate) narrow[l] ^= (uint32_t)sign;
    }
  }
}

static void select_part(uint8_t selection, bool sign_extend, uint32_t row[LANES]) {
  unsigned shift = selection < 4 ? 8 * selection : selection < 6 ? 16 * (selection - 4u) : 0;
  unsigned bits = selection < 4 ? 8 : selection < 6 ? 16 : 32;
  for (unsigned l = 0; l < LANES; l++) {
    uint32_t value = row[l] >> shift;
    if (bits < 32)
      value = sign_extend ? (uint32_t)((int32_t)(value << (32 - bits)) >> (32 - bits)) : value & ((1u << bits) - 1);
    row[l] = value;
  }
}

static void select_half(const instruction *i, unsigned source, char type, uint32_t row[LANES]) {
  unsigned shift = i->op_sel >> source & 1 ? 16 : 0;
  for (unsigned l = 0; l < LANES; l++) {
    uint32_t half = row[l] >> shift & 0xffff;
    row[l] = type == 'j' ? (uint32_t)(int32_t)(int16_t)half : half;
  }
}

static void permute(const instruction *i, bool wide, void *row) {
  uint64_t old[LANES];
  memcpy(old, row, wide ? sizeof old : sizeof old / 2);
  const uint32_t *narrow_old = (const uint32_t *)old;
  for (unsigned l = 0; l < LANES; l++) {
    unsigned from = i->dpp_lane[l] & 63;
    if (wide)
      ((uint64_t *)row)[l] = old[from];
    else
      ((uint32_t *)row)[l] = narrow_old[from];
  }
}

/* Lanes whose DPP source is there: inside the row, and enabled. */
static uint64_t dpp_valid(const instruction *i, uint64_t exec) {
  uint64_t valid = 0;
  for (unsigned l = 0; l < LANES; l++) {
    if (i->dpp_lane[l] < LANES && (exec >> i->dpp_lane[l] & 1)) valid |= UINT64_C(1) << l;
  }
  return valid;
}

static const void *fetch(const wave *w, const instruction *i, unsigned source, const operand *o, void *row) {
  char type = (char)o->type;
  if (o->direct) return w->vector[o->index];
  if (o->row) return o->row;
  if (type == 'm')
    fetch_mask(w, o, row);
  else if (is_packed(type))
    fetch_packed16(w, i, o, source, row);
  else if (type == 'P')
    fetch_packed32(w, i, o, source, row);
  else if (is_wide(type))
    fetch64(w, o, row);
  else
    fetch32(w, o, row);
  if (i->dpp && source == 0) {
    permute(i, is_wide(type), row);
    uint64_t valid = dpp_valid(i, exec_mask(w));
    if (valid != UINT64_MAX && i->bound_ctrl) {
      for (unsigned l = 0; l < LANES; l++) {
        if (valid >> l & 1) continue;
        if (is_wide(type))
          ((uint64_t *)row)[l] = 0;
        else
          ((uint32_t *)row)[l] = 0;
      }
    }
  }
  if (i->sdwa && source < 2) select_part(i->sdwa_source[source], o->sign_extend, row);
  if (type == 'x') {
    uint32_t *narrow = row;
    unsigned shift = i->op_sel >> source & 1 ? 16 : 0;
    if (i->op_sel_hi >> source & 1) {
      for (unsigned l = 0; l < LANES; l++) narrow[l] = float_bits(half_to_float(narrow[l] >> shift));
    }
  } else if (is_half(type) && !i->sdwa) {
    select_half(i, source, type, row);
  } else if (type == 'j') {
    select_part(4, true, row);
  }
  if (o->negate || o->absolute) change_sign(o, type, row);
  return row;
}

/* ---- Results ---- */

static void scale_and_clamp32(const instruction *i, float row[LANES]) {
  static const float factors[] = {1, 2, 4, 0.5f};
  float factor = factors[i->output_scale & 3];
  if (i->output_scale) {
    for (unsigned l = 0; l < LANES; l++) row[l] *= factor;
  }
  if (!i->clamp) return;
  for (unsigned l = 0; l < LANES; l++) row[l] = row[l] > 0 ? (row[l] < 1 ? row[l] : 1) : 0;
}

static uint32_t half_bits(float value) {
  _Float16 half = (_Float16)value;
  uint16_t bits;
  memcpy(&bits, &half, sizeof bits);
  return bits;
}

static uint32_t scale_and_clamp_half(const instruction *i, uint32_t bits) {
  static const float factors[] = {1, 2, 4, 0.5f};
  float value = half_to_float(bits) * factors[i->output_scale & 3];
  if (i->clamp) value = value > 0 ? (value < 1 ? value : 1) : 0;
  return half_bits(value);
}

static void scale_and_clamp(const instruction *i, char type, void *row) {
  static const double factors[] = {1, 2, 4, 0.5};
  uint32_t *narrow = row;
  double *wide = row;
  if (type == 'f' || type == 'x') scale_and_clamp32(i, row);
  for (unsigned l = 0; l < LANES; l++) {
    if (type == 'h') narrow[l] = scale_and_clamp_half(i, narrow[l]);
    if (type == 'p') {
      narrow[l] = scale_and_clamp_half(i, narrow[l] & 0xffff) | scale_and_clamp_half(i, narrow[l] >> 16) << 16;
    }
    if (type == 'd') {
      wide[l] *= factors[i->output_scale & 3];
      if (i->clamp) wide[l] = wide[l] > 0 ? (wide[l] < 1 ? wide[l] : 1) : 0;
    }
  }
  if (type == 'P' && i->clamp) {
    scale_and_clamp32(i, row);
    scale_and_clamp32(i, (float *)row + LANES);
  }
}

/* Puts 8 or 16 bits into their place of what the register holds. */
static void merge_part(const instruction *i, const uint32_t *old, uint32_t *row) {
  char type = i->op->types[0];
  if (i->sdwa && i->sdwa_result < 6) {
    unsigned shift = i->sdwa_result < 4 ? 8 * i->sdwa_result : 16 * (i->sdwa_result - 4u);
    uint32_t bits = (i->sdwa_result < 4 ? 0xffu : 0xffffu) << shift;
    for (unsigned l = 0; l < LANES; l++) row[l] = ((i->sdwa_preserve ? old[l] : 0) & ~bits) | (row[l] << shift & bits);
    return;
  }
  if (!is_half(type)) return;
  bool high = i->op_sel >> 3 & 1;
  if (i->op->flags & OP_HALF_BY_SELECT) high = (i->op_sel >> 2 & 3) != 0;
  bool keep = high || (i->op->flags & (OP_KEEP_HIGH | OP_HALF_BY_SELECT));
  for (unsigned l = 0; l < LANES; l++) {
    uint32_t half = row[l] & 0xffff;
    row[l] = high ? (old[l] & 0xffff) | half << 16 : (keep ? old[l] & 0xffff0000 : 0) | half;
  }
}

static void write_masked(uint32_t *d, const uint32_t *row, uint64_t mask) {
  if (mask == UINT64_MAX) {
    memcpy(d, row, LANES * 4);
    return;
  }
  for (unsigned l = 0; l < LANES; l++) d[l] = mask >> l & 1 ? row[l] : d[l];
}

static uint64_t pack_mask(const uint32_t row[LANES]) {
  uint64_t mask = 0;
  for (unsigned l = 0; l < LANES; l++) mask |= (uint64_t)(row[l] & 1) << l;
  return mask;
}

static uint64_t write_lanes(const wave *w, const instruction *i) {
  uint64_t mask = exec_mask(w);
  if (!i->dpp) return mask;
  if (!i->bound_ctrl) mask &= dpp_valid(i, mask);
  for (unsigned l = 0; l < LANES; l++) {
    if (!(i->row_mask >> (l >> 4) & 1) || !(i->bank_mask >> (l >> 2 & 3) & 1)) mask &= ~(UINT64_C(1) << l);
  }
  return mask;
}

static void write_result(wave *w, const instruction *i, void *row) {
  const operand *d = &i->operand[0];
  char type = i->op->types[0];
  if (type == 'm') {
    uint64_t mask = pack_mask(row) & exec_mask(w);
    set_scalar_pair(w, d->index, mask);
    if (i->variant) set_scalar_pair(w, REGISTER_EXEC, mask);
    return;
  }
  if (i->output_scale || (i->clamp && is_float(type))) scale_and_clamp(i, type, row);
  uint64_t mask = write_lanes(w, i);
  uint32_t *low = w->vector[d->index];
  if (is_wide(type)) {
    uint32_t *high = w->vector[d->index + 1];
    const uint64_t *wide = row;
    for (unsigned l = 0; l < LANES; l++) {
      bool on = mask >> l & 1;
      low[l] = on ? (uint32_t)wide[l] : low[l];
      high[l] = on ? (uint32_t)(wide[l] >> 32) : high[l];
    }
    return;
  }
  merge_part(i, low, row);
  write_masked(low, row, mask);
}

void execute_vector(wave *w, const instruction *i) {
  static const uint64_t zeros[LANES];
  uint64_t rows[3][LANES], result[LANES];
  const void *source[3] = {zeros, zeros, zeros};
  unsigned sources = i->sources;
  for (unsigned s = 0; s < sources; s++) {
    bool is_result = s + 1 == sources && (i->op->flags & OP_ACCUMULATE);
    source[s] = fetch(w, i, s, is_result ? &i->operand[MAX_OPERANDS - 1] : &i->operand[s + 1], rows[s]);
  }
  if (i->plain && exec_mask(w) == UINT64_MAX) {
    i->op->lanes(w->vector[i->operand[0].index], source[0], source[1], source[2]);
    return;
  }
  i->op->lanes(result, source[0], source[1], source[2]);
  write_result(w, i, result);
}

/* ---- Decoding ---- */

static sluice_status *make_constant_row(instruction *i, unsigned source, operand *o) {
  wave none = {0};
  uint64_t row[LANES];
  void *kept = malloc(sizeof row);
  if (!kept) return sluice_out_of_memory();
  bool dpp = i->dpp;
  i->dpp = false;
  memcpy(kept, fetch(&none, i, source, o, row), sizeof row);
  i->dpp = dpp;
  o->row = kept;
  return NULL;
}

/* Saturating variants have names of their own. */
static const vector_op *find_op(const instruction *i) {
  const vector_op *op = vector_op_find(i->mnemonic + 2);
  if (!op || !i->clamp || is_float(op->types[0]) || op->types[0] == 'm') return op;
  char name[64] = "saturate_";
  strcat(name, i->mnemonic + 2);
  return vector_op_find(name);
}

static bool resolve_source(instruction *i, unsigned source, operand *o, char type) {
  o->type = (uint8_t)type;
  if (o->kind == OPERAND_OFF || o->kind == OPERAND_NONE) return false;
  settle_constant(o, type == 'p' ? 'h' : type == 'q' ? 's' : type == 'P' || type == 'x' ? 'f' : type);
  mark_reads(i, o);
  bool select = is_packed(type) || type == 'P' || is_half(type) || type == 'x';
  bool modified = o->negate || o->absolute || (i->dpp && source == 0) || (i->sdwa && source < 2) || select;
  if (type == 'm' && o->kind != OPERAND_SCALAR && o->kind != OPERAND_CONSTANT) return false;
  o->direct = o->kind == OPERAND_VECTOR && !modified && !is_wide(type);
  if (o->kind != OPERAND_CONSTANT) return true;
  sluice_status *status = make_constant_row(i, source, o);
  bool made = status == NULL;
  sluice_status_free(status);
  return made;
}

bool vector_resolve(instruction *i, gcn_target target) {
  (void)target;
  if (!mnemonic_starts(i, "v_")) return false;
  const vector_op *op = find_op(i);
  if (!op) {
    /* v_cmpx_ is v_cmp_ that writes EXEC, too. */
    if (!mnemonic_starts(i, "v_cmpx_")) return false;
    char name[48] = "cmp_";
    strcat(name, i->mnemonic + 7);
    op = vector_op_find(name);
    if (!op) return false;
    i->variant = 1;
    i->scalar_writes[1] |= UINT64_C(3) << (REGISTER_EXEC - 64);
  }
  i->op = op;
  bool accumulates = op->flags & OP_ACCUMULATE;
  unsigned sources = (unsigned)strlen(op->types) - 1;
  if (i->operands != 1 + sources - accumulates || sources > 3) return false;
  i->sources = (uint8_t)sources;
  for (unsigned s = 0; s < sources; s++) {
    operand *o = &i->operand[s + 1];
    if (accumulates && s + 1 == sources) {
      /* The result as a source: v_fmac_f16 and the like keep op_sel for themselves. */
      o = &i->operand[MAX_OPERANDS - 1];
      *o = i->operand[0];
      o->negate = o->absolute = false;
    }
    if (!resolve_source(i, s, o, op->types[s + 1])) return false;
  }
  operand *d = &i->operand[0];
  char type = op->types[0];
  if (d->kind != (type == 'm' ? OPERAND_SCALAR : OPERAND_VECTOR)) return false;
  mark_writes(i, d);
  i->partial_write =
      (i->sdwa && i->sdwa_result < 6) || (is_half(type) && (i->op_sel & 8)) || (op->flags & OP_HALF_BY_SELECT);
  if (i->partial_write || (op->flags & OP_KEEP_HIGH)) mark_reads(i, d);
  i->plain = !is_wide(type) && !is_half(type) && type != 'm' && !i->dpp && !i->sdwa && !i->output_scale && !i->clamp;
  i->execute = execute_vector;
  i->class = CLASS_VECTOR;
  return true;
}
