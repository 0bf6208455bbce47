/* Malformed bundles, configurations and checkpoints, through the functions that the programs call: each is refused with
 * a message and exit code 1. tests/cli/malformed.sh sends a sample of them through the programs themselves. */
#include "compiler/model_config.h"
#include "sluice/memory.h"
#include "support/tiny_bundle.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

enum { SINGLE = 5, TENSORS = SINGLE + 2 * TINY_EXPERTS, SCRATCH = 16384 };

static char directory[] = "/tmp/sluice-malformed-XXXXXX";
static int refused; /* inputs so far */

/* Fails unless `status` is an error for exit code 1 whose report holds all of `words` (NULL: none to look for). */
static void must_refuse(sluice_status *status, const char *first, const char *second, const char *what) {
  if (!status) fail_msg("%s was accepted", what);
  char *report = sluice_status_format(status);
  assert_non_null(report);
  if (sluice_exit_code(status) != 1) fail_msg("%s: exit code %d: %s", what, sluice_exit_code(status), report);
  if (!strstr(report, "error: ") || strlen(sluice_status_message(status)) < 8) fail_msg("%s: '%s'", what, report);
  if ((first && !strstr(report, first)) || (second && !strstr(report, second)))
    fail_msg("%s: '%s' lacks '%s' or '%s'", what, report, first ? first : "", second ? second : "");
  sluice_release(report);
  sluice_status_free(status);
  refused++;
}

static void must(sluice_status *status) {
  sluice_status_print(status);
  assert_null(status);
}

static const char *path_of(const char *name) {
  static char paths[4][256];
  static int next;
  char *path = paths[next++ % 4];
  snprintf(path, sizeof paths[0], "%s/%s", directory, name);
  return path;
}

static void write_file(const char *name, const void *data, size_t length) {
  FILE *f = fopen(path_of(name), "wb");
  assert_non_null(f);
  assert_int_equal(fwrite(data, 1, length, f), length);
  assert_int_equal(fclose(f), 0);
}

/* ---- bundles ---- */

static void refuse_bundle(const void *data, size_t length, const char *what) {
  /* A copy of exactly this size, so that a sanitizer sees any byte read past it. */
  void *copy = sluice_allocate_aligned(64, length ? length : 1);
  assert_non_null(copy);
  memcpy(copy, data, length);
  sluice_bundle *bundle = NULL;
  must_refuse(sluice_bundle_open_memory(copy, length, "changed.sluice", &bundle), "changed.sluice", NULL, what);
  sluice_release(copy);
}

static void bundles(void **state) {
  (void)state;
  static const char code[64] = "\x7f"
                               "ELF";
  size_t length;
  unsigned char *bundle = tiny_bundle_bytes("host:x86-64", code, sizeof code, &length);
  char what[64];
  for (size_t cut = 0; cut < length; cut += cut < SLUICE_BUNDLE_PAGE ? 61 : 509) {
    snprintf(what, sizeof what, "a bundle cut to %zu bytes", cut);
    refuse_bundle(bundle, cut, what);
  }
  for (size_t bit = 0; bit < length * 8; bit += bit < SLUICE_BUNDLE_PAGE * 8 ? 67 : 331) {
    snprintf(what, sizeof what, "a bundle with bit %zu flipped", bit);
    bundle[bit / 8] ^= (unsigned char)(1u << bit % 8);
    refuse_bundle(bundle, length, what);
    bundle[bit / 8] ^= (unsigned char)(1u << bit % 8);
  }
  sluice_release(bundle);
}

/* Every 32-bit word of the plan in turn becomes hostile, and every prefix is tried: what is not refused must at least
 * not crash. */
static void plans(void **state) {
  (void)state;
  static const uint32_t hostile[] = {UINT32_MAX, 0x80000000u, 0x7fffffffu};
  size_t length;
  unsigned char *plan = tiny_plan(&length);
  int tried = 0, before = refused;
  for (size_t i = 0; i < length / 4; i++)
    for (size_t k = 0; k < sizeof hostile / sizeof *hostile; k++, tried++) {
      unsigned char *copy = sluice_allocate_aligned(64, length);
      assert_non_null(copy);
      memcpy(copy, plan, length);
      memcpy(copy + i * 4, &hostile[k], 4);
      sluice_plan opened;
      sluice_status *status = sluice_plan_open(copy, length, &opened);
      if (status) must_refuse(status, NULL, NULL, "a hostile word");
      sluice_release(copy);
    }
  assert_true(refused - before > tried / 3);
  for (size_t cut = 0; cut < length; cut += 13) {
    unsigned char *copy = sluice_allocate_aligned(64, cut ? cut : 1);
    assert_non_null(copy);
    memcpy(copy, plan, cut);
    sluice_plan opened;
    must_refuse(sluice_plan_open(copy, cut, &opened), NULL, NULL, "a plan cut short");
    sluice_release(copy);
  }
  sluice_release(plan);
}

