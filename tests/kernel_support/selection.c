#include "kernel_support/selection.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

void reference_selection(const double *scores, int64_t visible, int64_t k, int64_t init, int64_t recent,
                         int32_t *list) {
  char *taken = calloc((size_t)visible + 1, 1);
  assert_non_null(taken);
  int64_t count = 0;
  for (int64_t b = 0; b < visible && b < init && count < k; ++b, ++count) taken[b] = 1;
  for (int64_t b = visible - recent < 0 ? 0 : visible - recent; b < visible && count < k; ++b)
    if (!taken[b]) taken[b] = 1, ++count;
  for (; count < k && count < visible; ++count) {
    int64_t best = 0;
    while (taken[best]) ++best;
    for (int64_t b = best + 1; b < visible; ++b) {
      if (taken[b]) continue;
      if (scores[b] > scores[best] || (isnan(scores[best]) && !isnan(scores[b]))) best = b;
    }
    taken[best] = 1;
  }
  int64_t at = 0;
  for (int64_t b = 0; b < visible; ++b)
    if (taken[b]) list[at++] = (int32_t)b;
  while (at < k) list[at++] = -1;
  free(taken);
}
