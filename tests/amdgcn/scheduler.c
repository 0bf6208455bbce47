/* A launch: workgroups are started in order, as many at a time as the GPU has room for; their waves take turns. A wave
 * runs until it ends, reaches a barrier, sleeps, or its turn is over. */
#include "machine.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <xmmintrin.h>

/* ---- Faults ---- */

const char *gcn_fault_name(gcn_fault_kind kind) {
  static const char *const names[] = {"no fault",
                                      "unknown instruction",
                                      "global memory out of bounds",
                                      "LDS out of bounds",
                                      "scratch out of bounds",
                                      "jump out of the code",
                                      "trap",
                                      "instruction limit",
                                      "read of a register with a load on its way",
                                      "write to a register with a load on its way",
                                      "too few wait states",
                                      "lanes switched off in a matrix instruction",
                                      "LDS race",
                                      "divergent barrier",
                                      "global memory race"};
  return (size_t)kind < sizeof names / sizeof *names ? names[kind] : "?";
}

void wave_fault(wave *w, gcn_fault_kind kind, int lane, const char *format, ...) {
  launch *l = w->launch;
  w->state = WAVE_FAULTED;
  if (l->error) return;
  char detail[256], where[32] = "";
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(detail, sizeof detail, format, arguments);
  va_end(arguments);
  if (lane >= 0) snprintf(where, sizeof where, ", lane %d", lane);
  uint64_t offset = w->current->offset - l->kernel->entry;
  const uint32_t *id = w->group->id;
  l->error = sluice_error(SLUICE_CHECK_FAILED, "kernel %s: %s: %s; at +%#llx, %s, workgroup (%u, %u, %u), wave %u%s",
                          l->kernel->info.name, gcn_fault_name(kind), detail, (unsigned long long)offset,
                          w->current->text[0] ? w->current->text : "?", id[0], id[1], id[2], w->number, where);
  gcn_fault *f = l->options->fault;
  if (!f) return;
  *f = (gcn_fault){.kind = kind, .offset = offset, .wave = w->number, .lane = lane};
  snprintf(f->instruction, sizeof f->instruction, "%s", w->current->text);
  memcpy(f->workgroup, id, sizeof f->workgroup);
}

/* ---- Host arithmetic ---- */

/* MODE: bits 0..1 rounding of float32 (0 nearest, 1 up, 2 down, 3 to zero), 2..3 the same for float64 and float16, 4..5
 * denormals of float32 (bit 4: sources are kept, bit 5: results are), 6..7 those of the others. */
void apply_mode(const wave *w) {
  static const unsigned rounding[] = {_MM_ROUND_NEAREST, _MM_ROUND_UP, _MM_ROUND_DOWN, _MM_ROUND_TOWARD_ZERO};
  unsigned control = (_mm_getcsr() & ~(unsigned)(_MM_ROUND_MASK | 0x8040)) | rounding[w->mode & 3];
  if (!(w->mode & 0x10)) control |= 0x40;   /* denormal sources are zeros */
  if (!(w->mode & 0x20)) control |= 0x8000; /* so are denormal results */
  _mm_setcsr(control);
}

bool mode_is_known(uint32_t mode) {
  return (mode & 3) == (mode >> 2 & 3) && (mode >> 6 & 3) == 3;
}

/* ---- Waves ---- */

static void fill_poison(uint32_t *words, size_t count) {
  for (size_t k = 0; k < count; k++) words[k] = POISON;
}

