/* Target names: what stands for what, and what is refused; what targets are, and kernels that they have no room for. */
#include "backends/common/kernel.h"
#include "backends/common/legal.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static void expect_canonical(const char *name, const char *expected) {
  char canonical[32];
  memset(canonical, 'x', sizeof canonical);
  sluice_status *status = target_canonicalise(name, canonical);
  sluice_status_print(status);
  assert_null(status);
  assert_string_equal(canonical, expected);
  for (size_t i = strlen(expected); i < sizeof canonical; i++) assert_int_equal(canonical[i], 0);
}

static void aliases_become_targets(void **state) {
  (void)state;
  expect_canonical("h100", "cuda:sm_90a");
  expect_canonical("h200", "cuda:sm_90a");
  expect_canonical("cuda:sm_90a", "cuda:sm_90a");
  expect_canonical("host:x86-64-v3", "host:x86-64-v3");
  char host[32];
  assert_null(target_canonicalise("host", host));
  expect_canonical(host, host);
}

static void unknown_targets_are_refused(void **state) {
  (void)state;
  static const char *const names[] = {"",
                                      "H100",
                                      "h100 ",
                                      "cuda",
                                      "cuda:",
                                      "cuda:sm_90",
                                      "h300",
                                      "sm_90a",
                                      "cuda:sm_90b",
                                      "host:",
                                      "hosts",
                                      "cuda:sm_90a,host",
                                      "a name that is much longer than the 32 bytes of a canonical one"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    char canonical[32];
    configuration *c;
    sluice_status *status = target_canonicalise(names[i], canonical);
    if (!status) fail_msg("'%s' is taken for %s", names[i], canonical);
    assert_int_equal(sluice_status_code(status), SLUICE_UNSUPPORTED);
    assert_non_null(strstr(sluice_status_message(status), names[i]));
    assert_non_null(strstr(sluice_status_message(status), "host:x86-64-v4-bf16"));
    assert_non_null(strstr(sluice_status_message(status), "cuda:sm_90a"));
    sluice_status_free(status);
    status = configuration_open(names[i], &c);
    assert_non_null(status);
    sluice_status_free(status);
  }
}

/* The answer to `question`, which the target has. */
static kernel_variants ask(const configuration *c, kernel_question question) {
  kernel_variants variants;
  if (question.to == 0) question.to = UINT32_MAX;
  assert_null(configuration_find(c, &question, &variants));
  return variants;
}

/* Whatever a product's shape, each number of rows has one kernel. */
static void products_have_kernels_for_all_steps(void **state) {
  (void)state;
  static const char *const names[] = {"host:x86-64", "host:x86-64-v4-bf16", "cuda:sm_90a", "hip:gfx942", "hip:gfx950"};
  static const char *const families[] = {"gemm", "expert_gemm"};
  static const int64_t widths[] = {1, 16, 100, 6144, 200064};
  for (size_t t = 0; t < sizeof names / sizeof *names; t++) {
    configuration *c;
    assert_null(configuration_open(names[t], &c));
    for (size_t f = 0; f < 2; f++)
      for (size_t w = 0; w < sizeof widths / sizeof *widths; w++)
        for (int kind = 0; kind < 8; kind++) {
          const kernel_question q = {
              .family = families[f], .n = widths[w], .k = kind & 4 ? 6144 : 100, .pairs = kind & 2, .matrix = kind & 1};
          kernel_variants v = ask(c, q);
          assert_true(variants_cover(&v, 0, UINT32_MAX));
          const int64_t group = v.item[0].choice[CHOOSE_GROUP];
          const bool matrix = q.matrix && q.k == 6144 && configuration_facts(c)->matrix.group;
          assert_int_equal(group, matrix ? configuration_facts(c)->matrix.group : 2);
        }
    configuration_close(c);
  }
}

