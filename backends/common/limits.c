#include "backends/common/limits.h"
#include "sluice/json.h"

/* The kernel's integer attributes: "heads 64, kv_heads 4, ...". */
static void write_shape(const kernel_spec *spec, sluice_text *out) {
  bool first = true;
  for (size_t i = 0; i < spec->attribute_count; i++) {
    const kernel_attribute *a = &spec->attributes[i];
    if (a->kind != KERNEL_INTEGER) continue;
    sluice_text_printf(out, "%s%s %lld", first ? "" : ", ", a->name, (long long)a->integer);
    first = false;
  }
}

static void check(emitter *e, uint64_t wanted, uint64_t limit, const char *what) {
  if (e->status || wanted <= limit) return;
  sluice_text shape = {0};
  write_shape(e->spec, &shape);
  e->status = shape.failed ? sluice_out_of_memory()
                           : sluice_error(SLUICE_UNSUPPORTED,
                                          "kernel %s (%s) wants %llu %s, %s has %llu: it needs another target",
                                          e->spec->symbol, shape.length ? shape.data : "", (unsigned long long)wanted,
                                          what, e->target, (unsigned long long)limit);
  sluice_text_free(&shape);
}

/* Workgroups of one dimension in the smallest step. */
static uint64_t fewest(const sluice_plan_extent *extent) {
  return extent->most && extent->most < extent->factor ? extent->most : extent->factor;
}

void check_limits(emitter *e) {
  const target_facts *f = e->facts;
  check(e, e->lanes, f->most_lanes, "lanes in a workgroup");
  check(e, e->workgroup_bytes, f->workgroup_bytes, "bytes of workgroup memory");
  check(e, e->workgroup_bytes * e->workgroups_per_processor, f->processor_bytes,
        "bytes of workgroup memory in a processor");
  check(e, fewest(&e->grid[0]), f->grid[0], "workgroups in x");
  check(e, fewest(&e->grid[1]), f->grid[1], "workgroups in y");
}
