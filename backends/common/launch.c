#include "backends/common/launch.h"
#include "backends/common/build.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

bool decline(emitter *e, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(e->declined, sizeof e->declined, format, arguments);
  va_end(arguments);
  return false;
}

static sluice_plan_extent one_unless_set(sluice_plan_extent extent) {
  return extent.divisor ? extent : (sluice_plan_extent){.size = SLUICE_SIZE_ONE, .divisor = 1, .factor = 1};
}

kernel_shape each(sluice_size size, int64_t width) {
  return (kernel_shape){.x = {.size = size, .divisor = 1, .factor = 1}, .rows = {width}};
}

kernel_shape each_of(sluice_size size, int64_t count, int64_t width) {
  kernel_shape shape = each(size, width);
  shape.y = (sluice_plan_extent){.size = SLUICE_SIZE_ONE, .divisor = 1, .factor = (uint32_t)count};
  return shape;
}

/* The widest vector that divides the length of every row. */
static unsigned common_vector(const target_facts *facts, const kernel_shape *shape) {
  unsigned vector = facts->vector;
  for (size_t i = 0; facts->aligned_vectors && i < MOST_SHAPE_ROWS; i++)
    while (shape->rows[i] % vector) vector /= 2;
  return vector;
}

void kernel_begin(emitter *e, const kernel_spec *spec, kernel_shape shape) {
  const unsigned usual = e->facts->lanes;
  e->spec = spec;
  e->grid[0] = one_unless_set(shape.x);
  e->grid[1] = one_unless_set(shape.y);
  e->lanes = usual == 1 || shape.lanes == 0 ? usual : shape.lanes;
  /* A launch has the lanes of its largest part: with more, the others would lack registers. */
  if (e->joined && e->lanes > usual) e->lanes = usual;
  e->vector = common_vector(e->facts, &shape);
  e->workgroup_bytes = 0;
  e->cache_first = shape.cache_first;
  e->reduce_memory = NULL;
  e->workgroups_per_processor = shape.workgroups_per_processor;
  e->releases_next = shape.releases_next;
  e->atoms->begin(e, spec);
  if (!shape.begins_early) await_previous(e);
}

void kernel_end(emitter *e) {
  e->atoms->end(e);
}

V size_of(emitter *e, sluice_size size) {
  return load_i32(e, e->sizes, int64(e, (int64_t)size));
}

V extent_of(emitter *e, const sluice_plan_extent *extent) {
  V units = ceil_div(e, size_of(e, (sluice_size)extent->size), extent->divisor);
  V all = mul(e, units, int64(e, extent->factor));
  return extent->most ? imin(e, all, int64(e, extent->most)) : all;
}

/* ---- other launches ---- */
void await_previous(emitter *e) {
  if (e->atoms->overlap) e->atoms->overlap->await_previous(e);
}

void await_all_but_first(emitter *e) {
  if (e->atoms->overlap) e->atoms->overlap->await_all_but_first(e);
}

void release_next(emitter *e) {
  if (e->atoms->overlap) e->atoms->overlap->release_next(e);
}

V load_ended(emitter *e, T type, V pointer) {
  return e->atoms->overlap ? e->atoms->overlap->load_ended(e, type, pointer) : load(e, type, pointer);
}

/* ---- attributes ---- */
int64_t attribute(emitter *e, const char *name) {
  return kernel_integer(e->spec, name, &e->status);
}

double attribute_float(emitter *e, const char *name) {
  return kernel_float(e->spec, name, &e->status);
}

bool attribute_is(emitter *e, const char *name, const char *value) {
  return strcmp(kernel_string(e->spec, name, &e->status), value) == 0;
}

sluice_dtype attribute_dtype(emitter *e, const char *name) {
  return kernel_dtype(e->spec, name, &e->status);
}

sluice_size attribute_size(emitter *e, const char *name) {
  const char *text = kernel_string(e->spec, name, &e->status);
  uint32_t size = SLUICE_SIZE_ONE;
  if (!sluice_size_find(text, strlen(text), &size) && !e->status)
    e->status = sluice_error(SLUICE_INTERNAL, "kernel %s: '%s' is no size", e->spec->symbol, text);
  return (sluice_size)size;
}
