/* Reads tiktoken files: a line a token, its bytes in base64, a space, its rank. Two neighbours merge when their bytes
 * together are a token, whose rank is the merge's: so every way to cut a token in two tokens is a merge of its rank. */
#include "runtime/text/tokenizer.h"
#include "sluice/memory.h"

#include <string.h>

#define TOKEN_MAX_BYTES 1024 /* so that cutting tokens in two is linear in the file */

static const char o200k[] = "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+("
                            "?i:'s|'t|'re|'ve|'m|'ll|'d)?"
                            "|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*"
                            "(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
                            "|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

typedef struct reader {
  const char *text;
  size_t length, at;
  const char *file;
  unsigned line;
  vocabulary_pair *pairs;
  size_t pair_count, pair_capacity;
} reader;

static sluice_status *fail(const reader *r, const char *what) {
  const char *end = memchr(r->text + r->at, '\n', r->length - r->at);
  const size_t length = end ? (size_t)(end - r->text) - r->at : r->length - r->at;
  return sluice_error_at(SLUICE_INVALID, r->file, r->line, 0, r->text + r->at, length,
                         "%s; expected a token in base64, a space and its rank", what);
}

static int base64_digit(char c) {
  if (c >= 'A' && c <= 'Z') return c - 'A';
  if (c >= 'a' && c <= 'z') return c - 'a' + 26;
  if (c >= '0' && c <= '9') return c - '0' + 52;
  return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* Decodes up to a character that is no digit; false when that is not the end of a group. */
static bool read_base64(reader *r, char *out, size_t *out_length) {
  size_t length = 0, digits = 0;
  uint32_t bits = 0;
  for (int digit; r->at < r->length && (digit = base64_digit(r->text[r->at])) >= 0; r->at++, digits++) {
    bits = bits << 6 | (uint32_t)digit;
    if (digits % 4 == 0) continue;
    if (length == TOKEN_MAX_BYTES) return false;
    out[length++] = (char)(bits >> (6 - 2 * (digits % 4)));
  }
  size_t padding = 0;
  for (; r->at < r->length && r->text[r->at] == '='; r->at++) padding++;
  *out_length = length;
  return length && digits % 4 != 1 && padding == (4 - digits % 4) % 4;
}

/* A line; *out_id is VOCABULARY_MAX_ID for an empty one. Leaves r->at at the line's start, and *out_next behind it. */
static sluice_status *read_line(reader *r, char *bytes, size_t *out_length, int32_t *out_id, size_t *out_next) {
  const size_t start = r->at;
  size_t at;
  *out_id = VOCABULARY_MAX_ID;
  if (r->text[start] != '\n' && r->text[start] != '\r') {
    const bool valid = read_base64(r, bytes, out_length);
    at = r->at;
    r->at = start;
    if (!valid) return fail(r, "this line holds no token of 1 .. 1024 bytes");
    if (at == r->length || r->text[at] != ' ') return fail(r, "no space follows the token");
    int64_t rank = 0;
    const size_t first = ++at;
    for (; at < r->length && r->text[at] >= '0' && r->text[at] <= '9' && rank < VOCABULARY_MAX_ID; at++)
      rank = rank * 10 + (r->text[at] - '0');
    if (at == first || rank >= VOCABULARY_MAX_ID) return fail(r, "the rank is no integer below 2^22");
    *out_id = (int32_t)rank;
  } else {
    at = start;
  }
  if (at < r->length && r->text[at] == '\r') at++;
  if (at < r->length && r->text[at] != '\n') return fail(r, "more follows the rank");
  *out_next = at + 1;
  return NULL;
}

static sluice_status *read_tokens(reader *r, vocabulary *v) {
  char bytes[TOKEN_MAX_BYTES];
  r->at = 0;
  r->line = 1;
  for (size_t next = 0; r->at < r->length; r->at = next, r->line++) {
    size_t length;
    int32_t id;
    SLUICE_TRY(read_line(r, bytes, &length, &id, &next));
    if (id == VOCABULARY_MAX_ID) continue;
    if (vocabulary_has(v, id)) return fail(r, "this rank is taken by an earlier token");
    if (vocabulary_find(v, bytes, length) >= 0) return fail(r, "this token stands in an earlier line");
    SLUICE_TRY(vocabulary_set(v, id, bytes, length, true));
  }
  return v->size ? NULL : sluice_error(SLUICE_INVALID, "%s: holds no tokens", r->file);
}

static sluice_status *push_pair(reader *r, vocabulary_pair pair) {
  if (r->pair_count == r->pair_capacity) {
    const size_t capacity = r->pair_capacity ? r->pair_capacity * 2 : 4096;
    vocabulary_pair *grown = sluice_reallocate_array(r->pairs, capacity, sizeof *grown);
    if (!grown) return sluice_out_of_memory();
    r->pairs = grown;
    r->pair_capacity = capacity;
  }
  r->pairs[r->pair_count++] = pair;
  return NULL;
}

static sluice_status *make_pairs(reader *r, vocabulary *v) {
  int32_t beginnings[TOKEN_MAX_BYTES];
  for (int32_t id = 0; id < v->size; id++) {
    const vocabulary_token token = v->tokens[id];
    if (token.length == VOCABULARY_ABSENT) continue;
    const char *bytes = v->bytes + token.start;
    if (token.length) vocabulary_find_beginnings(v, bytes, token.length - 1, beginnings);
    for (uint32_t i = 1; i < token.length; i++) {
      const int32_t left = beginnings[i - 1];
      const int32_t right = left < 0 ? -1 : vocabulary_find(v, bytes + i, token.length - i);
      if (right >= 0) SLUICE_TRY(push_pair(r, (vocabulary_pair){left, right, (uint32_t)id, id}));
    }
  }
  return vocabulary_set_pairs(v, r->pairs, r->pair_count);
}

/* ---- Special tokens, from tokenizer_config.json ---- */

static sluice_status *read_flag(const sluice_json_document *config, const sluice_json_value *token, const char *key,
                                bool *out) {
  const sluice_json_value *v = sluice_json_get(token, key);
  if (v && v->kind != SLUICE_JSON_BOOL)
    return sluice_json_error(config, v->offset, SLUICE_INVALID, "\"%s\" is %s, expected a boolean", key,
                             sluice_json_kind_name(v->kind));
  *out = v && v->boolean;
  return NULL;
}

static sluice_status *read_special(const sluice_json_document *config, const sluice_json_member *m,
                                   added_tokens *added) {
  const sluice_json_value *content = sluice_json_get(&m->value, "content");
  added_token token = {0};
  bool single_word = false;
  size_t digits = 0;
  for (; digits < m->key_length && m->key[digits] >= '0' && m->key[digits] <= '9' && token.id < VOCABULARY_MAX_ID / 10;
       digits++)
    token.id = token.id * 10 + (m->key[digits] - '0');
  if (!digits || digits != m->key_length)
    return sluice_json_error(config, m->key_offset, SLUICE_INVALID, "\"%.40s\" is no token id", m->key);
  if (!content || content->kind != SLUICE_JSON_STRING || !content->length || content->length > ADDED_TOKEN_MAX_BYTES)
    return sluice_json_error(config, m->value.offset, SLUICE_INVALID,
                             "expected an object with the token as \"content\", 1 .. %d bytes", ADDED_TOKEN_MAX_BYTES);
  SLUICE_TRY(read_flag(config, &m->value, "lstrip", &token.strip_left));
  SLUICE_TRY(read_flag(config, &m->value, "rstrip", &token.strip_right));
  SLUICE_TRY(read_flag(config, &m->value, "special", &token.special));
  SLUICE_TRY(read_flag(config, &m->value, "single_word", &single_word));
  if (single_word) return sluice_json_error(config, m->value.offset, SLUICE_UNSUPPORTED, "\"single_word\" is not done");
  token.content = (char *)content->string; /* copied */
  token.length = content->length;
  return added_tokens_add(added, &token);
}

static sluice_status *read_specials(const sluice_json_document *config, added_tokens *added) {
  const sluice_json_value *list = config ? sluice_json_get(sluice_json_root(config), "added_tokens_decoder") : NULL;
  if (!list || list->kind == SLUICE_JSON_NULL) return NULL;
  if (list->kind != SLUICE_JSON_OBJECT)
    return sluice_json_error(config, list->offset, SLUICE_INVALID, "\"added_tokens_decoder\" is %s, expected an object",
                             sluice_json_kind_name(list->kind));
  for (size_t i = 0; i < list->length; i++) SLUICE_TRY(read_special(config, &list->members[i], added));
  return NULL;
}

static sluice_status *read_all(reader *r, const sluice_json_document *config, sluice_tokenizer *t) {
  split_step step = {.behavior = SPLIT_ISOLATED};
  SLUICE_TRY(read_specials(config, &t->added));
  SLUICE_TRY(vocabulary_begin(&t->vocabulary, r->length / 20));
  SLUICE_TRY(read_tokens(r, &t->vocabulary));
  SLUICE_TRY(make_pairs(r, &t->vocabulary));
  t->ignore_merges = true;
  SLUICE_TRY(split_compile(o200k, strlen(o200k), &step.code));
  sluice_status *status = tokenizer_add_split(t, &step);
  if (status) pcre2_code_free(step.code);
  return status ? status : tokenizer_finish(t, r->file);
}

sluice_status *sluice_tokenizer_parse_tiktoken(const char *text, size_t length, const char *file,
                                               const sluice_json_document *config, sluice_tokenizer **out_tokenizer) {
  reader r = {.text = text, .length = length, .file = file};
  sluice_tokenizer *t = tokenizer_new();
  sluice_status *status = t ? read_all(&r, config, t) : sluice_out_of_memory();
  sluice_release(r.pairs);
  if (status)
    sluice_tokenizer_close(t);
  else
    *out_tokenizer = t;
  return status;
}
