/* What is made of the ranks' parts when they have come together (sluice_plan_launch.collective): the families add_ranks
 * and join_ranks. Rank r's rows lie behind those of rank r - 1:
 *
 *     parts            add_ranks          join_ranks
 *     rank 0   a b     a+c+...            a b c d ...
 *     rank 1   c d     b+d+...
 *
 * Sums are made in the order of the ranks, in f32, and rounded once: the same bytes on every rank and in every run. */
#include "backends/common/families.h"

typedef struct rank_rows {
  sluice_dtype dtype;
  V parts, out; /* of the first rank, of the row at hand; the row of out */
  V rank_step;  /* i64: elements from a rank to the next */
  int64_t ranks, width;
  int64_t rank; /* join_ranks: at hand */
} rank_rows;

static V of_rank(emitter *e, const rank_rows *r, int64_t rank, V offset) {
  return add(e, mul(e, r->rank_step, int64(e, rank)), offset);
}

static void add_body(emitter *e, V offset, unsigned vector, void *user) {
  const rank_rows *r = user;
  V sum = load_f32(e, r->dtype, r->parts, offset, vector);
  for (int64_t rank = 1; rank < r->ranks; rank++)
    sum = fadd_(e, sum, load_f32(e, r->dtype, r->parts, of_rank(e, r, rank, offset), vector));
  store_f32(e, r->dtype, sum, r->out, offset);
}

static void join_body(emitter *e, V offset, unsigned vector, void *user) {
  const rank_rows *r = user;
  V value = load_f32(e, r->dtype, r->parts, of_rank(e, r, r->rank, offset), vector);
  store_f32(e, r->dtype, value, r->out, add(e, offset, int64(e, r->rank * r->width)));
}

/* Opens the kernel at a row; it `joins`: rows of out are as wide as all ranks'. False: something is wrong with the
 * attributes. */
static bool open_rows(emitter *e, const kernel_spec *spec, rank_rows *r, bool joins) {
  e->spec = spec;
  r->dtype = attribute_dtype(e, "dtype");
  r->width = attribute(e, "width");
  r->ranks = attribute(e, "ranks");
  const sluice_size size = attribute_size(e, "size");
  if (e->status) return false;
  if (r->width < 1 || r->ranks < 1 || r->width > INT32_MAX / r->ranks) {
    e->status = sluice_error(SLUICE_INTERNAL, "%s: %lld elements of each of %lld ranks", spec->symbol,
                             (long long)r->width, (long long)r->ranks);
    return false;
  }
  kernel_begin(e, spec, each(size, r->width));
  V row = mul(e, e->x, int64(e, r->width));
  r->parts = element_of(e, r->dtype, e->argument[1], row);
  r->rank_step = mul(e, size_of(e, size), int64(e, r->width));
  r->out = element_of(e, r->dtype, e->argument[2], joins ? mul(e, row, int64(e, r->ranks)) : row);
  return true;
}

/* Operands of both: the rank's own part, those of all, out. */
void family_add_ranks(emitter *e, const kernel_spec *spec) {
  rank_rows rows = {0};
  if (!open_rows(e, spec, &rows, false)) return;
  row_loop(e, rows.width, add_body, &rows);
  kernel_end(e);
}

void family_join_ranks(emitter *e, const kernel_spec *spec) {
  rank_rows rows = {0};
  if (!open_rows(e, spec, &rows, true)) return;
  for (rows.rank = 0; rows.rank < rows.ranks; rows.rank++) row_loop(e, rows.width, join_body, &rows);
  kernel_end(e);
}
