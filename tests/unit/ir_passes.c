/* The IR library and the pass manager: errors have their place, passes keep valid IR valid whatever the order of its
 * ops, change nothing when run again, and report memory that is short. */
#include "compiler/compile.h"
#include "sluice/memory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *const before_lowering[] = {
    "canonicalise",
    "cse",
    "fuse-projections",
    "fuse-norm-rope-append",
    "fuse-epilogues",
    "fuse-index-select",
    "fuse-select-attend",
    "fuse-router",
    "fuse-experts",
    "fold-shared-expert",
    "dce",
};
enum { PASSES = sizeof before_lowering / sizeof before_lowering[0] };

static void must(sluice_status *status) {
  sluice_status_print(status);
  assert_null(status);
}

static void expect_error(sluice_status *status, sluice_code code, const char *words) {
  assert_non_null(status);
  char *report = sluice_status_format(status);
  assert_non_null(report);
  if (sluice_status_code(status) != code || !strstr(report, words))
    fail_msg("code %d, expected %d and '%s' in: %s", (int)sluice_status_code(status), (int)code, words, report);
  sluice_release(report);
  sluice_status_free(status);
}

static ir_context *context_of_test(void) {
  ir_context *context = NULL;
  must(ir_context_create(&context));
  return context;
}

static MlirModule nano(ir_context *context) {
  model_config *config = NULL;
  must(model_config_read(TEST_DATA "/golden/nano/config.json", NULL, NULL, &config));
  MlirModule module;
  must(model_build(context, config, SLUICE_BF16, 0, 0, &module));
  model_config_free(config);
  return module;
}

/* ---- the IR library ---- */

static void errors_have_their_place(void **state) {
  (void)state;
  ir_context *context = context_of_test();
  MlirModule module;
  static const char syntax[] = "func.func @f() {\n  return %nothing : f32\n}\n";
  expect_error(ir_parse(context, syntax, strlen(syntax), "a.mlir", &module), SLUICE_INVALID, "a.mlir:2:");
  static const char shape[] =
      "func.func @f(%x: tensor<?x4xf32>) {\n"
      "  %y = \"model.slice\"(%x) {offset = 2 : i64} : (tensor<?x4xf32>) -> tensor<?x3xf32>\n  return\n}\n";
  expect_error(ir_parse(context, shape, strlen(shape), "b.mlir", &module), SLUICE_INVALID,
               "b.mlir:2:8: error: 'model.slice' op: 3 columns from 2 on are asked for, but x has 4\n  %y = ");
  /* One error does not stick to the next call. */
  static const char good[] = "func.func @f() {\n  return\n}\n";
  must(ir_parse(context, good, strlen(good), "c.mlir", &module));
  mlirModuleDestroy(module);
  expect_error(ir_take_error(context, SLUICE_INTERNAL, "nothing waits"), SLUICE_INTERNAL, "nothing waits");
  ir_context_destroy(context);
}

static void text_round_trip(void **state) {
  (void)state;
  ir_context *context = context_of_test();
  MlirModule module = nano(context), again;
  char *text = ir_print(module);
  assert_non_null(text);
  must(ir_parse(context, text, strlen(text), "nano.mlir", &again));
  char *same = ir_print(again);
  assert_string_equal(text, same);
  sluice_release(text);
  sluice_release(same);
  mlirModuleDestroy(module);
  mlirModuleDestroy(again);
  ir_context_destroy(context);
}

static void long_arrays(void **state) {
  (void)state;
  enum { COUNT = 1000 };
  static int64_t values[COUNT];
  ir_context *context = context_of_test();
  for (int i = 0; i < COUNT; i++) values[i] = i * i;
  MlirAttribute array = ir_integers(context, values, COUNT);
  assert_int_equal(mlirArrayAttrGetNumElements(array), COUNT);
  for (int i = 0; i < COUNT; i++)
    assert_int_equal(mlirIntegerAttrGetValueInt(mlirArrayAttrGetElement(array, i)), values[i]);
  ir_context_destroy(context);
}

