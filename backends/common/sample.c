/* Choosing the next token of each logit row; docs/sampling.md defines it. One workgroup is one row.
 *
 * Nothing is sorted: both thresholds are found by bisection on the integers that order like floats, with one pass over
 * the row for each bit. */
#include "backends/common/families.h"
#include "backends/common/logits.h"

#include <stddef.h>

/* Logits whose probabilities are added up before they join the running sum. */
enum { CHUNK = 1024 };

/* Whether a pass over the row met a NaN: locals of i1, one for each place of a vector, and one for logits read alone.
 */
typedef struct nan_watch {
  V vector, single;
  unsigned width; /* of the vectors */
} nan_watch;

typedef struct sampler {
  int64_t vocabulary;
  V logits;
  V largest;    /* f32: the largest logit, -inf when all are NaN */
  V scale;      /* f32: log2 e / temperature */
  V min_p;      /* f32: tokens of less mass have none */
  V least;      /* local i64: keys below it are not kept */
  V vector_sum; /* locals of the pass at hand */
  V scalar_sum;
  V threshold; /* i64: key from which the pass at hand takes logits */
  V base;      /* i64: offset of the chunk at hand */
  nan_watch watch;
} sampler;

static V float64(emitter *e, double value) {
  return LLVMConstReal(e->f64, value);
}

/* ---- one logit ---- */

V logit_key(emitter *e, V logit) {
  unsigned width = width_of(logit);
  V bits = bitcast(e, fadd_(e, logit, float32(e, 0)), vector_type(e->i32, width));
  V sign = LLVMBuildAShr(e->builder, bits, splat(e, int32(e, 31), width), "");
  V ordered = LLVMBuildXor(e->builder, bits, and_(e, sign, int32(e, INT32_MAX)), "");
  return select_(e, fcmp(e, LLVMRealUNO, logit, logit), splat(e, int32(e, INT32_MIN), width), ordered);
}

/* exp((logit - largest) / temperature) where the key reaches `threshold` and the mass min_p, otherwise 0; 0 for NaN.
 * The largest logit gives 1, even when it is infinite. */
static V mass_of(emitter *e, const sampler *s, V logit, V threshold) {
  unsigned width = width_of(logit);
  V zero = splat(e, float32(e, 0), width);
  V distance = select_(e, fcmp(e, LLVMRealOEQ, logit, splat(e, s->largest, width)), zero, fsub_(e, logit, s->largest));
  V power = fmul_(e, distance, s->scale);
  V kept = and_(e, fcmp(e, LLVMRealORD, power, power), icmp(e, LLVMIntSGE, logit_key(e, logit), to_i32(e, threshold)));
  V mass = e->atoms->exp2(e, power);
  kept = and_(e, kept, fcmp(e, LLVMRealOGE, mass, splat(e, s->min_p, width)));
  return select_(e, kept, mass, zero);
}

/* ---- NaN ---- */

static nan_watch watch_begin(emitter *e, unsigned width) {
  T places = vector_type(e->i1, width);
  return (nan_watch){.vector = local_set(e, places, LLVMConstNull(places)),
                     .single = local_set(e, e->i1, LLVMConstNull(e->i1)),
                     .width = width};
}

/* Looks at two vectors at once, or two logits. */
static void watch(emitter *e, const nan_watch *w, V a, V b) {
  V unordered = fcmp(e, LLVMRealUNO, a, b), slot = width_of(a) > 1 ? w->vector : w->single;
  set(e, slot, or_(e, get(e, LLVMTypeOf(unordered), slot), unordered));
}

/* i1: whether any lane met one. */
static V watch_end(emitter *e, const nan_watch *w) {
  V one = float32(e, 1), zero = float32(e, 0);
  V places = get(e, vector_type(e->i1, w->width), w->vector);
  V found = vector_reduce(e, select_(e, places, splat(e, one, w->width), zero), REDUCE_MAX);
  found = fmax_(e, found, select_(e, get(e, e->i1, w->single), one, zero));
  return fcmp(e, LLVMRealOGT, e->atoms->reduce(e, found, REDUCE_MAX), zero);
}