/* User scalar registers, in the order of the kernel descriptor's flags, then the workgroup's place. */
static void start_scalars(wave *w) {
  launch *l = w->launch;
  const gcn_kernel *k = l->kernel;
  static const uint64_t queue[32];
  unsigned next = 0;
  if (k->properties & 1) next += 4;
  if (k->properties & 2) set_scalar_pair(w, next, (uint64_t)(uintptr_t)l->packet), next += 2;
  if (k->properties & 4) set_scalar_pair(w, next, (uint64_t)(uintptr_t)queue), next += 2;
  if (k->properties & 8) set_scalar_pair(w, next, (uint64_t)(uintptr_t)l->kernarg), next += 2;
  if (k->properties & 16) set_scalar_pair(w, next, 0), next += 2;
  if (k->properties & 32) set_scalar_pair(w, next, 0), next += 2;
  if (k->properties & 64) w->scalar[next++] = l->scratch_bytes;
  unsigned preloaded = k->preload & 127, from = k->preload >> 7;
  for (unsigned n = 0; n < preloaded && next < 16; n++) memcpy(&w->scalar[next++], l->kernarg + 4 * (from + n), 4);
  next = k->resource2 >> 1 & 31;
  for (unsigned axis = 0; axis < 3; axis++) {
    if (k->resource2 >> (7 + axis) & 1) w->scalar[next++] = w->group->id[axis];
  }
}

static void start_wave(wave *w) {
  launch *l = w->launch;
  fill_poison(w->scalar, SCALARS);
  fill_poison(w->vector[0], (size_t)l->vectors * LANES);
  fill_poison(w->vector[256], (size_t)l->accumulators * LANES);
  if (w->scratch) fill_poison((uint32_t *)(void *)w->scratch, (size_t)l->scratch_bytes * LANES / 4);
  w->scc = false;
  w->state = WAVE_RUNNING;
  w->mode = l->kernel->resource1 >> 12 & 255;
  w->index_mode = 0;
  w->following = NULL;
  w->jump = l->kernel->entry + (l->kernel->preload & 127 ? 256 : 0);
  w->initial_exec = 0;
  w->invalidated = 0;
  w->last_allocation = NULL;
  start_scalars(w);
  for (unsigned lane = 0; lane < LANES; lane++) {
    uint32_t n = w->number * LANES + lane, x = l->block[0], y = l->block[1];
    if (n < l->lanes) w->initial_exec |= UINT64_C(1) << lane;
    w->vector[0][lane] = n % x | (n / x % y) << 10 | (n / (x * y)) << 20;
  }
  set_scalar_pair(w, REGISTER_EXEC, w->initial_exec);
  if (l->checked) checks_reset(w);
}

static void count_instruction(launch *l, const instruction *i) {
  gcn_counts *c = &l->counts;
  c->instructions++;
  switch (i->class) {
  case CLASS_SCALAR:
    c->scalar++;
    break;
  case CLASS_BRANCH:
    c->branches++;
    break;
  case CLASS_WAIT:
    c->waits++;
    break;
  case CLASS_NOP:
    c->nops++;
    break;
  case CLASS_BARRIER:
    c->barriers++;
    break;
  case CLASS_SCALAR_MEMORY:
    c->scalar_loads++;
    break;
  case CLASS_VECTOR:
    c->vector++;
    break;
  case CLASS_MATRIX:
    c->matrix++;
    c->matrix_cycles += 4u * i->matrix.passes;
    break;
  case CLASS_MEMORY:
    c->vector_memory++;
    break;
  default:
    break;
  }
  if (l->profile && i->offset >= l->kernel->entry && i->offset < l->kernel->end) {
    gcn_profile_entry *e = &l->profile[(i->offset - l->kernel->entry) / 4];
    e->executions++;
    e->text = i->text;
    e->matrix_cycles = i->class == CLASS_MATRIX ? 4u * i->matrix.passes : 0;
  }
}

/* The instruction that comes next; NULL after a fault. */
static const instruction *next_instruction(wave *w) {
  if (w->following) return w->following;
  gcn_module *m = w->launch->module;
  instruction *i = instruction_at(m, w->jump);
  if (!i) {
    static char none[] = "";
    static instruction nowhere = {.text = none};
    if (!w->current) w->current = &nowhere;
    wave_fault(w, GCN_FAULT_PC, -1, "to %#llx, which is not inside the code object",
               (unsigned long long)(w->jump - w->launch->kernel->entry));
    return NULL;
  }
  /* Where it goes from here is remembered, so that the next time needs no look-up. */
  if (w->current) {
    instruction *from = m->code[w->current->offset / 4];
    if (from->offset + from->bytes == w->jump)
      from->next = i;
    else if (from->class == CLASS_BRANCH && from->words[0] >> 23 == 0x17f)
      from->target = i;
  }
  return i;
}

