/* config -> model IR: the ops of each kind of layer, in order, and the attributes of @step. */
#include "compiler/compile.h"
#include "sluice/memory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void must(sluice_status *status) {
  if (status) sluice_status_print(status);
  assert_null(status);
}

typedef struct built {
  ir_context *context;
  MlirModule module;
  model_config *config;
  MlirOperation function;
} built;

static built build(const char *path, sluice_dtype dtype, int64_t max_context) {
  built b;
  must(model_config_read(path, NULL, NULL, &b.config));
  must(ir_context_create(&b.context));
  must(model_build(b.context, b.config, dtype, 0, max_context, &b.module));
  b.function = ir_function(b.module, "step");
  assert_false(mlirOperationIsNull(b.function));
  return b;
}

static void destroy(built *b) {
  mlirModuleDestroy(b->module);
  ir_context_destroy(b->context);
  model_config_free(b->config);
}

/* Names of the ops, without weights, one after another. */
static void expect_ops(MlirOperation *op, const char *const *names, size_t count) {
  for (size_t i = 0; i < count; i++) {
    while (ir_is(*op, "model.weight")) *op = mlirOperationGetNextInBlock(*op);
    MlirStringRef name = ir_name(*op);
    char text[64];
    snprintf(text, sizeof text, "%.*s", (int)name.length, name.data);
    assert_string_equal(text, names[i]);
    *op = mlirOperationGetNextInBlock(*op);
  }
}
#define EXPECT(op, ...)                                                                                                \
  do {                                                                                                                 \
    static const char *const names_[] = {__VA_ARGS__};                                                                 \
    expect_ops(op, names_, sizeof names_ / sizeof names_[0]);                                                          \
  } while (0)

static void test_layers(void **state) {
  (void)state;
  built b = build(TEST_DATA "/golden/nano/config.json", SLUICE_BF16, 0);
  MlirOperation op = mlirBlockGetFirstOperation(ir_body(b.function));
  EXPECT(&op, "model.embed");
  /* layer 0: full attention and a dense MLP */
  EXPECT(&op, "model.rms_norm", "model.linear", "model.linear", "model.linear", "model.rope_table", "model.head_norm",
         "model.rope", "model.head_norm", "model.rope", "model.cache_append", "model.cache_append", "model.attention",
         "model.linear", "model.add", "model.rms_norm", "model.linear", "model.linear", "model.swiglu_oai",
         "model.linear", "model.add", "model.observe");
  /* layers 1 to 3: sparse attention, shared expert, routed experts */
  for (int layer = 1; layer < 4; layer++) {
    EXPECT(&op, "model.rms_norm", "model.linear", "model.linear", "model.linear", "model.linear", "model.linear",
           "model.rope_table", "model.head_norm", "model.rope", "model.head_norm", "model.rope", "model.cache_append",
           "model.cache_append", "model.head_norm", "model.rope", "model.head_norm", "model.rope", "model.cache_append",
           "model.index_score", "model.block_max", "model.topk_blocks", "model.observe", "model.block_attention",
           "model.linear", "model.add");
    EXPECT(&op, "model.rms_norm", "model.linear", "model.linear", "model.swiglu_oai", "model.linear", "model.add",
           "model.linear", "model.topk_experts", "model.observe", "model.observe", "model.expert_linear",
           "model.expert_linear", "model.swiglu_oai", "model.expert_linear", "model.combine", "model.add",
           "model.observe");
  }
  EXPECT(&op, "model.select_rows", "model.rms_norm", "model.lm_head", "model.sample", "func.return");
  assert_true(mlirOperationIsNull(op));

  assert_int_equal(ir_get_integer(b.function, "model.page"), 16);
  assert_int_equal(ir_get_integer(b.function, "model.max_context"), 8192);
  assert_int_equal(ir_get_integer(b.function, "model.hidden"), 256);
  assert_int_equal(ir_get_integer(b.function, "model.layers"), 4);
  assert_int_equal(ir_get_integer(b.function, "model.vocabulary"), 512);
  assert_int_equal(ir_get_integer(b.function, "model.experts"), 8);
  assert_int_equal(ir_get_integer(b.function, "model.experts_per_token"), 2);
  char *text = ir_print(b.module);
  assert_non_null(strstr(text, "model.dtype = \"bfloat16\""));
  assert_non_null(strstr(text, "model.weight_dtype = \"bfloat16\""));
  assert_non_null(strstr(text, "model.stop_ids = [2]"));
  assert_non_null(strstr(text, "language_model.model.layers.3.block_sparse_moe.experts.{expert}.w2.weight"));
  assert_non_null(strstr(text, "\"layer.2.router.weights\""));
  sluice_release(text);
  destroy(&b);
}

