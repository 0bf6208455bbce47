/* Text to ids:
 *
 *     bytes -> valid UTF-8 -> added tokens looked for in the text as it is
 *           -> each stretch between them: NFC -> added tokens looked for after normalisation
 *           -> each stretch between them: pieces -> byte-pair encoding
 */
#include "runtime/text/bpe.h"
#include "runtime/text/later_characters.h"
#include "runtime/text/nfc.h"
#include "runtime/text/tokenizer.h"
#include "runtime/text/utf8.h"
#include "sluice/memory.h"

#include <string.h>

struct sluice_encoder {
  const sluice_tokenizer *tokenizer;
  split_scratch split;
  bpe_scratch bpe;
  int32_t *ids;
  size_t count, capacity;
  sluice_text valid;  /* the text when it was not valid UTF-8 */
  sluice_span *spans; /* the caller's plain parts, moved with it; [span_capacity] */
  size_t span_capacity;
  sluice_text normalized;     /* of one stretch */
  sluice_text known;          /* of one stretch, what the expressions are matched with */
  const char *matched, *text; /* the stretch that is matched, and the text that it stands for */
};

sluice_status *sluice_encoder_create(const sluice_tokenizer *tokenizer, sluice_encoder **out_encoder) {
  sluice_encoder *e = sluice_allocate(sizeof *e);
  if (!e) return sluice_out_of_memory();
  e->tokenizer = tokenizer;
  sluice_status *status = split_scratch_create(&e->split);
  if (!status) status = bpe_scratch_create(&tokenizer->vocabulary, &e->bpe);
  if (status)
    sluice_encoder_free(e);
  else
    *out_encoder = e;
  return status;
}

void sluice_encoder_free(sluice_encoder *encoder) {
  if (!encoder) return;
  split_scratch_free(&encoder->split);
  bpe_scratch_free(&encoder->bpe);
  sluice_release(encoder->ids);
  sluice_text_free(&encoder->valid);
  sluice_release(encoder->spans);
  sluice_text_free(&encoder->normalized);
  sluice_text_free(&encoder->known);
  sluice_release(encoder);
}

static sluice_status *reserve_ids(sluice_encoder *e, size_t more) {
  if (e->capacity - e->count >= more) return NULL;
  size_t capacity = e->capacity ? e->capacity : 1024;
  while (capacity - e->count < more) capacity *= 2;
  int32_t *grown = sluice_reallocate_array(e->ids, capacity, sizeof *grown);
  if (!grown) return sluice_out_of_memory();
  e->ids = grown;
  e->capacity = capacity;
  return NULL;
}

static sluice_status *append_ids(sluice_encoder *e, const int32_t *ids, size_t count) {
  SLUICE_TRY(reserve_ids(e, count));
  if (count) memcpy(e->ids + e->count, ids, count * sizeof *ids);
  e->count += count;
  return NULL;
}

static sluice_status *encode_piece(void *user, const char *piece, size_t length) {
  sluice_encoder *e = user;
  size_t count = 0;
  SLUICE_TRY(reserve_ids(e, length));
  SLUICE_TRY(bpe_encode(&e->tokenizer->vocabulary, e->tokenizer->ignore_merges, &e->bpe, e->text + (piece - e->matched),
                        length, e->ids + e->count, &count));
  e->count += count;
  return NULL;
}

static sluice_status *encode_pieces(sluice_encoder *e, const char *text, size_t length) {
  e->text = e->matched = text;
  if (later_characters_replace(text, length, &e->known)) {
    if (e->known.failed) return sluice_out_of_memory();
    e->matched = e->known.data;
  }
  return split_text(e->tokenizer->splits, e->tokenizer->split_count, &e->split, e->matched, length, encode_piece, e);
}

/* ---- Added tokens ---- */

/* A stretch of text in which added tokens are looked for. */
typedef struct stretch {
  const char *text;
  size_t length;
  const sluice_span *plain; /* from the first that may touch what is left of the stretch */
  size_t plain_count;
  size_t offset; /* of the stretch in the text that the spans are of */
} stretch;

