/* The cost model: the larger of reading and arithmetic, stretched by workgroups that have nothing to do, by reads that
 * are too few to keep memory busy, and by tiles that are not full. */
#include "compiler/cost_model.h"

#include "sluice/json.h"

#include <math.h>
#include <string.h>

/* ---- Rates ---- */

machine_rates machine_rates_of(const product *p) {
  if (!p)
    return (machine_rates){.read_bytes = 40e9, .matrix_flops = 200e9, .launch_seconds = 2e-6, .latency_seconds = 1e-7};
  return (machine_rates){.read_bytes = 0.87 * p->gigabytes_second * 1e9,
                         .matrix_flops = 0.8 * p->bf16_teraflops * 1e12,
                         .launch_seconds = 2e-6,
                         .latency_seconds = 8e-7};
}

sluice_status *machine_rates_read(const char *path, machine_rates *out) {
  sluice_json_document *document;
  SLUICE_TRY(sluice_json_parse_file(path, &document));
  const struct {
    const char *name;
    double unit, *value;
  } members[] = {{"read_gigabytes_second", 1e9, &out->read_bytes},
                 {"matrix_teraflops", 1e12, &out->matrix_flops},
                 {"launch_us", 1e-6, &out->launch_seconds}};
  const sluice_json_value *root = sluice_json_root(document);
  sluice_status *status = NULL;
  for (size_t i = 0; i < sizeof members / sizeof *members && !status; i++) {
    const sluice_json_value *value = sluice_json_get(root, members[i].name);
    if (value && value->kind == SLUICE_JSON_NUMBER && value->number > 0)
      *members[i].value = value->number * members[i].unit;
    else
      status =
          sluice_json_error(document, value ? value->offset : root->offset, SLUICE_INVALID,
                            "\"%s\" is no number above 0: is this a file of sluice-run calibrate?", members[i].name);
  }
  sluice_json_free(document);
  return status;
}

/* ---- Shares ---- */

static double whole(double value) {
  return ceil(value - 1e-9);
}

static double processors_of(const target_facts *facts) {
  return facts->processors ? facts->processors : 1;
}

/* How many times longer `units` of work take on `groups` workgroups, of which `resident` run at a time, than if all of
 * them always had some. */
static double stretch(double units, double groups, double resident) {
  if (groups > units) groups = units;
  const double rounds = whole(units / groups) * whole(groups / resident);
  return fmax(1, rounds * resident / units);
}

/* The part of the read rate that so many bytes under way at a time keep up. */
static double busy(const machine_rates *rates, double bytes_under_way) {
  return fmin(1, bytes_under_way / (rates->read_bytes * rates->latency_seconds));
}

/* ---- Products ---- */

/* Of experts nothing is known here but that there are many: the model's usual 128, of which a token takes 4. */
static const double experts = 128, chosen = 4, chunk_columns = 64;

typedef struct product_work {
  double matrices, rows; /* that are read; rows of x of each */
  double columns, bytes; /* of all matrices of a pair; of weights */
} product_work;

static product_work work_of(const kernel_question *q, const cost_step *step) {
  product_work w = {.matrices = 1, .rows = step->tokens, .columns = (double)q->n * (q->pairs ? 2 : 1)};
  if (strcmp(q->family, "expert_gemm") == 0) {
    w.matrices = fmin(experts, chosen * step->tokens);
    w.rows = fmax(1, chosen * step->tokens / experts);
  }
  w.bytes = w.matrices * w.columns * (double)q->k * (q->matrix ? 2 : 4);
  return w;
}

/* The part of the arithmetic rate that a schedule's inner loop reaches, from docs/kernels.md. */
static double efficiency(kernel_schedule schedule) {
  return schedule == SCHEDULE_TURNS ? 0.85 : schedule == SCHEDULE_STREAM ? 0.5 : 0.25;
}

/* On a host, whose tile has no more rows than there are, and takes them in blocks of registers. */
static double host_product_seconds(const machine_rates *rates, const kernel_question *q, const int64_t *v,
                                   const product_work *w) {
  const double block = 6, tile = (double)v[CHOOSE_TILE_M], tiles = whole(w->rows / tile);
  const double rest = w->rows - (tiles - 1) * tile;
  const double rows = (tiles - 1) * whole(tile / block) * block + whole(rest / block) * block;
  const double reading = w->bytes * (1 + 0.05 * (tiles - 1)) / rates->read_bytes;
  const double computing = 2 * w->matrices * rows * w->columns * (double)q->k / rates->matrix_flops;
  return rates->launch_seconds + fmax(reading, computing);
}