/* ---- configurations ---- */

static void configurations(void **state) {
  (void)state;
  FILE *file = fopen(TEST_DATA "/golden/nano/config.json", "rb");
  assert_non_null(file);
  char text[SCRATCH], changed[SCRATCH], what[64];
  const size_t length = fread(text, 1, sizeof text, file);
  fclose(file);
  assert_true(length > 100 && length < sizeof text);
  model_config *config = NULL;
  must(model_config_parse(text, length, "config.json", NULL, NULL, &config));
  model_config_free(config);
  const size_t end = length - (text[length - 1] == '\n'); /* without its newline the file is still whole */
  for (size_t cut = 0; cut < end; cut += 5) {
    snprintf(what, sizeof what, "a config cut to %zu bytes", cut);
    must_refuse(model_config_parse(text, cut, "config.json", NULL, NULL, &config), "config.json:", NULL, what);
  }
  for (size_t i = 0; i < end; i++) { /* JSON cannot lose one of these */
    if (!strchr("{}[],:\"", text[i])) continue;
    memcpy(changed, text, i);
    memcpy(changed + i, text + i + 1, length - i - 1);
    snprintf(what, sizeof what, "a config without its byte %zu", i);
    must_refuse(model_config_parse(changed, length - 1, "config.json", NULL, NULL, &config), "config.json:", NULL,
                what);
  }
  for (size_t i = 0; i < end; i += 3) { /* nor hold one of these anywhere */
    memcpy(changed, text, length);
    changed[i] = i % 2 ? '\x01' : '\xff';
    snprintf(what, sizeof what, "a config with a bad byte %zu", i);
    must_refuse(model_config_parse(changed, length, "config.json", NULL, NULL, &config), "config.json:", NULL, what);
  }
}

/* ---- checkpoints ---- */

typedef struct tensor {
  char name[64];
  const char *dtype;
  int64_t rows, columns; /* rows 0: rank 1 */
  int64_t begin, end;
} tensor;

/* The tensors of the tiny model, one after another, in F32. */
static void tiny_tensors(tensor out[TENSORS]) {
  static const int64_t shapes[SINGLE][2] = {{0, 16}, {5, 7}, {4, 7}, {8, 50}, {9, 23}};
  static const char *const names[SINGLE] = {TINY_SCALE, TINY_PANELS_A, TINY_PANELS_B, TINY_WIDE, TINY_WIDE_F32};
  int64_t at = 0;
  for (int i = 0; i < TENSORS; i++) {
    tensor *t = &out[i];
    *t = (tensor){
        .dtype = "F32", .rows = i < SINGLE ? shapes[i][0] : 6, .columns = i < SINGLE ? shapes[i][1] : 5, .begin = at};
    if (i < SINGLE)
      snprintf(t->name, sizeof t->name, "%s", names[i]);
    else
      snprintf(t->name, sizeof t->name, "language_model.experts.%d.%s.weight", (i - SINGLE) / 2, i % 2 ? "gate" : "up");
    t->end = at += 4 * (t->rows ? t->rows : 1) * t->columns;
  }
}

/* Writes `count` tensors and `bytes` of zeros as NAME; returns the file's length. */
static size_t write_tensors(const char *name, const tensor *tensors, int count, int64_t bytes) {
  char file[SCRATCH] = {0};
  size_t used = 8;
  used += (size_t)snprintf(file + used, sizeof file - used, "{");
  for (int i = 0; i < count; i++) {
    char shape[64];
    if (tensors[i].rows)
      snprintf(shape, sizeof shape, "%lld,%lld", (long long)tensors[i].rows, (long long)tensors[i].columns);
    else
      snprintf(shape, sizeof shape, "%lld", (long long)tensors[i].columns);
    used += (size_t)snprintf(
        file + used, sizeof file - used, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%s],\"data_offsets\":[%lld,%lld]}",
        i ? "," : "", tensors[i].name, tensors[i].dtype, shape, (long long)tensors[i].begin, (long long)tensors[i].end);
  }
  used += (size_t)snprintf(file + used, sizeof file - used, "}");
  assert_true(used + (size_t)bytes < sizeof file);
  for (int i = 0; i < 8; i++) file[i] = (char)((used - 8) >> (8 * i));
  write_file(name, file, used + (size_t)bytes);
  return used + (size_t)bytes;
}

