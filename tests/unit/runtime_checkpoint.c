/* Safetensors files and checkpoints: what is read, and the hundreds of ways in which a file is refused. */
#include "sluice/checkpoint.h"
#include "sluice/json.h"
#include "sluice/memory.h"

#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char directory[] = "/tmp/sluice-checkpoint-XXXXXX";

static void must(sluice_status *status) {
  sluice_status_print(status);
  assert_null(status);
}

/* Fails unless `status` is an error whose report holds `part`. */
static void must_fail(sluice_status *status, const char *part) {
  assert_non_null(status);
  char *text = sluice_status_format(status);
  if (!strstr(text, part)) fail_msg("found '%s', expected it to hold '%s'", text, part);
  sluice_release(text);
  sluice_status_free(status);
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

/* A file with the given header text (its length word prepended) and `bytes` bytes of data. */
static size_t make(unsigned char *out, const char *header, size_t bytes) {
  size_t length = strlen(header);
  for (int i = 0; i < 8; i++) out[i] = (unsigned char)((uint64_t)length >> (8 * i));
  memcpy(out + 8, header, length);
  for (size_t i = 0; i < bytes; i++) out[8 + length + i] = (unsigned char)(i * 7);
  return 8 + length + bytes;
}

static const struct {
  const char *header;
  size_t bytes;
  const char *message; /* NULL: accepted */
} headers[] = {
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2,2],\"data_offsets\":[0,16]}}", 16, NULL},
    {"{\"__metadata__\":{\"k\":\"v\"},\"a\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]}}  ", 3, NULL},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]}}", 4, NULL},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[0,5],\"data_offsets\":[0,0]}}", 0, NULL},
    {"{\"a\":{\"dtype\":\"F64\",\"shape\":[1],\"data_offsets\":[0,8]}}", 8, NULL},
    {"{}", 0, NULL},
    {" {}", 0, "does not start with '{'"},
    {"[]", 0, "does not start with '{'"},
    {"{\"a\":1}", 0, "is not an object"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 4, "truncated"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 12, "4 bytes after the last tensor"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}}", 8,
     "has 8 bytes, but its dtype and shape need 12"},
    {"{\"a\":{\"dtype\":\"F33\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "unknown dtype 'F33'"},
    {"{\"a\":{\"dtype\":5,\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "no string \"dtype\""},
    {"{\"a\":{\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "no string \"dtype\""},
    {"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,8]}}", 8, "no array \"shape\""},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]}}", 8, "whole number >= 0"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2.0],\"data_offsets\":[0,8]}}", 8, "whole number >= 0"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904,8],\"data_offsets\":[0,8]}}", 8, "overflows"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,2],\"data_offsets\":[0,8]}}", 8, "more than 8 dimensions"},
    {"{\"a\":{\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,2]}}", 2, "no whole number of bytes"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2]}}", 8, "\"data_offsets\""},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]}}", 8, "\"data_offsets\""},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8,9]}}", 8, "\"data_offsets\""},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[-8,0]}}", 8, "\"data_offsets\""},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,9223372036854775807]}}", 8, "truncated"},
    {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8],\"x\":1}}", 8, "a key other than"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_"
     "offsets\":[1,3]}}",
     3, "overlap"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_"
     "offsets\":[3,5]}}",
     5, "hole of 1 bytes before tensor 'b'"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[1,3]}}", 3, "hole"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_"
     "offsets\":[1,2]}}",
     2, "stands twice"},
    {"{\"__metadata__\":{\"k\":1}}", 0, "not an object of strings"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}", 1, "found the end of the text"},
    {"{\"a\\u0000b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "NUL"},
    {"{\"__metadata__\\u0000\":{\"k\":\"v\"}}", 0, "NUL"},
    {"{\"a\":{\"dtype\":\"U8\\u0000\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1, "unknown dtype"},
    {"{\"a\\u001b[2J\\nb\":1}", 0, "tensor 'a?[2J b'"}, /* nothing that a terminal would obey */
};

static void header_checks(void **state) {
  (void)state;
  unsigned char buffer[1024];
  for (size_t i = 0; i < sizeof headers / sizeof *headers; i++) {
    size_t length = make(buffer, headers[i].header, headers[i].bytes);
    sluice_safetensors *file = NULL;
    sluice_status *status = sluice_safetensors_open_memory(buffer, length, "x.safetensors", &file);
    if (headers[i].message)
      must_fail(status, headers[i].message);
    else
      must(status);
    assert_true((file == NULL) == (headers[i].message != NULL));
    sluice_safetensors_close(file);
  }
}

/* All truncations, all single-bit changes of the first kilobyte, hostile length words. */
static void mutations(void **state) {
  (void)state;
  unsigned char buffer[512], original[512];
  size_t length = make(original, headers[1].header, headers[1].bytes), refused = 0, total = 0;
  for (size_t i = 0; i < length + length * 8 + 64; i++, total++) {
    memcpy(buffer, original, length);
    size_t cut = i < length ? i : length;
    if (i >= length && i < length * 9) buffer[(i - length) / 8] ^= (unsigned char)(1u << (i - length) % 8);
    if (i >= length * 9)
      memset(buffer, 0, 8), buffer[(i - length * 9) / 8] = (unsigned char)(1u << (i - length * 9) % 8);
    /* A copy of exactly this size, so that a sanitizer sees any byte read past it. */
    unsigned char *copy = malloc(cut ? cut : 1);
    assert_non_null(copy);
    memcpy(copy, buffer, cut);
    sluice_safetensors *file = NULL;
    sluice_status *status = sluice_safetensors_open_memory(copy, cut, "mutated", &file);
    assert_true((status == NULL) != (file == NULL));
    if (i < length) assert_non_null(status);
    refused += status != NULL;
    sluice_status_free(status);
    sluice_safetensors_close(file);
    free(copy);
  }
  assert_true(refused > total / 2);
}

static void round_trip(void **state) {
  (void)state;
  float f32[6] = {1, -2, 3.5f, 0.1f, 1e30f, -0.0f};
  uint16_t bf16[3] = {0x3f80, 0x4000, 0xc0a0}, f16[4] = {0x3c00, 0xc000, 0x0001, 0x7bff};
  sluice_tensor_info tensors[] = {{.name = "a.weight", .dtype = SLUICE_F32, .rank = 2, .shape = {2, 3}},
                                  {.name = "b.weight", .dtype = SLUICE_BF16, .rank = 1, .shape = {3}},
                                  {.name = "c \"quoted\"", .dtype = SLUICE_F16, .rank = 1, .shape = {4}}};
  const char *metadata[] = {"who", "test"};
  sluice_safetensors_writer *writer;
  must(sluice_safetensors_create(path_of("model.safetensors"), tensors, 3, metadata, 1, &writer));
  assert_true(access(path_of("model.safetensors"), F_OK) != 0);
  must(sluice_safetensors_append(writer, f32, sizeof f32));
  must(sluice_safetensors_append(writer, bf16, sizeof bf16));
  must(sluice_safetensors_append(writer, f16, sizeof f16));
  must(sluice_safetensors_finish(writer));

  sluice_checkpoint *c;
  must(sluice_checkpoint_open(directory, &c));
  assert_int_equal(sluice_checkpoint_tensor_count(c), 3);
  float found[6];
  must(sluice_checkpoint_read(c, "a.weight", (int64_t[]){2, 3}, 2, 1, 5, SLUICE_F32, false, found));
  assert_memory_equal(found, f32 + 1, 20);
  must(sluice_checkpoint_read(c, "b.weight", (int64_t[]){3}, 1, 0, 3, SLUICE_F32, false, found));
  assert_true(found[0] == 1 && found[1] == 2 && found[2] == -5);
  must(sluice_checkpoint_read(c, "c \"quoted\"", (int64_t[]){4}, 1, 0, 4, SLUICE_F32, false, found));
  assert_true(found[0] == 1 && found[1] == -2 && found[2] == 0x1p-24f && found[3] == 65504);
  uint16_t half[6];
  must(sluice_checkpoint_read(c, "a.weight", (int64_t[]){2, 3}, 2, 0, 6, SLUICE_BF16, true, half));
  assert_int_equal(half[3], sluice_bf16_from_f32(0.1f));
  must_fail(sluice_checkpoint_read(c, "a.weight", (int64_t[]){2, 3}, 2, 0, 6, SLUICE_BF16, false, half),
            "'a.weight' holds 0.1");
  must_fail(sluice_checkpoint_read(c, "a.weight", (int64_t[]){3, 2}, 2, 0, 6, SLUICE_F32, false, found),
            "'a.weight' has the shape [2, 3], expected [3, 2]");
  must_fail(sluice_checkpoint_read(c, "d.weight", (int64_t[]){3}, 1, 0, 3, SLUICE_F32, false, found),
            "'d.weight' is missing");
  sluice_checkpoint_close(c);
  must(sluice_safetensors_create(path_of("gone"), tensors, 3, NULL, 0, &writer));
  sluice_safetensors_abandon(writer);
  must(sluice_safetensors_create(path_of("gone"), tensors, 3, NULL, 0, &writer));
  must_fail(sluice_safetensors_finish(writer), "less data");
  assert_true(access(path_of("gone"), F_OK) != 0);
  unlink(path_of("model.safetensors"));
}

static const char shard_header[] = "{\"%s\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}";

static const struct {
  const char *index;
  const char *message;
} indexes[] = {
    {"{\"metadata\":{\"total_size\":2},\"weight_map\":{\"a\":\"1.safetensors\",\"b\":\"2.safetensors\"}}", NULL},
    {"{\"metadata\":{}}", "no object \"weight_map\""},
    {"{\"weight_map\":[]}", "no object \"weight_map\""},
    {"{\"weight_map\":{\"a\":\"1.safetensors\",\"b\":3}}", "expected the name of a shard"},
    {"{\"weight_map\":{\"a\":\"../1.safetensors\"}}", "'../1.safetensors' is no plain file name"},
    {"{\"weight_map\":{\"a\":\"/etc/passwd\"}}", "is no plain file name"},
    {"{\"weight_map\":{\"a\":\"x\\\\1\"}}", "is no plain file name"},
    {"{\"weight_map\":{\"a\":\"..\"}}", "is no plain file name"},
    {"{\"weight_map\":{\"a\":\"\"}}", "is no plain file name"},
    {"{\"weight_map\":{\"a\":\"3.safetensors\"}}", "3.safetensors"},
    {"{\"weight_map\":{\"a\":\"2.safetensors\",\"b\":\"1.safetensors\"}}", NULL}, /* swapped: both are there */
    {"{\"weight_map\":{\"a\":\"1.safetensors\",\"c\":\"2.safetensors\"}}", NULL}, /* nobody asks for c */
    {"{\"weight_map\":{\"a\":\"1.safetensors\",\"a\":\"2.safetensors\"}}", "stands twice"},
    {"{\"weight_map\":{\"a\":\"1.safetensors\"}}", NULL},
    {"{\"weight_map\":{\"a\":\"1.safetensors\",\"c\":\"none.safetensors\"}}", NULL},
    {"{\"weight_map\":{\"c\":\"none.safetensors\"}}", "none.safetensors: No such file"},
};

static void index_checks(void **state) {
  (void)state;
  unsigned char buffer[256];
  char header[128];
  for (int i = 1; i <= 2; i++) {
    char name[32];
    snprintf(header, sizeof header, shard_header, i == 1 ? "a" : "b");
    snprintf(name, sizeof name, "%d.safetensors", i);
    write_file(name, buffer, make(buffer, header, 1));
  }
  for (size_t i = 0; i < sizeof indexes / sizeof *indexes; i++) {
    write_file("model.safetensors.index.json", indexes[i].index, strlen(indexes[i].index));
    sluice_checkpoint *c = NULL;
    sluice_status *status = sluice_checkpoint_open(directory, &c);
    if (indexes[i].message)
      must_fail(status, indexes[i].message);
    else
      must(status);
    sluice_checkpoint_close(c);
  }
  /* What the index promises of a tensor that is not there. */
  const char *promise = "{\"weight_map\":{\"a\":\"1.safetensors\",\"c\":\"2.safetensors\",\"d\":\"none.safetensors\"}}";
  write_file("model.safetensors.index.json", promise, strlen(promise));
  sluice_checkpoint *promising = NULL;
  must(sluice_checkpoint_open(directory, &promising));
  const char *problem = "";
  assert_non_null(strstr(sluice_checkpoint_promised(promising, "c", &problem), "/2.safetensors"));
  assert_null(problem);
  assert_non_null(strstr(sluice_checkpoint_promised(promising, "d", &problem), "/none.safetensors"));
  assert_non_null(strstr(problem, "No such file"));
  assert_null(sluice_checkpoint_promised(promising, "a", &problem));
  assert_null(sluice_checkpoint_promised(promising, "e", &problem));
  sluice_checkpoint_close(promising);
  /* A shard with a tensor that the index does not name: it is there all the same. */
  size_t length = make(buffer,
                       "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},\"z\":{\"dtype\":\"U8\","
                       "\"shape\":[1],\"data_offsets\":[1,2]}}",
                       2);
  write_file("1.safetensors", buffer, length);
  sluice_checkpoint *c = NULL;
  must(sluice_checkpoint_open(directory, &c));
  assert_non_null(sluice_checkpoint_find(c, "z"));
  sluice_checkpoint_close(c);
  /* In both shards: the index decides; one that it does not name is in doubt. */
  const char *both = "{\"weight_map\":{\"a\":\"2.safetensors\",\"b\":\"1.safetensors\"}}";
  write_file("model.safetensors.index.json", both, strlen(both));
  length = make(buffer,
                "{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},\"b\":{\"dtype\":\"U8\","
                "\"shape\":[1],\"data_offsets\":[1,2]}}",
                2);
  write_file("1.safetensors", buffer, length);
  write_file("2.safetensors", buffer, length);
  must(sluice_checkpoint_open(directory, &c));
  assert_non_null(strstr(sluice_checkpoint_find(c, "a")->file, "/2.safetensors"));
  assert_non_null(strstr(sluice_checkpoint_find(c, "b")->file, "/1.safetensors"));
  sluice_checkpoint_close(c);
  both = "{\"weight_map\":{\"a\":\"2.safetensors\",\"x\":\"1.safetensors\"}}";
  write_file("model.safetensors.index.json", both, strlen(both));
  must_fail(sluice_checkpoint_open(directory, &c), "tensor 'b' is in both");
  /* A dtype that is no weight's. */
  snprintf(header, sizeof header, shard_header, "a");
  write_file("1.safetensors", buffer, make(buffer, header, 1));
  must(sluice_checkpoint_open(path_of("1.safetensors"), &c));
  float value[2];
  must_fail(sluice_checkpoint_read(c, "a", (int64_t[]){1}, 1, 0, 1, SLUICE_F32, false, value), "dtype U8");
  sluice_checkpoint_close(c);
  /* A shard that is cut off after it was opened: an error, with and without conversion, and no signal. */
  length = make(buffer, "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8);
  write_file("1.safetensors", buffer, length);
  must(sluice_checkpoint_open(path_of("1.safetensors"), &c));
  assert_int_equal(truncate(path_of("1.safetensors"), (off_t)length - 1), 0);
  for (int as = SLUICE_F32; as <= SLUICE_BF16; as++)
    must_fail(sluice_checkpoint_read(c, "a", (int64_t[]){2}, 1, 0, 2, (sluice_dtype)as, true, value), "become shorter");
  must_fail(sluice_checkpoint_read(c, "a", (int64_t[]){2}, 1, 0, 2, SLUICE_I32, true, value), "cannot be read as I32");
  must_fail(sluice_checkpoint_read(c, "a", (int64_t[]){2}, 1, 2, 1, SLUICE_F32, true, value), "past the end");
  sluice_checkpoint_close(c);
  /* A pipe that nobody writes to does not hang. */
  unlink(path_of("1.safetensors"));
  assert_int_equal(mkfifo(path_of("1.safetensors"), 0600), 0);
  must_fail(sluice_checkpoint_open(path_of("1.safetensors"), &c), "not a regular file");
  sluice_safetensors *whole;
  must_fail(sluice_safetensors_open(path_of("1.safetensors"), &whole), "not a regular file");
  sluice_json_document *document;
  must_fail(sluice_json_parse_file(path_of("1.safetensors"), &document), "not a regular file");
  unlink(path_of("1.safetensors")), unlink(path_of("2.safetensors")), unlink(path_of("model.safetensors.index.json"));
  must_fail(sluice_checkpoint_open(directory, &c), "neither model.safetensors.index.json nor model.safetensors");
  must_fail(sluice_checkpoint_open(path_of("nothing"), &c), "No such file");
  must_fail(sluice_checkpoint_open("synthetic:x", &c), "the seed must be a whole number");
  must_fail(sluice_checkpoint_open("synthetic:-1", &c), "the seed must be a whole number");
  must_fail(sluice_checkpoint_open("synthetic:18446744073709551616", &c), "the seed must be a whole number");
}

/* Each writer has a temporary file of its own, and leaves none. */
static void temporary_files(void **state) {
  (void)state;
  const sluice_tensor_info tensor = {.name = "a", .dtype = SLUICE_U8, .rank = 1, .shape = {1}};
  sluice_safetensors_writer *first, *second;
  must(sluice_safetensors_create(path_of("out"), &tensor, 1, NULL, 0, &first));
  must(sluice_safetensors_create(path_of("out"), &tensor, 1, NULL, 0, &second));
  must(sluice_safetensors_append(first, "1", 1));
  must(sluice_safetensors_append(second, "2", 1));
  must_fail(sluice_safetensors_append(second, "3", 1), "more data");
  must(sluice_safetensors_finish(first));
  sluice_safetensors *file;
  must(sluice_safetensors_open(path_of("out"), &file));
  assert_int_equal(truncate(path_of("out"), 0), 0); /* while it is open: it has been read */
  assert_memory_equal(sluice_safetensors_data(file, sluice_safetensors_find(file, "a")), "1", 1);
  sluice_safetensors_close(file);
  sluice_safetensors_abandon(second);

  const sluice_tensor_info invalid[] = {
      {.name = "a", .dtype = SLUICE_F32, .rank = 2, .shape = {INT64_MAX, INT64_MAX}},
      {.name = "a", .dtype = SLUICE_F32, .rank = 1, .shape = {-1}},
      {.name = "a", .dtype = (sluice_dtype)99, .rank = 1, .shape = {1}},
      {.name = "a", .dtype = SLUICE_F32, .rank = SLUICE_MAX_RANK + 1},
  };
  for (size_t i = 0; i < sizeof invalid / sizeof *invalid; i++)
    must_fail(sluice_safetensors_create(path_of("out"), &invalid[i], 1, NULL, 0, &first), "no valid dtype and shape");
  must_fail(sluice_safetensors_create(path_of("none/out"), &tensor, 1, NULL, 0, &first), "cannot be created");
  unlink(path_of("out"));
  assert_int_equal(rmdir(directory), 0); /* nothing else was left in it */
  assert_int_equal(mkdir(directory, 0700), 0);
}

/* Writes two shards and their index, opens them, reads from both, opens one whole. */
static sluice_status *write_and_read(void) {
  const sluice_tensor_info tensors[] = {{.name = "a", .dtype = SLUICE_F32, .rank = 1, .shape = {2}},
                                        {.name = "b", .dtype = SLUICE_BF16, .rank = 1, .shape = {4}}};
  const char *const names[] = {"1.safetensors", "2.safetensors"}, *const metadata[] = {"key", "value"};
  const float values[2] = {1, 2};
  for (int i = 0; i < 2; i++) {
    sluice_safetensors_writer *writer;
    SLUICE_TRY(sluice_safetensors_create(path_of(names[i]), &tensors[i], 1, metadata, 1, &writer));
    sluice_status *status = sluice_safetensors_append(writer, values, sizeof values);
    if (!status) {
      SLUICE_TRY(sluice_safetensors_finish(writer));
      continue;
    }
    sluice_safetensors_abandon(writer);
    return status;
  }
  sluice_checkpoint *c;
  sluice_safetensors *file;
  float found[4];
  SLUICE_TRY(sluice_checkpoint_open(directory, &c));
  sluice_status *status = sluice_checkpoint_read(c, "a", (int64_t[]){2}, 1, 0, 2, SLUICE_BF16, false, found);
  if (!status) status = sluice_checkpoint_read(c, "b", (int64_t[]){4}, 1, 0, 4, SLUICE_F32, false, found);
  sluice_checkpoint_close(c);
  SLUICE_TRY(status);
  SLUICE_TRY(sluice_checkpoint_open("synthetic:7", &c));
  status = sluice_checkpoint_read(c, "x", (int64_t[]){4}, 1, 0, 4, SLUICE_F32, false, found);
  sluice_checkpoint_close(c);
  SLUICE_TRY(status);
  SLUICE_TRY(sluice_safetensors_open(path_of(names[0]), &file));
  sluice_safetensors_close(file);
  return NULL;
}

static int fail_at(void *user, size_t bytes) {
  (void)bytes;
  return (*(long *)user)-- == 0;
}

static void memory(void **state) {
  (void)state;
  static const char index[] = "{\"weight_map\":{\"a\":\"1.safetensors\",\"b\":\"2.safetensors\"}}";
  write_file("model.safetensors.index.json", index, sizeof index - 1);
  long n = 0;
  for (bool done = false; !done; n++) {
    const size_t before = sluice_live_allocations();
    long left = n;
    sluice_set_allocation_hook(fail_at, &left);
    sluice_status *status = write_and_read();
    sluice_set_allocation_hook(NULL, NULL);
    done = left >= 0; /* no allocation was the Nth */
    assert_int_equal(sluice_status_code(status), done ? SLUICE_OK : SLUICE_OUT_OF_MEMORY);
    sluice_status_free(status);
    assert_int_equal(sluice_live_allocations(), before);
  }
  assert_true(n > 40);
  unlink(path_of("1.safetensors")), unlink(path_of("2.safetensors")), unlink(path_of("model.safetensors.index.json"));
  assert_int_equal(rmdir(directory), 0); /* no temporary file was left */
  assert_int_equal(mkdir(directory, 0700), 0);
}

/* Threads that read different parts of one tensor through one checkpoint. */
enum { READERS = 4, PART = 40000 };

typedef struct reader {
  const sluice_checkpoint *checkpoint;
  uint64_t first;
  sluice_status *status;
  float values[PART];
} reader;

static void *read_part(void *argument) {
  reader *r = argument;
  r->status = sluice_checkpoint_read(r->checkpoint, "w", (int64_t[]){READERS * PART}, 1, r->first, PART, SLUICE_F32,
                                     false, r->values);
  return NULL;
}

static void threads(void **state) {
  (void)state;
  static reader readers[READERS];
  static uint16_t expected[READERS * PART];
  const sluice_tensor_info tensor = {.name = "w", .dtype = SLUICE_BF16, .rank = 1, .shape = {READERS * PART}};
  sluice_synthetic_fill("w", 5, READERS * PART, 0, READERS * PART, expected);
  sluice_safetensors_writer *writer;
  must(sluice_safetensors_create(path_of("model.safetensors"), &tensor, 1, NULL, 0, &writer));
  must(sluice_safetensors_append(writer, expected, sizeof expected));
  must(sluice_safetensors_finish(writer));
  const char *sources[] = {directory, "synthetic:5"};
  for (size_t s = 0; s < 2; s++) {
    sluice_checkpoint *c;
    pthread_t ids[READERS];
    must(sluice_checkpoint_open(sources[s], &c));
    for (uint64_t i = 0; i < READERS; i++) {
      readers[i].checkpoint = c;
      readers[i].first = i * PART;
      assert_int_equal(pthread_create(&ids[i], NULL, read_part, &readers[i]), 0);
    }
    for (size_t i = 0; i < READERS; i++) {
      assert_int_equal(pthread_join(ids[i], NULL), 0);
      must(readers[i].status);
      for (size_t k = 0; k < PART; k++)
        if (readers[i].values[k] != sluice_f32_from_bf16(expected[i * PART + k]))
          fail_msg("%s: element %zu of part %zu differs", sources[s], k, i);
    }
    sluice_checkpoint_close(c);
  }
  unlink(path_of("model.safetensors"));
}

/* The sample values of the specification of synthetic checkpoints. */
static void synthetic(void **state) {
  (void)state;
  static const struct {
    const char *model;
    uint64_t seed;
  } models[] = {{"nano", 1}, {"m3-slice", 3}};
  sluice_json_document *samples;
  must(sluice_json_parse_file(TEST_DATA "/data/synthetic-check.json", &samples));
  int checked = 0;
  for (size_t m = 0; m < 2; m++) {
    const sluice_json_value *model = sluice_json_get(sluice_json_root(samples), models[m].model);
    assert_non_null(model);
    for (size_t i = 0; i < model->length; i++, checked++) {
      const char *name = model->members[i].key;
      const sluice_json_value *shape = sluice_json_get(&model->members[i].value, "shape"),
                              *first = sluice_json_get(&model->members[i].value, "first"),
                              *last = sluice_json_get(&model->members[i].value, "last");
      uint64_t count = 1;
      for (size_t d = 0; d < shape->length; d++) count *= (uint64_t)shape->items[d].integer;
      uint16_t found[4];
      int64_t columns = shape->items[shape->length - 1].integer;
      sluice_synthetic_fill(name, models[m].seed, columns, 0, 4, found);
      for (size_t k = 0; k < 4; k++) assert_true((double)sluice_f32_from_bf16(found[k]) == first->items[k].number);
      sluice_synthetic_fill(name, models[m].seed, columns, count - 1, 1, found);
      assert_true((double)sluice_f32_from_bf16(found[0]) == last->number);
    }
  }
  assert_true(checked >= 10);
  sluice_json_free(samples);
  sluice_checkpoint *c;
  uint16_t element;
  must(sluice_checkpoint_open("synthetic:1", &c));
  must_fail(sluice_checkpoint_read(c, "x", NULL, 0, 0, 1, SLUICE_BF16, false, &element), "last dimension");
  must_fail(sluice_checkpoint_read(c, "x", (int64_t[]){4, 0}, 2, 0, 1, SLUICE_BF16, false, &element), "last dimension");
  sluice_checkpoint_close(c);
  assert_true(sluice_synthetic_is_f32("x.block_sparse_moe.gate.weight"));
  assert_false(sluice_synthetic_is_f32("x.mlp.gate_proj.weight"));
}

static void conversions(void **state) {
  (void)state;
  for (uint32_t h = 0; h < 65536; h++) {
    float value = sluice_f32_from_f16((uint16_t)h);
    if (value == value)
      assert_int_equal(sluice_f16_from_f32(value), h);
    else
      assert_true((sluice_f16_from_f32(value) & 0x7c00) == 0x7c00 && (sluice_f16_from_f32(value) & 0x3ff));
    float wide = sluice_f32_from_bf16((uint16_t)h);
    if (wide == wide)
      assert_int_equal(sluice_bf16_from_f32(wide), h);
    else
      assert_true(isnan(sluice_f32_from_bf16(sluice_bf16_from_f32(wide))));
  }
  assert_int_equal(sluice_bf16_from_f32(1.00390625f), 0x3f80); /* halfway: to even */
  assert_int_equal(sluice_bf16_from_f32(1.01171875f), 0x3f82);
  assert_int_equal(sluice_f16_from_f32(65519.996f), 0x7bff);
  assert_int_equal(sluice_f16_from_f32(65520), 0x7c00);
}

int main(void) {
  if (!mkdtemp(directory)) return 1;
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(header_checks), cmocka_unit_test(mutations),       cmocka_unit_test(round_trip),
      cmocka_unit_test(index_checks),  cmocka_unit_test(temporary_files), cmocka_unit_test(memory),
      cmocka_unit_test(threads),       cmocka_unit_test(synthetic),       cmocka_unit_test(conversions)};
  int failed = cmocka_run_group_tests(tests, NULL, NULL);
  rmdir(directory);
  return failed;
}
