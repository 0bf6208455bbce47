#include "backends/common/fragment.h"

unsigned fragment_elements(const fragment_layout *layout) {
  return 1u << layout->element_bits;
}

int64_t fragment_element_part(const fragment_layout *layout, fragment_axis axis, unsigned element) {
  int64_t index = 0;
  for (unsigned i = 0; i < layout->element_bits; i++)
    if (layout->element[i].axis == axis && element >> i & 1) index |= (int64_t)1 << layout->element[i].bit;
  return index;
}

/* Neighbouring bits that stay neighbours move together. */
V fragment_lane_part(emitter *e, const fragment_layout *layout, fragment_axis axis, V lane) {
  V index = NULL;
  for (unsigned i = 0; i < layout->lane_bits;) {
    unsigned length = 1;
    const fragment_bit first = layout->lane[i];
    while (i + length < layout->lane_bits && layout->lane[i + length].axis == first.axis &&
           layout->lane[i + length].bit == first.bit + length)
      length++;
    if (first.axis == axis) {
      V field = and_(e, lshr(e, lane, int64(e, i)), int64(e, (1 << length) - 1));
      field = shl(e, field, int64(e, first.bit));
      index = index ? or_(e, index, field) : field;
    }
    i += length;
  }
  return index ? index : int64(e, 0);
}

void fragment_reduce(emitter *e, const fragment_layout *layout, fragment_axis axis, reduction operation, V *values) {
  const unsigned count = fragment_elements(layout);
  unsigned over = 0; /* bits of the element's number that are of the axis */
  for (unsigned i = 0; i < layout->element_bits; i++)
    if (layout->element[i].axis == axis) over |= 1u << i;
  for (unsigned first = 0; first < count; first++) {
    if (first & over) continue;
    V result = values[first];
    for (unsigned other = first + 1; other < count; other++)
      if ((other & ~over) == first) result = combine(e, result, values[other], operation);
    for (unsigned i = 0; i < layout->lane_bits; i++)
      if (layout->lane[i].axis == axis) result = combine(e, result, e->atoms->exchange(e, result, 1u << i), operation);
    for (unsigned other = first; other < count; other++)
      if ((other & ~over) == first) values[other] = result;
  }
}

const char *fragment_check(const fragment_layout *layout, fragment_axis first, unsigned first_size,
                           fragment_axis second, unsigned second_size) {
  unsigned seen[3] = {0, 0, 0}; /* by axis, the bits of an index that were listed */
  for (unsigned i = 0; i < layout->lane_bits + layout->element_bits; i++) {
    const fragment_bit b = i < layout->lane_bits ? layout->lane[i] : layout->element[i - layout->lane_bits];
    if (b.axis != first && b.axis != second) return "an axis that the matrix does not have";
    if (seen[b.axis] >> b.bit & 1) return "an index bit is listed twice";
    seen[b.axis] |= 1u << b.bit;
  }
  if (seen[first] != first_size - 1 || seen[second] != second_size - 1) return "an index bit is missing or too many";
  return NULL;
}
