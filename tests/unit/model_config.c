/* The configuration reader: both spellings, every refusal with its place, tensor tables against the checkpoints'. */
#include "compiler/model_config.h"
#include "compiler/config_fields.h"
#include "sluice/memory.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* A valid configuration in the released spelling; one key on a line, so that places are easy to check by eye. */
static const char base[] = "{\n"                                                                      /* line 1 */
                           "  \"model_type\": \"minimax_m3_vl\",\n"                                   /* 2 */
                           "  \"torch_dtype\": \"bfloat16\",\n"                                       /* 3 */
                           "  \"tie_word_embeddings\": false,\n"                                      /* 4 */
                           "  \"text_config\": {\n"                                                   /* 5 */
                           "    \"hidden_size\": 96,\n"                                               /* 6 */
                           "    \"num_hidden_layers\": 3,\n"                                          /* 7 */
                           "    \"num_attention_heads\": 6,\n"                                        /* 8 */
                           "    \"num_key_value_heads\": 2,\n"                                        /* 9 */
                           "    \"head_dim\": 32,\n"                                                  /* 10 */
                           "    \"vocab_size\": 101,\n"                                               /* 11 */
                           "    \"max_position_embeddings\": 4096,\n"                                 /* 12 */
                           "    \"rms_norm_eps\": 1e-06,\n"                                           /* 13 */
                           "    \"rope_theta\": 5000000,\n"                                           /* 14 */
                           "    \"rotary_dim\": 16,\n"                                                /* 15 */
                           "    \"partial_rotary_factor\": 0.5,\n"                                    /* 16 */
                           "    \"hidden_act\": \"swigluoai\",\n"                                     /* 17 */
                           "    \"swiglu_alpha\": 1.702,\n"                                           /* 18 */
                           "    \"swiglu_limit\": 7.0,\n"                                             /* 19 */
                           "    \"use_gemma_norm\": true,\n"                                          /* 20 */
                           "    \"use_qk_norm\": true,\n"                                             /* 21 */
                           "    \"qk_norm_type\": \"per_head\",\n"                                    /* 22 */
                           "    \"attention_output_gate\": false,\n"                                  /* 23 */
                           "    \"intermediate_size\": 40,\n"                                         /* 24 */
                           "    \"dense_intermediate_size\": 72,\n"                                   /* 25 */
                           "    \"shared_intermediate_size\": 24,\n"                                  /* 26 */
                           "    \"n_shared_experts\": 1,\n"                                           /* 27 */
                           "    \"num_local_experts\": 5,\n"                                          /* 28 */
                           "    \"num_experts_per_tok\": 2,\n"                                        /* 29 */
                           "    \"scoring_func\": \"sigmoid\",\n"                                     /* 30 */
                           "    \"use_routing_bias\": true,\n"                                        /* 31 */
                           "    \"routed_scaling_factor\": 2.0,\n"                                    /* 32 */
                           "    \"moe_layer_freq\": [0, 1, 1],\n"                                     /* 33 */
                           "    \"eos_token_id\": [2, 7],\n"                                          /* 34 */
                           "    \"sparse_attention_config\": {\n"                                     /* 35 */
                           "      \"use_sparse_attention\": true,\n"                                  /* 36 */
                           "      \"sparse_index_dim\": 24,\n"                                        /* 37 */
                           "      \"sparse_num_index_heads\": 2,\n"                                   /* 38 */
                           "      \"sparse_topk_blocks\": 3,\n"                                       /* 39 */
                           "      \"sparse_block_size\": 32,\n"                                       /* 40 */
                           "      \"sparse_score_type\": \"max\",\n"                                  /* 41 */
                           "      \"sparse_init_block\": 1,\n"                                        /* 42 */
                           "      \"sparse_local_block\": 2,\n"                                       /* 43 */
                           "      \"sparse_attention_freq\": [0, 1, 1],\n"                            /* 44 */
                           "      \"sparse_disable_index_value\": [0, 1, 1]\n"                        /* 45 */
                           "    }\n"                                                                  /* 46 */
                           "  },\n"                                                                   /* 47 */
                           "  \"vision_config\": {\"hidden_size\": 64, \"num_attention_heads\": 4}\n" /* 48 */
                           "}\n";                                                                     /* 49 */