static void targets_have_kernels_of_their_own(void **state) {
  (void)state;
  configuration *c;
  kernel_question q = {
      .family = "topk_attention", .matrix = true, .heads = 64, .kv_heads = 4, .head_dim = 128, .page = 128};
  assert_null(configuration_open("cuda:sm_90a", &c));
  assert_int_equal(ask(c, (kernel_question){.family = "block_score"}).item[0].choice[CHOOSE_SPLIT], 1);
  assert_int_equal(ask(c, (kernel_question){.family = "cache"}).item[0].choice[CHOOSE_TRANSPOSED], 1);
  kernel_variants v = ask(c, q);
  assert_true(v.count > 1 && variants_cover(&v, 0, UINT32_MAX));
  q.page = 48;
  assert_int_equal(ask(c, q).count, 0);
  configuration_close(c);
  assert_null(configuration_open("host:x86-64-v3", &c));
  q.page = 128;
  assert_int_equal(ask(c, q).count, 0);
  assert_int_equal(ask(c, (kernel_question){.family = "block_score"}).item[0].choice[CHOOSE_SPLIT], 0);
  assert_int_equal(ask(c, (kernel_question){.family = "route"}).count, 0);
  configuration_close(c);
}

/* What decides in which order a kernel adds up a row is the same for steps of all sizes (docs/kernels.md, "The same
 * answer whatever the batch"). */
static void invariant_kernels_add_up_alike(void **state) {
  (void)state;
  static const char *const names[] = {"host:x86-64-v3", "cuda:sm_90a", "hip:gfx942", "hip:gfx950"};
  static const char *const one[] = {"router", "norm_rope_append", "block_score", "attention"};
  static const kernel_choice order[] = {CHOOSE_SCHEDULE, CHOOSE_LANES, CHOOSE_STAGES, CHOOSE_APART, CHOOSE_MANY};
  static const int64_t widths[] = {16, 100, 192, 512, 6144, 200064}, depths[] = {96, 512, 4096};
  for (size_t t = 0; t < sizeof names / sizeof *names; t++) {
    configuration *c;
    assert_null(configuration_open(names[t], &c));
    configuration_make_invariant(c);
    for (size_t i = 0; i < 2 * sizeof widths / sizeof *widths * 3 * 2; i++) {
      const kernel_question q = {.family = i % 2 ? "gemm" : "expert_gemm",
                                 .n = widths[i / 2 % 6],
                                 .k = depths[i / 12 % 3],
                                 .pairs = i / 36 % 2,
                                 .matrix = true};
      const kernel_variants v = ask(c, q);
      assert_true(variants_cover(&v, 0, UINT32_MAX));
      for (size_t k = 1; k < v.count; k++)
        for (size_t o = 0; o < sizeof order / sizeof *order; o++)
          assert_int_equal(v.item[k].choice[order[o]], v.item[0].choice[order[o]]);
      assert_int_not_equal(v.item[0].choice[CHOOSE_SCHEDULE], SCHEDULE_STREAM);
    }
    kernel_question q = {.matrix = true, .heads = 64, .kv_heads = 4, .head_dim = 128, .page = 128};
    for (size_t i = 0; i < sizeof one / sizeof *one; i++) {
      q.family = one[i];
      const kernel_variants v = ask(c, q);
      if (v.count != 1 || v.item[0].choice[CHOOSE_FEW]) fail_msg("%s of %s: %zu kernels", one[i], names[t], v.count);
    }
    q.family = "attention_part";
    assert_int_equal(ask(c, q).count, 0);
    q.family = "topk_attention";
    assert_int_equal(ask(c, q).count, 0);
    configuration_close(c);
  }
}

/* Float32 on a GPU is held against references: steps of all sizes have the same kernels, with and without the option.
 */
static void float32_adds_up_alike(void **state) {
  (void)state;
  static const char *const names[] = {"cuda:sm_90a", "hip:gfx942", "hip:gfx950"};
  static const char *const families[] = {"gemm", "expert_gemm", "norm_rope_append", "block_score"};
  for (size_t t = 0; t < sizeof names / sizeof *names; t++) {
    configuration *c;
    assert_null(configuration_open(names[t], &c));
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
      const kernel_question q = {
          .family = families[i], .n = 6144, .k = 6144, .heads = 64, .kv_heads = 4, .head_dim = 128, .page = 128};
      if (ask(c, q).count != 1) fail_msg("%s of %s: %zu kernels", families[i], names[t], ask(c, q).count);
    }
    configuration_close(c);
  }
}

