/* Merges of least rank first, of equal ones the leftmost. Symbols are a linked list over the piece's bytes; a heap
 * holds a candidate for each pair of neighbours that merges. A candidate is stale when its left symbol no longer has
 * its rank:
 *
 *     symbols     h e l l o      after "l l" has merged     h e ll o
 *     candidates  (rank of "h e", 0) (of "l l", 2) ...      those of "e l" and "l o" are stale, new ones are pushed
 *
 * n log n for a piece of n bytes. */
#include "runtime/text/bpe.h"

#include "sluice/memory.h"

#include <string.h>

#define NO_RANK UINT32_MAX
#define NONE UINT32_MAX

typedef struct bpe_symbol {
  int32_t id;
  uint32_t rank;   /* of the merge with the next symbol, NO_RANK: none, or the symbol is gone */
  int32_t merged;  /* what that merge makes */
  uint32_t before; /* NONE at the start */
  uint32_t next;   /* NONE at the end */
} bpe_symbol;

typedef struct bpe_candidate {
  uint64_t order; /* rank, then place: (rank << 32 | index of the left symbol) */
} bpe_candidate;

enum { WHOLE_UNKNOWN = 0, WHOLE_YES, WHOLE_NO };

sluice_status *bpe_scratch_create(const vocabulary *v, bpe_scratch *scratch) {
  *scratch = (bpe_scratch){.whole = sluice_allocate_array((size_t)v->size, 1)};
  return scratch->whole ? NULL : sluice_out_of_memory();
}

void bpe_scratch_free(bpe_scratch *scratch) {
  sluice_release(scratch->symbols);
  sluice_release(scratch->heap);
  sluice_release(scratch->whole);
  *scratch = (bpe_scratch){0};
}

static sluice_status *reserve(bpe_scratch *scratch, size_t length) {
  if (length <= scratch->capacity) return NULL;
  size_t capacity = scratch->capacity ? scratch->capacity : 256;
  while (capacity < length) capacity *= 2;
  sluice_release(scratch->symbols);
  sluice_release(scratch->heap);
  scratch->capacity = 0;
  scratch->symbols = sluice_allocate_aligned(64, capacity * sizeof *scratch->symbols);
  /* Each merge pushes two candidates at most, and there are fewer merges than bytes. */
  scratch->heap = sluice_allocate_aligned(64, 3 * capacity * sizeof *scratch->heap);
  if (!scratch->symbols || !scratch->heap) return sluice_out_of_memory();
  scratch->capacity = capacity;
  return NULL;
}

/* ---- A binary heap, least first ---- */

static void sift_down(bpe_candidate *heap, size_t count, size_t at) {
  const bpe_candidate moved = heap[at];
  for (size_t child; (child = 2 * at + 1) < count; at = child) {
    if (child + 1 < count && heap[child + 1].order < heap[child].order) child++;
    if (moved.order <= heap[child].order) break;
    heap[at] = heap[child];
  }
  heap[at] = moved;
}

static void heap_push(bpe_candidate *heap, size_t *count, bpe_candidate candidate) {
  size_t at = (*count)++;
  for (; at && candidate.order < heap[(at - 1) / 2].order; at = (at - 1) / 2) heap[at] = heap[(at - 1) / 2];
  heap[at] = candidate;
}

static bpe_candidate heap_pop(bpe_candidate *heap, size_t *count) {
  const bpe_candidate least = heap[0];
  heap[0] = heap[--*count];
  if (*count) sift_down(heap, *count, 0);
  return least;
}

/* ---- Merging ---- */

/* Looks up the merge of a symbol with its next one; true when there is one. */
static bool look_up(const vocabulary *v, bpe_symbol *symbols, uint32_t at) {
  bpe_symbol *s = &symbols[at];
  const vocabulary_pair *pair = s->next == NONE ? NULL : vocabulary_merge(v, s->id, symbols[s->next].id);
  s->rank = pair ? pair->rank : NO_RANK;
  if (pair) s->merged = pair->id;
  return pair != NULL;
}

static bpe_candidate candidate_of(const bpe_symbol *symbols, uint32_t at) {
  return (bpe_candidate){.order = (uint64_t)symbols[at].rank << 32 | at};
}

static size_t start_symbols(const vocabulary *v, bpe_scratch *scratch, const unsigned char *piece, uint32_t length) {
  bpe_symbol *symbols = scratch->symbols;
  for (uint32_t i = 0; i < length; i++)
    symbols[i] =
        (bpe_symbol){.id = v->byte_ids[piece[i]], .before = i ? i - 1 : NONE, .next = i + 1 < length ? i + 1 : NONE};
  size_t count = 0;
  for (uint32_t i = 0; i < length; i++)
    if (look_up(v, symbols, i)) scratch->heap[count++] = candidate_of(symbols, i);
  for (size_t i = count / 2; i-- > 0;) sift_down(scratch->heap, count, i);
  return count;
}

static void merge_symbols(const vocabulary *v, bpe_scratch *scratch, const unsigned char *piece, uint32_t length) {
  bpe_symbol *symbols = scratch->symbols;
  size_t count = start_symbols(v, scratch, piece, length);
  while (count) {
    const bpe_candidate least = heap_pop(scratch->heap, &count);
    const uint32_t at = (uint32_t)least.order;
    bpe_symbol *s = &symbols[at];
    if (s->rank != (uint32_t)(least.order >> 32)) continue;
    bpe_symbol *gone = &symbols[s->next];
    s->id = s->merged;
    s->next = gone->next;
    gone->rank = NO_RANK;
    if (s->next != NONE) symbols[s->next].before = at;
    if (look_up(v, symbols, at)) heap_push(scratch->heap, &count, candidate_of(symbols, at));
    if (s->before != NONE && look_up(v, symbols, s->before))
      heap_push(scratch->heap, &count, candidate_of(symbols, s->before));
  }
}

sluice_status *bpe_encode(const vocabulary *v, bool ignore_merges, bpe_scratch *scratch, const char *piece,
                          size_t length, int32_t *ids, size_t *out_count) {
  const int32_t whole = length == 1 ? v->byte_ids[(unsigned char)piece[0]] : vocabulary_find(v, piece, length);
  if (whole >= 0 && (length == 1 || ignore_merges || scratch->whole[whole] == WHOLE_YES)) {
    ids[0] = whole;
    *out_count = 1;
    return NULL;
  }
  SLUICE_TRY(reserve(scratch, length));
  merge_symbols(v, scratch, (const unsigned char *)piece, (uint32_t)length);
  size_t count = 0;
  for (uint32_t at = 0; at != NONE; at = scratch->symbols[at].next) ids[count++] = scratch->symbols[at].id;
  if (whole >= 0) scratch->whole[whole] = count == 1 && ids[0] == whole ? WHOLE_YES : WHOLE_NO;
  *out_count = count;
  return NULL;
}