typedef struct said {
  char text[1024];
  int count;
} said;

static void collect(void *user, const char *line) {
  said *s = user;
  s->count++;
  size_t used = strlen(s->text);
  snprintf(s->text + used, sizeof s->text - used, "%s\n", line);
}

/* cmocka's assertions do not tell static analysis that they end the test; this does. */
#define NEED(condition, ...)                                                                                           \
  do {                                                                                                                 \
    if (!(condition)) {                                                                                                \
      fail_msg(__VA_ARGS__);                                                                                           \
      abort();                                                                                                         \
    }                                                                                                                  \
  } while (0)

static void must(sluice_status *status) {
  if (status) sluice_status_print(status);
  assert_null(status);
}

/* `base` with the first `from` replaced by `to`; freed by the caller. */
static char *edited(const char *text, const char *from, const char *to) {
  const char *at = strstr(text, from);
  NEED(at, "'%s' is not in the text", from);
  char *result = malloc(strlen(text) - strlen(from) + strlen(to) + 1);
  NEED(result, "out of memory");
  sprintf(result, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
  return result;
}

static sluice_status *parse(const char *text, said *s, model_config **config) {
  return model_config_parse(text, strlen(text), "c.json", s ? collect : NULL, s, config);
}

static void test_base(void **state) {
  (void)state;
  model_config *c;
  said s = {0};
  must(parse(base, &s, &c));
  assert_string_equal(s.text,
                      "c.json:48:20: note: the vision tower is not compiled yet: the bundle takes text alone\n");
  assert_int_equal(c->hidden, 96);
  assert_int_equal(c->layers, 3);
  assert_int_equal(c->heads, 6);
  assert_int_equal(c->kv_heads, 2);
  assert_int_equal(c->head_dim, 32);
  assert_int_equal(c->vocabulary, 101);
  assert_int_equal(c->max_positions, 4096);
  assert_int_equal(c->rotary_dim, 16);
  assert_true(c->eps == 1e-6 && c->rope_theta == 5e6 && c->swiglu_alpha == 1.702 && c->swiglu_limit == 7.0);
  assert_int_equal(c->weight_dtype, SLUICE_BF16);
  assert_int_equal(c->page, 32);
  assert_int_equal(c->stop_id_count, 2);
  assert_int_equal(c->stop_ids[1], 7);
  assert_true(c->has_vision);
  assert_false(c->layer[0].sparse_attention || c->layer[0].moe);
  assert_int_equal(c->layer[0].dense_width, 72);
  assert_int_equal(c->layer[0].index_heads, 0);
  assert_int_equal(c->layer[0].experts, 0);
  const layer_config *l = &c->layer[2];
  assert_true(l->sparse_attention && l->moe);
  assert_int_equal(l->dense_width, 0);
  assert_int_equal(l->index_heads, 2);
  assert_int_equal(l->index_dim, 24);
  assert_int_equal(l->block, 32);
  assert_int_equal(l->top_k_blocks, 3);
  assert_int_equal(l->init_blocks, 1);
  assert_int_equal(l->local_blocks, 2);
  assert_int_equal(l->experts, 5);
  assert_int_equal(l->experts_per_token, 2);
  assert_int_equal(l->expert_width, 40);
  assert_int_equal(l->shared_width, 24);
  assert_true(l->routed_scale == 2.0);
  model_config_free(c);
}

static void test_variants(void **state) {
  (void)state;
  static const struct {
    const char *from, *to;
  } good[] = {
      {"\"sparse_attention_freq\": [0, 1, 1],\n      \"sparse_disable_index_value\": [0, 1, 1]",
       "\"sparse_attention_freq\": [1, 1, 1],\n      \"sparse_disable_index_value\": [1, 1, 1]"},
      {"\"moe_layer_freq\": [0, 1, 1]", "\"moe_layer_freq\": [1, 0, 1]"},
      {"\"moe_layer_freq\": [0, 1, 1]", "\"moe_layer_freq\": [0, 1, 1], \"mlp_layer_types\": [\"dense\", \"sparse\", "
                                        "\"sparse\"]"},
      {"\"use_sparse_attention\": true", "\"use_sparse_attention\": false"},
      {"\"rotary_dim\": 16,", ""},
      {"\"partial_rotary_factor\": 0.5,", ""},
      {"\"partial_rotary_factor\": 0.5,",
       "\"rope_parameters\": {\"partial_rotary_factor\": 0.5, \"rope_theta\": 5e6},"},
      {"\"eos_token_id\": [2, 7]", "\"eos_token_id\": 100"},
      {"\"eos_token_id\": [2, 7]", "\"eos_token_id\": null"},
      {"\"n_shared_experts\": 1", "\"n_shared_experts\": 0"},
      {"\"shared_intermediate_size\": 24", "\"shared_intermediate_size\": 0"},
      {"\"torch_dtype\": \"bfloat16\"", "\"dtype\": \"float16\""},
      {"\"vision_config\": {\"hidden_size\": 64, \"num_attention_heads\": 4}", "\"vision_config\": null"},
      {"\"scoring_func\": \"sigmoid\"", "\"quantization_config\": null, \"swiglu_beta\": 1.0"},
      {"\"sparse_init_block\": 1,", ""},
  };
  for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
    char *text = edited(base, good[i].from, good[i].to);
    model_config *c;
    must(parse(text, NULL, &c));
    assert_int_equal(c->rotary_dim, 16);
    if (i == 3) {
      assert_int_equal(c->page, 128);
      assert_false(c->layer[1].sparse_attention);
    }
    if (i == 9 || i == 10) assert_int_equal(c->layer[1].shared_width, 0);
    if (i == 11) assert_int_equal(c->weight_dtype, SLUICE_F16);
    if (i == 12) assert_false(c->has_vision);
    model_config_free(c);
    free(text);
  }
}