static bool is_space(uint32_t c) {
  return (c >= 9 && c <= 13) || c == ' ' || c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) ||
         c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

/* Where the white space that ends at `at` begins, not before `least`. */
static size_t spaces_before(const char *text, size_t least, size_t at) {
  while (at > least) {
    size_t start = at - 1;
    while (start > least && ((unsigned char)text[start] & 0xC0) == 0x80) start--;
    if (!is_space(utf8_next((const unsigned char *)text + start, at - start).code_point)) break;
    at = start;
  }
  return at;
}

static size_t spaces_after(const char *text, size_t length, size_t at) {
  while (at < length) {
    const utf8_step step = utf8_next((const unsigned char *)text + at, length - at);
    if (!is_space(step.code_point)) break;
    at += step.length;
  }
  return at;
}

/* Whether none of the bytes [start, end) of the stretch is in a plain part. Starts only ascend. */
static bool is_free(stretch *s, size_t start, size_t end) {
  start += s->offset, end += s->offset;
  while (s->plain_count && s->plain->end <= start) s->plain++, s->plain_count--;
  return !s->plain_count || s->plain->start >= end;
}

/* The next added token at or after *at, NULL: none; *at is then where it starts. */
static const added_token *next_added(const sluice_encoder *e, const added_trie *trie, sluice_added_tokens added,
                                     stretch *s, size_t *at) {
  if (added == SLUICE_ADDED_NONE || !trie->count) return NULL;
  for (size_t i = *at; i < s->length; i++) {
    if (!trie->starts[(unsigned char)s->text[i]]) continue;
    const added_token *token = added_trie_longest(&e->tokenizer->added, trie, s->text, s->length, i);
    if (!token || !is_free(s, i, i + token->length)) continue;
    if (token->special && added == SLUICE_ADDED_PLAIN) {
      i += token->length - 1; /* text, and so is what might begin within it */
      continue;
    }
    *at = i;
    return token;
  }
  return NULL;
}

typedef sluice_status *between_added(sluice_encoder *e, sluice_added_tokens added, const stretch *s);

/* Emits the added tokens of a stretch, and gives what lies between them to `between`. */
static sluice_status *cut_added(sluice_encoder *e, const added_trie *trie, sluice_added_tokens added,
                                const stretch *whole, between_added *between) {
  stretch s = *whole, from = *whole; /* `from`: as s was where the text is not emitted yet */
  const added_token *token;
  size_t done = 0;
  for (size_t at = 0; (token = next_added(e, trie, added, &s, &at)) != NULL; from = s) {
    const size_t start = token->strip_left ? spaces_before(s.text, done, at) : at;
    const stretch before = {s.text + done, start - done, from.plain, from.plain_count, whole->offset + done};
    SLUICE_TRY(between(e, added, &before));
    SLUICE_TRY(append_ids(e, &token->id, 1));
    done = at = token->strip_right ? spaces_after(s.text, s.length, at + token->length) : at + token->length;
  }
  const stretch rest = {s.text + done, s.length - done, from.plain, from.plain_count, whole->offset + done};
  return between(e, added, &rest);
}

/* ---- From the whole text down ---- */

static sluice_status *encode_normalized(sluice_encoder *e, sluice_added_tokens added, const stretch *s) {
  (void)added;
  return encode_pieces(e, s->text, s->length);
}

static sluice_status *encode_stretch(sluice_encoder *e, sluice_added_tokens added, const stretch *s) {
  stretch normal = *s;
  if (e->tokenizer->nfc) {
    const size_t stable = nfc_stable_prefix(s->text, s->length);
    if (stable < s->length) {
      e->normalized.length = 0;
      sluice_text_append(&e->normalized, s->text, stable);
      nfc_append(s->text + stable, s->length - stable, &e->normalized);
      if (e->normalized.failed) return sluice_out_of_memory();
      normal.text = e->normalized.data;
      normal.length = e->normalized.length;
      /* Places have moved: when the caller's plain parts touch this stretch, all of it is plain. */
      if (!is_free(&normal, 0, s->length)) added = SLUICE_ADDED_NONE;
    }
  }
  return cut_added(e, &e->tokenizer->added.normalized, added, &normal, encode_normalized);
}

