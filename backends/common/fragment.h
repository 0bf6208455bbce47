/* Fragments: the operands and results of matrix instructions, spread over the lanes of a wave.
 *
 * A matrix instruction computes C += A B for a small tile. Each lane holds a few elements of each matrix, and which
 * ones is a matter of bits: an element's row, column or depth is made of bits of the lane's number and of the element's
 * number within the lane. A layout lists them. For example, the result of a 16 x 16 instruction of AMD:
 *
 *     lane     l5 l4 l3 l2 l1 l0        column = l3 l2 l1 l0
 *     element        e1 e0              row    = l5 l4 e1 e0
 *
 * is written as .lane = {COLUMN 0, COLUMN 1, COLUMN 2, COLUMN 3, ROW 2, ROW 3}, .element = {ROW 0, ROW 1}. So code that
 * works on results (softmax, masks, sums over an axis, epilogues) asks for the row or column of what a lane holds and
 * is the same for every instruction and vendor.
 */
#ifndef BACKENDS_COMMON_FRAGMENT_H
#define BACKENDS_COMMON_FRAGMENT_H

#include "backends/common/emit.h"

/* A is rows x depth, B depth x columns, C rows x columns. */
typedef enum fragment_axis { FRAGMENT_ROW, FRAGMENT_COLUMN, FRAGMENT_DEPTH } fragment_axis;

/* A bit of an index along `axis`; its value is 1 << bit. */
typedef struct fragment_bit {
  fragment_axis axis;
  unsigned bit;
} fragment_bit;

enum { FRAGMENT_LANE_BITS = 6, FRAGMENT_ELEMENT_BITS = 4, FRAGMENT_MOST_ELEMENTS = 1 << FRAGMENT_ELEMENT_BITS };

typedef struct fragment_layout {
  unsigned lane_bits, element_bits; /* log2 of lanes of a wave; of elements of a lane */
  fragment_bit lane[FRAGMENT_LANE_BITS];
  fragment_bit element[FRAGMENT_ELEMENT_BITS];
} fragment_layout;

typedef struct matrix_instruction {
  const char *name;
  unsigned rows, columns, depth;
  fragment_layout a, b, c;
  /* c + a b. a and b are vectors of a lane's elements (bf16 as i16, in order), c is one of f32. All lanes of the wave
   * come to it together. */
  V (*multiply)(emitter *e, V a, V b, V c);
} matrix_instruction;

/* Elements that a lane holds. */
unsigned fragment_elements(const fragment_layout *layout);
/* The index along `axis` of element `element` of lane `lane` (i64, within the wave) is the sum of these two. */
V fragment_lane_part(emitter *e, const fragment_layout *layout, fragment_axis axis, V lane);
int64_t fragment_element_part(const fragment_layout *layout, fragment_axis axis, unsigned element);

/* Combines a lane's `values`, one for each element, over all indices along `axis`; every lane that has elements with an
 * index along the other axis gets that index's result in all of them. Elements are combined in ascending order, then
 * lanes by a butterfly, so that all get the same bits. */
void fragment_reduce(emitter *e, const fragment_layout *layout, fragment_axis axis, reduction operation, V *values);

/* NULL, or what is wrong with a layout: an index twice or not at all, or not of rows x columns as they should be. For
 * tests. */
const char *fragment_check(const fragment_layout *layout, fragment_axis first, unsigned first_size,
                           fragment_axis second, unsigned second_size);

#endif