/* The row's token for the runtime: -1 - token where a logit of the row is NaN. */
static void store_token(emitter *e, const sampler *s, V token) {
  V met = watch_end(e, &s->watch);
  store_i32(e, select_(e, met, sub(e, int64(e, -1), token), token), e->argument[2], e->x);
}

static V widen(emitter *e, V value) {
  return LLVMBuildFPExt(e->builder, value, vector_type(e->f64, width_of(value)), "");
}

/* ---- passes over the row ---- */

static void accumulate(emitter *e, const sampler *s, V value) {
  V slot = width_of(value) > 1 ? s->vector_sum : s->scalar_sum;
  set(e, slot, fadd_(e, get(e, LLVMTypeOf(value), slot), value));
}

/* The sum of what `body` accumulates, in elements of `type`, over `width` logits. */
static V row_sum(emitter *e, sampler *s, T type, int64_t width, row_body *body) {
  T vector = vector_type(type, e->vector);
  s->vector_sum = local_set(e, vector, LLVMConstNull(vector));
  s->scalar_sum = local_set(e, type, LLVMConstNull(type));
  row_loop(e, width, body, s);
  V sum = fadd_(e, vector_reduce(e, get(e, vector, s->vector_sum), REDUCE_ADD), get(e, type, s->scalar_sum));
  return e->atoms->reduce(e, sum, REDUCE_ADD);
}

static void largest_body(emitter *e, V offset, unsigned vector, void *user) {
  const sampler *s = user;
  V slot = vector > 1 ? s->vector_sum : s->scalar_sum;
  V logit = load_f32(e, SLUICE_F32, s->logits, offset, vector);
  watch(e, &s->watch, logit, logit);
  set(e, slot, fmax_(e, get(e, LLVMTypeOf(logit), slot), logit));
}

static V find_largest(emitter *e, sampler *s) {
  T vector = vector_type(e->f32, e->vector);
  V least = float32(e, -__builtin_inf());
  s->vector_sum = local_set(e, vector, splat(e, least, e->vector));
  s->scalar_sum = local_set(e, e->f32, least);
  s->watch = watch_begin(e, e->vector);
  row_loop(e, s->vocabulary, largest_body, s);
  V result = fmax_(e, vector_reduce(e, get(e, vector, s->vector_sum), REDUCE_MAX), get(e, e->f32, s->scalar_sum));
  return e->atoms->reduce(e, result, REDUCE_MAX);
}

/* Counts are kept in f32, which is exact up to the 2^24 logits that family_sample allows. */
static void count_body(emitter *e, V offset, unsigned vector, void *user) {
  const sampler *s = user;
  V key = logit_key(e, load_f32(e, SLUICE_F32, s->logits, offset, vector));
  V reached = icmp(e, LLVMIntSGE, key, to_i32(e, s->threshold));
  accumulate(e, s, select_(e, reached, splat(e, float32(e, 1), vector), float32(e, 0)));
}

static void mass_body(emitter *e, V offset, unsigned vector, void *user) {
  const sampler *s = user;
  V logit = load_f32(e, SLUICE_F32, s->logits, add(e, s->base, offset), vector);
  accumulate(e, s, widen(e, mass_of(e, s, logit, s->threshold)));
}

static V mass_from(emitter *e, sampler *s, V threshold) {
  s->threshold = threshold;
  s->base = int64(e, 0);
  return row_sum(e, s, e->f64, s->vocabulary, mass_body);
}

/* Raises s->least to the largest key whose pass reaches `wanted`: with `masses`, the mass of the logits from that key
 * on (f64), otherwise their number (f32). Both fall as the key rises, also in floating-point arithmetic. */
