/* Encodes and decodes what tests/oracle/tokenizers.py sends, for comparison with the `tokenizers` library.
 *
 * usage: text_oracle PATH [--time]
 * In, repeated:   u32 flags (bits 0-1: sluice_added_tokens, bit 2: post_process, bit 3: skip_special), u32 bytes, text
 * Out, each:      u32 count, i32 ids[count], u32 bytes, decoded text
 * Decodes all ids at once and one by one, and fails when the two differ. --time: prints seconds and bytes to stderr. */
#include "sluice/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static int fail(sluice_status *status) {
  sluice_status_print(status);
  sluice_status_free(status);
  return 1;
}

static void put(const void *data, size_t bytes) {
  if (bytes && fwrite(data, bytes, 1, stdout) != 1) exit(3);
}

static void put_size(size_t size) {
  const uint32_t word = (uint32_t)size;
  put(&word, sizeof word);
}

/* Decodes in both ways; exits when they differ. */
static void decode(const sluice_tokenizer *t, const int32_t *ids, size_t count, bool skip, sluice_text *text) {
  sluice_decoder whole = {.tokenizer = t, .skip_special = skip}, streamed = whole;
  sluice_text other = {0};
  text->length = 0;
  sluice_decode(&whole, ids, count, text);
  sluice_decode_finish(&whole, text);
  for (size_t i = 0; i < count; i++) sluice_decode(&streamed, ids + i, 1, &other);
  sluice_decode_finish(&streamed, &other);
  if (text->length != other.length || (other.length && memcmp(text->data, other.data, other.length) != 0)) {
    fputs("decoding at once and one by one differ\n", stderr);
    exit(4);
  }
  sluice_text_free(&other);
}

int main(int argc, char **argv) {
  if (argc < 2) return 2;
  const bool timed = argc > 2 && strcmp(argv[2], "--time") == 0;
  sluice_tokenizer *t = NULL;
  sluice_encoder *e = NULL;
  const double start = now();
  sluice_status *status = sluice_tokenizer_open(argv[1], &t);
  const double opened = now() - start;
  if (!status) status = sluice_encoder_create(t, &e);
  if (status) return fail(status);
  double encoding = 0;
  size_t total = 0, capacity = 0;
  char *text = NULL;
  sluice_text decoded = {0};
  for (uint32_t head[2]; fread(head, sizeof head, 1, stdin) == 1;) {
    if (head[1] >= capacity) text = realloc(text, capacity = 2 * (size_t)head[1] + 1);
    if (!text || (head[1] && fread(text, head[1], 1, stdin) != 1)) return 3;
    const sluice_encode_options options = {.added = (sluice_added_tokens)(head[0] & 3), .post_process = head[0] & 4};
    const int32_t *ids;
    size_t count;
    const double before = now();
    status = sluice_encode(e, text, head[1], &options, &ids, &count);
    if (status) return fail(status);
    encoding += now() - before;
    total += head[1];
    decode(t, ids, count, (head[0] & 8) != 0, &decoded);
    put_size(count);
    put(ids, count * sizeof *ids);
    put_size(decoded.length);
    put(decoded.data, decoded.length);
  }
  if (timed) fprintf(stderr, "open %.4f encode %.4f bytes %zu\n", opened, encoding, total);
  free(text);
  sluice_text_free(&decoded);
  sluice_encoder_free(e);
  sluice_tokenizer_close(t);
  return 0;
}