/* ---- passes ---- */

static void names_are_checked(void **state) {
  (void)state;
  ir_context *context = context_of_test();
  MlirModule module = nano(context);
  static const char *const unknown[] = {"fuse-everything"}, *const required[] = {"plan-buffers"};
  pass_options options = {0};
  expect_error(pass_run(context, module, unknown, 1, &options), SLUICE_INVALID, "canonicalise, cse, ");
  options = (pass_options){.disabled = required, .disabled_count = 1};
  expect_error(pass_run(context, module, NULL, 0, &options), SLUICE_INVALID, "'plan-buffers' cannot be switched off");
  options = (pass_options){.print_after = unknown, .print_after_count = 1};
  expect_error(pass_run(context, module, before_lowering, 1, &options), SLUICE_INVALID, "fuse-everything");
  mlirModuleDestroy(module);
  ir_context_destroy(context);
}

/* Every fusion tells of every layer that it applies to; the first layer of the model is dense. */
static void remarks_name_layers(void **state) {
  (void)state;
  ir_context *context = context_of_test();
  MlirModule module = nano(context);
  pass_remarks remarks = {0};
  must(pass_run(context, module, before_lowering, PASSES, &(pass_options){.remarks = &remarks}));
  static const struct {
    const char *pass;
    int counts[4]; /* by layer */
  } expected[] = {
      {"fuse-projections", {1, 1, 1, 1}},  {"fuse-norm-rope-append", {1, 1, 1, 1}}, {"fuse-epilogues", {3, 3, 3, 3}},
      {"fuse-index-select", {0, 1, 1, 1}}, {"fuse-select-attend", {0, 1, 1, 1}},    {"fuse-router", {0, 1, 1, 1}},
      {"fuse-experts", {0, 1, 1, 1}},      {"fold-shared-expert", {0, 1, 1, 1}},
  };
  for (size_t i = 0; i < sizeof expected / sizeof expected[0]; i++)
    for (int64_t layer = 0; layer < 4; layer++) {
      int count = 0;
      for (size_t j = 0; j < remarks.count; j++)
        count += remarks.items[j].applied && remarks.items[j].layer == layer &&
                 strcmp(remarks.items[j].pass, expected[i].pass) == 0;
      if (count != expected[i].counts[layer])
        fail_msg("%s applied %d times in layer %d, expected %d", expected[i].pass, count, (int)layer,
                 expected[i].counts[layer]);
    }
  pass_remarks_free(&remarks);
  mlirModuleDestroy(module);
  ir_context_destroy(context);
}

static uint64_t seed;
static size_t below(size_t count) {
  seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
  return (size_t)(seed >> 33) % count;
}

/* Moves random ops to random places, as long as the module stays valid. */
static size_t shuffle(ir_context *context, MlirModule module, size_t tries) {
  enum { MOST = 1024 };
  static MlirOperation ops[MOST];
  size_t count = 0, moved = 0;
  MlirOperation op = mlirBlockGetFirstOperation(ir_body(ir_function(module, "step")));
  for (; !ir_is(op, "func.return") && count < MOST; op = mlirOperationGetNextInBlock(op)) ops[count++] = op;
  for (size_t i = 0; i < tries; i++) {
    MlirOperation from = ops[below(count)], to = ops[below(count)];
    MlirOperation next = mlirOperationGetNextInBlock(from);
    if (mlirOperationEqual(from, to) || mlirOperationEqual(next, to)) continue;
    mlirOperationMoveBefore(from, to);
    sluice_status *status = ir_verify(context, module);
    if (status)
      mlirOperationMoveBefore(from, next);
    else
      moved++;
    sluice_status_free(status);
  }
  return moved;
}

