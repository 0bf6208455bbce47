/* Measures the rate at which this machine reads memory with all its cores: GB/s, median of several passes over 1 GiB
 * for each core. cc -O3 -march=native -D_GNU_SOURCE -pthread read_bandwidth.c */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { PASSES = 9 };
static const size_t bytes_per_thread = (size_t)1 << 30;
static pthread_barrier_t barrier;

typedef struct reader {
  uint64_t *data, sum;
  pthread_t thread;
} reader;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void *read_all(void *user) {
  reader *r = user;
  size_t count = bytes_per_thread / sizeof *r->data;
  memset(r->data, 1, bytes_per_thread);
  for (int pass = 0; pass < PASSES; pass++) {
    pthread_barrier_wait(&barrier);
    uint64_t sums[64] = {0};
    for (size_t i = 0; i < count; i += 64)
      for (size_t lane = 0; lane < 64; lane++) sums[lane] += r->data[i + lane];
    for (size_t lane = 0; lane < 64; lane++) r->sum += sums[lane];
    pthread_barrier_wait(&barrier);
  }
  return NULL;
}

static int ascending(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

int main(void) {
  long threads = sysconf(_SC_NPROCESSORS_ONLN);
  reader *readers = calloc((size_t)threads, sizeof *readers);
  if (!readers) return 1;
  pthread_barrier_init(&barrier, NULL, (unsigned)threads + 1);
  for (long i = 0; i < threads; i++) {
    readers[i].data = aligned_alloc(1 << 21, bytes_per_thread);
    if (readers[i].data) madvise(readers[i].data, bytes_per_thread, MADV_HUGEPAGE);
    if (!readers[i].data || pthread_create(&readers[i].thread, NULL, read_all, &readers[i])) return 1;
  }
  double seconds[PASSES];
  for (int pass = 0; pass < PASSES; pass++) {
    pthread_barrier_wait(&barrier);
    double start = now();
    pthread_barrier_wait(&barrier);
    seconds[pass] = now() - start;
  }
  uint64_t sum = 0;
  for (long i = 0; i < threads; i++) {
    pthread_join(readers[i].thread, NULL);
    sum += readers[i].sum;
  }
  qsort(seconds, PASSES, sizeof *seconds, ascending);
  printf("{\"threads\": %ld, \"read_gb_per_s\": %.2f, \"check\": %llu}\n", threads,
         (double)bytes_per_thread * (double)threads / seconds[PASSES / 2] * 1e-9, (unsigned long long)sum);
  return 0;
}
