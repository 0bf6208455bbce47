#include "runtime/text/tokenizer.h"

#include "sluice/memory.h"

#include <string.h>

sluice_tokenizer *tokenizer_new(void) {
  return sluice_allocate(sizeof(sluice_tokenizer));
}

void sluice_tokenizer_close(sluice_tokenizer *tokenizer) {
  if (!tokenizer) return;
  vocabulary_free(&tokenizer->vocabulary);
  for (size_t i = 0; i < tokenizer->split_count; i++) pcre2_code_free(tokenizer->splits[i].code);
  sluice_release(tokenizer->splits);
  added_tokens_free(&tokenizer->added);
  sluice_release(tokenizer->before);
  sluice_release(tokenizer->after);
  sluice_release(tokenizer);
}

sluice_status *tokenizer_add_split(sluice_tokenizer *t, const split_step *step) {
  if (t->split_count == TOKENIZER_MAX_SPLITS)
    return sluice_error(SLUICE_UNSUPPORTED, "the pre-tokenizer has more than %d splits", TOKENIZER_MAX_SPLITS);
  split_step *grown = sluice_reallocate_array(t->splits, t->split_count + 1, sizeof *grown);
  if (!grown) return sluice_out_of_memory();
  t->splits = grown;
  t->splits[t->split_count++] = *step;
  return NULL;
}

sluice_status *tokenizer_finish(sluice_tokenizer *t, const char *file) {
  for (int byte = 0; byte < 256; byte++)
    if (t->vocabulary.byte_ids[byte] < 0)
      return sluice_error(SLUICE_UNSUPPORTED,
                          "%s: no token is the byte 0x%02x; expected a byte-level vocabulary, in which each of the 256 "
                          "bytes is a token",
                          file, byte);
  for (size_t i = 0; i < t->added.count; i++) {
    const added_token *token = &t->added.tokens[i];
    SLUICE_TRY(vocabulary_set(&t->vocabulary, token->id, token->content, token->length, false));
  }
  return sluice_annotate(added_tokens_finish(&t->added, t->nfc), "%s", file);
}

int32_t sluice_tokenizer_size(const sluice_tokenizer *tokenizer) {
  return tokenizer->vocabulary.size;
}

const char *sluice_tokenizer_bytes(const sluice_tokenizer *tokenizer, int32_t id, size_t *out_length) {
  const vocabulary *v = &tokenizer->vocabulary;
  *out_length = 0;
  if (id < 0 || id >= v->size || v->tokens[id].length == VOCABULARY_ABSENT) return NULL;
  *out_length = v->tokens[id].length;
  return v->bytes + v->tokens[id].start;
}

int32_t sluice_tokenizer_added_id(const sluice_tokenizer *tokenizer, const char *content) {
  const size_t length = strlen(content);
  for (size_t i = 0; i < tokenizer->added.count; i++) {
    size_t bytes;
    const int32_t id = tokenizer->added.tokens[i].id;
    const char *text = sluice_tokenizer_bytes(tokenizer, id, &bytes);
    if (bytes == length && memcmp(text, content, length) == 0) return id;
  }
  return -1;
}

bool sluice_tokenizer_is_added(const sluice_tokenizer *tokenizer, int32_t id) {
  return added_tokens_of_id(&tokenizer->added, id) != NULL;
}

bool sluice_tokenizer_is_special(const sluice_tokenizer *tokenizer, int32_t id) {
  const added_token *token = added_tokens_of_id(&tokenizer->added, id);
  return token && token->special;
}
