/* The shape and the requirements of a launch, and where it stands among others.
 *
 * On some GPUs a launch may begin while the launches before it still run (atoms.overlap). A kernel whose shape says
 * `begins_early` uses that: what it does before `await_previous` costs no time. On all others launches run one after
 * another and these functions emit nothing. */
#ifndef BACKENDS_COMMON_LAUNCH_H
#define BACKENDS_COMMON_LAUNCH_H

#include "backends/common/atoms.h"

enum { MOST_SHAPE_ROWS = 8 };

/* How many workgroups a kernel has, how many lanes each, and what it needs. */
typedef struct kernel_shape {
  sluice_plan_extent x, y; /* all zero: one */
  unsigned lanes;          /* lanes that the family can use, a power of two; 0: the target's usual number */
  /* Lengths, in elements, of the rows and of the parts of rows that the kernel goes over in vectors: e->vector divides
   * them all where the target wants aligned vectors. 0: none. */
  int64_t rows[MOST_SHAPE_ROWS];
  /* The kernel calls await_previous itself. Before that it may read what no launch of the step writes: weights, the
   * step's inputs and sizes, pages of the cache that earlier steps filled, and what load_ended reads; it must write
   * nothing. */
  bool begins_early;
  /* The kernel calls release_next itself: the launch behind it may begin when every workgroup has called it. Without
   * this it may begin at once. */
  bool releases_next;
  /* Workgroups that a processor has to hold at once, at the expense of registers: of a joined kernel the fewest that a
   * part asks for. 0: registers come first, but for what other parts ask for. */
  unsigned workgroups_per_processor;
  bool cache_first; /* see sluice_plan_kernel */
} kernel_shape;

/* A workgroup for each unit of `size`; one for each row and, in y, each of `count`. The kernel goes over rows of
 * `width` elements in vectors; 0: over none. */
kernel_shape each(sluice_size size, int64_t width);
kernel_shape each_of(sluice_size size, int64_t count, int64_t width);

/* Says why a target's own kernel does not take the one at hand: what was found, what was expected. False. */
__attribute__((format(printf, 2, 3))) bool decline(emitter *e, const char *format, ...);

/* Opens the kernel: e->x and e->y are the workgroup's place in the grid of `shape`, which becomes the launch's grid. */
void kernel_begin(emitter *e, const kernel_spec *spec, kernel_shape shape);
void kernel_end(emitter *e);

/* sizes[size] as i64. */
V size_of(emitter *e, sluice_size size);
/* Workgroups of one dimension of a grid. */
V extent_of(emitter *e, const sluice_plan_extent *extent);

/* ---- other launches ---- */

/* Waits until what the launches before this one wrote is in memory. kernel_begin does it first of all, but for a shape
 * that says begins_early. Every workgroup of a joined kernel's last part does it once. */
void await_previous(emitter *e);
/* The same for all operands but the first, in a kernel behind a launch with kernel_shape.releases_next: for a launch of
 * its own there is nothing to do, a part of a joined kernel waits for other parts. The kernel calls await_previous,
 * too, before it reads the first operand. */
void await_all_but_first(emitter *e);
/* See kernel_shape.releases_next. A kernel that calls this behind its await_previous lets no launch begin, neither the
 * next one nor those behind it, before all launches before its own have ended. */
void release_next(emitter *e);
/* Loads what a launch wrote that had ended when this one began, though this one has not waited: see release_next. */
V load_ended(emitter *e, T type, V pointer);

/* ---- attributes of the kernel at hand ---- */
int64_t attribute(emitter *e, const char *name);
double attribute_float(emitter *e, const char *name);
bool attribute_is(emitter *e, const char *name, const char *value);
sluice_dtype attribute_dtype(emitter *e, const char *name);
/* The sluice_size that a `size` attribute names. */
sluice_size attribute_size(emitter *e, const char *name);

#endif