/* A vector instruction with M0 added to register numbers: bits 0..2 of the mode are sources, bit 3 is the result. */
static void execute_indexed(wave *w, const instruction *i) {
  instruction moved = *i;
  uint32_t index = w->scalar[REGISTER_M0] & 255;
  for (unsigned k = 0; k < i->operands && k < 4; k++) {
    operand *o = &moved.operand[k];
    bool on = w->index_mode >> (k == 0 ? 3 : k - 1) & 1;
    if (!on || o->kind != OPERAND_VECTOR) continue;
    if (o->index % 256 + index + o->registers > 256) {
      wave_fault(w, GCN_FAULT_PC, -1, "register %u + %u by index", o->index % 256u, index);
      return;
    }
    o->index = (uint16_t)(o->index + index);
  }
  i->execute(w, &moved);
}

/* Runs a wave for at most `turn` instructions. */
static void run_wave(wave *w, uint64_t turn) {
  launch *l = w->launch;
  apply_mode(w);
  w->state = WAVE_RUNNING;
  while (w->state == WAVE_RUNNING && turn-- > 0) {
    const instruction *i = next_instruction(w);
    if (!i) return;
    w->current = i;
    w->following = i->next;
    w->jump = i->offset + i->bytes;
    if (l->checked && !check_instruction(w, i)) return;
    if (w->index_mode && i->class == CLASS_VECTOR)
      execute_indexed(w, i);
    else
      i->execute(w, i);
    if (l->checked) note_instruction(w, i);
    count_instruction(l, i);
  }
  if (w->state == WAVE_RUNNING) w->state = WAVE_YIELDED;
  uint64_t limit = l->options->instruction_limit ? l->options->instruction_limit : UINT64_C(1) << 33;
  if (w->state != WAVE_FAULTED && l->counts.instructions > limit) {
    wave_fault(w, GCN_FAULT_LIMIT, -1, "%llu instructions", (unsigned long long)l->counts.instructions);
  }
}

/* ---- Workgroups ---- */

static void free_group(workgroup *g) {
  for (uint32_t k = 0; g->waves && k < g->wave_count; k++) {
    free(g->waves[k].scratch);
    wave_storage_give(&g->waves[k]);
  }
  free(g->waves);
  group_storage_give(g);
}

static sluice_status *make_group(launch *l, workgroup *g) {
  *g = (workgroup){.launch = l, .lds_bytes = l->lds_bytes, .wave_count = l->waves};
  g->waves = calloc(l->waves, sizeof *g->waves);
  if (!g->waves) return sluice_out_of_memory();
  for (uint32_t k = 0; k < l->waves; k++) {
    wave *w = &g->waves[k];
    w->group = g;
    w->launch = l;
    w->number = k;
  }
  SLUICE_TRY(group_storage_take(l, g));
  for (uint32_t k = 0; k < l->waves; k++) {
    wave *w = &g->waves[k];
    SLUICE_TRY(wave_storage_take(l, w));
    if (l->scratch_bytes) w->scratch = malloc((size_t)l->scratch_bytes * LANES);
    if (l->scratch_bytes && !w->scratch) return sluice_out_of_memory();
  }
  return NULL;
}

static void start_group(workgroup *g, uint32_t index) {
  launch *l = g->launch;
  g->index = index;
  g->id[0] = index % l->grid[0];
  g->id[1] = index / l->grid[0] % l->grid[1];
  g->id[2] = index / l->grid[0] / l->grid[1];
  g->die = index % DIES;
  g->ended = 0;
  g->epoch++;
  g->live = true;
  fill_poison((uint32_t *)(void *)g->lds, (l->lds_bytes + 3) / 4);
  for (uint32_t k = 0; k < g->wave_count; k++) {
    g->waves[k].serial = l->first_serial + index * l->waves + k;
    g->waves[k].current = NULL;
    start_wave(&g->waves[k]);
  }
  l->counts.workgroups++;
  l->counts.waves += g->wave_count;
}