typedef struct refusal {
  const char *from, *to, *expected;
} refusal;

#define E "c.json:"
static const refusal refusals[] = {
#include "model_config_refusals.inc"
};

static void test_refusals(void **state) {
  (void)state;
  assert_true(sizeof refusals / sizeof refusals[0] >= 40);
  for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i++) {
    char *text = edited(base, refusals[i].from, refusals[i].to);
    model_config *c;
    sluice_status *status = parse(text, NULL, &c);
    if (!status) fail_msg("accepted: %s -> %s", refusals[i].from, refusals[i].to);
    assert_null(c);
    assert_int_equal(sluice_exit_code(status), 1);
    char *report = sluice_status_format(status);
    NEED(report, "out of memory");
    report[strcspn(report, "\n")] = 0; /* the source line and the caret follow */
    assert_string_equal(report, refusals[i].expected);
    sluice_release(report);
    sluice_status_free(status);
    free(text);
  }
}

/* Rotary widths, stop ids and the head, which files say in several ways. */
static const struct {
  const char *from, *to;
  int rotary_dim, stop_id, stop_ids; /* the first of them */
  bool tied;
} readings[] = {
#define ROTARY "\"rotary_dim\": 16,\n    \"partial_rotary_factor\": 0.5,"
    {"\"a\"", "\"a\"", 16, 2, 2, false},
    {ROTARY, "\"rotary_dim\": 8,", 8, 2, 2, false},
    {ROTARY, "\"rotary_dim\": 8, \"rope_scaling\": {\"type\": \"default\"},", 8, 2, 2, false},
    {ROTARY, "\"rotary_dim\": 8, \"rope_parameters\": {},", 8, 2, 2, false},
    {ROTARY, "\"rotary_dim\": 8, \"rope_parameters\": null, \"rope_scaling\": {},", 8, 2, 2, false},
    {ROTARY, "\"rope_parameters\": {\"rope_type\": \"default\", \"partial_rotary_factor\": 0.25}, \"rotary_dim\": 16,",
     8, 2, 2, false},
    {ROTARY, "\"rope_parameters\": {\"type\": \"default\"}, \"rotary_dim\": \"none\", \"partial_rotary_factor\": 0.75,",
     24, 2, 2, false},
    {ROTARY, "\"rope_scaling\": {\"rope_type\": \"default\", \"partial_rotary_factor\": 0.25},", 8, 2, 2, false},
    {"\"eos_token_id\": [2, 7]", "\"eos_token_id\": 9", 16, 9, 1, false},
    {"\"torch_dtype\"", "\"eos_token_id\": 9, \"torch_dtype\"", 16, 9, 1, false},
    {"\"torch_dtype\"", "\"eos_token_id\": null, \"torch_dtype\"", 16, 2, 2, false},
    {"\"eos_token_id\": [2, 7],", "", 16, 0, 0, false}, /* 200020 is outside its vocabulary of 101 */
    {"\"vocab_size\": 101", "\"vocab_size\": 200064", 16, 2, 2, false},
    {"\"tie_word_embeddings\": false", "\"tie_word_embeddings\": true", 16, 2, 2, true},
    {"\"head_dim\": 32", "\"tie_word_embeddings\": true, \"head_dim\": 32", 16, 2, 2, true},
};

