#include "runtime/threads.h"

#include "sluice/memory.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Some hundred microseconds: longer than the gaps between the launches of a step and between two steps, since waking a
 * thread takes longer than most launches do, and shorter than anything a user notices. */
#define SPINS 20000

#define MAX_THREADS 1024u

typedef struct worker {
  sluice_threads *threads;
  pthread_t handle;
  unsigned index;
} worker;

/* A loop is cut into parts. `ticket` holds the loop's number in its upper half and the next part in its lower half, so
 * that a worker that comes late, when its loop is over, finds another number and takes nothing; and nobody waits for a
 * worker that has taken nothing. The description of the loop is written before its ticket: whoever takes a part with an
 * unchanged ticket has read the right one. */
struct sluice_threads {
  unsigned count;
  worker *workers; /* count - 1 */
  unsigned started;

  _Atomic(sluice_threads_task *) task;
  _Atomic(void *) user;
  _Atomic int64_t total, part;
  _Atomic uint32_t parts;
  _Atomic bool stop;

  /* Each on a cache line of its own: they are written by different threads all the time. */
  _Alignas(64) _Atomic uint64_t ticket;
  _Alignas(64) _Atomic uint32_t generation; /* the loop's number, to sleep on */
  _Alignas(64) _Atomic uint32_t sleepers;   /* workers that sleep, or are about to, on `generation` */
  _Alignas(64) _Atomic uint32_t finished;   /* parts of the loop that are done */

  /* Callers take turns in the order in which they came, so that none waits for long beside one that begins turn after
   * turn. */
  _Alignas(64) _Atomic uint32_t next_turn;
  _Alignas(64) _Atomic uint32_t turn;
  _Atomic pthread_t holder; /* whose turn it is, 0: nobody's */
  unsigned depth;           /* of the holder's turns in one another */
};

static void relax(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  atomic_signal_fence(memory_order_seq_cst);
#endif
}

static void futex_wait(_Atomic uint32_t *word, uint32_t expected) {
  syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, expected, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word, int count) {
  syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, count, NULL, NULL, 0);
}

/* Runs parts of loop `generation` until there are none left, or the loop is over. */
static void take_parts(sluice_threads *threads, unsigned thread, uint32_t generation) {
  uint64_t ticket = atomic_load_explicit(&threads->ticket, memory_order_acquire);
  for (;;) {
    uint32_t next = (uint32_t)ticket, parts = atomic_load_explicit(&threads->parts, memory_order_acquire);
    if (ticket >> 32 != generation || next >= parts) return;
    sluice_threads_task *task = atomic_load_explicit(&threads->task, memory_order_relaxed);
    void *user = atomic_load_explicit(&threads->user, memory_order_relaxed);
    int64_t total = atomic_load_explicit(&threads->total, memory_order_relaxed);
    int64_t part = atomic_load_explicit(&threads->part, memory_order_relaxed);
    if (!atomic_compare_exchange_weak_explicit(&threads->ticket, &ticket, ticket + 1, memory_order_acq_rel,
                                               memory_order_acquire))
      continue;
    int64_t first = (int64_t)next * part;
    task(user, thread, first, total - first < part ? total : first + part);
    if (atomic_fetch_add_explicit(&threads->finished, 1, memory_order_acq_rel) + 1 == parts)
      futex_wake(&threads->finished, 1);
    ticket = atomic_load_explicit(&threads->ticket, memory_order_acquire);
  }
}

/* Returns when `generation` is no longer `seen`. */
static uint32_t wait_for_loop(sluice_threads *threads, uint32_t seen) {
  uint32_t now;
  for (int i = 0; i < SPINS; i++) {
    now = atomic_load_explicit(&threads->generation, memory_order_acquire);
    if (now != seen) return now;
    relax();
  }
  atomic_fetch_add(&threads->sleepers, 1);
  while ((now = atomic_load(&threads->generation)) == seen) futex_wait(&threads->generation, seen);
  atomic_fetch_sub(&threads->sleepers, 1);
  return now;
}

static void *work(void *argument) {
  worker *self = argument;
  sluice_threads *threads = self->threads;
  uint32_t seen = 0;
  for (;;) {
    seen = wait_for_loop(threads, seen);
    if (atomic_load(&threads->stop)) return NULL;
    take_parts(threads, self->index, seen);
  }
}

static void wake_workers(sluice_threads *threads) {
  if (atomic_load(&threads->sleepers)) futex_wake(&threads->generation, INT32_MAX);
}

unsigned sluice_threads_count(const sluice_threads *threads) {
  return threads->count;
}

/* Waits until `*word` is `wanted`; who changes it wakes its waiters. */
static void wait_until(_Atomic uint32_t *word, uint32_t wanted) {
  for (int i = 0; i < SPINS; i++) {
    if (atomic_load_explicit(word, memory_order_acquire) == wanted) return;
    relax();
  }
  uint32_t now;
  while ((now = atomic_load_explicit(word, memory_order_acquire)) != wanted) futex_wait(word, now);
}

