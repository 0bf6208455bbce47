/* Products of the AMD targets with many rows (backends/amdgcn/many_rows.c), machine code on the interpreter, against
 * plain sums in double: random and edge shapes, all epilogues, experts with many rows, few and none, several orders of
 * waves. Every access is checked against the operands' bounds; LDS that is read too early or loaded over too early is a
 * race. Then what the kernels are built for: no bank conflict in LDS, no spills, loads that stay on their way. */
#include "amdgcn/gcn.h"
#include "backends/common/configuration.h"
#include "kernel_support/kernel_harness.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { PANEL = 16, GROUP = 8, MOST_EXPERTS = 8 };

typedef struct product_case {
  int64_t n, k, rows; /* rows of out: of x, or slots of experts */
  int64_t tile_m, slice, workgroups;
  const char *epilogue;
  sluice_dtype out;
  uint64_t seed;
  int64_t experts, slots_of_token; /* 0: no experts */
  bool by_slot;
  int64_t rows_of[MOST_EXPERTS];
} product_case;

typedef struct operand {
  void *data;
  size_t bytes;
} operand;

static void must(sluice_status *status) {
  sluice_status_print(status);
  assert_null(status);
}

static operand random_operand(random_state *random, sluice_dtype dtype, int64_t elements) {
  return (operand){random_elements(random, dtype, (size_t)elements, 1.0), (size_t)elements * sluice_dtype_size(dtype)};
}

static operand zeros(size_t bytes) {
  operand o = {calloc(1, bytes), bytes};
  assert_non_null(o.data);
  return o;
}

static bool is_swiglu(const product_case *c) {
  return strcmp(c->epilogue, "swiglu") == 0;
}

static int64_t panels_of(const product_case *c) {
  return (c->n + PANEL - 1) / PANEL;
}

static int64_t matrix_elements(const product_case *c) {
  return panels_of(c) * PANEL * c->k * (is_swiglu(c) ? 2 : 1);
}

/* Panels of 16 rows in groups of 8 columns; gate and up in turn. */
static void pack(const product_case *c, const void *matrix, int64_t which, void *out) {
  const int64_t matrices = is_swiglu(c) ? 2 : 1;
  for (int64_t row = 0; row < c->n; row++)
    for (int64_t column = 0; column < c->k; column++) {
      int64_t at = (row / PANEL * matrices + which) * PANEL * c->k;
      at += (column / GROUP * PANEL + row % PANEL) * GROUP + column % GROUP;
      element_put(out, SLUICE_BF16, (size_t)at, element_at(matrix, SLUICE_BF16, (size_t)(row * c->k + column)));
    }
}

static double swiglu(double gate, double up) {
  double g = fmin(gate, 7), u = fmax(fmin(up, 7), -7);
  return (u + 1) * g / (1 + exp(-1.702 * g));
}

/* What bfloat16 operands hold. */
typedef struct matrices {
  float *x, *gate, *up;
} matrices;

static float *numbers(const operand *o, int64_t rows, int64_t k) {
  float *values = malloc((size_t)rows * (size_t)k * sizeof *values);
  assert_non_null(values);
  for (int64_t r = 0; r < rows; r++)
    for (int64_t i = 0; i < k; i++) values[r * k + i] = (float)element_at(o->data, SLUICE_BF16, (size_t)(r * k + i));
  return values;
}

static void free_matrices(matrices *m) {
  free(m->x);
  free(m->gate);
  free(m->up);
}

static double dot(const float *x, const float *w, int64_t k, double *magnitude) {
  double sum = 0, all = 0;
  for (int64_t i = 0; i < k; i++) {
    double product = (double)x[i] * (double)w[i];
    sum += product;
    all += fabs(product);
  }
  *magnitude += all;
  return sum;
}

/* Row `row` of out is row `x_row` of x by the matrices of `expert`. */
static void check_row(const product_case *c, const matrices *in, int64_t x_row, int64_t expert, const operand *residual,
                      const operand *out, int64_t row) {
  const float *x = in->x + x_row * c->k;
  for (int64_t j = 0; j < c->n; j++) {
    const int64_t w = (expert * c->n + j) * c->k;
    double magnitude = 1, expected = dot(x, in->gate + w, c->k, &magnitude);
    if (is_swiglu(c)) {
      expected = swiglu(expected, dot(x, in->up + w, c->k, &magnitude));
      magnitude *= 8;
    }
    const size_t at = (size_t)(row * c->n + j);
    if (residual) expected += element_at(residual->data, c->out, at);
    expect_close(out->data, c->out, at, expected, 2e-6 * magnitude, 1e-6, c->experts ? "expert_gemm" : "gemm");
  }
}