static void test_readings(void **state) {
  (void)state;
  for (size_t i = 0; i < sizeof readings / sizeof readings[0]; i++) {
    char *text = i ? edited(base, readings[i].from, readings[i].to) : edited(base, "{", "{");
    /* an index head has 24 dimensions, more than 24 cannot be rotated */
    model_config *c;
    must(parse(text, NULL, &c));
    if (c->rotary_dim != readings[i].rotary_dim) fail_msg("%s: rotates %d", readings[i].to, (int)c->rotary_dim);
    assert_int_equal(c->stop_id_count, readings[i].stop_ids);
    if (readings[i].stop_ids) assert_int_equal(c->stop_ids[0], readings[i].stop_id);
    assert_int_equal(c->tied_head, readings[i].tied);
    model_config_free(c);
    free(text);
  }
  /* The whole head: 24 of 24. */
  char *narrow = edited(base, "\"head_dim\": 32", "\"head_dim\": 24");
  char *whole = edited(narrow, ROTARY, "\"rope_parameters\": {\"rope_type\": \"default\"}, \"rotary_dim\": 16,");
  model_config *c;
  must(parse(whole, NULL, &c));
  assert_int_equal(c->rotary_dim, 24);
  model_config_free(c);
  /* The family's stop id, where the vocabulary has it and no key says otherwise. */
  char *large = edited(base, "\"vocab_size\": 101", "\"vocab_size\": 200064");
  char *absent = edited(large, "\"eos_token_id\": [2, 7],", "");
  char *null = edited(large, "\"eos_token_id\": [2, 7],", "\"eos_token_id\": null,");
  must(parse(absent, NULL, &c));
  assert_int_equal(c->stop_id_count, 1);
  assert_int_equal(c->stop_ids[0], 200020);
  model_config_free(c);
  must(parse(null, NULL, &c));
  assert_int_equal(c->stop_id_count, 0);
  model_config_free(c);
  free(narrow), free(whole), free(large), free(absent), free(null);
}

static void test_caret(void **state) {
  (void)state;
  char *text = edited(base, "\"num_key_value_heads\": 2", "\"num_key_value_heads\": 0");
  model_config *c;
  sluice_status *status = parse(text, NULL, &c);
  char *report = sluice_status_format(status);
  assert_string_equal(report, "c.json:9:28: error: \"num_key_value_heads\" is 0, expected an integer from 1 to 1024\n"
                              "    \"num_key_value_heads\": 0,\n"
                              "                           ^\n");
  sluice_release(report);
  sluice_status_free(status);
  free(text);
}

static void test_warnings(void **state) {
  (void)state;
  static const refusal warnings[] = {
      {"\"rotary_dim\": 16,", "\"rotary_dim\": 16, \"rotery_dim\": 16,",
       "c.json:15:23: warning: unknown key \"rotery_dim\" in text_config is ignored; did you mean \"rotary_dim\"?\n"},
      {"\"torch_dtype\"", "\"flavour\": [1, {\"a\": null}], \"torch_dtype\"",
       "c.json:3:3: warning: unknown key \"flavour\" in config.json is ignored\n"},
      {"\"torch_dtype\"", "\"eos_token_id\": 9, \"torch_dtype\"",
       "c.json:3:19: warning: \"eos_token_id\" differs from that of text_config: this one counts, unless "
       "generation_config.json has one\n"},
      {"\"torch_dtype\"", "\"eos_token_id\": [2, 7], \"torch_dtype\"", ""},
      {"[2, 7]", "[2, 101]", "c.json:34:25: warning: stop id 101 is outside the vocabulary of 101 and is ignored\n"},
  };
  for (size_t i = 0; i < sizeof warnings / sizeof warnings[0]; i++) {
    char *text = edited(base, warnings[i].from, warnings[i].to);
    char *without_vision =
        edited(text, ",\n  \"vision_config\": {\"hidden_size\": 64, \"num_attention_heads\": 4}", "");
    model_config *c;
    said s = {0};
    must(parse(without_vision, &s, &c));
    assert_string_equal(s.text, warnings[i].expected);
    if (i == 4) assert_int_equal(c->stop_id_count, 1);
    model_config_free(c);
    free(without_vision);
    free(text);
  }
}