static void order_does_not_matter_for_validity(void **state) {
  (void)state;
  enum { CASES = 12, TRIES = 250 };
  size_t moved = 0, applied = 0;
  for (size_t i = 0; i < CASES; i++) {
    ir_context *context = context_of_test();
    MlirModule module = nano(context);
    seed = i + 1;
    moved += shuffle(context, module, TRIES);
    pass_remarks remarks = {0};
    pass_options options = {.verify_each = true, .remarks = &remarks};
    must(pass_run(context, module, before_lowering, PASSES, &options));
    for (size_t j = 0; j < remarks.count; j++) applied += remarks.items[j].applied;
    pass_remarks_free(&remarks);
    mlirModuleDestroy(module);
    ir_context_destroy(context);
  }
  print_message("%zu ops moved, %zu fusions\n", moved, applied);
  assert_true(moved > CASES * TRIES / 10);
  assert_true(applied > CASES * 20);
}

/* Each pass alone, then again: the second run finds nothing to do. */
static void passes_are_idempotent(void **state) {
  (void)state;
  ir_context *context = context_of_test();
  MlirModule module = nano(context);
  for (size_t i = 0; i < PASSES; i++) {
    must(pass_run(context, module, &before_lowering[i], 1, &(pass_options){.verify_each = true}));
    char *once = ir_print(module);
    must(pass_run(context, module, &before_lowering[i], 1, &(pass_options){.verify_each = true}));
    char *twice = ir_print(module);
    if (strcmp(once, twice)) fail_msg("%s changes its own result", before_lowering[i]);
    sluice_release(once);
    sluice_release(twice);
  }
  mlirModuleDestroy(module);
  ir_context_destroy(context);
}

/* ---- memory ---- */

typedef struct failure {
  long at, count;
} failure;

static int fail_at(void *user, size_t bytes) {
  failure *f = user;
  (void)bytes;
  return f->count++ == f->at;
}

static char *model_text;

static sluice_status *parse_and_fuse(void) {
  ir_context *context = NULL;
  SLUICE_TRY(ir_context_create(&context));
  MlirModule module;
  pass_remarks remarks = {0};
  sluice_status *status = ir_parse(context, model_text, strlen(model_text), "nano.mlir", &module);
  if (!status) {
    pass_options options = {.verify_each = true, .print_diff = true, .remarks = &remarks};
    status = pass_run(context, module, before_lowering, PASSES, &options);
    mlirModuleDestroy(module);
  }
  pass_remarks_free(&remarks);
  ir_context_destroy(context);
  return status;
}

static void short_memory_is_reported(void **state) {
  (void)state;
  ir_context *context = context_of_test();
  MlirModule module = nano(context);
  model_text = ir_print(module);
  assert_non_null(model_text);
  mlirModuleDestroy(module);
  ir_context_destroy(context);
  FILE *kept = stderr; /* the differences are not looked at */
  stderr = fopen("/dev/null", "w");
  assert_non_null(stderr);
  long n = 0;
  for (bool reached = true; reached; n++) {
    size_t before = sluice_live_allocations();
    failure f = {.at = n};
    sluice_set_allocation_hook(fail_at, &f);
    sluice_status *status = parse_and_fuse();
    sluice_set_allocation_hook(NULL, NULL);
    reached = f.count > n;
    if (reached ? sluice_status_code(status) != SLUICE_OUT_OF_MEMORY : status != NULL)
      fail_msg("allocation %ld: %s", n, sluice_status_message(status));
    sluice_status_free(status);
    assert_int_equal(sluice_live_allocations(), before);
  }
  fclose(stderr);
  stderr = kept;
  sluice_release(model_text);
  print_message("%ld allocations failed one at a time\n", n - 1);
  assert_true(n > 100);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(errors_have_their_place),
      cmocka_unit_test(text_round_trip),
      cmocka_unit_test(long_arrays),
      cmocka_unit_test(names_are_checked),
      cmocka_unit_test(remarks_name_layers),
      cmocka_unit_test(order_does_not_matter_for_validity),
      cmocka_unit_test(passes_are_idempotent),
      cmocka_unit_test(short_memory_is_reported),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