/* With the lanes and stages that the target has by default. */
static int add_kernel(kernel_harness *h, const char *target, const product_case *c) {
  configuration *choices;
  kernel_variant v = {.choice = {0}};
  v.choice[CHOOSE_SCHEDULE] = SCHEDULE_STREAM;
  must(configuration_open(target, &choices));
  configuration_complete(choices, &(kernel_question){.family = "gemm", .n = c->n, .k = c->k}, &v);
  configuration_close(choices);
  const char *out = c->out == SLUICE_F32 ? "f32" : "bf16";
  if (!c->experts)
    return harness_add(h, "gemm", 4, "s:size", "tokens", "i:n", c->n, "i:k", c->k, "s:epilogue", c->epilogue, "f:alpha",
                       1.702, "f:limit", 7.0, "s:x_dtype", "bf16", "s:weight_dtype", "bf16", "s:out_dtype", out,
                       "i:tile_m", c->tile_m, "i:panel", (int64_t)PANEL, "i:slice", c->slice, "i:group", (int64_t)GROUP,
                       "i:workgroups", c->workgroups, "s:schedule", "stream", "i:lanes", v.choice[CHOOSE_LANES],
                       "i:stages", v.choice[CHOOSE_STAGES], NULL);
  return harness_add(h, "expert_gemm", 7, "i:n", c->n, "i:k", c->k, "i:experts", c->experts, "i:top_k",
                     c->slots_of_token, "i:shared", (int64_t)0, "s:gather", c->by_slot ? "slot" : "token", "s:overlap",
                     "none", "s:epilogue", c->epilogue, "f:alpha", 1.702, "f:limit", 7.0, "s:x_dtype", "bf16",
                     "s:weight_dtype", "bf16", "s:out_dtype", out, "i:tile_m", c->tile_m, "i:panel", (int64_t)PANEL,
                     "i:slice", c->slice, "i:group", (int64_t)GROUP, "i:workgroups", c->workgroups, "s:schedule",
                     "stream", "i:lanes", v.choice[CHOOSE_LANES], "i:stages", v.choice[CHOOSE_STAGES], "i:batch_bytes",
                     matrix_elements(c) * 2, NULL);
}

typedef struct loaded {
  kernel_harness *harness;
  code_object code;
  gcn_machine *machine;
  const gcn_kernel *kernel;
} loaded;

static loaded load_case(const char *target, const product_case *c) {
  loaded l = {.harness = harness_create(target)};
  gcn_module *module = NULL;
  add_kernel(l.harness, target, c);
  must(harness_code(l.harness, &l.code));
  must(gcn_machine_create(strcmp(target, "hip:gfx950") == 0 ? GCN_GFX950 : GCN_GFX942, &l.machine));
  must(gcn_module_load(l.machine, l.code.data, l.code.length, &module));
  l.kernel = gcn_kernel_at(module, 0);
  assert_int_equal(l.code.kernels[0].spill_bytes, 0);
  return l;
}

static void unload(loaded *l) {
  gcn_machine_free(l->machine);
  code_object_free(&l->code);
  harness_free(l->harness);
}

/* Missing operands have no data. */
static void run(const loaded *l, const product_case *c, const operand *operands, size_t count, gcn_profile *profile) {
  uint64_t kernarg[8];
  for (size_t i = 0; i < count; i++) {
    if (operands[i].bytes) must(gcn_register(l->machine, operands[i].data, operands[i].bytes));
    kernarg[i] = (uint64_t)(uintptr_t)operands[i].data;
  }
  const int64_t tiles = c->experts ? 1 : (c->rows + c->tile_m - 1) / c->tile_m;
  gcn_launch_options options = {.grid = {(uint32_t)c->workgroups, (uint32_t)tiles, 1},
                                .workgroup = {l->code.kernels[0].lanes, 1, 1},
                                .kernarg = kernarg,
                                .kernarg_bytes = count * sizeof *kernarg,
                                .seed = c->seed,
                                .profile = profile};
  must(gcn_launch(l->kernel, &options));
  for (size_t i = 0; i < count; i++)
    if (operands[i].bytes) must(gcn_unregister(l->machine, operands[i].data));
}

static void free_all(operand *operands, size_t count) {
  for (size_t i = 0; i < count; i++) free(operands[i].data);
}

