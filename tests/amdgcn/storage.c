/* Memory of waves and workgroups. Launches are many and small, so it is kept for the next one: the machine has lists of
 * what is spare. */
#include "machine.h"
#include <stdlib.h>

enum { LDS_BYTES = 160 * 1024 };

static void free_wave(wave_storage *s) {
  if (!s) return;
  free(s->vector);
  free(s->queue);
  free(s->hazards);
  free(s);
}

static void free_group(group_storage *s) {
  if (!s) return;
  free(s->lds);
  free(s->lds_writers);
  free(s->lds_readers);
  free(s);
}

sluice_status *wave_storage_take(launch *l, wave *w) {
  gcn_machine *m = l->machine;
  wave_storage *s = m->spare_waves;
  if (s)
    m->spare_waves = s->next;
  else
    s = calloc(1, sizeof *s);
  if (s && !s->vector) s->vector = aligned_alloc(64, sizeof *s->vector * VECTORS);
  sluice_status *status = s && s->vector ? NULL : sluice_out_of_memory();
  if (!status && l->checked && !s->queue) status = checks_create(s);
  if (status) {
    free_wave(s);
    return status;
  }
  w->storage = s;
  w->vector = s->vector;
  w->queue = s->queue;
  w->hazards = s->hazards;
  w->clock = s->clock;
  return NULL;
}

void wave_storage_give(wave *w) {
  if (!w->storage) return;
  w->storage->clock = w->clock;
  w->storage->next = w->launch->machine->spare_waves;
  w->launch->machine->spare_waves = w->storage;
  w->storage = NULL;
}

sluice_status *group_storage_take(launch *l, workgroup *g) {
  gcn_machine *m = l->machine;
  group_storage *s = m->spare_groups;
  if (s)
    m->spare_groups = s->next;
  else
    s = calloc(1, sizeof *s);
  if (s && !s->lds) s->lds = malloc(LDS_BYTES + 16);
  /* Untouched pages of these cost nothing. */
  if (s && !s->lds_writers) s->lds_writers = calloc(LDS_BYTES, sizeof *s->lds_writers);
  if (s && !s->lds_readers) s->lds_readers = calloc(LDS_BYTES, sizeof *s->lds_readers);
  if (!s || !s->lds || !s->lds_writers || !s->lds_readers) {
    free_group(s);
    return sluice_out_of_memory();
  }
  g->storage = s;
  g->lds = s->lds;
  g->lds_writers = s->lds_writers;
  g->lds_readers = s->lds_readers;
  g->epoch = s->epoch;
  return NULL;
}

void group_storage_give(workgroup *g) {
  if (!g->storage) return;
  g->storage->epoch = g->epoch;
  g->storage->next = g->launch->machine->spare_groups;
  g->launch->machine->spare_groups = g->storage;
  g->storage = NULL;
}

void storage_free(gcn_machine *m) {
  while (m->spare_waves) {
    wave_storage *s = m->spare_waves;
    m->spare_waves = s->next;
    free_wave(s);
  }
  while (m->spare_groups) {
    group_storage *s = m->spare_groups;
    m->spare_groups = s->next;
    free_group(s);
  }
}
