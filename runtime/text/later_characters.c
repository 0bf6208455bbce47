#include "runtime/text/later_characters.h"

#include "runtime/text/utf8.h"

#include <stdlib.h>

typedef struct later_range {
  uint32_t first, last, stand_in;
} later_range;

#include "runtime/text/later_characters.inc"

static int compare_ranges(const void *key, const void *entry) {
  const uint32_t point = *(const uint32_t *)key;
  const later_range *range = entry;
  return point < range->first ? -1 : point > range->last;
}

static const later_range *range_of(uint32_t point) {
  if (!(later_pages[point >> 11] >> (point >> 8 & 7) & 1)) return NULL;
  return bsearch(&point, later_ranges, sizeof later_ranges / sizeof *later_ranges, sizeof *later_ranges,
                 compare_ranges);
}

/* The first later character at or after *at, which is moved there; NULL when there is none. */
static const later_range *next_later(const char *text, size_t length, size_t *at) {
  while (*at < length) {
    const unsigned char first = (unsigned char)text[*at];
    if (first < 0xE0) { /* below U+0800 */
      ++*at;
      continue;
    }
    const utf8_step step = utf8_next((const unsigned char *)text + *at, length - *at);
    const later_range *range = range_of(step.code_point);
    if (range) return range;
    *at += step.length;
  }
  return NULL;
}

bool later_characters_replace(const char *text, size_t length, sluice_text *out) {
  size_t at = 0;
  const later_range *range = next_later(text, length, &at);
  if (!range) return false;
  out->length = 0;
  sluice_text_append(out, text, length);
  for (; range && !out->failed; range = next_later(text, length, &at))
    at += utf8_write(range->stand_in, (unsigned char *)out->data + at);
  return true;
}
