/* Races: two waves at one byte of LDS with no barrier between, and global memory read before its writer has made it
 * visible.
 *
 * LDS. Time in a workgroup is counted in epochs: one more with every barrier. Each byte has a stamp of who wrote it
 * last and one of who read it: the epoch, and the wave, or SEVERAL waves, and whether by atomics. An access races when
 * the byte's stamp is of the same epoch and of another wave. What a wave has issued and not waited for when it passes a
 * barrier counts as done in the next epoch (lds_carry_over). */
#include "machine.h"
#include <stdlib.h>

enum { STAMP_WAVE = 31, STAMP_ATOMIC = 32, STAMP_SHIFT = 6, SEVERAL = 31 };

static inline uint32_t stamp_of(const wave *w, bool atomic) {
  return w->group->epoch << STAMP_SHIFT | (atomic ? STAMP_ATOMIC : 0) | w->number;
}

static bool fault_race(wave *w, uint32_t address, uint32_t stamp, const char *they, const char *we, int lane) {
  uint32_t other = stamp & STAMP_WAVE;
  if (other == SEVERAL) {
    wave_fault(w, GCN_FAULT_LDS_RACE, lane, "byte %#x: %s by several waves, %s by this one, with no barrier between",
               address, they, we);
  } else {
    wave_fault(w, GCN_FAULT_LDS_RACE, lane, "byte %#x: %s by wave %u, %s by this one, with no barrier between", address,
               they, other, we);
  }
  return false;
}

/* The wave's own loads straight to LDS: their bytes are not there before s_waitcnt vmcnt. */
static bool check_direct_loads(wave *w, uint32_t address, uint32_t bytes, int lane) {
  for (uint32_t k = 0; k < w->queue_length; k++) {
    const outstanding *o = &w->queue[k];
    if (!o->writes_lds || o->kind == OUTSTANDING_LDS || !o->lds_lanes) continue;
    /* Lanes land side by side. */
    unsigned first = (unsigned)__builtin_ctzll(o->lds_lanes), last = 63 - (unsigned)__builtin_clzll(o->lds_lanes);
    if (o->lds_address[first] >= address + bytes || address >= o->lds_address[last] + o->lds_bytes) continue;
    for (uint64_t left = o->lds_lanes; left; left &= left - 1) {
      uint32_t place = o->lds_address[__builtin_ctzll(left)];
      if (place >= address + bytes || address >= place + o->lds_bytes) continue;
      wave_fault(w, GCN_FAULT_OUTSTANDING_READ, lane, "LDS byte %#x, before s_waitcnt for %s", place,
                 o->instruction->text);
      return false;
    }
  }
  return true;
}

bool lds_read_check(wave *w, uint32_t address, uint32_t bytes, bool atomic, int lane) {
  workgroup *g = w->group;
  uint32_t mine = stamp_of(w, false), now = g->epoch << STAMP_SHIFT;
  if (w->direct_loads && !check_direct_loads(w, address, bytes, lane)) return false;
  for (uint32_t k = address; k < address + bytes; k++) {
    uint32_t written = g->lds_writers[k];
    if (written >= now && (written & STAMP_WAVE) != w->number && !(atomic && (written & STAMP_ATOMIC))) {
      return fault_race(w, k, written, "written", "read", lane);
    }
    uint32_t read = g->lds_readers[k];
    g->lds_readers[k] = read < now || read == mine ? mine : now | SEVERAL;
  }
  return true;
}

bool lds_write_check(wave *w, uint32_t address, uint32_t bytes, bool atomic, int lane) {
  workgroup *g = w->group;
  uint32_t mine = stamp_of(w, atomic), now = g->epoch << STAMP_SHIFT;
  for (uint32_t k = address; k < address + bytes; k++) {
    uint32_t written = g->lds_writers[k], read = g->lds_readers[k];
    bool both_atomic = atomic && (written & STAMP_ATOMIC);
    if (written >= now && (written & STAMP_WAVE) != w->number && !both_atomic)
      return fault_race(w, k, written, "written", "written", lane);
    if (read >= now && (read & STAMP_WAVE) != w->number) return fault_race(w, k, read, "read", "written", lane);
    g->lds_writers[k] = written >= now && both_atomic && written != mine ? now | STAMP_ATOMIC | SEVERAL : mine;
  }
  return true;
}

