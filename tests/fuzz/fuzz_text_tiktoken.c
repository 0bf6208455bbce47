/* libFuzzer: tiktoken files. The 256 bytes come before the input, so that short ones are whole vocabularies. */
#include "sluice/tokenizer.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t length);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t length) {
  static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  sluice_text file = {0};
  for (unsigned byte = 0; byte < 256; byte++)
    sluice_text_printf(&file, "%c%c== %u\n", digits[byte >> 2], digits[(byte & 3) << 4], byte);
  if (length) sluice_text_append(&file, (const char *)data, length);
  sluice_tokenizer *t = NULL;
  sluice_encoder *e = NULL;
  sluice_status *status = sluice_tokenizer_parse_tiktoken(file.data, file.length, "fuzz.tiktoken", NULL, &t);
  if (!status) status = sluice_encoder_create(t, &e);
  if (!status) {
    const int32_t *ids;
    size_t count;
    status = sluice_encode(e, file.data, file.length < 4096 ? file.length : 4096, NULL, &ids, &count);
  }
  sluice_status_free(status);
  sluice_encoder_free(e);
  sluice_tokenizer_close(t);
  sluice_text_free(&file);
  return 0;
}