/* ---- what the kernels are built for ----
 *
 * The loop's time, from its machine code as it ran. Each group of waves has a loop of its own, which barriers cut into
 * halves, memory and matrix in turn. While one group is in the memory half of a phase, the other is in the matrix half
 * of the phase before; then it multiplies and the other one reads. Each lasts as long as the longer of
 *   - the matrix instructions of a wave, or the issue of all instructions among them;
 *   - the reads of LDS of four waves, one after another, at the cycles that LDS needs for them, with the loads that
 *     write to LDS meanwhile (128 bytes a cycle), or the issue of a wave's instructions; and the latency of LDS;
 * and the barrier. Latencies are assumptions; the instructions and their cycles are counted. */
enum { BARRIER = 32, LDS_LATENCY = 128, ISSUE = 4, GROUP_WAVES = 4, LDS_BYTES = 128, MOST_HALVES = 8 };

typedef struct half { /* cycles of a wave; bytes of all waves of the group */
  uint64_t matrix, reads, issue, direct;
} half;

typedef struct loop_halves {
  half of[2 * MOST_HALVES]; /* of both loops */
  size_t count;
  uint64_t waits, priorities;
} loop_halves;

static loop_halves cut_loops(const gcn_profile *profile, uint64_t executions) {
  loop_halves l = {.count = 0};
  for (size_t i = 0; i < profile->count; i++) {
    const gcn_profile_entry *e = &profile->entries[i];
    assert_int_equal(e->lds_conflicts, 0);
    if (e->executions != executions) continue;
    half *h = &l.of[l.count];
    h->matrix += e->matrix_cycles;
    h->reads += e->lds_cycles / executions;
    h->issue += ISSUE;
    if (strstr(e->text, " lds")) h->direct += e->global_bytes / (executions / GROUP_WAVES);
    assert_null(strstr(e->text, "readfirstlane")); /* no loop over lanes around a load */
    l.priorities += strncmp(e->text, "s_setprio", 9) == 0;
    if (strncmp(e->text, "s_barrier", 9) == 0) assert_true(++l.count < 2 * MOST_HALVES);
    const char *left = strstr(e->text, "vmcnt(");
    if (strncmp(e->text, "s_waitcnt", 9) || !left) continue;
    l.waits++;
    assert_true(atoi(left + 6) > 0); /* loads stay on their way */
  }
  return l;
}

static uint64_t half_cycles(const half *matrix, const half *memory) {
  const uint64_t a = matrix->matrix > matrix->issue ? matrix->matrix : matrix->issue;
  const uint64_t written = (matrix->direct + memory->direct) / LDS_BYTES;
  const uint64_t lds = GROUP_WAVES * memory->reads + written;
  const uint64_t b = (lds > memory->issue ? lds : memory->issue) + LDS_LATENCY;
  return (a > b ? a : b) + BARRIER;
}

/* The loop's instructions run once a step in every wave of a group. */
static void check_loop(const product_case *c, const gcn_profile *profile, int64_t depth) {
  const loop_halves l = cut_loops(profile, (uint64_t)(c->k / depth * GROUP_WAVES));
  assert_true(l.count > 0 && l.count % 4 == 0 && l.priorities == l.count && l.waits == l.count / 2);
  const size_t n = l.count / 2;
  const half *first = l.of, *second = l.of + n;
  if (first[1].direct) { /* the second group loads in matrix halves */
    first = second;
    second = l.of;
  }
  uint64_t all = 0, matrix = 0, direct = 0;
  for (size_t i = 0; i < n; i += 2) {
    all += half_cycles(&second[(i + n - 1) % n], &first[i]) + half_cycles(&first[i + 1], &second[i]);
    matrix += first[i + 1].matrix + second[i + 1].matrix;
    direct += first[i].direct + second[i + 1].direct;
  }
  assert_int_equal(direct, (c->tile_m + c->slice * (is_swiglu(c) ? 2 : 1)) * depth * 2);
  printf("  %llu cycles, matrix instructions in %llu of them\n", (unsigned long long)all, (unsigned long long)matrix);
  assert_true(matrix * 100 >= all * 70);
}

/* ---- products ---- */