void lds_carry_over(wave *w) {
  for (uint32_t k = 0; k < w->queue_length; k++) {
    const outstanding *o = &w->queue[k];
    if (!o->writes_lds && !o->reads_lds) continue;
    uint32_t stamp = stamp_of(w, o->instruction->memory.atomic);
    uint32_t *stamps = o->writes_lds ? w->group->lds_writers : w->group->lds_readers;
    for (uint64_t left = o->lds_lanes; left; left &= left - 1) {
      uint32_t address = o->lds_address[__builtin_ctzll(left)];
      for (uint32_t b = address; b < address + o->lds_bytes; b++) {
        if (b < w->group->lds_bytes) stamps[b] = stamp;
      }
    }
  }
}

/* ---- Global memory ----
 *
 * Each die has an L2 cache of its own, and plain accesses do not keep them coherent. For a workgroup to read what
 * another has stored in the same launch
 *   - the writer's wave must have waited for the store (s_waitcnt vmcnt),
 *   - it must have left the writer's die, if the reader is on another: stored with sc1, or written back by buffer_wbl2
 * sc1 after it,
 *   - the reader must not find an old copy: it loads with sc1, or has run buffer_inv sc1 since.
 * Atomics are done in memory and see each other at once. A look at a flag (one address, sc1) may come before the writer
 * has waited. */

static uint32_t group_of(const launch *l, uint32_t serial) {
  return (serial - l->first_serial) / l->waves;
}

void global_store_note(wave *w, allocation *a, uint64_t address, uint32_t bytes, store_stamp stamp) {
  if (!a->stamps) a->stamps = calloc(a->bytes / 4 + 2, sizeof *a->stamps);
  if (!a->stamps) return;
  uint64_t first = (address - a->address) / 4, last = (address - a->address + bytes - 1) / 4;
  for (uint64_t k = first; k <= last; k++) {
    store_stamp *s = &a->stamps[k];
    /* Two workgroups may share a dword when each has its bytes of it; whose they are is not kept. */
    bool shared = bytes < 4 && s->wave >= w->launch->first_serial && group_of(w->launch, s->wave) != w->group->index;
    *s = shared ? (store_stamp){0} : stamp;
  }
}

static bool fault_global(wave *w, const store_stamp *s, uint64_t address, int lane, const char *missing) {
  const launch *l = w->launch;
  uint32_t group = group_of(l, s->wave);
  wave_fault(
      w, GCN_FAULT_GLOBAL_RACE, lane, "%#llx was stored by workgroup %u (wave %u, die %u) and is read on die %u: %s",
      (unsigned long long)address, group, (s->wave - l->first_serial) % l->waves, group % DIES, w->group->die, missing);
  return false;
}

static bool check_stamp(wave *w, const store_stamp *s, uint64_t address, bool bypass, bool poll, int lane) {
  const launch *l = w->launch;
  if (s->wave < l->first_serial || group_of(l, s->wave) == w->group->index) return true;
  uint32_t die = group_of(l, s->wave) % DIES;
  if (bypass && poll && s->through) return true;
  if (!s->atomic && l->completed_stores[s->wave - l->first_serial] < s->time)
    return fault_global(w, s, address, lane, "the writer has not waited for the store");
  if (!s->through && die != w->group->die && l->written_back[die] < s->time) {
    return fault_global(w, s, address, lane, "it has not left the writer's die (sc1, or buffer_wbl2 sc1)");
  }
  if (!bypass && w->invalidated <= s->time) {
    return fault_global(w, s, address, lane, "the reader may find an old copy (sc1, or buffer_inv sc1)");
  }
  return true;
}

bool global_load_check(wave *w, const allocation *a, uint64_t address, uint32_t bytes, bool bypass, bool poll,
                       int lane) {
  if (!a || !a->stamps) return true;
  uint64_t first = (address - a->address) / 4, last = (address - a->address + bytes - 1) / 4;
  for (uint64_t k = first; k <= last; k++) {
    if (!check_stamp(w, &a->stamps[k], address, bypass, poll, lane)) return false;
  }
  return true;
}

bool global_atomic_check(wave *w, const allocation *a, uint64_t address, uint32_t bytes, int lane) {
  if (!a || !a->stamps) return true;
  const store_stamp *s = &a->stamps[(address - a->address) / 4];
  (void)bytes;
  return s->atomic || check_stamp(w, s, address, true, true, lane);
}
