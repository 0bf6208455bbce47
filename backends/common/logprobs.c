/* What log-probabilities are made of, for rows that want them (sluice_logprob_row): the mass of all logits, and the
 * likeliest tokens. One workgroup is one row. The runtime takes the logarithms, of a few numbers a row. */
#include "backends/common/families.h"
#include "backends/common/logits.h"

#include <stddef.h>

typedef struct row_state {
  int64_t vocabulary;
  V logits;
  V largest;        /* f32 */
  V vector, scalar; /* locals of the pass at hand */
  V bound;          /* i64: places below it count */
} row_state;

static V slot_of(const row_state *s, unsigned vector) {
  return vector > 1 ? s->vector : s->scalar;
}

static void largest_body(emitter *e, V offset, unsigned vector, void *user) {
  const row_state *s = user;
  V logit = load_f32(e, SLUICE_F32, s->logits, offset, vector), slot = slot_of(s, vector);
  set(e, slot, fmax_(e, get(e, LLVMTypeOf(logit), slot), logit));
}

static V find_largest(emitter *e, row_state *s) {
  T places = vector_type(e->f32, e->vector);
  V least = float32(e, -__builtin_inf());
  s->vector = local_set(e, places, splat(e, least, e->vector));
  s->scalar = local_set(e, e->f32, least);
  row_loop(e, s->vocabulary, largest_body, s);
  V result = fmax_(e, vector_reduce(e, get(e, places, s->vector), REDUCE_MAX), get(e, e->f32, s->scalar));
  return e->atoms->reduce(e, result, REDUCE_MAX);
}

/* exp(logit - largest); 1 for the largest, even when it is infinite, 0 for NaN. */
static void mass_body(emitter *e, V offset, unsigned vector, void *user) {
  const row_state *s = user;
  V logit = load_f32(e, SLUICE_F32, s->logits, offset, vector), zero = splat(e, float32(e, 0), vector);
  V distance = select_(e, fcmp(e, LLVMRealOEQ, logit, splat(e, s->largest, vector)), zero, fsub_(e, logit, s->largest));
  V power = fmul_(e, distance, float32(e, LOG2_E));
  V mass = select_(e, fcmp(e, LLVMRealORD, power, power), e->atoms->exp2(e, power), zero), slot = slot_of(s, vector);
  V wide = LLVMBuildFPExt(e->builder, mass, vector_type(e->f64, vector), "");
  set(e, slot, fadd_(e, get(e, LLVMTypeOf(wide), slot), wide));
}

static V find_mass(emitter *e, row_state *s) {
  T places = vector_type(e->f64, e->vector);
  s->vector = local_set(e, places, LLVMConstNull(places));
  s->scalar = local_set(e, e->f64, LLVMConstNull(e->f64));
  row_loop(e, s->vocabulary, mass_body, s);
  V sum = fadd_(e, vector_reduce(e, get(e, places, s->vector), REDUCE_ADD), get(e, e->f64, s->scalar));
  return e->atoms->reduce(e, sum, REDUCE_ADD);
}

/* Where a token stands among all, the likeliest highest: its logit's key, and the lower id first. An i64. */
static V place_of(emitter *e, V logit, V offset, unsigned vector) {
  V ids = splat(e, sub(e, int64(e, UINT32_MAX), offset), vector);
  if (vector > 1) {
    V steps[32];
    for (unsigned i = 0; i < vector; i++) steps[i] = int64(e, i);
    ids = sub(e, ids, LLVMConstVector(steps, vector));
  }
  V key = LLVMBuildSExt(e->builder, logit_key(e, logit), vector_type(e->i64, vector), "");
  return or_(e, LLVMBuildShl(e->builder, key, splat(e, int64(e, 32), vector), ""), ids);
}

