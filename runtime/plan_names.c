/* The names of what plan.h enumerates, and what follows from the ranges of launches and the shapes of weights. */
#include "sluice/plan.h"

#include <string.h>

typedef struct named {
  const char *name;
  uint32_t number;
} named;

static const char *name_of(const named *table, size_t count, uint32_t number) {
  for (size_t i = 0; i < count; i++)
    if (table[i].number == number) return table[i].name;
  return NULL;
}

static bool find(const named *table, size_t count, const char *name, size_t length, uint32_t *out_number) {
  for (size_t i = 0; i < count; i++)
    if (strlen(table[i].name) == length && memcmp(table[i].name, name, length) == 0) {
      *out_number = table[i].number;
      return true;
    }
  return false;
}

#define NAMED(name, number, text) {text, number},
#define NAMES(what, TABLE)                                                                                             \
  static const named what##_names[] = {TABLE(NAMED)};                                                                  \
  const char *sluice_##what##_name(uint32_t number) {                                                                  \
    return name_of(what##_names, sizeof what##_names / sizeof *what##_names, number);                                  \
  }                                                                                                                    \
  bool sluice_##what##_find(const char *name, size_t length, uint32_t *out_number) {                                   \
    return find(what##_names, sizeof what##_names / sizeof *what##_names, name, length, out_number);                   \
  }

NAMES(size, SLUICE_SIZES)
NAMES(input, SLUICE_INPUTS)
NAMES(output, SLUICE_OUTPUTS)
NAMES(layout, SLUICE_LAYOUTS)
NAMES(format, SLUICE_FORMATS)
NAMES(role, SLUICE_ROLES)

/* ---- ranges ---- */

bool sluice_ranges_hold(const sluice_plan_range *ranges, uint32_t count, const int32_t sizes[SLUICE_SIZE_COUNT]) {
  for (uint32_t i = 0; i < count; i++) {
    uint32_t size = (uint32_t)sizes[ranges[i].size];
    if (size < ranges[i].from || size > ranges[i].to) return false;
  }
  return true;
}

bool sluice_ranges_agree(const sluice_plan_range *inner, uint32_t inner_count, const sluice_plan_range *outer,
                         uint32_t outer_count, bool *holds) {
  *holds = true;
  bool apart = false; /* some size is never in both */
  for (uint32_t o = 0; o < outer_count; o++) {
    sluice_plan_range in = {outer[o].size, 0, UINT32_MAX};
    for (uint32_t i = 0; i < inner_count; i++)
      if (inner[i].size == outer[o].size) in = inner[i];
    apart |= in.to < outer[o].from || outer[o].to < in.from;
    *holds &= outer[o].from <= in.from && in.to <= outer[o].to;
  }
  return *holds || apart;
}

/* ---- packed sizes ---- */

#define MOST_DIMENSION ((uint32_t)1 << 28)
#define MOST_PANEL 4096u
#define MOST_GROUP 8u

size_t sluice_format_size(uint32_t format) {
  return sluice_format_name(format) ? sluice_dtype_size((sluice_dtype)format) : 0;
}

const char *sluice_packed_size_of(const sluice_plan_weight *weight, sluice_packed_size *out_size) {
  const uint64_t element = sluice_format_size(weight->format);
  const bool rows = weight->layout == SLUICE_LAYOUT_ROWS, pairs = weight->layout == SLUICE_LAYOUT_PANEL_PAIRS;
  *out_size = (sluice_packed_size){0};
  if (!element) return "a weight has an unknown format";
  if (!sluice_layout_name(weight->layout)) return "a weight has an unknown layout";
  if (weight->rows == 0 || weight->rows > MOST_DIMENSION || weight->columns == 0 || weight->columns > MOST_DIMENSION ||
      weight->group == 0 || weight->group > MOST_GROUP)
    return "a weight's extents are out of range";
  const uint64_t group_bytes = weight->group * element;
  if (rows && (weight->panel || weight->group != 1)) return "a row-major weight has panels";
  if (!rows && group_bytes != 4 && group_bytes != 8 && group_bytes != 16)
    return "a weight's groups of columns are neither 4, 8 nor 16 bytes";
  if (!rows && (weight->panel == 0 || weight->panel > MOST_PANEL)) return "a weight's panel is out of range";
  if (pairs && weight->rows % 2) return "paired matrices have an odd number of rows";
  sluice_packed_size size = {.halves = pairs ? 2 : 1, .group_bytes = (uint32_t)group_bytes};
  size.half_rows = weight->rows / size.halves;
  size.unit_rows = rows ? 1 : weight->panel;
  size.units = ((uint64_t)size.half_rows + size.unit_rows - 1) / size.unit_rows;
  const uint64_t groups = ((uint64_t)weight->columns + weight->group - 1) / weight->group;
  size.unit_bytes = groups * group_bytes * size.unit_rows * size.halves; /* below 2^28 * 16 * 2^12 * 2 */
  if (__builtin_mul_overflow(size.units, size.unit_bytes, &size.matrix_bytes) || size.matrix_bytes > UINT64_MAX - 63)
    return "a weight's bytes are out of range";
  size.batch_bytes = (size.matrix_bytes + 63) / 64 * 64;
  *out_size = size;
  return NULL;
}
