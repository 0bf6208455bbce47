/* Reads tokenizer.json. Every key is either understood or refused. The vocabulary and the merges, nearly all of the
 * file, are taken over while it is parsed, entry by entry; the rest is a tree that is read afterwards. */
#include "runtime/text/byte_alphabet.h"
#include "runtime/text/tokenizer.h"
#include "sluice/memory.h"

#include <string.h>

typedef struct reader {
  const sluice_json_document *document;
  sluice_tokenizer *tokenizer;
  char *scratch; /* the longest string of the file fits */
  size_t scratch_bytes;
  bool byte_level; /* the pre-tokenizer has its ByteLevel step */
  bool vocab_seen;
  vocabulary unreachable; /* keys of "vocab" that no text can become, to see that none stands twice */
  vocabulary_pair *pairs; /* the merges so far */
  size_t pair_count, pair_capacity;
  int32_t made; /* by the last merge; training numbers tokens in the order of merges */
  /* Merges whose sides are not looked up yet: their bytes lie in `sides`, the left side's and then the right one's. */
  struct waiting_merge {
    size_t offset;             /* in the file */
    size_t start, left, right; /* in `sides`, and how many bytes */
  } waiting[VOCABULARY_MOST_KEYS / 2];
  size_t waiting_count;
  sluice_text sides;
} reader;

typedef const sluice_json_value value;

/* ---- Parts of a JSON document ---- */

#define REFUSE(r, v, ...) sluice_json_error((r)->document, (v)->offset, SLUICE_UNSUPPORTED, __VA_ARGS__)
#define INVALID(r, v, ...) sluice_json_error((r)->document, (v)->offset, SLUICE_INVALID, __VA_ARGS__)

static bool is_null(value *v) {
  return !v || v->kind == SLUICE_JSON_NULL;
}

static bool is_string(value *v, const char *text) {
  return v && v->kind == SLUICE_JSON_STRING && v->length == strlen(text) && memcmp(v->string, text, v->length) == 0;
}

static sluice_status *expect(const reader *r, value *v, sluice_json_kind kind, const char *what) {
  if (v->kind == kind) return NULL;
  return INVALID(r, v, "%s: found %s, expected %s", what, sluice_json_kind_name(v->kind), sluice_json_kind_name(kind));
}

/* A member that must be there. */
static sluice_status *member(const reader *r, value *object, const char *key, sluice_json_kind kind, value **out) {
  *out = sluice_json_get(object, key);
  if (!*out) return INVALID(r, object, "this object lacks \"%s\"", key);
  return expect(r, *out, kind, key);
}

/* A flag that need not be there. */
static sluice_status *flag(const reader *r, value *object, const char *key, bool absent, bool *out) {
  value *v = sluice_json_get(object, key);
  *out = v ? v->boolean : absent;
  return v ? expect(r, v, SLUICE_JSON_BOOL, key) : NULL;
}

/* Refuses a key that is not in `known`, NULL-terminated. */
static sluice_status *only_keys(const reader *r, value *object, const char *what, const char *const *known) {
  for (size_t i = 0; i < object->length; i++) {
    const sluice_json_member *m = &object->members[i];
    size_t k = 0;
    while (known[k] && strcmp(known[k], m->key) != 0) k++;
    if (!known[k])
      return sluice_json_error(r->document, m->key_offset, SLUICE_UNSUPPORTED,
                               "%s has a key \"%.100s\" that is not done", what, m->key);
  }
  return NULL;
}

/* The "type" of a normalizer, pre-tokenizer and so on. */
static sluice_status *type_of(const reader *r, value *object, const char *what, value **out) {
  SLUICE_TRY(expect(r, object, SLUICE_JSON_OBJECT, what));
  return member(r, object, "type", SLUICE_JSON_STRING, out);
}

static sluice_status *id_of(const reader *r, value *v, int32_t *out) {
  if (v->kind != SLUICE_JSON_NUMBER || !v->is_integer || v->integer < 0 || v->integer >= VOCABULARY_MAX_ID)
    return INVALID(r, v, "expected a token id, an integer in 0 .. %d", VOCABULARY_MAX_ID - 1);
  *out = (int32_t)v->integer;
  return NULL;
}

/* ---- Normaliser ---- */

