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

/* About 10 microseconds: longer than the gap between two launches of a step, shorter than anything a user notices. */
#define SPINS 4000

#define MAX_THREADS 1024u

typedef struct worker {
  sluice_threads *threads;
  pthread_t handle;
  unsigned index;
} worker;

struct sluice_threads {
  unsigned count;
  worker *workers; /* count - 1 */
  unsigned started;

  /* The loop at hand: written by the caller before `generation` changes. */
  sluice_threads_task *task;
  void *user;
  int64_t total, part;
  bool stop;

  /* Each on a cache line of its own: they are written by different threads all the time. */
  _Alignas(64) _Atomic uint32_t generation; /* changes when a loop starts */
  _Alignas(64) _Atomic uint32_t sleepers;   /* workers that sleep, or are about to, on `generation` */
  _Alignas(64) _Atomic int64_t next;        /* first index that nobody took */
  _Alignas(64) _Atomic uint32_t running;    /* workers that have not finished the loop */
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

static void take_parts(sluice_threads *threads, unsigned thread) {
  for (;;) {
    int64_t first = atomic_fetch_add_explicit(&threads->next, threads->part, memory_order_relaxed);
    if (first >= threads->total) return;
    int64_t last = threads->total - first < threads->part ? threads->total : first + threads->part;
    threads->task(threads->user, thread, first, last);
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
    if (threads->stop) return NULL;
    take_parts(threads, self->index);
    if (atomic_fetch_sub_explicit(&threads->running, 1, memory_order_acq_rel) == 1) futex_wake(&threads->running, 1);
  }
}

static void start_loop(sluice_threads *threads) {
  atomic_fetch_add(&threads->generation, 1);
  if (atomic_load(&threads->sleepers)) futex_wake(&threads->generation, INT32_MAX);
}

unsigned sluice_threads_count(const sluice_threads *threads) {
  return threads->count;
}

void sluice_threads_run(sluice_threads *threads, int64_t count, int64_t part, sluice_threads_task *task, void *user) {
  if (count <= 0) return;
  if (threads->count == 1 || count <= part) { /* not worth waking anybody */
    for (int64_t first = 0; first < count; first += part)
      task(user, 0, first, count - first < part ? count : first + part);
    return;
  }
  threads->task = task;
  threads->user = user;
  threads->total = count;
  threads->part = part;
  atomic_store_explicit(&threads->next, 0, memory_order_relaxed);
  atomic_store_explicit(&threads->running, threads->count - 1, memory_order_relaxed);
  start_loop(threads);
  take_parts(threads, 0);
  uint32_t running;
  for (int i = 0; i < SPINS; i++) {
    if (!atomic_load_explicit(&threads->running, memory_order_acquire)) return;
    relax();
  }
  while ((running = atomic_load_explicit(&threads->running, memory_order_acquire)) != 0)
    futex_wait(&threads->running, running);
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
  threads->stop = true;
  start_loop(threads);
  for (unsigned i = 0; i < threads->started; i++) pthread_join(threads->workers[i].handle, NULL);
  sluice_release(threads->workers);
  sluice_release(threads);
}