static void next_body(emitter *e, V offset, unsigned vector, void *user) {
  const row_state *s = user;
  V place = place_of(e, load_f32(e, SLUICE_F32, s->logits, offset, vector), offset, vector), slot = slot_of(s, vector);
  V counts = icmp(e, LLVMIntSLT, place, splat(e, s->bound, vector));
  V best = get(e, LLVMTypeOf(place), slot);
  set(e, slot, select_(e, counts, imax(e, best, place), best));
}

/* The highest place below `bound`. */
static V find_next(emitter *e, row_state *s, V bound) {
  T places = vector_type(e->i64, e->vector);
  V least = int64(e, INT64_MIN);
  s->bound = bound;
  s->vector = local_set(e, places, splat(e, least, e->vector));
  s->scalar = local_set(e, e->i64, least);
  row_loop(e, s->vocabulary, next_body, s);
  V best = get(e, e->i64, s->scalar), vector = get(e, places, s->vector);
  for (unsigned i = 0; i < e->vector; i++)
    best =
        imax(e, best, e->vector > 1 ? LLVMBuildExtractElement(e->builder, vector, int32(e, (int32_t)i), "") : vector);
  return e->atoms->reduce(e, best, REDUCE_MAX);
}

/* Writes the `count` likeliest tokens, one pass over the row for each. */
static void write_top(emitter *e, row_state *s, V count, V top) {
  V bound = local_set(e, e->i64, int64(e, INT64_MAX));
  loop each = loop_begin(e, int64(e, 0), imin(e, count, int64(e, s->vocabulary)), int64(e, 1));
  V place = find_next(e, s, get(e, e->i64, bound));
  V token = sub(e, int64(e, UINT32_MAX), and_(e, place, int64(e, UINT32_MAX)));
  V entry = byte_offset(e, top, mul(e, each.index, int64(e, sizeof(sluice_logprob_entry))));
  store_i32(e, token, entry, int64(e, 0));
  store(e, load_f32(e, SLUICE_F32, s->logits, token, 1),
        byte_offset(e, entry, int64(e, offsetof(sluice_logprob_entry, logit))));
  set(e, bound, place);
  loop_end(e, &each);
}

void family_logprobs(emitter *e, const kernel_spec *spec) {
  row_state s = {.vocabulary = kernel_integer(spec, "vocabulary", &e->status)};
  if (e->status) return;
  kernel_shape shape = each(SLUICE_SIZE_LOGPROBS, s.vocabulary);
  shape.lanes = 1024;
  kernel_begin(e, spec, shape);
  s.logits = element(e, e->f32, e->argument[0], mul(e, e->x, int64(e, s.vocabulary)));
  V sampling = byte_offset(e, e->argument[1], mul(e, e->x, int64(e, sizeof(sluice_sampling_row))));
  V count = to_i64(e, logit_field(e, e->i32, sampling, offsetof(sluice_sampling_row, logprobs)));
  branch wanted = if_begin(e, icmp(e, LLVMIntSGT, count, int64(e, 0)));
  V out = byte_offset(e, e->argument[3], mul(e, e->x, int64(e, sizeof(sluice_logprob_row))));
  V sampled = to_i64(e, logit_field(e, e->i32, element(e, e->i32, e->argument[2], e->x), 0));
  V token = select_(e, icmp(e, LLVMIntSLT, sampled, int64(e, 0)), sub(e, int64(e, -1), sampled), sampled);
  s.largest = find_largest(e, &s);
  store(e, find_mass(e, &s), byte_offset(e, out, int64(e, offsetof(sluice_logprob_row, mass))));
  store(e, s.largest, byte_offset(e, out, int64(e, offsetof(sluice_logprob_row, largest))));
  store(e, load_f32(e, SLUICE_F32, s.logits, token, 1),
        byte_offset(e, out, int64(e, offsetof(sluice_logprob_row, chosen))));
  write_top(e, &s, count, byte_offset(e, out, int64(e, offsetof(sluice_logprob_row, top))));
  if_end(e, &wanted);
  kernel_end(e);
}