/* A turn takes far longer than to wake up, so nobody spins for it: that would take cores from the loops. */
void sluice_threads_begin(sluice_threads *threads) {
  if (threads->count == 1) return;
  if (atomic_load_explicit(&threads->holder, memory_order_relaxed) != pthread_self()) {
    uint32_t mine = atomic_fetch_add(&threads->next_turn, 1), now;
    while ((now = atomic_load(&threads->turn)) != mine) futex_wait(&threads->turn, now);
    atomic_store_explicit(&threads->holder, pthread_self(), memory_order_relaxed);
  }
  threads->depth++;
}

void sluice_threads_end(sluice_threads *threads) {
  if (threads->count == 1 || --threads->depth) return;
  atomic_store_explicit(&threads->holder, 0, memory_order_relaxed);
  uint32_t next = atomic_load_explicit(&threads->turn, memory_order_relaxed) + 1;
  atomic_store(&threads->turn, next);
  if (atomic_load(&threads->next_turn) != next) futex_wake(&threads->turn, INT32_MAX);
}

/* One loop, by the caller, whose turn it is, and the workers. */
static void run_loop(sluice_threads *threads, int64_t count, int64_t part, sluice_threads_task *task, void *user) {
  uint32_t parts = (uint32_t)((count + part - 1) / part);
  uint32_t generation = atomic_load_explicit(&threads->generation, memory_order_relaxed) + 1;
  /* No part of the last loop is left, so its ticket gives nobody anything while the description changes. */
  atomic_store_explicit(&threads->parts, 0, memory_order_relaxed);
  atomic_store_explicit(&threads->ticket, (uint64_t)generation << 32, memory_order_release);
  atomic_store_explicit(&threads->task, task, memory_order_relaxed);
  atomic_store_explicit(&threads->user, user, memory_order_relaxed);
  atomic_store_explicit(&threads->total, count, memory_order_relaxed);
  atomic_store_explicit(&threads->part, part, memory_order_relaxed);
  atomic_store_explicit(&threads->finished, 0, memory_order_relaxed);
  atomic_store_explicit(&threads->parts, parts, memory_order_release);
  atomic_store(&threads->generation, generation);
  wake_workers(threads);
  take_parts(threads, 0, generation);
  wait_until(&threads->finished, parts);
}

void sluice_threads_run(sluice_threads *threads, int64_t count, int64_t part, sluice_threads_task *task, void *user) {
  if (count <= 0) return;
  if (threads->count == 1 || count <= part) { /* not worth waking anybody */
    for (int64_t first = 0; first < count; first += part)
      task(user, 0, first, count - first < part ? count : first + part);
    return;
  }
  while (count / part >= UINT32_MAX) part *= 2;
  sluice_threads_begin(threads);
  run_loop(threads, count, part, task, user);
  sluice_threads_end(threads);
}

static unsigned usable_cores(void) {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) == 0) return (unsigned)CPU_COUNT(&set);
  long online = sysconf(_SC_NPROCESSORS_ONLN); /* more cores than a cpu_set_t holds */
  return online > 0 ? (unsigned)online : 1;
}

sluice_status *sluice_threads_create(unsigned count, sluice_threads **out_threads) {
  *out_threads = NULL;
  if (count == 0) count = usable_cores();
  if (count == 0) count = 1;
  if (count > MAX_THREADS) count = MAX_THREADS;
  sluice_threads *threads = sluice_allocate_aligned(_Alignof(sluice_threads), sizeof *threads);
  if (!threads) return sluice_out_of_memory();
  memset(threads, 0, sizeof *threads);
  threads->count = count;
  threads->workers = sluice_allocate_array(count, sizeof *threads->workers);
  if (!threads->workers) {
    sluice_release(threads);
    return sluice_out_of_memory();
  }
  /* Signals belong to the program's own threads. */
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int error = 0;
  for (unsigned i = 0; i + 1 < count && !error; i++) {
    worker *w = &threads->workers[i];
    w->threads = threads;
    w->index = i + 1;
    error = pthread_create(&w->handle, NULL, work, w);
    if (!error) threads->started++;
  }
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (error) {
    sluice_threads_close(threads);
    return sluice_error(SLUICE_OUT_OF_MEMORY, "cannot start %u threads: %s; use --threads to ask for fewer", count,
                        strerror(error));
  }
  *out_threads = threads;
  return NULL;
}

void sluice_threads_close(sluice_threads *threads) {
  if (!threads) return;
  atomic_store(&threads->stop, true);
  atomic_fetch_add(&threads->generation, 1);
  wake_workers(threads);
  for (unsigned i = 0; i < threads->started; i++) pthread_join(threads->workers[i].handle, NULL);
  sluice_release(threads->workers);
  sluice_release(threads);
}