static sluice_status *read_normalizer(const reader *r, value *v) {
  value *type, *list;
  if (is_null(v)) return NULL;
  SLUICE_TRY(type_of(r, v, "normalizer", &type));
  if (is_string(type, "NFC")) {
    r->tokenizer->nfc = true;
    return only_keys(r, v, "the normalizer NFC", (const char *const[]){"type", NULL});
  }
  if (!is_string(type, "Sequence"))
    return REFUSE(r, type, "the normalizer \"%.100s\" is not done; done are NFC and Sequence", type->string);
  SLUICE_TRY(member(r, v, "normalizers", SLUICE_JSON_ARRAY, &list));
  for (size_t i = 0; i < list->length; i++) {
    SLUICE_TRY(type_of(r, &list->items[i], "normalizer", &type));
    if (!is_string(type, "NFC"))
      return REFUSE(r, type, "the normalizer \"%.100s\" within a Sequence is not done; done is NFC", type->string);
    r->tokenizer->nfc = true;
  }
  return NULL;
}

/* ---- Pre-tokenizer ---- */

static sluice_status *add_split(const reader *r, value *place, const char *expression, size_t length, bool literal,
                                split_behavior behavior, bool invert) {
  split_step step = {.behavior = behavior, .invert = invert};
  sluice_status *status =
      literal ? split_compile_literal(expression, length, &step.code) : split_compile(expression, length, &step.code);
  if (!status) {
    status = tokenizer_add_split(r->tokenizer, &step);
    if (status) pcre2_code_free(step.code);
  }
  if (!status || sluice_status_code(status) == SLUICE_OUT_OF_MEMORY) return status;
  sluice_status *placed =
      sluice_json_error(r->document, place->offset, sluice_status_code(status), "%s", sluice_status_message(status));
  sluice_status_free(status);
  return placed;
}

static sluice_status *read_behavior(const reader *r, value *v, split_behavior *out) {
  static const char *const names[] = {"Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (is_string(v, names[i])) {
      *out = (split_behavior)i;
      return NULL;
    }
  return REFUSE(r, v, "the behavior \"%.100s\" of a Split is not done", v->string);
}

static sluice_status *read_split(const reader *r, value *v) {
  value *pattern, *behavior, *text;
  bool invert;
  split_behavior kind;
  SLUICE_TRY(only_keys(r, v, "a Split", (const char *const[]){"type", "pattern", "behavior", "invert", NULL}));
  SLUICE_TRY(member(r, v, "pattern", SLUICE_JSON_OBJECT, &pattern));
  SLUICE_TRY(member(r, v, "behavior", SLUICE_JSON_STRING, &behavior));
  SLUICE_TRY(flag(r, v, "invert", false, &invert));
  SLUICE_TRY(read_behavior(r, behavior, &kind));
  const bool literal = sluice_json_get(pattern, "String") != NULL;
  SLUICE_TRY(member(r, pattern, literal ? "String" : "Regex", SLUICE_JSON_STRING, &text));
  SLUICE_TRY(only_keys(r, pattern, "a pattern", (const char *const[]){literal ? "String" : "Regex", NULL}));
  return add_split(r, text, text->string, text->length, literal, kind, invert);
}