/* Opens the barrier once every wave that has not ended is there. */
static void open_barrier(workgroup *g) {
  uint32_t waiting = 0;
  for (uint32_t k = 0; k < g->wave_count; k++) waiting += g->waves[k].state == WAVE_AT_BARRIER;
  if (waiting == 0 || waiting + g->ended < g->wave_count) return;
  launch *l = g->launch;
  if (l->checked && g->ended > 0) {
    for (uint32_t k = 0; k < g->wave_count; k++) {
      if (g->waves[k].state != WAVE_AT_BARRIER) continue;
      wave_fault(&g->waves[k], GCN_FAULT_DIVERGENT_BARRIER, -1, "%u of the workgroup's waves have ended without it",
                 g->ended);
      return;
    }
  }
  g->epoch++;
  for (uint32_t k = 0; k < g->wave_count; k++) {
    if (g->waves[k].state != WAVE_AT_BARRIER) continue;
    g->waves[k].state = WAVE_YIELDED;
    if (l->checked) lds_carry_over(&g->waves[k]);
  }
}

static uint64_t next_random(launch *l) {
  l->random ^= l->random << 13;
  l->random ^= l->random >> 7;
  l->random ^= l->random << 17;
  return l->random;
}

/* Gives each wave of a workgroup that can run one turn. */
static void run_group(workgroup *g) {
  enum { TURN = 1 << 20 };
  launch *l = g->launch;
  uint32_t first = l->options->seed ? (uint32_t)(next_random(l) % g->wave_count) : 0;
  for (uint32_t n = 0; n < g->wave_count && !l->error; n++) {
    wave *w = &g->waves[(first + n) % g->wave_count];
    if (w->state == WAVE_ENDED || w->state == WAVE_AT_BARRIER) continue;
    if (l->options->seed && next_random(l) % 4 == 0) continue; /* this one falls behind */
    run_wave(w, l->options->seed ? 1 + next_random(l) % 200 : TURN);
    if (w->state == WAVE_ENDED) g->ended++;
  }
  if (!l->error) open_barrier(g);
  if (g->ended == g->wave_count) g->live = false;
}

/* Whether a group's turn may go on: unless a wave sleeps or has had its turn, in order all run to the next barrier at
 * once. */
static bool is_waiting_for_others(const workgroup *g) {
  for (uint32_t k = 0; k < g->wave_count; k++) {
    const wave *w = &g->waves[k];
    if (w->state == WAVE_YIELDED && w->current && strcmp(w->current->mnemonic, "s_barrier") != 0) return true;
  }
  return false;
}

enum { RESIDENT = 304 }; /* workgroups at a time: one for each compute unit of an MI300X */
enum { MIXED = 16 };     /* of these a schedule with a seed mixes, while none waits for a later one */

static bool any_runs(const workgroup *groups, uint32_t count) {
  for (uint32_t k = 0; k < count; k++) {
    for (uint32_t n = 0; n < groups[k].wave_count; n++) {
      const wave *w = &groups[k].waves[n];
      if (w->state == WAVE_YIELDED && w->current && strcmp(w->current->mnemonic, "s_sleep") != 0) return true;
    }
  }
  return false;
}

static sluice_status *run_groups(launch *l, workgroup *groups, uint32_t room) {
  uint32_t total = l->grid[0] * l->grid[1] * l->grid[2], started = 0, live = 0, made = 0;
  while ((started < total || live > 0) && !l->error) {
    /* A place is made when all others are taken by workgroups that wait: mostly one does. */
    for (uint32_t n = 0; n <= made && n < room && !l->error; n++) {
      workgroup *g = &groups[n];
      if (n == made) {
        if (started == total) break;
        if (made > 0 && live < made) break;
        if (l->options->seed && made >= MIXED && started < total && any_runs(groups, made)) break;
        sluice_status *status = make_group(l, g);
        made++;
        if (status) return status;
      }
      if (!g->live) {
        if (started == total) continue;
        start_group(g, started++);
        live++;
      }
      do run_group(g);
      while (g->live && !l->error && !l->options->seed && !is_waiting_for_others(g));
      if (!g->live) live--;
    }
  }
  return NULL;
}