static sluice_status *load(sluice_model *model, const char *source) {
  sluice_checkpoint *checkpoint = NULL;
  SLUICE_TRY(sluice_checkpoint_open(source, &checkpoint));
  sluice_status *status = sluice_model_load(model, checkpoint, NULL, NULL);
  sluice_checkpoint_close(checkpoint);
  return status;
}

typedef enum damage {
  MISSING,
  RENAMED,
  MORE_ROWS,
  TRANSPOSED,
  OTHER_RANK,
  UNKNOWN_DTYPE,
  OTHER_DTYPE,
  LONGER_SHAPE,
  NEGATIVE_SHAPE,
  OVERFLOWING_SHAPE,
  OVERLAPPING,
  PAST_THE_END,
  REVERSED,
  NEGATIVE_OFFSET,
  TWICE,
  DAMAGES
} damage;

/* Tensor `at` of `tensors` is damaged; false where the damage does not apply. Offsets stay without holes when the shape
 * is what is wrong. */
static bool inflict(damage kind, tensor *tensors, int at, int *count, int64_t *bytes) {
  tensor *t = &tensors[at];
  int64_t grown = 0;
  switch (kind) {
  case MISSING: /* the last one takes its place, so that the data has no hole */
    for (int i = at + 1; i < *count; i++) {
      const int64_t size = tensors[i].end - tensors[i].begin;
      tensors[i].begin = i == at + 1 ? t->begin : tensors[i - 1].begin + (tensors[i - 1].end - tensors[i - 1].begin);
      tensors[i].end = tensors[i].begin + size;
    }
    *bytes -= t->rows ? t->rows * t->columns * 4 : t->columns * 4;
    memmove(t, t + 1, (size_t)(*count - at - 1) * sizeof *t);
    --*count;
    break;
  case RENAMED:
    t->name[strlen(t->name) - 1] = 'T';
    break;
  case MORE_ROWS:
    if (t->rows) t->rows++, grown = t->columns * 4;
    if (!t->rows) t->columns++, grown = 4;
    break;
  case TRANSPOSED: {
    if (!t->rows) return false;
    const int64_t rows = t->rows;
    t->rows = t->columns;
    t->columns = rows;
    break;
  }
  case OTHER_RANK:
    if (t->rows)
      t->columns *= t->rows, t->rows = 0;
    else
      t->rows = 1;
    break;
  case UNKNOWN_DTYPE:
    t->dtype = "Q4_K";
    break;
  case OTHER_DTYPE:
    t->dtype = "BF16";
    break; /* of half the size */
  case LONGER_SHAPE:
    t->columns += 1;
    break;
  case NEGATIVE_SHAPE:
    t->columns = -t->columns;
    break;
  case OVERFLOWING_SHAPE:
    t->rows = INT64_MAX / 2, t->columns = 8;
    break;
  case OVERLAPPING:
    if (at == 0) return false;
    t->begin -= 4, t->end -= 4;
    break;
  case PAST_THE_END:
    t->begin += *bytes, t->end += *bytes;
    break;
  case REVERSED: {
    const int64_t begin = t->begin;
    t->begin = t->end;
    t->end = begin;
    break;
  }
  case NEGATIVE_OFFSET:
    t->begin = -t->begin - 4;
    break;
  case TWICE:
    snprintf(t->name, sizeof t->name, "%s", tensors[at ? at - 1 : 1].name);
    break;
  case DAMAGES:
    return false;
  }
  t->end += grown;
  for (int i = at + 1; grown && i < *count; i++) tensors[i].begin += grown, tensors[i].end += grown;
  *bytes += grown;
  return true;
}