/* Every used key of the base with every wrong kind of value, removed, and doubled; and the file cut and damaged. */
static void check_malformed(const char *text, size_t length, int *refused, bool must_refuse) {
  model_config *c;
  sluice_status *status = model_config_parse(text, length, "c.json", NULL, NULL, &c);
  if (!status) {
    if (must_refuse) fail_msg("accepted: %.*s", (int)length, text);
    model_config_free(c);
    return;
  }
  ++*refused;
  sluice_code code = sluice_status_code(status);
  assert_true(code == SLUICE_INVALID || code == SLUICE_UNSUPPORTED);
  char *report = sluice_status_format(status);
  NEED(report, "out of memory");
  static const char file[] = "c.json:";
  assert_memory_equal(report, file, sizeof file - 1);
  char *end;
  unsigned long line = strtoul(report + sizeof file - 1, &end, 10);
  assert_true(*end == ':');
  unsigned long column = strtoul(end + 1, &end, 10);
  assert_memory_equal(end, ": error: ", 9);
  assert_true(line >= 1 && line <= 60 && column >= 1);
  sluice_release(report);
  sluice_status_free(status);
}

static void test_mutations(void **state) {
  (void)state;
  static const char *const wrong[] = {"\"x\"", "{}",  "-1",          "1e300", "0.3", "99999999999999",
                                      "[[]]",  "tru", "\"\\ud800\"", "1e999", "[1,]"};
  int refused = 0;
  for (const char *line = strchr(base, '\n') + 1; *line; line = strchr(line, '\n') + 1) {
    const char *colon = strchr(line, ':'), *end = strchr(line, '\n');
    if (!colon || colon > end || end[-1] == '{') continue;
    size_t comma = end[-1] == ',';
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
      char text[sizeof base + 64];
      int length = snprintf(text, sizeof text, "%.*s %s%s", (int)(colon + 1 - base), base, wrong[i], end - comma);
      /* the list holds values of every kind; a few of them are right somewhere */
      check_malformed(text, (size_t)length, &refused, i >= 7);
    }
    char text[2 * sizeof base];
    int length =
        snprintf(text, sizeof text, "%.*s%.*s,\n%s", (int)(line - base), base, (int)(end - comma - line), line, line);
    check_malformed(text, (size_t)length, &refused, true); /* the key twice */
  }
  assert_true(refused > 350);
  for (size_t length = 0; length + 2 < sizeof base - 1; length++) check_malformed(base, length, &refused, true);
  /* single damaged bytes, where an accepted text is one that is still valid */
  uint32_t random = 1;
  for (int i = 0; i < 4000; i++) {
    char text[sizeof base];
    memcpy(text, base, sizeof base);
    random = random * 1664525u + 1013904223u;
    text[(random >> 8) % (sizeof base - 1)] ^= (char)(1u << (random >> 29));
    check_malformed(text, sizeof base - 1, &refused, false);
  }
  assert_true(refused > 2500);
}