/* A record goes before the defaults, for its shape and sizes alone; what the target cannot do is no record. */
static void records_go_first(void **state) {
  (void)state;
  configuration *c;
  assert_null(configuration_open("cuda:sm_90a", &c));
  const kernel_question q = {.family = "gemm", .n = 6144, .k = 4096, .matrix = true, .from = 0, .to = 32};
  const kernel_variants before = ask(c, q);
  kernel_variants tuned = {.count = 2};
  tuned.item[0] = before.item[0];
  tuned.item[0].to = 7;
  tuned.item[1] = before.item[0];
  tuned.item[1].from = 8;
  tuned.item[1].to = 32;
  tuned.item[1].choice[CHOOSE_TILE_M] = 32;
  configuration_complete(c, &q, &tuned.item[1]);
  assert_null(configuration_add(c, &q, &tuned));
  kernel_question part = q;
  part.from = 4;
  part.to = 9;
  kernel_variants v = ask(c, part);
  assert_int_equal(v.count, 2);
  assert_true(v.item[0].from == 4 && v.item[0].to == 7 && v.item[1].from == 8 && v.item[1].to == 9);
  assert_int_equal(v.item[1].choice[CHOOSE_TILE_M], 32);
  part.n = 6145; /* another shape; sizes that the record does not have */
  assert_int_not_equal(ask(c, part).item[0].choice[CHOOSE_TILE_M], 32);
  kernel_question all = q;
  all.to = UINT32_MAX;
  assert_true(ask(c, all).item[1].choice[CHOOSE_TILE_M] != 32 || ask(c, all).item[1].from != 8);

  static const struct {
    kernel_choice choice;
    int64_t value;
    const char *message;
  } wrong[] = {{CHOOSE_TILE_M, 12, "schedule 'stream': 'tile_m' is 12, expected a multiple of 8"},
               {CHOOSE_TILE_M, 0, "'tile_m' is 0, expected at least 8"},
               {CHOOSE_SLICE, 24, "'slice' is 24, expected a multiple of 16"},
               {CHOOSE_GROUP, 4, "'group' is 4, expected just 8"},
               {CHOOSE_WORKGROUPS, 0, "'workgroups' is 0, expected at least 1"},
               {CHOOSE_LANES, 96, "'lanes' is 96, expected a multiple of 64"},
               {CHOOSE_STAGES, 7, "'stages' is 7, expected at most 6"},
               {CHOOSE_STAGES, 6, "'stages' is 6, expected at most "},
               {CHOOSE_SCHEDULE, SCHEDULE_CLUSTER, "there is no schedule 'cluster'"}};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    kernel_variants bad = tuned;
    bad.item[1].choice[wrong[i].choice] = wrong[i].value;
    sluice_status *status = configuration_add(c, &q, &bad);
    assert_non_null(status);
    if (!strstr(sluice_status_message(status), wrong[i].message)) fail_msg("%s", sluice_status_message(status));
    sluice_status_free(status);
  }
  kernel_variants gap = tuned;
  gap.item[1].from = 9;
  sluice_status *status = configuration_add(c, &q, &gap);
  assert_non_null(strstr(sluice_status_message(status), "leave out some of the sizes 0 to 32"));
  sluice_status_free(status);
  status = configuration_add(c, &(kernel_question){.family = "embed", .to = 1}, &tuned);
  assert_non_null(strstr(sluice_status_message(status), "nothing to choose"));
  sluice_status_free(status);
  configuration_close(c);
}

/* A kernel that the target has for other shapes alone is refused with the shape and what is expected instead. */
/* Variants [0, 8] and [9, all], tiles of 8 and 64 rows. */
static kernel_variants two_variants(void) {
  kernel_variants v = {.count = 2, .item = {{.from = 0, .to = 8}, {.from = 9, .to = UINT32_MAX}}};
  v.item[0].choice[CHOOSE_TILE_M] = 8;
  v.item[1].choice[CHOOSE_TILE_M] = 64;
  return v;
}

