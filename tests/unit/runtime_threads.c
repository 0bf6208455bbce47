/* The thread pool: every index runs once, on a known thread; loops follow each other at any pace. */
#include "runtime/threads.h"
#include "sluice/memory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

typedef struct record {
  unsigned char hits[1000];
  unsigned threads;
  int64_t part;
  int wrong; /* cmocka's checks belong to the main thread */
} record;

static void hit(void *user, unsigned thread, int64_t first, int64_t last) {
  record *r = user;
  if (thread >= r->threads || last - first > r->part || first >= last)
    __atomic_add_fetch(&r->wrong, 1, __ATOMIC_RELAXED);
  for (int64_t i = first; i < last; i++) r->hits[i]++;
}

static void every_index_runs_once(void **state) {
  (void)state;
  for (unsigned count = 1; count <= 5; count++) {
    sluice_threads *threads = NULL;
    assert_null(sluice_threads_create(count, &threads));
    assert_int_equal(sluice_threads_count(threads), count);
    for (int64_t total = 0; total <= 1000; total += total < 20 ? 1 : 245)
      for (int64_t part = 1; part <= 64; part *= 4) {
        record r = {.threads = count, .part = part};
        sluice_threads_run(threads, total, part, hit, &r);
        assert_int_equal(r.wrong, 0);
        for (int64_t i = 0; i < 1000; i++) assert_int_equal(r.hits[i], i < total);
      }
    sluice_threads_close(threads);
  }
}

static void add(void *user, unsigned thread, int64_t first, int64_t last) {
  int64_t *sums = user;
  for (int64_t i = first; i < last; i++) sums[thread * 16] += i;
}

/* Some loops start while the workers spin, some after they have gone to sleep. */
static void loops_at_any_pace(void **state) {
  (void)state;
  sluice_threads *threads = NULL;
  assert_null(sluice_threads_create(4, &threads));
  int64_t sums[64] = {0};
  for (int i = 0; i < 3000; i++) {
    sluice_threads_run(threads, 10, 1, add, sums);
    if (i % 100 == 0) nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
  }
  assert_int_equal(sums[0] + sums[16] + sums[32] + sums[48], 3000 * 45);
  sluice_threads_close(threads);
}

static void pools_come_and_go(void **state) {
  (void)state;
  size_t before = sluice_live_allocations();
  for (unsigned i = 0; i < 200; i++) {
    sluice_threads *threads = NULL;
    assert_null(sluice_threads_create(i % 4, &threads)); /* 0: one for each core */
    assert_true(sluice_threads_count(threads) >= 1);
    sluice_threads_close(threads);
  }
  sluice_threads_close(NULL);
  assert_int_equal(sluice_live_allocations(), before);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(every_index_runs_once), cmocka_unit_test(loops_at_any_pace),
                                     cmocka_unit_test(pools_come_and_go)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
