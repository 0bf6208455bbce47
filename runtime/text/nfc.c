/* Only runs around an active character (one that is no starter, decomposes for good, or joins what is before it) can
 * change. A run begins at the character before the first active one and ends before the next that is not active:
 *
 *     x y e ´ ` z         active: ´ `        run: e ´ `
 *
 * It is decomposed, its marks are put in the order of their combining classes, and what composes is composed
 * (Unicode 3.11). */
#include "runtime/text/nfc.h"

#include "runtime/text/utf8.h"
#include "sluice/memory.h"

#include <stdlib.h>
#include <string.h>

typedef struct combining_class {
  uint32_t point;
  uint8_t value;
} combining_class;
typedef struct decomposition {
  uint32_t point;
  uint16_t start; /* in decomposed_points */
  uint16_t count;
} decomposition;
typedef struct composition {
  uint32_t first, second, composed;
} composition;

#include "runtime/text/nfc_tables.inc"

enum { L = 0x1100, V = 0x1161, T = 0x11A7, S = 0xAC00, L_COUNT = 19, V_COUNT = 21, T_COUNT = 28, S_COUNT = 11172 };

static bool is_active(uint32_t point) {
  return active_bits[active_pages[point >> 8]][point >> 3 & 31] >> (point & 7) & 1;
}

static int compare(uint32_t a, uint32_t b) {
  return (a > b) - (a < b);
}

static int compare_class(const void *key, const void *entry) {
  return compare(*(const uint32_t *)key, ((const combining_class *)entry)->point);
}

static int compare_decomposition(const void *key, const void *entry) {
  return compare(*(const uint32_t *)key, ((const decomposition *)entry)->point);
}

static uint8_t class_of(uint32_t point) {
  const combining_class *found = NULL;
  if (point >= 0x300)
    found = bsearch(&point, combining_classes, sizeof combining_classes / sizeof *combining_classes,
                    sizeof *combining_classes, compare_class);
  return found ? found->value : 0;
}

static int compare_compositions(const void *key, const void *entry) {
  const composition *a = key, *b = entry;
  return a->first != b->first ? compare(a->first, b->first) : compare(a->second, b->second);
}

/* The primary composite of two, 0: none. */
static uint32_t compose(uint32_t first, uint32_t second) {
  if (first >= L && first < L + L_COUNT && second >= V && second < V + V_COUNT)
    return S + ((first - L) * V_COUNT + second - V) * T_COUNT;
  if (first >= S && first < S + S_COUNT && (first - S) % T_COUNT == 0 && second > T && second < T + T_COUNT)
    return first + second - T;
  const composition key = {.first = first, .second = second};
  const composition *found = bsearch(&key, compositions, sizeof compositions / sizeof *compositions,
                                     sizeof *compositions, compare_compositions);
  return found ? found->composed : 0;
}

typedef struct mark {
  uint32_t point;
  uint8_t class;
} mark;

typedef struct run {
  mark *marks, *sorted; /* [capacity] each */
  size_t count, capacity;
} run;

static bool run_push(run *r, uint32_t point) {
  if (r->count == r->capacity) {
    const size_t capacity = r->capacity ? r->capacity * 2 : 64;
    mark *grown = sluice_reallocate_array(r->marks, capacity, sizeof *grown);
    if (!grown) return false;
    r->marks = grown;
    grown = sluice_reallocate_array(r->sorted, capacity, sizeof *grown);
    if (!grown) return false;
    r->sorted = grown;
    r->capacity = capacity;
  }
  r->marks[r->count++] = (mark){.point = point, .class = class_of(point)};
  return true;
}

