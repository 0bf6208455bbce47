#include "runtime/pages.h"

#include "sluice/memory.h"

#include <string.h>

sluice_status *sluice_page_pool_create(uint32_t page_count, sluice_page_pool *out_pool) {
  memset(out_pool, 0, sizeof *out_pool);
  sluice_page_pool pool = {.page_count = page_count, .free_count = page_count};
  pool.free_pages = sluice_allocate_array(page_count, sizeof *pool.free_pages);
  pool.references = sluice_allocate_array(page_count, sizeof *pool.references);
  if (!pool.free_pages || !pool.references) {
    sluice_page_pool_free(&pool);
    return sluice_out_of_memory();
  }
  for (uint32_t i = 0; i < page_count; i++) pool.free_pages[i] = (int32_t)(page_count - 1 - i); /* page 0 comes first */
  *out_pool = pool;
  return NULL;
}

void sluice_page_pool_free(sluice_page_pool *pool) {
  sluice_release(pool->free_pages);
  sluice_release(pool->references);
  memset(pool, 0, sizeof *pool);
}

static sluice_status *reserve(sluice_page_list *list, uint32_t count) {
  if (count <= list->capacity) return NULL;
  uint32_t capacity = count > 2 * list->capacity ? count : 2 * list->capacity;
  int32_t *pages = sluice_reallocate_array(list->pages, capacity, sizeof *pages);
  if (!pages) return sluice_out_of_memory();
  list->pages = pages;
  list->capacity = capacity;
  return NULL;
}

sluice_status *sluice_pages_append(sluice_page_pool *pool, sluice_page_list *list, uint32_t count) {
  if (count > pool->free_count)
    return sluice_error(SLUICE_OUT_OF_MEMORY,
                        "the cache is full: %u more pages are needed, %u of %u are free; remove sequences or create "
                        "the session with a larger cache",
                        count, pool->free_count, pool->page_count);
  SLUICE_TRY(reserve(list, list->count + count));
  for (uint32_t i = 0; i < count; i++) {
    int32_t page = pool->free_pages[--pool->free_count];
    pool->references[page] = 1;
    list->pages[list->count++] = page;
  }
  return NULL;
}

void sluice_pages_truncate(sluice_page_pool *pool, sluice_page_list *list, uint32_t count) {
  while (list->count > count) {
    int32_t page = list->pages[--list->count];
    if (--pool->references[page] == 0) pool->free_pages[pool->free_count++] = page;
  }
}

sluice_status *sluice_pages_share(sluice_page_pool *pool, const sluice_page_list *list, uint32_t count,
                                  sluice_page_list *copy) {
  SLUICE_TRY(reserve(copy, count));
  for (uint32_t i = 0; i < count; i++) {
    copy->pages[i] = list->pages[i];
    pool->references[list->pages[i]]++;
  }
  copy->count = count;
  return NULL;
}

void sluice_pages_free(sluice_page_pool *pool, sluice_page_list *list) {
  sluice_pages_truncate(pool, list, 0);
  sluice_release(list->pages);
  memset(list, 0, sizeof *list);
}
