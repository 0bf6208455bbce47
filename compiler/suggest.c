#include "compiler/suggest.h"

#include <limits.h>
#include <string.h>

enum { LONGEST = 63 };

unsigned suggest_distance(const char *a, const char *b) {
  size_t a_length = strlen(a), b_length = strlen(b);
  if (a_length > LONGEST || b_length > LONGEST) return UINT_MAX;
  unsigned row[LONGEST + 1];
  for (size_t j = 0; j <= b_length; j++) row[j] = (unsigned)j;
  for (size_t i = 1; i <= a_length; i++) {
    unsigned diagonal = row[0];
    row[0] = (unsigned)i;
    for (size_t j = 1; j <= b_length; j++) {
      unsigned best = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      if (row[j] + 1 < best) best = row[j] + 1;
      if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
      row[j] = best;
    }
  }
  return row[b_length];
}

const char *suggest_nearest(const char *name, const void *names, size_t count, size_t stride) {
  const char *nearest = NULL;
  unsigned least = UINT_MAX;
  for (size_t i = 0; i < count; i++) {
    const char *candidate;
    memcpy(&candidate, (const char *)names + i * stride, sizeof candidate);
    unsigned distance = suggest_distance(name, candidate);
    if (distance < least) {
      least = distance;
      nearest = candidate;
    }
  }
  return least <= 1 || (size_t)least * 3 <= strlen(name) ? nearest : NULL;
}
