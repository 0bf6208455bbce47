#include "runtime/text/tokenizer.h"
#include "runtime/text/utf8.h"

#include <string.h>

static void append_replacement(sluice_text *text) {
  sluice_text_append(text, UTF8_REPLACEMENT, strlen(UTF8_REPLACEMENT));
}

/* Takes bytes while a character is pending; returns how many. */
static size_t finish_pending(sluice_decoder *d, const unsigned char *bytes, size_t length, sluice_text *text) {
  size_t used = 0;
  while (d->pending_count && used < length) {
    d->pending[d->pending_count] = bytes[used];
    const utf8_step step = utf8_next(d->pending, (size_t)d->pending_count + 1);
    if (step.incomplete) {
      d->pending_count++;
      used++;
      continue;
    }
    if (step.valid) {
      sluice_text_append(text, (const char *)d->pending, step.length);
      used++;
    } else {
      append_replacement(text); /* for what was pending; the new byte is looked at afresh */
    }
    d->pending_count = 0;
  }
  return used;
}

static void decode_bytes(sluice_decoder *d, const unsigned char *bytes, size_t length, sluice_text *text) {
  for (size_t at = finish_pending(d, bytes, length, text); at < length;) {
    const size_t valid = utf8_valid_prefix(bytes + at, length - at);
    sluice_text_append(text, (const char *)bytes + at, valid);
    at += valid;
    if (at == length) break;
    const utf8_step step = utf8_next(bytes + at, length - at);
    if (step.incomplete) {
      memcpy(d->pending, bytes + at, step.length);
      d->pending_count = (unsigned char)step.length;
    } else {
      append_replacement(text);
    }
    at += step.length;
  }
}

void sluice_decode(sluice_decoder *decoder, const int32_t *ids, size_t count, sluice_text *text) {
  for (size_t i = 0; i < count; i++) {
    size_t length;
    const char *bytes = sluice_tokenizer_bytes(decoder->tokenizer, ids[i], &length);
    if (!bytes) continue;
    if (decoder->skip_special && sluice_tokenizer_is_special(decoder->tokenizer, ids[i])) continue;
    decode_bytes(decoder, (const unsigned char *)bytes, length, text);
  }
}

void sluice_decode_finish(sluice_decoder *decoder, sluice_text *text) {
  if (decoder->pending_count) append_replacement(text);
  decoder->pending_count = 0;
}
