/* Counting: LDS cycles and bank conflicts, cache lines.
 *
 * LDS serves an instruction in phases, a group of lanes each, one cycle a phase as long as no bank is asked for two
 * different dwords. gfx942 has 32 banks of 4 bytes, gfx950 64, of which stores use 32 at a time. Groups of 16-byte
 * reads are odd, see below; they are as measured by others (ROCm's CK documentation for gfx942, HipKittens for gfx950).
 * Groups of wide stores on gfx950 are assumed to be those of gfx942. */
#include "machine.h"

typedef struct phases {
  unsigned count, banks;
  uint8_t of[LANES];
} phases;

static void consecutive(phases *p, unsigned lanes, unsigned banks) {
  p->count = LANES / lanes;
  p->banks = banks;
  for (unsigned l = 0; l < LANES; l++) p->of[l] = (uint8_t)(l / lanes);
}

/* Lanes 0..3 with 20..23, 4..7 with 16..19, 8..11 with 28..31, 12..15 with 24..27, and the same in the upper half. */
static void wide_reads_942(phases *p) {
  static const uint8_t phase_of_four[] = {0, 1, 2, 3, 1, 0, 3, 2};
  p->count = 8;
  p->banks = 32;
  for (unsigned l = 0; l < LANES; l++) p->of[l] = (uint8_t)(phase_of_four[l % 32 / 4] + 4 * (l / 32));
}

/* Lanes 0..3, 12..15 and 20..27; 4..11, 16..19 and 28..31; and the same in the upper half. */
static void wide_reads_950(phases *p) {
  static const uint8_t phase_of_four[] = {0, 1, 1, 0, 1, 0, 0, 1};
  p->count = 4;
  p->banks = 64;
  for (unsigned l = 0; l < LANES; l++) p->of[l] = (uint8_t)(phase_of_four[l % 32 / 4] + 2 * (l / 32));
}

static void choose_phases(phases *p, gcn_target target, unsigned bytes, bool store) {
  bool newer = target == GCN_GFX950 && !store;
  unsigned banks = newer ? 64 : 32;
  if (bytes >= 12 && !store)
    newer ? wide_reads_950(p) : wide_reads_942(p);
  else if (bytes >= 12)
    consecutive(p, 8, 32);
  else
    consecutive(p, banks / (bytes <= 4 ? 1 : 2), banks);
}

static unsigned phase_cycles(const phases *p, unsigned phase, const uint32_t address[LANES], uint64_t lanes,
                             unsigned dwords) {
  uint32_t seen[64][16]; /* different dwords of each bank */
  uint8_t count[64] = {0};
  unsigned most = 0;
  for (uint64_t left = lanes; left; left &= left - 1) {
    unsigned l = (unsigned)__builtin_ctzll(left);
    if (p->of[l] != phase) continue;
    if (most == 0) most = 1;
    for (unsigned k = 0; k < dwords; k++) {
      uint32_t dword = address[l] / 4 + k, bank = dword % p->banks;
      unsigned n = 0;
      while (n < count[bank] && seen[bank][n % 16] != dword) n++;
      if (n < count[bank]) continue;
      seen[bank][count[bank] % 16] = dword;
      if (++count[bank] > most) most = count[bank];
    }
  }
  return most;
}

static gcn_profile_entry *profile_of(wave *w, const instruction *i) {
  launch *l = w->launch;
  if (!l->profile || i->offset < l->kernel->entry || i->offset >= l->kernel->end) return NULL;
  return &l->profile[(i->offset - l->kernel->entry) / 4];
}

void count_lds(wave *w, const instruction *i, const uint32_t address[LANES], uint64_t lanes, unsigned bytes,
               bool store) {
  launch *l = w->launch;
  uint64_t total = (uint64_t)__builtin_popcountll(lanes) * bytes;
  l->counts.lds++;
  if (store)
    l->counts.lds_stored += total;
  else
    l->counts.lds_loaded += total;
  if (!l->options->counts && !l->profile) return;
  phases p;
  choose_phases(&p, l->machine->target, bytes, store);
  unsigned cycles = 0, phases_used = 0;
  for (unsigned phase = 0; phase < p.count; phase++) {
    unsigned need = phase_cycles(&p, phase, address, lanes, (bytes + 3) / 4);
    cycles += need;
    phases_used += need > 0;
  }
  l->counts.lds_cycles += phases_used;
  l->counts.lds_conflicts += cycles - phases_used;
  gcn_profile_entry *e = profile_of(w, i);
  if (!e) return;
  e->lds_cycles += phases_used;
  e->lds_conflicts += cycles - phases_used;
}

void count_global(wave *w, const instruction *i, const uint64_t address[LANES], uint64_t lanes, unsigned bytes) {
  launch *l = w->launch;
  if (!l->options->counts && !l->profile) return;
  uint64_t lines[2 * LANES], latest = UINT64_MAX;
  unsigned count = 0;
  for (uint64_t left = lanes; left; left &= left - 1) {
    unsigned lane = (unsigned)__builtin_ctzll(left);
    for (uint64_t line = address[lane] / 128; line <= (address[lane] + bytes - 1) / 128; line++) {
      if (line == latest) continue;
      latest = line;
      unsigned n = 0;
      while (n < count && lines[n] != line) n++;
      if (n == count) lines[count++] = line;
    }
  }
  l->counts.global_lines += count;
  gcn_profile_entry *e = profile_of(w, i);
  if (!e) return;
  e->global_lines += count;
  e->global_bytes += (uint64_t)__builtin_popcountll(lanes) * bytes;
}