static sluice_status *read_byte_level(reader *r, value *v) {
  static const char gpt2[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
  bool prefix, use_regex;
  SLUICE_TRY(only_keys(r, v, "ByteLevel",
                       (const char *const[]){"type", "add_prefix_space", "trim_offsets", "use_regex", NULL}));
  SLUICE_TRY(flag(r, v, "add_prefix_space", true, &prefix));
  SLUICE_TRY(flag(r, v, "use_regex", true, &use_regex));
  if (prefix) return REFUSE(r, v, "\"add_prefix_space\" of the pre-tokenizer ByteLevel is not done; expected false");
  r->byte_level = true;
  return use_regex ? add_split(r, v, gpt2, strlen(gpt2), false, SPLIT_ISOLATED, false) : NULL;
}

static sluice_status *read_pre_tokenizer_step(reader *r, value *v) {
  value *type;
  SLUICE_TRY(type_of(r, v, "pre_tokenizer", &type));
  if (r->byte_level)
    return REFUSE(r, v, "a pre-tokenizer behind ByteLevel is not done; expected ByteLevel to be the last");
  if (is_string(type, "Split")) return read_split(r, v);
  if (is_string(type, "ByteLevel")) return read_byte_level(r, v);
  return REFUSE(r, type, "the pre-tokenizer \"%.100s\" is not done; done are Split, ByteLevel and Sequence",
                type->string);
}

static sluice_status *read_pre_tokenizer(reader *r, value *root) {
  value *v = sluice_json_get(root, "pre_tokenizer"), *type, *list;
  if (is_null(v)) return REFUSE(r, v ? v : root, "there is no pre-tokenizer; expected one that ends with ByteLevel");
  SLUICE_TRY(type_of(r, v, "pre_tokenizer", &type));
  if (is_string(type, "Sequence")) {
    SLUICE_TRY(member(r, v, "pretokenizers", SLUICE_JSON_ARRAY, &list));
    for (size_t i = 0; i < list->length; i++) SLUICE_TRY(read_pre_tokenizer_step(r, &list->items[i]));
  } else {
    SLUICE_TRY(read_pre_tokenizer_step(r, v));
  }
  return r->byte_level ? NULL
                       : REFUSE(r, v, "this pre-tokenizer has no ByteLevel; only byte-level tokenizers are done");
}

/* ---- Post-processor and decoder ---- */

static sluice_status *add_template_ids(const reader *r, value *special_tokens, value *name, bool after) {
  sluice_tokenizer *t = r->tokenizer;
  value *entry, *ids;
  SLUICE_TRY(member(r, special_tokens, name->string, SLUICE_JSON_OBJECT, &entry));
  SLUICE_TRY(member(r, entry, "ids", SLUICE_JSON_ARRAY, &ids));
  int32_t **list = after ? &t->after : &t->before;
  size_t *count = after ? &t->after_count : &t->before_count;
  int32_t *grown = sluice_reallocate_array(*list, *count + ids->length + 1, sizeof *grown);
  if (!grown) return sluice_out_of_memory();
  *list = grown;
  for (size_t i = 0; i < ids->length; i++) SLUICE_TRY(id_of(r, &ids->items[i], &grown[(*count)++]));
  return NULL;
}

static sluice_status *read_template(const reader *r, value *v) {
  value *single, *special_tokens, *name;
  bool seen = false;
  SLUICE_TRY(member(r, v, "single", SLUICE_JSON_ARRAY, &single));
  SLUICE_TRY(member(r, v, "special_tokens", SLUICE_JSON_OBJECT, &special_tokens));
  for (size_t i = 0; i < single->length; i++) {
    value *item = &single->items[i], *token = sluice_json_get(item, "SpecialToken");
    if (token) {
      SLUICE_TRY(member(r, token, "id", SLUICE_JSON_STRING, &name));
      SLUICE_TRY(add_template_ids(r, special_tokens, name, seen));
      continue;
    }
    if (!is_string(sluice_json_get(sluice_json_get(item, "Sequence"), "id"), "A") || seen)
      return REFUSE(r, item, "a template for one text has special tokens and the sequence A once");
    seen = true;
  }
  return seen ? NULL : REFUSE(r, single, "this template leaves out the text: it has no sequence A");
}

static sluice_status *read_post_processor_step(const reader *r, value *v) {
  value *type;
  SLUICE_TRY(type_of(r, v, "post_processor", &type));
  if (is_string(type, "ByteLevel")) return NULL; /* about offsets, which nobody asks for here */
  if (is_string(type, "TemplateProcessing")) {
    if (r->tokenizer->before_count || r->tokenizer->after_count)
      return REFUSE(r, type, "two TemplateProcessing in one Sequence are not done");
    return read_template(r, v);
  }
  return REFUSE(r, type,
                "the post-processor \"%.100s\" is not done; done are ByteLevel, TemplateProcessing and Sequence",
                type->string);
}

static sluice_status *read_post_processor(const reader *r, value *v) {
  value *type, *list;
  if (is_null(v)) return NULL;
  SLUICE_TRY(type_of(r, v, "post_processor", &type));
  if (!is_string(type, "Sequence")) return read_post_processor_step(r, v);
  SLUICE_TRY(member(r, v, "processors", SLUICE_JSON_ARRAY, &list));
  for (size_t i = 0; i < list->length; i++) SLUICE_TRY(read_post_processor_step(r, &list->items[i]));
  return NULL;
}

static sluice_status *read_decoder(const reader *r, value *root) {
  value *v = sluice_json_get(root, "decoder"), *type;
  if (is_null(v)) return REFUSE(r, v ? v : root, "there is no decoder; expected ByteLevel");
  SLUICE_TRY(type_of(r, v, "decoder", &type));
  return is_string(type, "ByteLevel")
             ? NULL
             : REFUSE(r, type, "the decoder \"%.100s\" is not done; done is ByteLevel", type->string);
}

/* ---- Model ---- */

static sluice_status *read_added_token(const reader *r, value *v) {
  added_token token = {0};
  value *id, *content;
  bool single_word;
  SLUICE_TRY(expect(r, v, SLUICE_JSON_OBJECT, "an added token"));
  SLUICE_TRY(only_keys(
      r, v, "an added token",
      (const char *const[]){"id", "content", "single_word", "lstrip", "rstrip", "normalized", "special", NULL}));
  SLUICE_TRY(member(r, v, "id", SLUICE_JSON_NUMBER, &id));
  SLUICE_TRY(id_of(r, id, &token.id));
  SLUICE_TRY(member(r, v, "content", SLUICE_JSON_STRING, &content));
  SLUICE_TRY(flag(r, v, "single_word", false, &single_word));
  SLUICE_TRY(flag(r, v, "lstrip", false, &token.strip_left));
  SLUICE_TRY(flag(r, v, "rstrip", false, &token.strip_right));
  SLUICE_TRY(flag(r, v, "special", false, &token.special));
  SLUICE_TRY(flag(r, v, "normalized", !token.special, &token.normalized));
  if (single_word) return REFUSE(r, v, "\"single_word\" of the added token \"%.100s\" is not done", content->string);
  if (!content->length || content->length > ADDED_TOKEN_MAX_BYTES)
    return INVALID(r, content, "an added token of %zu bytes; expected 1 .. %d", content->length, ADDED_TOKEN_MAX_BYTES);
  token.content = (char *)content->string; /* copied */
  token.length = content->length;
  return added_tokens_add(&r->tokenizer->added, &token);
}

static sluice_status *read_added_tokens(const reader *r, value *v) {
  if (is_null(v)) return NULL;
  SLUICE_TRY(expect(r, v, SLUICE_JSON_ARRAY, "added_tokens"));
  for (size_t i = 0; i < v->length; i++) SLUICE_TRY(read_added_token(r, &v->items[i]));
  return NULL;
}

static sluice_status *reserve_scratch(reader *r, size_t bytes) {
  if (bytes <= r->scratch_bytes) return NULL;
  bytes = bytes < 4096 ? 4096 : 2 * bytes;
  char *grown = sluice_reallocate_array(r->scratch, bytes, 1);
  if (!grown) return sluice_out_of_memory();
  r->scratch = grown;
  r->scratch_bytes = bytes;
  return NULL;
}

/* An entry of "vocab". */
static sluice_status *read_token(reader *r, const sluice_json_member *m) {
  vocabulary *v = &r->tokenizer->vocabulary;
  int32_t id;
  size_t length;
  SLUICE_TRY(id_of(r, &m->value, &id));
  if (vocabulary_has(v, id)) return INVALID(r, &m->value, "the id %d is taken by another token already", id);
  SLUICE_TRY(reserve_scratch(r, m->key_length));
  const bool reachable = byte_alphabet_read(m->key, m->key_length, r->scratch, &length);
  const bool twice = reachable ? vocabulary_find(v, r->scratch, length) >= 0
                               : vocabulary_find(&r->unreachable, m->key, m->key_length) >= 0;
  if (twice)
    return sluice_json_error(r->document, m->key_offset, SLUICE_INVALID,
                             "the token \"%.200s\" stands twice in the vocabulary", m->key);
  if (reachable) return vocabulary_set(v, id, r->scratch, length, true);
  SLUICE_TRY(vocabulary_set(&r->unreachable, r->unreachable.size, m->key, m->key_length, true));
  return vocabulary_set(v, id, m->key, m->key_length, false);
}

static bool begin_vocab(void *user, sluice_json_kind kind) {
  reader *r = user;
  if (kind == SLUICE_JSON_OBJECT) r->vocab_seen = true;
  return kind == SLUICE_JSON_OBJECT;
}

static sluice_status *take_token(void *user, const sluice_json_document *document, const sluice_json_member *element) {
  reader *r = user;
  r->document = document;
  return read_token(r, element);
}

#define MERGE_INVALID(r, offset, ...) sluice_json_error((r)->document, offset, SLUICE_INVALID, __VA_ARGS__)

/* Puts a side of a merge behind those that wait. */
static sluice_status *add_side(reader *r, size_t offset, const char *text, size_t length, size_t *out_bytes) {
  SLUICE_TRY(reserve_scratch(r, length));
  if (!byte_alphabet_read(text, length, r->scratch, out_bytes))
    return MERGE_INVALID(r, offset, "\"%.*s\" of this merge is not in the vocabulary",
                         (int)(length < 100 ? length : 100), text);
  sluice_text_append(&r->sides, r->scratch, *out_bytes);
  return r->sides.failed ? sluice_out_of_memory() : NULL;
}

static sluice_status *split_merge(const reader *r, value *merge, vocabulary_key *left, vocabulary_key *right) {
  if (merge->kind == SLUICE_JSON_STRING) {
    const char *space = memchr(merge->string, ' ', merge->length);
    if (!space) return INVALID(r, merge, "a merge is two tokens with a space between them");
    const size_t length = (size_t)(space - merge->string);
    *left = (vocabulary_key){merge->string, length};
    *right = (vocabulary_key){space + 1, merge->length - length - 1};
    return NULL;
  }
  if (merge->kind != SLUICE_JSON_ARRAY || merge->length != 2 || merge->items[0].kind != SLUICE_JSON_STRING ||
      merge->items[1].kind != SLUICE_JSON_STRING)
    return INVALID(r, merge, "a merge is \"left right\" or [\"left\", \"right\"]");
  *left = (vocabulary_key){merge->items[0].string, merge->items[0].length};
  *right = (vocabulary_key){merge->items[1].string, merge->items[1].length};
  return NULL;
}

/* A merge whose sides have been looked up. */
static sluice_status *make_pair(reader *r, const struct waiting_merge *m, int32_t left, int32_t right) {
  if (left < 0 || right < 0)
    return MERGE_INVALID(r, m->offset, "\"%.*s\" of this merge is not in the vocabulary",
                         (int)(left < 0 ? m->left : m->right), r->sides.data + m->start + (left < 0 ? 0 : m->left));
  vocabulary_pair pair = {.left = left, .right = right, .rank = (uint32_t)r->pair_count};
  r->made = pair.id = vocabulary_find_joined(&r->tokenizer->vocabulary, left, right, r->made);
  if (pair.id < 0) return MERGE_INVALID(r, m->offset, "what this merge makes is not in the vocabulary");
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

/* Looks up all sides that wait. */
static sluice_status *make_pairs(reader *r) {
  vocabulary_key keys[VOCABULARY_MOST_KEYS];
  int32_t ids[VOCABULARY_MOST_KEYS];
  for (size_t i = 0; i < r->waiting_count; i++) {
    const struct waiting_merge *m = &r->waiting[i];
    keys[2 * i] = (vocabulary_key){r->sides.data + m->start, m->left};
    keys[2 * i + 1] = (vocabulary_key){r->sides.data + m->start + m->left, m->right};
  }
  vocabulary_find_many(&r->tokenizer->vocabulary, keys, 2 * r->waiting_count, ids);
  for (size_t i = 0; i < r->waiting_count; i++) SLUICE_TRY(make_pair(r, &r->waiting[i], ids[2 * i], ids[2 * i + 1]));
  r->waiting_count = 0;
  r->sides.length = 0;
  return NULL;
}

static sluice_status *add_merge(reader *r, value *merge) {
  vocabulary_key left, right;
  SLUICE_TRY(split_merge(r, merge, &left, &right));
  struct waiting_merge *m = &r->waiting[r->waiting_count];
  m->offset = merge->offset;
  m->start = r->sides.length;
  SLUICE_TRY(add_side(r, merge->offset, left.bytes, left.length, &m->left));
  SLUICE_TRY(add_side(r, merge->offset, right.bytes, right.length, &m->right));
  return ++r->waiting_count == VOCABULARY_MOST_KEYS / 2 ? make_pairs(r) : NULL;
}

/* Merges name tokens: those that stand before the vocabulary wait for it. */
static bool begin_merges(void *user, sluice_json_kind kind) {
  const reader *r = user;
  return kind == SLUICE_JSON_ARRAY && r->vocab_seen;
}

static sluice_status *take_merge(void *user, const sluice_json_document *document, const sluice_json_member *element) {
  reader *r = user;
  r->document = document;
  return add_merge(r, &element->value);
}

/* "unk_token" and "fuse_unk" are about bytes without a token, which tokenizer_finish refuses. */
static sluice_status *read_model(reader *r, value *root) {
  value *model, *type, *vocab, *merges, *v;
  bool byte_fallback;
  SLUICE_TRY(member(r, root, "model", SLUICE_JSON_OBJECT, &model));
  SLUICE_TRY(type_of(r, model, "model", &type));
  if (!is_string(type, "BPE")) return REFUSE(r, type, "the model \"%.100s\" is not done; done is BPE", type->string);
  SLUICE_TRY(
      only_keys(r, model, "the model",
                (const char *const[]){"type", "dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix",
                                      "fuse_unk", "byte_fallback", "ignore_merges", "vocab", "merges", NULL}));
  v = sluice_json_get(model, "dropout");
  if (!is_null(v) && !(v->kind == SLUICE_JSON_NUMBER && v->number == 0))
    return REFUSE(r, v, "\"dropout\" is not done; expected null");
  static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
  for (size_t i = 0; i < 2; i++) {
    v = sluice_json_get(model, affixes[i]);
    if (!is_null(v) && !is_string(v, "")) return REFUSE(r, v, "\"%s\" is not done; expected null", affixes[i]);
  }
  SLUICE_TRY(flag(r, model, "byte_fallback", false, &byte_fallback));
  if (byte_fallback) return REFUSE(r, model, "\"byte_fallback\" is not done; expected false");
  SLUICE_TRY(flag(r, model, "ignore_merges", false, &r->tokenizer->ignore_merges));
  SLUICE_TRY(member(r, model, "vocab", SLUICE_JSON_OBJECT, &vocab));
  SLUICE_TRY(member(r, model, "merges", SLUICE_JSON_ARRAY, &merges));
  for (size_t i = 0; merges->items && i < merges->length; i++) SLUICE_TRY(add_merge(r, &merges->items[i]));
  SLUICE_TRY(make_pairs(r));
  return vocabulary_set_pairs(&r->tokenizer->vocabulary, r->pairs, r->pair_count);
}

/* ---- The whole ---- */

static sluice_status *read_root(reader *r) {
  value *root = sluice_json_root(r->document);
  SLUICE_TRY(expect(r, root, SLUICE_JSON_OBJECT, "a tokenizer"));
  SLUICE_TRY(only_keys(r, root, "the tokenizer",
                       (const char *const[]){"version", "truncation", "padding", "added_tokens", "normalizer",
                                             "pre_tokenizer", "post_processor", "decoder", "model", NULL}));
  static const char *const undone[] = {"truncation", "padding"};
  for (size_t i = 0; i < 2; i++) {
    value *v = sluice_json_get(root, undone[i]);
    if (!is_null(v)) return REFUSE(r, v, "\"%s\" is not done; expected null", undone[i]);
  }
  SLUICE_TRY(read_normalizer(r, sluice_json_get(root, "normalizer")));
  SLUICE_TRY(read_pre_tokenizer(r, root));
  SLUICE_TRY(read_post_processor(r, sluice_json_get(root, "post_processor")));
  SLUICE_TRY(read_decoder(r, root));
  SLUICE_TRY(read_added_tokens(r, sluice_json_get(root, "added_tokens")));
  SLUICE_TRY(read_model(r, root));
  return tokenizer_finish(r->tokenizer, sluice_json_file(r->document));
}

static sluice_status *read_text(reader *r, char *text, size_t length, const char *file) {
  const sluice_json_sink sinks[] = {{"model", "vocab", begin_vocab, take_token, r},
                                    {"model", "merges", begin_merges, take_merge, r}};
  sluice_json_document *document = NULL;
  sluice_status *status =
      r->tokenizer ? vocabulary_begin(&r->tokenizer->vocabulary, length / 40) : sluice_out_of_memory();
  if (!status) status = vocabulary_begin(&r->unreachable, 0);
  if (status) {
    sluice_release(text);
    return status;
  }
  SLUICE_TRY(sluice_json_parse_into(text, length, file, sinks, 2, &document));
  r->document = document;
  status = read_root(r);
  sluice_json_free(document);
  return status;
}

sluice_status *tokenizer_read_json(char *text, size_t length, const char *file, sluice_tokenizer **out_tokenizer) {
  reader r = {.tokenizer = tokenizer_new(), .made = -1};
  sluice_status *status = read_text(&r, text, length, file);
  vocabulary_free(&r.unreachable);
  sluice_text_free(&r.sides);
  sluice_release(r.pairs);
  sluice_release(r.scratch);
  if (status)
    sluice_tokenizer_close(r.tokenizer);
  else
    *out_tokenizer = r.tokenizer;
  return status;
}

sluice_status *sluice_tokenizer_parse_json(const char *text, size_t length, const char *file,
                                           sluice_tokenizer **out_tokenizer) {
  char *copy = sluice_copy_string(text, length);
  return copy ? tokenizer_read_json(copy, length, file, out_tokenizer) : sluice_out_of_memory();
}