static void test_real_files(void **state) {
  (void)state;
  model_config *c;
  said s = {0};
  must(model_config_read(TEST_DATA "/configs/MiniMax-M3", collect, &s, &c));
  assert_int_equal(s.count, 1); /* vision */
  assert_int_equal(c->layers, 60);
  assert_int_equal(c->page, 128);
  assert_int_equal(c->max_positions, 1048576);
  for (int64_t i = 0; i < 60; i++) {
    assert_int_equal(c->layer[i].sparse_attention, i >= 3);
    assert_int_equal(c->layer[i].moe, i >= 3);
  }
  assert_int_equal(c->layer[59].experts, 128);
  assert_int_equal(c->layer[59].experts_per_token, 4);
  model_config_free(c);

  static const char *const flat[] = {"nano", "blocks", "m3-slice"};
  for (int i = 0; i < 3; i++) {
    char path[256];
    snprintf(path, sizeof path, TEST_DATA "/golden/%s/config.json", flat[i]);
    s = (said){0};
    must(model_config_read(path, collect, &s, &c));
    assert_int_equal(s.count, 1);
    assert_false(c->layer[0].sparse_attention || c->layer[0].moe);
    assert_true(c->layer[1].sparse_attention && c->layer[1].moe);
    assert_int_equal(c->stop_ids[0], 2);
    model_config_free(c);
  }
  sluice_status *status = model_config_read(TEST_DATA "/configs/MiniMax-M2", NULL, NULL, &c);
  assert_non_null(strstr(sluice_status_message(status), "\"model_type\" is \"minimax_m2\", supported are"));
  sluice_status_free(status);
  status = model_config_read(TEST_DATA "/configs/MiniMax-M3-MXFP8", NULL, NULL, &c);
  assert_non_null(
      strstr(sluice_status_message(status), "\"quantization_config\" is an object, supported is null alone"));
  sluice_status_free(status);
  status = model_config_read(TEST_DATA "/configs", NULL, NULL, &c);
  assert_int_equal(sluice_status_code(status), SLUICE_NOT_FOUND);
  sluice_status_free(status);
}

/* spec section 0.3: the released checkpoint's totals. */
static void test_tensor_totals(void **state) {
  (void)state;
  model_config *c;
  must(model_config_read(TEST_DATA "/configs/MiniMax-M3", NULL, NULL, &c));
  config_tensor *tensors;
  size_t count;
  must(model_config_tensors(c, &tensors, &count));
  int64_t parameters = 0, f32 = 0;
  for (size_t i = 0; i < count; i++) {
    parameters += tensors[i].shape[0] * (tensors[i].rank == 2 ? tensors[i].shape[1] : 1);
    f32 += tensors[i].dtype == SLUICE_F32;
  }
  assert_int_equal(parameters, 426174572928);
  assert_int_equal(f32, 114);
  /* 23,416 tensors in all; 523 of them belong to the vision tower (515), projector (4) and patch merge (4) */
  assert_int_equal(count, 23416 - 523);
  config_tensors_free(tensors, count);
  model_config_free(c);
}

static void test_tensor_names(void **state) {
  (void)state;
  static const char *const models[] = {"nano", "blocks", "m3-slice"};
  for (int m = 0; m < 2; m++) {
    char path[256];
    snprintf(path, sizeof path, TEST_DATA "/golden/%s", models[m]);
    model_config *c;
    must(model_config_read(path, NULL, NULL, &c));
    config_tensor *tensors;
    size_t count;
    must(model_config_tensors(c, &tensors, &count));
    snprintf(path, sizeof path, TEST_DATA "/golden/%s/synthetic.json", models[m]);
    sluice_json_document *document;
    must(sluice_json_parse_file(path, &document));
    const sluice_json_value *wanted = sluice_json_get(sluice_json_root(document), "tensors");
    assert_int_equal(wanted->length, count);
    for (size_t i = 0; i < count; i++) {
      const sluice_json_value *shape = sluice_json_get(wanted, tensors[i].name);
      NEED(shape, "%s is not in %s", tensors[i].name, path);
      assert_int_equal(shape->length, tensors[i].rank);
      for (unsigned j = 0; j < tensors[i].rank; j++) assert_int_equal(shape->items[j].integer, tensors[i].shape[j]);
    }
    sluice_json_free(document);
    config_tensors_free(tensors, count);
    model_config_free(c);
  }
}