/* Copies text that is not valid UTF-8 with U+FFFD in place of what is ill-formed, and moves the plain parts with it. */
static sluice_status *make_valid(sluice_encoder *e, size_t first_bad, stretch *s) {
  if (s->plain_count > e->span_capacity) {
    sluice_release(e->spans);
    e->span_capacity = 0;
    e->spans = sluice_allocate_array(s->plain_count, sizeof *e->spans);
    if (!e->spans) return sluice_out_of_memory();
    e->span_capacity = s->plain_count;
  }
  sluice_text *valid = &e->valid;
  valid->length = 0;
  size_t edge = 0; /* starts and ends of parts moved so far, in order */
  for (size_t at = 0, end = first_bad;;
       end = at + utf8_valid_prefix((const unsigned char *)s->text + at, s->length - at)) {
    const bool last = end == s->length;
    const size_t bad = last ? 0 : utf8_next((const unsigned char *)s->text + end, s->length - end).length;
    for (; edge < 2 * s->plain_count; edge++) {
      const sluice_span *span = &s->plain[edge / 2];
      const size_t place = edge % 2 ? span->end : span->start;
      if (place >= end + bad && !last) break;
      /* Within what is ill-formed: a start moves before it, an end behind it. */
      const size_t moved = place <= end ? valid->length + (place - at)
                                        : valid->length + (end - at) + (edge % 2 ? strlen(UTF8_REPLACEMENT) : 0);
      *(edge % 2 ? &e->spans[edge / 2].end : &e->spans[edge / 2].start) = moved;
    }
    sluice_text_append(valid, s->text + at, end - at);
    if (last) break;
    sluice_text_append(valid, UTF8_REPLACEMENT, strlen(UTF8_REPLACEMENT));
    at = end + bad;
  }
  if (valid->failed) return sluice_out_of_memory();
  s->text = valid->data;
  s->length = valid->length;
  s->plain = e->spans;
  return NULL;
}

static sluice_status *check_spans(const sluice_encode_options *options, size_t length) {
  for (size_t i = 0; i < options->plain_count; i++) {
    const sluice_span *span = &options->plain[i];
    if (span->start > span->end || span->end > length || (i && span->start < span[-1].end))
      return sluice_error(SLUICE_INVALID,
                          "plain part %zu is bytes %zu .. %zu of a text of %zu; expected parts within the text, "
                          "ascending and apart",
                          i, span->start, span->end, length);
  }
  return NULL;
}

sluice_status *sluice_encode(sluice_encoder *encoder, const char *text, size_t length,
                             const sluice_encode_options *options, const int32_t **out_ids, size_t *out_count) {
  const sluice_encode_options defaults = {0};
  if (!options) options = &defaults;
  if (length > INT32_MAX)
    return sluice_error(SLUICE_INVALID, "a text of %zu bytes; at most %d can be encoded at once", length, INT32_MAX);
  SLUICE_TRY(check_spans(options, length));
  const sluice_tokenizer *t = encoder->tokenizer;
  encoder->count = 0;
  if (options->post_process) SLUICE_TRY(append_ids(encoder, t->before, t->before_count));
  stretch s = {.text = text, .length = length, .plain = options->plain, .plain_count = options->plain_count};
  const size_t valid = utf8_valid_prefix((const unsigned char *)text, length);
  if (valid < length) SLUICE_TRY(make_valid(encoder, valid, &s));
  SLUICE_TRY(cut_added(encoder, &t->added.raw, options->added, &s, encode_stretch));
  if (options->post_process) SLUICE_TRY(append_ids(encoder, t->after, t->after_count));
  SLUICE_TRY(reserve_ids(encoder, 1)); /* so that there is an array even for no ids */
  *out_ids = encoder->ids;
  *out_count = encoder->count;
  return NULL;
}