static void expect_variant(const kernel_variants *v, size_t i, uint32_t from, uint32_t to, int64_t tile_m) {
  assert_true(i < v->count);
  assert_int_equal(v->item[i].from, from);
  assert_int_equal(v->item[i].to, to);
  assert_int_equal(v->item[i].choice[CHOOSE_TILE_M], tile_m);
}

/* A part takes the place of what was there, cutting what it overlaps; equal neighbours become one; lists are aligned.
 */
static void variants_are_replaced_merged_and_aligned(void **state) {
  (void)state;
  kernel_variants v = two_variants(), other = two_variants();
  kernel_variant part = {.from = 4, .to = 20, .choice[CHOOSE_TILE_M] = 16};
  assert_true(variants_replace(&v, &part));
  assert_int_equal(v.count, 3);
  expect_variant(&v, 0, 0, 3, 8);
  expect_variant(&v, 1, 4, 20, 16);
  expect_variant(&v, 2, 21, UINT32_MAX, 64);
  assert_int_equal(variants_at(&v, 20)->choice[CHOOSE_TILE_M], 16);
  assert_true(variants_align(&v, &other));
  assert_int_equal(v.count, 4);
  assert_int_equal(other.count, 4);
  for (size_t i = 0; i < 4; i++) {
    assert_int_equal(v.item[i].from, other.item[i].from);
    assert_int_equal(v.item[i].to, other.item[i].to);
  }
  expect_variant(&other, 2, 9, 20, 64);
  part = (kernel_variant){.from = 4, .to = 20, .choice[CHOOSE_TILE_M] = 8};
  assert_true(variants_replace(&v, &part));
  variants_merge(&v);
  assert_int_equal(v.count, 2);
  expect_variant(&v, 0, 0, 20, 8);
  part = (kernel_variant){.from = 0, .to = UINT32_MAX, .choice[CHOOSE_TILE_M] = 32};
  assert_true(variants_replace(&v, &part));
  assert_int_equal(v.count, 1);
  for (uint32_t i = 0; i < MOST_VARIANTS; i++) { /* until there is no room */
    part = (kernel_variant){.from = 10 * i, .to = 10 * i, .choice[CHOOSE_TILE_M] = 1 + (int64_t)i};
    const size_t before = v.count;
    if (!variants_replace(&v, &part)) assert_int_equal(v.count, before);
    assert_true(variants_cover(&v, 0, UINT32_MAX));
  }
}

