/* The pool of cache pages, and the lists of pages that sequences hold. Only numbers: the memory belongs to the session.
 *
 * A page is shared by the sequences that were forked after it was filled; it returns to the pool with its last holder.
 * Only full pages are ever shared, so the page that a sequence appends to is its own.
 */
#ifndef SLUICE_RUNTIME_PAGES_H
#define SLUICE_RUNTIME_PAGES_H

#include "sluice/status.h"

typedef struct sluice_page_pool {
  uint32_t page_count;
  uint32_t free_count;
  int32_t *free_pages;  /* a stack; the page on top is free_pages[free_count - 1] */
  uint32_t *references; /* of each page; 0: free */
} sluice_page_pool;

typedef struct sluice_page_list { /* zero: empty */
  int32_t *pages;
  uint32_t count, capacity;
} sluice_page_list;

SLUICE_MUST_USE sluice_status *sluice_page_pool_create(uint32_t page_count, sluice_page_pool *out_pool);
void sluice_page_pool_free(sluice_page_pool *pool);

/* Appends `count` free pages to `list`. On an error (pool empty: SLUICE_OUT_OF_MEMORY) nothing has changed. */
SLUICE_MUST_USE sluice_status *sluice_pages_append(sluice_page_pool *pool, sluice_page_list *list, uint32_t count);
/* Gives back the pages of `list` beyond the first `count`. */
void sluice_pages_truncate(sluice_page_pool *pool, sluice_page_list *list, uint32_t count);
/* Makes `copy` (empty) hold the first `count` pages of `list` too. */
SLUICE_MUST_USE sluice_status *sluice_pages_share(sluice_page_pool *pool, const sluice_page_list *list, uint32_t count,
                                                  sluice_page_list *copy);
/* Gives back all pages and frees the list. */
void sluice_pages_free(sluice_page_pool *pool, sluice_page_list *list);

#endif