/* ---- The launch ---- */

/* Serial numbers start again, so those of the past must go. */
static void forget_stores(gcn_machine *m) {
  for (size_t k = 0; k < m->allocation_count; k++) {
    free(m->allocations[k].stamps);
    m->allocations[k].stamps = NULL;
  }
  m->waves = 0;
}

static sluice_status *prepare(launch *l) {
  const gcn_launch_options *o = l->options;
  const gcn_kernel *k = l->kernel;
  l->lanes = l->block[0] * l->block[1] * l->block[2];
  l->waves = (l->lanes + LANES - 1) / LANES;
  if ((uint64_t)l->block[0] * l->block[1] * l->block[2] > k->info.max_workgroup_lanes || l->waves > MAX_WAVES) {
    return sluice_error(SLUICE_INVALID, "kernel %s: workgroups of %u x %u x %u lanes; it is built for %u at most",
                        k->info.name, l->block[0], l->block[1], l->block[2], k->info.max_workgroup_lanes);
  }
  if ((uint64_t)l->grid[0] * l->grid[1] > UINT32_MAX / l->grid[2] / l->waves) {
    return sluice_error(SLUICE_INVALID, "kernel %s: a grid of %u x %u x %u workgroups is too large", k->info.name,
                        l->grid[0], l->grid[1], l->grid[2]);
  }
  uint64_t lds = (uint64_t)k->info.lds_bytes + o->dynamic_lds,
           most = l->machine->target == GCN_GFX950 ? 160 * 1024 : 64 * 1024;
  if (lds > most) {
    return sluice_error(SLUICE_INVALID, "kernel %s: %llu bytes of LDS; this GPU has %llu", k->info.name,
                        (unsigned long long)lds, (unsigned long long)most);
  }
  if (o->kernarg_bytes < k->info.explicit_bytes) {
    return sluice_error(SLUICE_INVALID, "kernel %s: %zu bytes of arguments; it takes %u", k->info.name,
                        o->kernarg_bytes, k->info.explicit_bytes);
  }
  if (!mode_is_known(k->resource1 >> 12 & 255)) {
    return sluice_error(SLUICE_UNSUPPORTED,
                        "kernel %s: float16 and float64 that round otherwise than float32, or lose denormals",
                        k->info.name);
  }
  l->lds_bytes = (uint32_t)lds;
  l->scratch_bytes = (k->info.scratch_bytes + 3) & ~3u;
  void *memory;
  /* Scalar loads of up to 64 aligned bytes cannot leave a page, and the compiler makes wide ones of several narrow
   * ones: the segment ends with whole 64 bytes. */
  SLUICE_TRY(
      gcn_allocate(l->machine, (k->info.kernarg_bytes + 63u) / 64 * 64 + (k->info.kernarg_bytes ? 0 : 64), &memory));
  l->kernarg = memory;
  memset(l->kernarg, 0, k->info.kernarg_bytes);
  if (o->kernarg_bytes) {
    memcpy(l->kernarg, o->kernarg, o->kernarg_bytes < k->info.kernarg_bytes ? o->kernarg_bytes : k->info.kernarg_bytes);
  }
  hidden_arguments_fill(l);
  SLUICE_TRY(gcn_allocate(l->machine, 64, &memory));
  l->packet = memory;
  memset(l->packet, 0, 64);
  for (unsigned axis = 0; axis < 3; axis++) {
    uint16_t block = (uint16_t)l->block[axis];
    uint32_t grid = l->grid[axis] * l->block[axis];
    memcpy(l->packet + 4 + 2 * axis, &block, sizeof block);
    memcpy(l->packet + 12 + 4 * axis, &grid, sizeof grid);
  }
  l->completed_stores =
      calloc((size_t)l->grid[0] * l->grid[1] * l->grid[2] * l->waves + 1, sizeof *l->completed_stores);
  uint32_t waves = l->grid[0] * l->grid[1] * l->grid[2] * l->waves;
  if (l->machine->waves > UINT32_MAX - waves - 1) forget_stores(l->machine);
  l->first_serial = l->machine->waves + 1;
  l->machine->waves += waves;
  /* One file of registers, of which those behind accum_offset are AGPRs. */
  uint32_t all = ((k->resource1 & 63) + 1) * 8, offset = ((k->resource3 & 63) + 1) * 4;
  l->vectors = offset < all ? offset : all;
  l->accumulators = all - l->vectors;
  if (l->vectors > 256 || l->accumulators > 256)
    return sluice_error(SLUICE_INVALID, "kernel %s: %u registers", k->info.name, all);
  return l->completed_stores ? NULL : sluice_out_of_memory();
}