static bool run_decompose(run *r, uint32_t point) {
  if (point >= S && point < S + S_COUNT) {
    const uint32_t index = point - S, last = index % T_COUNT;
    return run_push(r, L + index / (V_COUNT * T_COUNT)) && run_push(r, V + index % (V_COUNT * T_COUNT) / T_COUNT) &&
           (!last || run_push(r, T + last));
  }
  const decomposition *found = NULL;
  if (point >= 0xC0)
    found = bsearch(&point, decompositions, sizeof decompositions / sizeof *decompositions, sizeof *decompositions,
                    compare_decomposition);
  if (!found) return run_push(r, point);
  for (unsigned i = 0; i < found->count; i++)
    if (!run_push(r, decomposed_points[found->start + i])) return false;
  return true;
}

/* Puts marks [start, end), none of class 0, in the order of their classes, equal ones as they stood: by insertion when
 * they are few, else by counting, so that a long run of marks stays linear. */
static void order_marks(run *r, size_t start, size_t end) {
  if (end - start <= 16) {
    for (size_t i = start + 1; i < end; i++) {
      const mark m = r->marks[i];
      size_t at = i;
      for (; at > start && r->marks[at - 1].class > m.class; at--) r->marks[at] = r->marks[at - 1];
      r->marks[at] = m;
    }
    return;
  }
  size_t places[257] = {0};
  for (size_t i = start; i < end; i++) places[r->marks[i].class + 1]++;
  for (size_t c = 0; c < 256; c++) places[c + 1] += places[c];
  for (size_t i = start; i < end; i++) r->sorted[places[r->marks[i].class]++] = r->marks[i];
  memcpy(r->marks + start, r->sorted, (end - start) * sizeof *r->marks);
}

static void run_order(run *r) {
  for (size_t i = 0; i < r->count;) {
    size_t end = i;
    while (end < r->count && r->marks[end].class) end++;
    if (end > i) order_marks(r, i, end);
    i = end + (end == i);
  }
}

/* Joins each mark with the last starter before it, unless another one between the two, of the same class or a higher
 * one, blocks it. */
static void run_compose(run *r) {
  size_t kept = 0, starter = SIZE_MAX;
  int last_class = -1; /* of what is kept behind the starter; -1: nothing is */
  for (size_t i = 0; i < r->count; i++) {
    const mark m = r->marks[i];
    const uint32_t joined =
        starter != SIZE_MAX && last_class < (int)m.class ? compose(r->marks[starter].point, m.point) : 0;
    if (joined) {
      r->marks[starter].point = joined;
      continue;
    }
    if (m.class == 0) {
      starter = kept;
      last_class = -1;
    } else {
      last_class = m.class;
    }
    r->marks[kept++] = m;
  }
  r->count = kept;
}

static void run_finish(run *r, sluice_text *out) {
  run_order(r);
  run_compose(r);
  for (size_t i = 0; i < r->count; i++) {
    unsigned char bytes[4];
    sluice_text_append(out, (const char *)bytes, utf8_write(r->marks[i].point, bytes));
  }
  r->count = 0;
}

size_t nfc_stable_prefix(const char *text, size_t length) {
  size_t before = 0; /* where the last character begins */
  for (size_t at = 0; at < length;) {
    if ((unsigned char)text[at] < 0xCC) { /* below U+0300, all of which is inactive */
      before = at;
      at += (unsigned char)text[at] < 0x80 ? 1 : 2;
      continue;
    }
    const utf8_step step = utf8_next((const unsigned char *)text + at, length - at);
    if (is_active(step.code_point)) return before;
    before = at;
    at += step.length;
  }
  return length;
}

void nfc_append(const char *text, size_t length, sluice_text *out) {
  run r = {0};
  for (size_t at = 0; at < length && !out->failed;) {
    const size_t stable = nfc_stable_prefix(text + at, length - at);
    sluice_text_append(out, text + at, stable);
    at += stable;
    for (size_t start = at; at < length;) {
      const utf8_step step = utf8_next((const unsigned char *)text + at, length - at);
      if (at > start && !is_active(step.code_point)) break;
      if (!run_decompose(&r, step.code_point)) {
        out->failed = true;
        break;
      }
      at += step.length;
    }
    run_finish(&r, out);
  }
  sluice_release(r.marks);
  sluice_release(r.sorted);
}