static void raise_least(emitter *e, sampler *s, bool masses, V wanted) {
  V high = local_set(e, e->i64, add(e, to_i64(e, logit_key(e, s->largest)), int64(e, 1)));
  loop bits = loop_begin(e, int64(e, 0), int64(e, 32), int64(e, 1));
  V low = get(e, e->i64, s->least);
  V middle = LLVMBuildAShr(e->builder, add(e, low, get(e, e->i64, high)), int64(e, 1), "");
  s->threshold = middle;
  V reached = masses ? mass_from(e, s, middle) : row_sum(e, s, e->f32, s->vocabulary, count_body);
  V enough = fcmp(e, LLVMRealOGE, reached, wanted);
  set(e, s->least, select_(e, enough, middle, low));
  set(e, high, select_(e, enough, get(e, e->i64, high), middle));
  loop_end(e, &bits);
}

/* ---- greedy ---- */

/* One pass for the largest logit and where it is. A lane reads AT_ONCE vectors, keeps for each place of a vector the
 * largest of the logits there, and, when that is a new record, the first id of the vectors. Which of them it was is
 * looked up at the end, by the lanes that have the largest of all. */
enum { AT_ONCE = 4 };

typedef struct records {
  unsigned width;    /* of the vectors */
  int64_t full, end; /* ids below `full` are read AT_ONCE vectors at a time, below `end` one, the others alone */
  V best, id;        /* locals: f32 and i32 vectors */
  V rest;            /* local f32: the largest from `end` on */
  V lowest;          /* local i64: the lowest id found */
} records;

static int64_t stride(const emitter *e, const records *r) {
  return (int64_t)r->width * e->lanes;
}

/* `count` vectors from id `first` on. */
static void read_vectors(emitter *e, const sampler *s, const records *r, V first, unsigned count) {
  T values = vector_type(e->f32, r->width), ids = vector_type(e->i32, r->width);
  V logit[AT_ONCE];
  for (unsigned i = 0; i < count; i++)
    logit[i] = load_f32(e, SLUICE_F32, s->logits, add(e, first, int64(e, i * stride(e, r))), r->width);
  for (unsigned i = 0; i < count; i += 2) watch(e, &s->watch, logit[i], logit[i + 1 < count ? i + 1 : i]);
  for (unsigned i = 1; i < count; i++) logit[0] = fmax_(e, logit[0], logit[i]);
  V best = get(e, values, r->best), better = fcmp(e, LLVMRealOGT, logit[0], best);
  set(e, r->best, select_(e, better, logit[0], best));
  set(e, r->id, select_(e, better, splat(e, to_i32(e, first), r->width), get(e, ids, r->id)));
}

static void read_row(emitter *e, const sampler *s, const records *r) {
  V first = mul(e, e->atoms->lane(e), int64(e, r->width));
  if (r->full) {
    loop many = loop_begin(e, first, int64(e, r->full), int64(e, AT_ONCE * stride(e, r)));
    read_vectors(e, s, r, many.index, AT_ONCE);
    loop_end(e, &many);
  }
  if (r->end > r->full) {
    loop one = loop_begin(e, add(e, first, int64(e, r->full)), int64(e, r->end), int64(e, stride(e, r)));
    read_vectors(e, s, r, one.index, 1);
    loop_end(e, &one);
  }
  if (s->vocabulary > r->end) {
    loop single = lane_loop(e, int64(e, r->end), int64(e, s->vocabulary));
    V logit = load_f32(e, SLUICE_F32, s->logits, single.index, 1);
    watch(e, &s->watch, logit, logit);
    set(e, r->rest, fmax_(e, get(e, e->f32, r->rest), logit));
    loop_end(e, &single);
  }
}

/* Lowers r->lowest to `id` if that has the largest logit; ids beyond the row have not. */
static void try_id(emitter *e, const sampler *s, const records *r, V id) {
  V inside = imin(e, id, int64(e, s->vocabulary - 1)), lowest = get(e, e->i64, r->lowest);
  V found = fcmp(e, LLVMRealOEQ, load_f32(e, SLUICE_F32, s->logits, inside, 1), s->largest);
  set(e, r->lowest, select_(e, found, imin(e, lowest, inside), lowest));
}

