/* Names that a program removes when a signal ends it: sluice/file.h.
 *
 * A signal handler may run at any point of any thread, so the list only grows: an entry that is forgotten stays in it
 * and serves the next name. A lock keeps apart those who note; the handler takes none. Entries are never freed and are
 * not counted among the allocations of sluice/memory.h.
 */
#include "sluice/file.h"

#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct sluice_temporary {
  sluice_temporary *next;
  atomic_bool used;
  char path[PATH_MAX];
};

static _Atomic(sluice_temporary *) first;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

sluice_temporary *sluice_temporary_note(const char *path) {
  size_t length = strlen(path);
  if (length >= PATH_MAX) return NULL;
  pthread_mutex_lock(&lock);
  sluice_temporary *entry = atomic_load(&first);
  while (entry && atomic_load(&entry->used)) entry = entry->next;
  bool found = entry != NULL;
  if (!found) entry = calloc(1, sizeof *entry);
  if (entry) {
    memcpy(entry->path, path, length + 1);
    atomic_store(&entry->used, true);
  }
  if (entry && !found) {
    entry->next = atomic_load(&first);
    atomic_store(&first, entry);
  }
  pthread_mutex_unlock(&lock);
  return entry;
}

const char *sluice_temporary_path(const sluice_temporary *temporary) {
  return temporary->path;
}

void sluice_temporary_forget(sluice_temporary *temporary) {
  if (temporary) atomic_store(&temporary->used, false);
}

void sluice_temporary_remove_all(void) {
  for (sluice_temporary *entry = atomic_load(&first); entry; entry = entry->next)
    if (atomic_load(&entry->used)) unlink(entry->path); /* fails on directories */
  for (sluice_temporary *entry = atomic_load(&first); entry; entry = entry->next)
    if (atomic_load(&entry->used)) rmdir(entry->path);
}