static sluice_status *take_profile(launch *l) {
  size_t words = (l->kernel->end - l->kernel->entry) / 4, count = 0;
  gcn_profile *p = l->options->profile;
  for (size_t k = 0; k < words; k++) {
    if (l->profile[k].executions == 0) continue;
    l->profile[k].offset = 4 * k;
    l->profile[count++] = l->profile[k];
  }
  *p = (gcn_profile){l->profile, count};
  l->profile = NULL;
  return NULL;
}

void gcn_profile_free(gcn_profile *profile) {
  free(profile->entries);
  *profile = (gcn_profile){0};
}

static void add_counts(gcn_counts *to, const gcn_counts *from) {
  uint64_t *a = (uint64_t *)to;
  const uint64_t *b = (const uint64_t *)from;
  for (size_t k = 0; k < sizeof *to / sizeof *a; k++) a[k] += b[k];
}

sluice_status *gcn_launch(const gcn_kernel *kernel, const gcn_launch_options *options) {
  gcn_machine *m = kernel->module->machine;
  launch l = {
      .machine = m, .module = kernel->module, .kernel = kernel, .options = options, .checked = !options->unchecked};
  for (unsigned axis = 0; axis < 3; axis++) {
    l.grid[axis] = options->grid[axis] ? options->grid[axis] : 1;
    l.block[axis] = options->workgroup[axis] ? options->workgroup[axis] : 1;
  }
  l.random = options->seed * UINT64_C(0x9e3779b97f4a7c15) | 1;
  if (options->fault) *options->fault = (gcn_fault){.lane = -1};
  if (options->profile) *options->profile = (gcn_profile){0};
  unsigned control = _mm_getcsr();
  sluice_status *status = prepare(&l);
  if (!status && options->profile) {
    l.profile = calloc((kernel->end - kernel->entry) / 4 + 1, sizeof *l.profile);
    if (!l.profile) status = sluice_out_of_memory();
  }
  uint64_t total = (uint64_t)l.grid[0] * l.grid[1] * l.grid[2];
  uint32_t room = total < RESIDENT ? (uint32_t)total : RESIDENT;
  workgroup *groups = calloc(room, sizeof *groups);
  if (!groups && !status) status = sluice_out_of_memory();
  if (!status) status = run_groups(&l, groups, room);
  _mm_setcsr(control);
  if (options->counts) add_counts(options->counts, &l.counts);
  if (!status && options->profile) status = take_profile(&l);
  for (uint32_t k = 0; groups && k < room; k++) free_group(&groups[k]);
  free(groups);
  free(l.profile);
  free(l.completed_stores);
  if (l.kernarg) sluice_status_free(gcn_release(m, l.kernarg));
  if (l.packet) sluice_status_free(gcn_release(m, l.packet));
  if (status) sluice_status_free(l.error);
  return status ? status : l.error;
}

sluice_status *gcn_machine_create(gcn_target target, gcn_machine **out) {
  *out = calloc(1, sizeof **out);
  if (!*out) return sluice_out_of_memory();
  (*out)->target = target;
  return NULL;
}

void gcn_machine_free(gcn_machine *m) {
  if (!m) return;
  while (m->modules) gcn_module_unload(m->modules);
  storage_free(m);
  for (size_t k = 0; k < m->allocation_count; k++) {
    free(m->allocations[k].stamps);
    free(m->allocations[k].owned);
  }
  free(m->allocations);
  free(m);
}

gcn_target gcn_machine_target(const gcn_machine *m) {
  return m->target;
}
