/* The page pool: counts, sharing, and what stays after errors. */
#include "runtime/pages.h"
#include "sluice/memory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void pages_come_back(void **state) {
  (void)state;
  sluice_page_pool pool;
  sluice_page_list a = {0}, b = {0};
  assert_null(sluice_page_pool_create(10, &pool));
  assert_null(sluice_pages_append(&pool, &a, 4));
  assert_int_equal(pool.free_count, 6);
  assert_int_equal(a.pages[0], 0);
  assert_int_equal(a.pages[3], 3);
  assert_null(sluice_pages_share(&pool, &a, 3, &b));
  assert_int_equal(pool.free_count, 6);
  assert_null(sluice_pages_append(&pool, &b, 2));
  assert_int_equal(pool.free_count, 4);
  sluice_pages_free(&pool, &a); /* three of its pages live on in b */
  assert_int_equal(pool.free_count, 5);
  sluice_pages_truncate(&pool, &b, 1);
  assert_int_equal(pool.free_count, 9);
  sluice_status *status = sluice_pages_append(&pool, &b, 10);
  assert_int_equal(sluice_status_code(status), SLUICE_OUT_OF_MEMORY);
  assert_non_null(strstr(sluice_status_message(status), "10 more pages are needed, 9 of 10 are free"));
  sluice_status_free(status);
  assert_int_equal(b.count, 1);
  assert_int_equal(pool.free_count, 9);
  sluice_pages_free(&pool, &b);
  assert_int_equal(pool.free_count, 10);
  sluice_page_pool_free(&pool);
}

/* Random lists; the references of every page must always equal the lists that hold it. */
static void references_stay_right(void **state) {
  (void)state;
  enum { PAGES = 50, LISTS = 8 };
  sluice_page_pool pool;
  sluice_page_list lists[LISTS] = {0};
  assert_null(sluice_page_pool_create(PAGES, &pool));
  uint32_t random = 3;
  for (int round = 0; round < 20000; round++) {
    random = random * 1664525u + 1013904223u;
    uint32_t which = (random >> 20) % LISTS, other = (random >> 12) % LISTS, amount = (random >> 26) % 7;
    switch ((random >> 8) % 3) {
    case 0:
      sluice_status_free(sluice_pages_append(&pool, &lists[which], amount));
      break;
    case 1:
      sluice_pages_truncate(&pool, &lists[which], amount);
      break;
    default:
      if (which != other) {
        sluice_pages_free(&pool, &lists[other]);
        uint32_t count = amount < lists[which].count ? amount : lists[which].count;
        assert_null(sluice_pages_share(&pool, &lists[which], count, &lists[other]));
      }
    }
    uint32_t held[PAGES] = {0}, free_pages = 0;
    for (int i = 0; i < LISTS; i++)
      for (uint32_t j = 0; j < lists[i].count; j++) held[lists[i].pages[j]]++;
    for (int i = 0; i < PAGES; i++) {
      assert_int_equal(held[i], pool.references[i]);
      free_pages += !held[i];
    }
    assert_int_equal(free_pages, pool.free_count);
    for (uint32_t i = 0; i < pool.free_count; i++) assert_int_equal(pool.references[pool.free_pages[i]], 0);
  }
  for (int i = 0; i < LISTS; i++) sluice_pages_free(&pool, &lists[i]);
  assert_int_equal(pool.free_count, PAGES);
  sluice_page_pool_free(&pool);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(pages_come_back), cmocka_unit_test(references_stay_right)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