static double product_seconds(const target_facts *facts, const machine_rates *rates, const kernel_question *q,
                              const int64_t *v, const cost_step *step) {
  const product_work w = work_of(q, step);
  if (facts->lanes == 1) return host_product_seconds(rates, q, v, &w);
  const kernel_schedule schedule = (kernel_schedule)v[CHOOSE_SCHEDULE];
  const double tile = (double)v[CHOOSE_TILE_M], tiles = whole(w.rows / tile), slice = (double)v[CHOOSE_SLICE];
  const double units = w.matrices * tiles * whole(w.columns / slice), processors = processors_of(facts);
  const double lanes = (double)v[CHOOSE_LANES], stages = (double)v[CHOOSE_STAGES];
  const bool rows = schedule == SCHEDULE_ROWS || schedule == SCHEDULE_TILES;
  const double held = rows ? fmax(1, floor(512 / lanes)) : 1; /* workgroups of a processor */
  double groups = v[CHOOSE_WORKGROUPS] ? (double)v[CHOOSE_WORKGROUPS] : units;
  if (schedule == SCHEDULE_STREAM && strcmp(q->family, "gemm") == 0) groups *= tiles;
  const double under_way =
      rows ? held * lanes * 32 * stages : (slice + fmin(tile, w.rows)) * chunk_columns * 4 * stages;
  const double longer = stretch(units, groups, processors * held);
  const double again = 1 + 0.3 * (tiles - 1); /* tiles behind the first find most of the weights in the cache */
  const double padded = w.matrices * tiles * tile;
  const double reading = w.bytes * again / rates->read_bytes / busy(rates, under_way * processors);
  const double computing = 2 * padded * w.columns * (double)q->k / rates->matrix_flops / efficiency(schedule);
  return rates->launch_seconds + fmax(reading, computing) * longer;
}

/* ---- Attention ---- */

static const double chosen_blocks = 16;

static double parts_seconds(const target_facts *facts, const machine_rates *rates, const kernel_question *q,
                            const int64_t *v, const cost_step *step) {
  const double keys = (double)step->context + 1, pages = whole(keys / (double)q->page);
  const double bytes = (double)step->sequences * keys * (double)(q->kv_heads * q->head_dim) * 4;
  const double units = pages * (double)q->kv_heads * step->sequences, parts = (double)v[CHOOSE_PARTS];
  const double merging = 2e-8 * parts;
  return 2 * rates->launch_seconds + bytes / rates->read_bytes * stretch(units, parts, processors_of(facts)) + merging;
}

static double cluster_seconds(const target_facts *facts, const machine_rates *rates, const kernel_question *q,
                              const int64_t *v, const cost_step *step) {
  const double size = (double)v[CHOOSE_CLUSTER], block = (double)(q->page * q->head_dim) * 4;
  const double groups = (double)step->tokens * (double)q->kv_heads * size;
  const double at_once = processors_of(facts) * (double)v[CHOOSE_PER_PROCESSOR];
  const double rounds = whole(groups / at_once), each = whole(chosen_blocks / size) * block;
  const double rate = rates->read_bytes / fmax(fmin(groups, at_once), processors_of(facts) / 2);
  return rates->launch_seconds + rounds * (each / rate + rates->latency_seconds * (3 + log2(size)));
}

double cost_of_variant(const target_facts *facts, const machine_rates *rates, const kernel_question *question,
                       const kernel_variant *variant, const cost_step *step) {
  const int64_t *v = variant->choice;
  switch ((kernel_schedule)v[CHOOSE_SCHEDULE]) {
  case SCHEDULE_PARTS:
    return parts_seconds(facts, rates, question, v, step);
  case SCHEDULE_CLUSTER:
    return cluster_seconds(facts, rates, question, v, step);
  case SCHEDULE_TILES:
    if (!v[CHOOSE_TILE_M]) return rates->launch_seconds; /* attention in tiles of tokens: there is no choice in it */
    return product_seconds(facts, rates, question, v, step);
  case SCHEDULE_ROWS:
  case SCHEDULE_STREAM:
  case SCHEDULE_TURNS:
  case SCHEDULE_COUNT:
    break;
  }
  return product_seconds(facts, rates, question, v, step);
}