static void look_up(emitter *e, const sampler *s, const records *r) {
  V best = get(e, vector_type(e->f32, r->width), r->best), ids = get(e, vector_type(e->i32, r->width), r->id);
  for (unsigned i = 0; i < r->width; i++) {
    V value = best, id = ids;
    if (r->width > 1) {
      value = LLVMBuildExtractElement(e->builder, best, int32(e, (int32_t)i), "");
      id = LLVMBuildExtractElement(e->builder, ids, int32(e, (int32_t)i), "");
    }
    branch mine = if_begin(e, fcmp(e, LLVMRealOEQ, value, s->largest));
    loop vectors = loop_begin(e, int64(e, 0), int64(e, AT_ONCE), int64(e, 1));
    V offset = add(e, mul(e, vectors.index, int64(e, stride(e, r))), int64(e, i));
    try_id(e, s, r, add(e, to_i64(e, id), offset));
    loop_end(e, &vectors);
    if_end(e, &mine);
  }
}

/* The lowest id with the largest logit; 0 when every logit is NaN. */
static V choose_largest(emitter *e, sampler *s) {
  records r = {.width = e->lanes > 1 && e->vector > 4 ? 4 : e->vector};
  V least = float32(e, -__builtin_inf());
  r.end = s->vocabulary / r.width * r.width;
  r.full = s->vocabulary / (AT_ONCE * stride(e, &r)) * (AT_ONCE * stride(e, &r));
  r.best = local_set(e, vector_type(e->f32, r.width), splat(e, least, r.width));
  r.id = local_set(e, vector_type(e->i32, r.width), LLVMConstNull(vector_type(e->i32, r.width)));
  r.rest = local_set(e, e->f32, least);
  r.lowest = local_set(e, e->i64, int64(e, s->vocabulary));
  s->watch = watch_begin(e, r.width);
  read_row(e, s, &r);
  V best = vector_reduce(e, get(e, vector_type(e->f32, r.width), r.best), REDUCE_MAX);
  s->largest = e->atoms->reduce(e, fmax_(e, best, get(e, e->f32, r.rest)), REDUCE_MAX);
  look_up(e, s, &r);
  /* What was read alone; all of the row when -inf, which sets no record, is the largest. */
  V nothing = fcmp(e, LLVMRealOEQ, s->largest, least);
  loop others = lane_loop(e, select_(e, nothing, int64(e, 0), int64(e, r.end)), int64(e, s->vocabulary));
  try_id(e, s, &r, others.index);
  loop_end(e, &others);
  V lowest = e->atoms->reduce(e, get(e, e->i64, r.lowest), REDUCE_MIN);
  return select_(e, icmp(e, LLVMIntSLT, lowest, int64(e, s->vocabulary)), lowest, int64(e, 0));
}

/* ---- drawing ---- */

/* splitmix64's output function. */
static V mix(emitter *e, V z) {
  z = mul(e, LLVMBuildXor(e->builder, z, lshr(e, z, int64(e, 30)), ""), int64(e, (int64_t)0xbf58476d1ce4e5b9u));
  z = mul(e, LLVMBuildXor(e->builder, z, lshr(e, z, int64(e, 27)), ""), int64(e, (int64_t)0x94d049bb133111ebu));
  return LLVMBuildXor(e->builder, z, lshr(e, z, int64(e, 31)), "");
}

/* f64 in [0, 1) from seed and position. */
static V uniform(emitter *e, V seed, V position) {
  V step = int64(e, (int64_t)0x9e3779b97f4a7c15u);
  V z = mix(e, add(e, mix(e, add(e, seed, step)), mul(e, add(e, position, int64(e, 1)), step)));
  V bits = LLVMBuildUIToFP(e->builder, lshr(e, z, int64(e, 12)), e->f64, "");
  return fmul_(e, bits, float64(e, 0x1p-52));
}

/* The mass of chunk `chunk` (i64), of `width` logits. */
static V chunk_mass(emitter *e, sampler *s, V chunk, int64_t width) {
  s->base = mul(e, chunk, int64(e, CHUNK));
  return row_sum(e, s, e->f64, width, mass_body);
}