/* The fuzzer's corpus: each file is accepted or refused with a place. */
static void test_corpus(void **state) {
  (void)state;
  DIR *directory = opendir(TEST_DATA "/fuzz/corpus/config");
  NEED(directory, "no corpus");
  int files = 0, accepted = 0;
  for (const struct dirent *entry; (entry = readdir(directory)); files++) {
    if (entry->d_name[0] == '.') {
      files--;
      continue;
    }
    char path[512];
    snprintf(path, sizeof path, TEST_DATA "/fuzz/corpus/config/%s", entry->d_name);
    model_config *c;
    sluice_status *status = model_config_read(path, NULL, NULL, &c);
    if (!status) {
      accepted++;
      model_config_free(c);
      continue;
    }
    assert_int_equal(sluice_exit_code(status), 1);
    char *report = sluice_status_format(status);
    NEED(report, "out of memory");
    assert_non_null(strstr(report, ": error: "));
    assert_non_null(strpbrk(report, "^"));
    sluice_release(report);
    sluice_status_free(status);
  }
  closedir(directory);
  assert_true(files >= 20 && accepted >= 5 && files - accepted >= 12);
}

/* docs/config.md lists exactly the keys of the tables. */
static void test_documentation(void **state) {
  (void)state;
  FILE *file = fopen(TEST_DATA "/../docs/config.md", "rb");
  NEED(file, "no docs/config.md");
  static char text[65536];
  size_t length = fread(text, 1, sizeof text - 1, file);
  fclose(file);
  assert_true(length < sizeof text - 1);
  const char *at = strstr(text, "\n## Keys\n");
  NEED(at, "no section 'Keys'");
  size_t rows = 0, wanted = 0;
  for (const char *row = at; (row = strstr(row, "\n| `")); row++) rows++;
  for (size_t i = 0; i < config_object_count; i++) {
    const config_object *object = config_objects[i];
    char line[512];
    snprintf(line, sizeof line, "\n### %s\n", object->name);
    at = strstr(at, line);
    NEED(at, "no section '%s'", object->name);
    for (size_t j = 0; j < object->count; j++, wanted++) {
      const config_key *key = &object->keys[j];
      static const char *const uses[] = {"used",        "ignored", "only `true`", "only `false`",
                                         "only `null`", NULL,      "only `1`"};
      char only[128];
      snprintf(only, sizeof only, "only `\"%s\"`", key->text ? key->text : "");
      snprintf(line, sizeof line, "\n| `%s` | %s | %s%s |\n", key->name, uses[key->use] ? uses[key->use] : only,
               key->use > CONFIG_IGNORED ? "otherwise: " : "", key->meaning);
      at = strstr(at, line);
      NEED(at, "docs/config.md lacks, or has elsewhere:%s", line);
    }
  }
  assert_int_equal(rows, wanted);
}

typedef struct countdown {
  long left;
} countdown;

static int fail_at_zero(void *user, size_t bytes) {
  (void)bytes;
  countdown *c = user;
  return c->left-- == 0;
}

static void test_out_of_memory(void **state) {
  (void)state;
  char *text = edited(base, "\"head_dim\"", "\"odd\": 1, \"head_dim\"");
  long n = 0;
  for (bool done = false; !done; n++) {
    size_t before = sluice_live_allocations();
    countdown c = {n};
    sluice_set_allocation_hook(fail_at_zero, &c);
    said s = {0};
    model_config *config;
    config_tensor *tensors = NULL;
    size_t count = 0;
    sluice_status *status = parse(text, &s, &config);
    if (!status) {
      status = model_config_tensors(config, &tensors, &count);
      config_tensors_free(tensors, count);
    }
    model_config_free(config);
    sluice_set_allocation_hook(NULL, NULL);
    done = c.left >= 0;
    if (done)
      must(status);
    else
      assert_int_equal(sluice_status_code(status), SLUICE_OUT_OF_MEMORY);
    sluice_status_free(status);
    assert_int_equal(sluice_live_allocations(), before);
  }
  assert_true(n > 50);
  free(text);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_base),          cmocka_unit_test(test_variants),      cmocka_unit_test(test_refusals),
      cmocka_unit_test(test_readings),      cmocka_unit_test(test_caret),         cmocka_unit_test(test_warnings),
      cmocka_unit_test(test_mutations),     cmocka_unit_test(test_real_files),    cmocka_unit_test(test_tensor_totals),
      cmocka_unit_test(test_tensor_names),  cmocka_unit_test(test_documentation), cmocka_unit_test(test_corpus),
      cmocka_unit_test(test_out_of_memory),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