static void refused_shapes_are_named(void **state) {
  (void)state;
  static const struct {
    const char *attribute;
    kernel_attribute other;
    const char *message;
  } cases[] = {
      {"head_dim", {.name = "head_dim", .integer = 64}, "heads have 64 dimensions, expected 128"},
      {"page", {.name = "page", .integer = 48}, "pages have 48 tokens, expected 16, 32, 64 or 128"},
      {"heads", {.name = "heads", .integer = 40}, "a kv head has 20 query heads, expected at most 16"},
      {"dtype", {.name = "dtype", .kind = KERNEL_STRING, .string = "f32"}, "elements are f32, expected bf16"},
      {"part_rows", {.name = "part_rows", .integer = 8}, "partial results have 8 rows, expected 16"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    kernel_attribute list[] = {{.name = "heads", .integer = 16},
                               {.name = "kv_heads", .integer = 2},
                               {.name = "head_dim", .integer = 128},
                               {.name = "page", .integer = 128},
                               {.name = "page_bytes", .integer = 131072},
                               {.name = "value_offset", .integer = 65536},
                               {.name = "parts", .integer = 132},
                               {.name = "part_rows", .integer = 16},
                               {.name = "scale", .kind = KERNEL_FLOAT, .number = 0.1},
                               {.name = "dtype", .kind = KERNEL_STRING, .string = "bf16"},
                               {.name = "transposed", .kind = KERNEL_STRING, .string = "values"}};
    for (size_t a = 0; a < sizeof list / sizeof *list; a++)
      if (strcmp(list[a].name, cases[i].attribute) == 0) list[a] = cases[i].other;
    const kernel_spec spec = {.family = "attention_part",
                              .symbol = "attention_part_7",
                              .attributes = list,
                              .attribute_count = sizeof list / sizeof *list,
                              .argument_count = 7};
    code_object code;
    sluice_status *status = backend_compile("cuda:sm_90a", &spec, 1, &(backend_options){.form = CODE_ASSEMBLY}, &code);
    assert_non_null(status);
    assert_int_equal(sluice_status_code(status), SLUICE_UNSUPPORTED);
    assert_non_null(strstr(sluice_status_message(status), "attention_part_7"));
    assert_non_null(strstr(sluice_status_message(status), cases[i].message));
    sluice_status_free(status);
  }
}

typedef struct seen {
  const configuration *configuration;
  const kernel_question *question;
  size_t schedules[SCHEDULE_COUNT];
} seen;

static bool look(const kernel_variant *variant, void *user) {
  seen *s = user;
  const kernel_variants one = {.count = 1, .item = {*variant}};
  assert_null(configuration_check(s->configuration, s->question, &one));
  s->schedules[variant->choice[CHOOSE_SCHEDULE]]++;
  return true;
}

static bool stop(const kernel_variant *variant, void *user) {
  (void)variant;
  return --*(int *)user > 0;
}

/* A tuner's candidates: all are legal, none comes twice, and the defaults are legal; shapes leave out what does not fit
 * them. */
static void legal_choices_are_listed(void **state) {
  (void)state;
  static const char *const names[] = {"host:x86-64-v4", "cuda:sm_90a", "hip:gfx942", "hip:gfx950"};
  for (size_t t = 0; t < sizeof names / sizeof *names; t++) {
    configuration *c;
    assert_null(configuration_open(names[t], &c));
    for (int kind = 0; kind < 4; kind++) {
      const kernel_question q = {.family = kind & 1 ? "expert_gemm" : "gemm",
                                 .n = 6144,
                                 .k = 4096,
                                 .pairs = kind & 2,
                                 .matrix = true,
                                 .to = UINT32_MAX};
      seen s = {.configuration = c, .question = &q};
      const size_t count = legal_enumerate(names[t], &q, look, &s);
      assert_true(count > 0 && s.schedules[SCHEDULE_TILES] > 0);
      assert_int_equal(s.schedules[SCHEDULE_STREAM] > 0, t > 0);
      assert_int_equal(s.schedules[SCHEDULE_TURNS] > 0, t == 1);
      assert_int_equal(s.schedules[SCHEDULE_PARTS], 0);
      int some = 3;
      assert_int_equal(legal_enumerate(names[t], &q, stop, &some), 3);
    }
    configuration_close(c);
  }
  const kernel_question deep = {.family = "gemm", .n = 64, .k = 32, .matrix = true}; /* one step of 32 columns */
  kernel_variant v = {.choice = {0}};
  v.choice[CHOOSE_SCHEDULE] = SCHEDULE_ROWS;
  v.choice[CHOOSE_TILE_M] = 8;
  v.choice[CHOOSE_PANEL] = v.choice[CHOOSE_SLICE] = 16;
  v.choice[CHOOSE_GROUP] = 8;
  v.choice[CHOOSE_LANES] = 64;
  v.choice[CHOOSE_STAGES] = 1;
  sluice_status *status = legal_check("cuda:sm_90a", &deep, &v);
  assert_non_null(strstr(sluice_status_message(status), "'lanes' is 64, expected 32 times a divisor of 1"));
  sluice_status_free(status);
  v.choice[CHOOSE_LANES] = 32;
  assert_null(legal_check("cuda:sm_90a", &deep, &v));
  assert_true(legal_has("cuda:sm_90a", "attention_part", SCHEDULE_PARTS));
  assert_true(legal_has("hip:gfx950", "attention_part", SCHEDULE_PARTS));
  assert_false(legal_has("host:x86-64-v3", "attention_part", SCHEDULE_PARTS));
}

static void facts_make_sense(void **state) {
  (void)state;
  static const char *const names[] = {"host:x86-64", "host:x86-64-v4-bf16", "cuda:sm_90a", "hip:gfx942", "hip:gfx950"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
    const target_facts *f;
    assert_null(target_find_facts(names[i], &f));
    assert_true(f->wave > 0 && (f->wave & (f->wave - 1)) == 0);
    assert_true(f->lanes % f->wave == 0 && f->lanes <= f->most_lanes);
    assert_true(f->vector > 0 && (f->vector & (f->vector - 1)) == 0 && f->registers > 0);
    assert_true(f->workgroup_bytes > 0 && f->workgroup_bytes <= f->processor_bytes);
    assert_true(f->grid[0] > 0 && f->grid[1] > 0 && f->line_bytes > 0);
  }
  const target_facts *f;
  sluice_status *status = target_find_facts("h300", &f);
  assert_non_null(strstr(sluice_status_message(status), "h300"));
  sluice_status_free(status);
}

/* Compiles one kernel for a GPU and expects a refusal that says all of `texts`, which end with NULL. */
static void expect_too_large(const char *family, const kernel_attribute *attributes, size_t count,
                             const char *const *texts) {
  const kernel_spec spec = {
      .family = family, .symbol = "large_1", .attributes = attributes, .attribute_count = count, .argument_count = 5};
  code_object code = {0};
  sluice_status *status = backend_compile("cuda:sm_90a", &spec, 1, &(backend_options){.form = CODE_LLVM_IR}, &code);
  assert_int_equal(sluice_status_code(status), SLUICE_UNSUPPORTED);
  for (; *texts; texts++)
    if (!strstr(sluice_status_message(status), *texts))
      fail_msg("no '%s' in '%s'", *texts, sluice_status_message(status));
  sluice_status_free(status);
}

#define INTEGER(text, value) {.name = (text), .kind = KERNEL_INTEGER, .integer = (value)}
#define NUMBER(text, value) {.name = (text), .kind = KERNEL_FLOAT, .number = (value)}
#define TEXT(text, value) {.name = (text), .kind = KERNEL_STRING, .string = (value)}

static void kernels_too_large_are_refused(void **state) {
  (void)state;
  /* One token of attention has 64 rows, each of 512 + 128 + 512 words and a maximum and a sum. */
  const kernel_attribute attention[] = {
      INTEGER("heads", 64),      INTEGER("kv_heads", 1),         INTEGER("head_dim", 512),    INTEGER("page", 128),
      INTEGER("query_tile", 16), INTEGER("page_bytes", 1 << 20), INTEGER("value_offset", 64), NUMBER("scale", 1),
      TEXT("dtype", "f32"),      TEXT("transposed", "keys")};
  expect_too_large("attention", attention, sizeof attention / sizeof *attention,
                   (const char *[]){"large_1", "heads 64, kv_heads 1, head_dim 512",
                                    "wants 296448 bytes of workgroup memory", "cuda:sm_90a has 232448", NULL});
  const kernel_attribute norm[] = {INTEGER("heads", 70000), INTEGER("head_dim", 64), NUMBER("eps", 1e-6),
                                   TEXT("dtype", "bf16"), TEXT("weight_dtype", "bf16")};
  expect_too_large(
      "head_norm", norm, sizeof norm / sizeof *norm,
      (const char *[]){"large_1", "heads 70000, head_dim 64", "wants 70000 workgroups in y", "has 65535", NULL});
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(aliases_become_targets),
                                     cmocka_unit_test(unknown_targets_are_refused),
                                     cmocka_unit_test(products_have_kernels_for_all_steps),
                                     cmocka_unit_test(targets_have_kernels_of_their_own),
                                     cmocka_unit_test(invariant_kernels_add_up_alike),
                                     cmocka_unit_test(float32_adds_up_alike),
                                     cmocka_unit_test(records_go_first),
                                     cmocka_unit_test(variants_are_replaced_merged_and_aligned),
                                     cmocka_unit_test(refused_shapes_are_named),
                                     cmocka_unit_test(legal_choices_are_listed),
                                     cmocka_unit_test(facts_make_sense),
                                     cmocka_unit_test(kernels_too_large_are_refused)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