/* The first kept id, ascending, at which the running sum of masses exceeds `fraction` of their total. */
static V draw(emitter *e, sampler *s, V fraction) {
  const int64_t full = s->vocabulary / CHUNK, rest = s->vocabulary % CHUNK, chunks = full + (rest != 0);
  V zero = int64(e, 0), one = int64(e, 1);
  V masses = workgroup_take(e, (uint64_t)chunks * sizeof(double));
  V total = local_set(e, e->f64, float64(e, 0));
  s->threshold = get(e, e->i64, s->least);
  if (full) {
    loop each = loop_begin(e, zero, int64(e, full), one);
    V mass = chunk_mass(e, s, each.index, CHUNK);
    store(e, mass, element(e, e->f64, masses, each.index));
    set(e, total, fadd_(e, get(e, e->f64, total), mass));
    loop_end(e, &each);
  }
  if (rest) {
    V mass = chunk_mass(e, s, int64(e, full), rest);
    store(e, mass, element(e, e->f64, masses, int64(e, full)));
    set(e, total, fadd_(e, get(e, e->f64, total), mass));
  }
  e->atoms->barrier(e); /* every lane stored the same masses */
  V target = fmul_(e, get(e, e->f64, total), fraction);

  /* The chunk in which the sum passes the target, and the sum before it. */
  V running = local_set(e, e->f64, float64(e, 0)), found = local_set(e, e->i64, int64(e, -1));
  loop search = loop_begin(e, zero, int64(e, chunks), one);
  branch open = if_begin(e, icmp(e, LLVMIntSLT, get(e, e->i64, found), zero));
  V before = get(e, e->f64, running);
  V after = fadd_(e, before, load(e, e->f64, element(e, e->f64, masses, search.index)));
  V passed = fcmp(e, LLVMRealOGT, after, target);
  set(e, running, select_(e, passed, before, after));
  set(e, found, select_(e, passed, search.index, int64(e, -1)));
  if_end(e, &open);
  loop_end(e, &search);

  /* Inside the chunk; rounding may leave its last kept id below the target, which is then the one. */
  V result = local_set(e, e->i64, zero), done = local_set(e, e->i1, LLVMConstInt(e->i1, 0, 0));
  V first = mul(e, imax(e, get(e, e->i64, found), zero), int64(e, CHUNK));
  V last = imin(e, add(e, first, int64(e, CHUNK)), int64(e, s->vocabulary));
  loop each = loop_begin(e, first, last, one);
  V mass = mass_of(e, s, load_f32(e, SLUICE_F32, s->logits, each.index, 1), s->threshold);
  V wanted = and_(e, fcmp(e, LLVMRealOGT, mass, float32(e, 0)), LLVMBuildNot(e->builder, get(e, e->i1, done), ""));
  branch kept = if_begin(e, wanted);
  V sum = fadd_(e, get(e, e->f64, running), widen(e, mass));
  set(e, running, sum);
  set(e, result, each.index);
  set(e, done, fcmp(e, LLVMRealOGT, sum, target));
  if_end(e, &kept);
  loop_end(e, &each);
  return get(e, e->i64, result);
}

V logit_field(emitter *e, T type, V structure, size_t offset) {
  return load(e, type, byte_offset(e, structure, int64(e, (int64_t)offset)));
}