/* Every tensor of the checkpoint is read exactly once, with its shape. */
static void test_weights(void **state) {
  (void)state;
  built b = build(TEST_DATA "/golden/blocks/config.json", SLUICE_F32, 1000);
  config_tensor *tensors;
  size_t count, read = 0;
  must(model_config_tensors(b.config, &tensors, &count));
  for (MlirOperation op = mlirBlockGetFirstOperation(ir_body(b.function)); !mlirOperationIsNull(op);
       op = mlirOperationGetNextInBlock(op)) {
    if (!ir_is(op, "model.weight")) continue;
    MlirStringRef ref = ir_get_string(op, "name");
    char name[256], one[256];
    snprintf(name, sizeof name, "%.*s", (int)ref.length, ref.data);
    MlirValue value = ir_result(op, 0);
    char *hole = strstr(name, "{expert}");
    int64_t experts = hole ? ir_dimension(value, 0) : 1;
    for (int64_t e = 0; e < experts; e++, read++) {
      if (hole)
        snprintf(one, sizeof one, "%.*s%d%s", (int)(hole - name), name, (int)e, hole + strlen("{expert}"));
      else
        snprintf(one, sizeof one, "%s", name);
      size_t i = 0;
      while (i < count && strcmp(tensors[i].name, one) != 0) i++;
      assert_true(i < count);
      assert_int_equal(ir_rank(value), tensors[i].rank + (hole ? 1 : 0));
      for (unsigned j = 0; j < tensors[i].rank; j++)
        assert_int_equal(ir_dimension(value, (hole ? 1 : 0) + (intptr_t)j), tensors[i].shape[j]);
      tensors[i].name[0] = 0; /* not again */
    }
  }
  assert_int_equal(read, count);
  assert_int_equal(ir_get_integer(b.function, "model.max_context"), 1000);
  config_tensors_free(tensors, count);
  destroy(&b);
}

static void test_round_trip(void **state) {
  (void)state;
  built b = build(TEST_DATA "/golden/nano", SLUICE_F32, 0);
  char *first = ir_print(b.module);
  MlirModule again;
  must(ir_parse(b.context, first, strlen(first), "again.mlir", &again));
  char *second = ir_print(again);
  assert_string_equal(first, second);
  sluice_release(first);
  sluice_release(second);
  mlirModuleDestroy(again);
  destroy(&b);
}

static void test_refused(void **state) {
  (void)state;
  built b = build(TEST_DATA "/golden/nano", SLUICE_F32, 0);
  MlirModule module;
  sluice_status *status = model_build(b.context, b.config, SLUICE_F32, 0, 8193, &module);
  assert_string_equal(sluice_status_message(status),
                      "a context of 8193 tokens was asked for, expected 1 to the model's 8192");
  sluice_status_free(status);
  status = model_build(b.context, b.config, SLUICE_F16, 0, 0, &module);
  assert_int_equal(sluice_status_code(status), SLUICE_INVALID);
  sluice_status_free(status);
  destroy(&b);
}

/* The real model: 60 layers. */
static void test_minimax_m3(void **state) {
  (void)state;
  built b = build(TEST_DATA "/configs/MiniMax-M3", SLUICE_BF16, 0);
  size_t sparse = 0, full = 0;
  for (MlirOperation op = mlirBlockGetFirstOperation(ir_body(b.function)); !mlirOperationIsNull(op);
       op = mlirOperationGetNextInBlock(op)) {
    sparse += ir_is(op, "model.block_attention");
    full += ir_is(op, "model.attention");
  }
  assert_int_equal(sparse, 57);
  assert_int_equal(full, 3);
  destroy(&b);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_layers),  cmocka_unit_test(test_weights),    cmocka_unit_test(test_round_trip),
      cmocka_unit_test(test_refused), cmocka_unit_test(test_minimax_m3),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