/* `depth`: columns of a step of the kernel's loop, which is looked at, too; 0: not. */
static void try_gemm(const char *target, const product_case *c, int64_t depth) {
  random_state random = {c->seed + 1};
  loaded l = load_case(target, c);
  operand x = random_operand(&random, SLUICE_BF16, c->rows * c->k);
  operand gate = random_operand(&random, SLUICE_BF16, c->n * c->k),
          up = random_operand(&random, SLUICE_BF16, c->n * c->k);
  operand residual = random_operand(&random, c->out, c->rows * c->n);
  operand packed = zeros((size_t)matrix_elements(c) * 2), sizes = zeros(SLUICE_SIZE_COUNT * sizeof(int32_t));
  operand out = {poisoned_elements(c->out, (size_t)(c->rows * c->n)),
                 (size_t)(c->rows * c->n) * sluice_dtype_size(c->out)};
  pack(c, gate.data, 0, packed.data);
  if (is_swiglu(c)) pack(c, up.data, 1, packed.data);
  ((int32_t *)sizes.data)[SLUICE_SIZE_ONE] = 1;
  ((int32_t *)sizes.data)[SLUICE_SIZE_TOKENS] = (int32_t)c->rows;
  gcn_profile profile = {0};
  run(&l, c, (operand[]){x, packed, residual, out, sizes}, 5, depth ? &profile : NULL);
  if (depth) check_loop(c, &profile, depth);
  gcn_profile_free(&profile);
  const operand *added = strcmp(c->epilogue, "add") == 0 ? &residual : NULL;
  matrices in = {numbers(&x, c->rows, c->k), numbers(&gate, c->n, c->k), numbers(&up, c->n, c->k)};
  for (int64_t r = 0; r < c->rows; r++) check_row(c, &in, r, 0, added, &out, r);
  free_matrices(&in);
  free_all((operand[]){x, gate, up, residual, packed, sizes, out}, 7);
  unload(&l);
}

/* Slots are given to experts at random, as many as `rows_of` says; counts, order and tiles as sort_experts writes them.
 */
static void route(random_state *random, const product_case *c, int32_t *expert_of, int32_t *counts, int32_t *order,
                  int32_t *tiles) {
  int32_t slot = 0, place = 0;
  for (int64_t e = 0; e < c->experts; e++)
    for (int64_t i = 0; i < c->rows_of[e]; i++) expert_of[slot++] = (int32_t)e;
  for (int32_t i = slot - 1; i > 0; i--) {
    int64_t other = random_between(random, 0, i);
    int32_t kept = expert_of[i];
    expert_of[i] = expert_of[other];
    expert_of[other] = kept;
  }
  for (int32_t e = 0; e < c->experts; e++) {
    counts[1 + e] = place;
    for (int32_t s = 0; s < slot; s++)
      if (expert_of[s] == e) order[place++] = s;
    for (int32_t first = counts[1 + e]; first < place; first += (int32_t)c->tile_m) {
      int32_t *tile = tiles + (ptrdiff_t)4 * counts[0]++;
      tile[0] = e;
      tile[1] = first;
      tile[2] = place - first < c->tile_m ? place - first : (int32_t)c->tile_m;
    }
  }
  counts[1 + c->experts] = place;
}

static void try_experts(const char *target, const product_case *c) {
  random_state random = {c->seed + 1};
  loaded l = load_case(target, c);
  const int64_t x_rows = c->by_slot ? c->rows : c->rows / c->slots_of_token, matrix = c->n * c->k;
  operand x = random_operand(&random, SLUICE_BF16, x_rows * c->k);
  operand gate = random_operand(&random, SLUICE_BF16, c->experts * matrix);
  operand up = random_operand(&random, SLUICE_BF16, c->experts * matrix);
  const size_t batch = (size_t)matrix_elements(c) * 2;
  operand packed = zeros((size_t)c->experts * batch), expert_of = zeros((size_t)c->rows * 4);
  operand counts = zeros((size_t)(c->experts + 4) * 4), order = zeros((size_t)c->rows * 4);
  operand tiles = zeros((size_t)(c->rows + MOST_EXPERTS) * 16), sizes = zeros(SLUICE_SIZE_COUNT * 4);
  operand out = {poisoned_elements(c->out, (size_t)(c->rows * c->n)),
                 (size_t)(c->rows * c->n) * sluice_dtype_size(c->out)};
  for (int64_t e = 0; e < c->experts; e++) {
    pack(c, (char *)gate.data + (size_t)(e * matrix) * 2, 0, (char *)packed.data + (size_t)e * batch);
    if (is_swiglu(c)) pack(c, (char *)up.data + (size_t)(e * matrix) * 2, 1, (char *)packed.data + (size_t)e * batch);
  }
  route(&random, c, expert_of.data, counts.data, order.data, tiles.data);
  ((int32_t *)sizes.data)[SLUICE_SIZE_ONE] = 1;
  ((int32_t *)sizes.data)[SLUICE_SIZE_TOKENS] = (int32_t)(c->rows / c->slots_of_token);
  run(&l, c, (operand[]){x, packed, {0}, counts, order, tiles, out, sizes}, 8, NULL);
  const int64_t w_rows = c->experts * c->n;
  matrices in = {numbers(&x, x_rows, c->k), numbers(&gate, w_rows, c->k), numbers(&up, w_rows, c->k)};
  for (int64_t s = 0; s < c->rows; s++)
    check_row(c, &in, c->by_slot ? s : s / c->slots_of_token, ((int32_t *)expert_of.data)[s], NULL, &out, s);
  free_matrices(&in);
  free_all((operand[]){x, gate, up, packed, expert_of, counts, order, tiles, sizes, out}, 10);
  unload(&l);
}

