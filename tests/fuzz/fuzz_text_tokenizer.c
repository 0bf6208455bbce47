/* libFuzzer: tokenizer.json, and a text encoded with what was read and decoded again. */
#include "sluice/tokenizer.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t length);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t length) {
  static const char text[] = "The <x> e\xCC\x81 \xFF 1234 ]~b]\r\n\xF0\x9F\x98\x80";
  sluice_tokenizer *t = NULL;
  sluice_encoder *e = NULL;
  sluice_status *status = sluice_tokenizer_parse_json(length ? (const char *)data : "", length, "fuzz.json", &t);
  if (!status) status = sluice_encoder_create(t, &e);
  if (!status) {
    const sluice_encode_options options = {.added = SLUICE_ADDED_ALL, .post_process = true};
    const int32_t *ids;
    size_t count;
    status = sluice_encode(e, text, sizeof text - 1, &options, &ids, &count);
    if (!status) {
      sluice_decoder decoder = {.tokenizer = t};
      sluice_text out = {0};
      sluice_decode(&decoder, ids, count, &out);
      sluice_decode_finish(&decoder, &out);
      sluice_text_free(&out);
    }
  }
  sluice_status_free(status);
  sluice_encoder_free(e);
  sluice_tokenizer_close(t);
  return 0;
}