static void checkpoints(void **state) {
  (void)state;
  sluice_model *model = NULL;
  assert_int_equal(tiny_bundle_write(path_of("tiny.sluice")), 0);
  must(sluice_model_open(path_of("tiny.sluice"), NULL, &model));
  tensor tensors[TENSORS + 1];
  const char *file = "model.safetensors";
  for (int kind = 0; kind < DAMAGES; kind++)
    for (int at = 0; at < TENSORS; at++) {
      tiny_tensors(tensors);
      int count = TENSORS;
      int64_t bytes = tensors[TENSORS - 1].end;
      char name[sizeof tensors[0].name], what[96];
      memcpy(name, tensors[at].name, sizeof name);
      if (!inflict((damage)kind, tensors, at, &count, &bytes)) continue;
      if (kind == TWICE) memcpy(name, tensors[at].name, sizeof name);
      write_tensors(file, tensors, count, bytes);
      snprintf(what, sizeof what, "damage %d of %s", kind, name);
      /* Of two that overlap, either may be named. */
      must_refuse(load(model, kind == MISSING || kind == RENAMED ? directory : path_of(file)), directory,
                  kind == OVERLAPPING ? "language_model." : name, what);
    }

  /* A tensor too many, truncated files. */
  tiny_tensors(tensors);
  tensors[TENSORS] =
      (tensor){"language_model.extra.weight", "F32", 0, 1, tensors[TENSORS - 1].end, tensors[TENSORS - 1].end + 4};
  write_tensors(file, tensors, TENSORS + 1, tensors[TENSORS].end);
  must_refuse(load(model, path_of(file)), file, "language_model.extra.weight", "an extra tensor");
  const size_t length = write_tensors(file, tensors, TENSORS, tensors[TENSORS - 1].end);
  must(load(model, path_of(file)));
  for (size_t cut = length - 1; cut < length; cut = cut > 37 ? cut - 37 : SIZE_MAX) {
    assert_int_equal(truncate(path_of(file), (off_t)cut), 0);
    must_refuse(load(model, path_of(file)), file, NULL, "a truncated file");
  }
  unlink(path_of(file));

  /* Index files. `%s` is where the shard's name goes. */
  static const char *const shards[] = {"../model.safetensors",
                                       "/etc/passwd",
                                       "..",
                                       ".",
                                       "",
                                       "a/../b.safetensors",
                                       "sub/1.safetensors",
                                       "none.safetensors",
                                       "\\u0000",
                                       "1.safetensors\\u0000x",
                                       "a\\\\b",
                                       "1.safetensors/"};
  static const char *const indexes[] = {"",
                                        "[]",
                                        "{}",
                                        "{\"weight_map\":[]}",
                                        "{\"weight_map\":null}",
                                        "{\"weight_map\":{\"language_model.scale.weight\":1}}",
                                        "{\"weight_map\":{\"language_model.scale.weight\":null}}",
                                        "{\"weight_map\":{\"a\":\"1.safetensors\",\"a\":\"1.safetensors\"}}",
                                        "{\"weight_map\":{\"a\":\"1.safetensors\"}",
                                        "{\"weight_map\":{}}{}"};
  const char *index = "model.safetensors.index.json";
  write_tensors("1.safetensors", tensors, TENSORS, tensors[TENSORS - 1].end);
  for (size_t i = 0; i < sizeof shards / sizeof *shards; i++) {
    char text[256];
    snprintf(text, sizeof text, "{\"weight_map\":{\"%s\":\"%s\"}}", TINY_SCALE, shards[i]);
    write_file(index, text, strlen(text));
    must_refuse(load(model, directory), directory, strcmp(shards[i], "none.safetensors") == 0 ? shards[i] : TINY_SCALE,
                shards[i]);
  }
  for (size_t i = 0; i < sizeof indexes / sizeof *indexes; i++) {
    write_file(index, indexes[i], strlen(indexes[i]));
    must_refuse(load(model, directory), directory, NULL, indexes[i]);
  }
  unlink(path_of(index)), unlink(path_of("1.safetensors")), unlink(path_of("tiny.sluice"));
  sluice_model_close(model);
}

static void enough(void **state) {
  (void)state;
  print_message("%d malformed inputs refused\n", refused);
  assert_true(refused >= 500);
}

int main(void) {
  if (!mkdtemp(directory)) return 1;
  const struct CMUnitTest tests[] = {cmocka_unit_test(bundles), cmocka_unit_test(plans),
                                     cmocka_unit_test(configurations), cmocka_unit_test(checkpoints),
                                     cmocka_unit_test(enough)};
  const int failed = cmocka_run_group_tests(tests, NULL, NULL);
  rmdir(directory);
  return failed;
}