static const char *const targets[] = {"hip:gfx942", "hip:gfx950"};

static product_case dense(int64_t n, int64_t k, int64_t rows, int64_t tile_m, int64_t slice, const char *epilogue,
                          sluice_dtype out) {
  return (product_case){.n = n,
                        .k = k,
                        .rows = rows,
                        .tile_m = tile_m,
                        .slice = slice,
                        .workgroups = (n + slice - 1) / slice,
                        .epilogue = epilogue,
                        .out = out};
}

static void edges(void **state) {
  (void)state;
  product_case list[] = {
      dense(48, 32, 1, 128, 128, "none", SLUICE_BF16),    dense(16, 64, 300, 256, 256, "add", SLUICE_BF16),
      dense(272, 96, 257, 256, 256, "add", SLUICE_F32),   dense(130, 160, 129, 128, 128, "none", SLUICE_BF16),
      dense(257, 256, 255, 256, 256, "add", SLUICE_BF16), dense(144, 224, 200, 256, 128, "swiglu", SLUICE_BF16),
      dense(100, 64, 300, 128, 64, "swiglu", SLUICE_F32), dense(260, 320, 127, 128, 256, "none", SLUICE_F32),
  };
  for (size_t t = 0; t < 2; t++)
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
      list[i].seed = i;
      try_gemm(targets[t], &list[i], 0);
    }
}

static product_case random_case(random_state *random, bool experts) {
  static const char *const epilogues[] = {"none", "swiglu", "add"};
  product_case c = {.n = random_between(random, 1, 300),
                    .k = 32 * random_between(random, 1, 9),
                    .rows = random_between(random, 1, 300),
                    .tile_m = 128 * random_between(random, 1, 2),
                    .epilogue = epilogues[random_between(random, 0, experts ? 1 : 2)],
                    .out = random_bits(random) % 2 ? SLUICE_BF16 : SLUICE_F32,
                    .seed = random_bits(random) % 100};
  c.slice = PANEL * random_between(random, 1, is_swiglu(&c) ? 8 : 16);
  c.workgroups = (c.n + c.slice - 1) / c.slice;
  return c;
}

static void random_shapes(void **state) {
  (void)state;
  random_state random = {11};
  for (int i = 0; i < 12; i++) {
    product_case c = random_case(&random, false);
    try_gemm(targets[i % 2], &c, 0);
  }
}

/* One expert has nearly all rows, some have few or none; more and fewer workgroups than there is to do. */
static void experts(void **state) {
  (void)state;
  random_state random = {5};
  for (int i = 0; i < 8; i++) {
    product_case c = random_case(&random, true);
    c.experts = random_between(&random, 1, 5);
    c.slots_of_token = random_between(&random, 1, 3);
    c.by_slot = random_bits(&random) % 2;
    c.tile_m = i < 4 ? 128 : c.tile_m;
    const int64_t many = random_between(&random, 0, c.experts - 1);
    c.rows = 0;
    for (int64_t e = 0; e < c.experts; e++)
      c.rows += c.rows_of[e] = e == many ? 0 : random_between(&random, 0, 3) / 2 * 5;
    c.rows_of[many] = 150 + (3 - (c.rows + 150) % 3);
    while ((c.rows + c.rows_of[many]) % c.slots_of_token) c.rows_of[many]++;
    c.rows += c.rows_of[many];
    c.workgroups = random_between(&random, 1, 4) * 3;
    try_experts(targets[i % 2], &c);
  }
}

static void steady_loop(void **state) {
  (void)state;
  const product_case list[] = {dense(256, 384, 256, 256, 256, "add", SLUICE_BF16),
                               dense(128, 384, 128, 128, 128, "swiglu", SLUICE_BF16)};
  for (size_t t = 0; t < 2; t++)
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
      printf("%s, %lld rows of x, epilogue %s:\n", targets[t], (long long)list[i].tile_m, list[i].epilogue);
      try_gemm(targets[t], &list[i], t ? 64 : 32);
    }
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(edges), cmocka_unit_test(random_shapes),
                                     cmocka_unit_test(experts), cmocka_unit_test(steady_loop)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