/* Changes the logits of the tokens that were seen, in place. Each is in the list once, so lanes are apart. */
static void penalise(emitter *e, const sampler *s, V row) {
  V count = to_i64(e, logit_field(e, e->i32, row, offsetof(sluice_sampling_row, seen_count)));
  branch any = if_begin(e, icmp(e, LLVMIntSGT, count, int64(e, 0)));
  V first = to_i64(e, logit_field(e, e->i32, row, offsetof(sluice_sampling_row, seen_first)));
  V repetition = logit_field(e, e->f32, row, offsetof(sluice_sampling_row, repetition_penalty));
  V presence = logit_field(e, e->f32, row, offsetof(sluice_sampling_row, presence_penalty));
  V frequency = logit_field(e, e->f32, row, offsetof(sluice_sampling_row, frequency_penalty));
  V list = byte_offset(e, e->argument[1], mul(e, size_of(e, SLUICE_SIZE_ROWS), int64(e, sizeof(sluice_sampling_row))));
  loop entries = lane_loop(e, int64(e, 0), count);
  V entry = byte_offset(e, list, mul(e, add(e, first, entries.index), int64(e, sizeof(sluice_seen_token))));
  V token = to_i64(e, logit_field(e, e->i32, entry, offsetof(sluice_seen_token, token)));
  V times = to_f32(e, logit_field(e, e->i32, entry, offsetof(sluice_seen_token, count)));
  V place = element(e, e->f32, s->logits, token);
  V logit = load(e, e->f32, place);
  V above = fcmp(e, LLVMRealOGT, logit, float32(e, 0));
  logit = select_(e, above, fdiv_(e, logit, repetition), fmul_(e, logit, repetition));
  V generated = fcmp(e, LLVMRealOGT, times, float32(e, 0));
  V less = fadd_(e, presence, fmul_(e, frequency, times));
  store(e, fsub_(e, logit, select_(e, generated, less, float32(e, 0))), place);
  loop_end(e, &entries);
  e->atoms->barrier(e);
  if_end(e, &any);
}

void family_sample(emitter *e, const kernel_spec *spec) {
  sampler s = {.vocabulary = kernel_integer(spec, "vocabulary", &e->status)};
  if (e->status) return;
  if (s.vocabulary < 1 || s.vocabulary > 1 << 24) {
    e->status = sluice_error(SLUICE_INTERNAL, "%s: a vocabulary of %lld: expected 1 to %d", spec->symbol,
                             (long long)s.vocabulary, 1 << 24);
    return;
  }
  kernel_shape shape = each(SLUICE_SIZE_ROWS, s.vocabulary);
  shape.lanes = 1024;
  kernel_begin(e, spec, shape);
  s.logits = element(e, e->f32, e->argument[0], mul(e, e->x, int64(e, s.vocabulary)));
  V row = byte_offset(e, e->argument[1], mul(e, e->x, int64(e, sizeof(sluice_sampling_row))));
  penalise(e, &s, row);
  V temperature = logit_field(e, e->f32, row, offsetof(sluice_sampling_row, temperature));
  branch drawn = if_begin(e, fcmp(e, LLVMRealOGT, temperature, float32(e, 0)));

  s.largest = find_largest(e, &s);
  V scale = fdiv_(e, float32(e, LOG2_E), temperature);
  s.scale = fmin_(e, scale, float32(e, 1e30)); /* finite, so that 0 times it is 0 */
  s.min_p = logit_field(e, e->f32, row, offsetof(sluice_sampling_row, min_p));
  s.least = local_set(e, e->i64, int64(e, INT32_MIN));
  V top_k = to_i64(e, logit_field(e, e->i32, row, offsetof(sluice_sampling_row, top_k)));
  V limited = and_(e, icmp(e, LLVMIntSGT, top_k, int64(e, 0)), icmp(e, LLVMIntSLT, top_k, int64(e, s.vocabulary)));
  branch by_count = if_begin(e, limited);
  raise_least(e, &s, false, to_f32(e, top_k));
  if_end(e, &by_count);
  V top_p = logit_field(e, e->f32, row, offsetof(sluice_sampling_row, top_p));
  V partial = and_(e, fcmp(e, LLVMRealOGT, top_p, float32(e, 0)), fcmp(e, LLVMRealOLT, top_p, float32(e, 1)));
  branch by_mass = if_begin(e, partial);
  raise_least(e, &s, true, fmul_(e, mass_from(e, &s, get(e, e->i64, s.least)), widen(e, top_p)));
  if_end(e, &by_mass);
  V position = to_i64(e, logit_field(e, e->i32, row, offsetof(sluice_sampling_row, position)));
  V seed = logit_field(e, e->i64, row, offsetof(sluice_sampling_row, seed));
  store_token(e, &s, draw(e, &s, uniform(e, seed, position)));

  if_else(e, &drawn);
  store_token(e, &s, choose_largest(e, &s));
  if_end(e, &drawn);
  kernel_end(e);
}
