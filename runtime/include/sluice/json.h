/* A strict JSON reader (RFC 8259) that keeps positions.
 *
 * Refused, each with file, line, column and the source line: anything outside the grammar, trailing bytes, duplicate
 * keys within an object, invalid UTF-8 or unpaired surrogates, more than SLUICE_JSON_MAX_DEPTH levels or
 * SLUICE_JSON_MAX_VALUES values, numbers that overflow a double, documents over SLUICE_JSON_MAX_BYTES.
 *
 * Ownership: a document owns its values, its strings and a copy of its text; sluice_json_free frees all of it.
 */
#ifndef SLUICE_JSON_H
#define SLUICE_JSON_H

#include "sluice/status.h"

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SLUICE_JSON_MAX_DEPTH 64
#define SLUICE_JSON_MAX_VALUES 4000000u
#define SLUICE_JSON_MAX_BYTES ((size_t)1 << 30)

typedef enum sluice_json_kind {
  SLUICE_JSON_NULL,
  SLUICE_JSON_BOOL,
  SLUICE_JSON_NUMBER,
  SLUICE_JSON_STRING,
  SLUICE_JSON_ARRAY,
  SLUICE_JSON_OBJECT,
} sluice_json_kind;

typedef struct sluice_json_document sluice_json_document;
typedef struct sluice_json_value sluice_json_value;

struct sluice_json_value {
  sluice_json_kind kind;
  bool boolean;
  bool is_integer;                            /* a number written without fraction and exponent that fits int64_t */
  bool is_wide_integer;                       /* the same, but it does not fit */
  int64_t integer;                            /* valid when is_integer */
  double number;                              /* valid for every number */
  union {                                     /* by kind; NULL for what has none */
    const char *string;                       /* unescaped, terminated; may hold NUL bytes inside: see length */
    const sluice_json_value *items;           /* array elements */
    const struct sluice_json_member *members; /* object members, in the file's order */
  };
  size_t length; /* bytes of string; elements of array; members of object */
  size_t offset; /* byte offset of the value in the text */
};

typedef struct sluice_json_member {
  const char *key; /* unescaped, terminated */
  size_t key_length;
  size_t key_offset; /* byte offset of the key's opening quote */
  sluice_json_value value;
} sluice_json_member;

/* Parses `length` bytes of `text` (copied). `file` names the text in errors (copied). */
SLUICE_MUST_USE sluice_status *sluice_json_parse(const char *text, size_t length, const char *file,
                                                 sluice_json_document **out_document);

/* Reads and parses a file. */
SLUICE_MUST_USE sluice_status *sluice_json_parse_file(const char *path, sluice_json_document **out_document);

/* For members that are too long to keep: the member `key`, an object or an array, of the root's member `outer`. Each of
 * its elements is parsed, given to `take` (without a key in an array) and forgotten; what stays in the document has its
 * kind and length, but no members or items. `begin`, asked first, may leave the member to be kept as any other. Keys
 * that stand twice in it are the taker's to find. An error that `take` returns ends the parsing. */
typedef struct sluice_json_sink {
  const char *outer, *key;
  bool (*begin)(void *user, sluice_json_kind kind);
  sluice_status *(*take)(void *user, const sluice_json_document *document, const sluice_json_member *element);
  void *user;
} sluice_json_sink;

/* Parses `length` bytes of `text`, which the document owns from now on, after errors too: allocated by sluice_allocate,
 * a NUL behind them. */
SLUICE_MUST_USE sluice_status *sluice_json_parse_into(char *text, size_t length, const char *file,
                                                      const sluice_json_sink *sinks, size_t sink_count,
                                                      sluice_json_document **out_document);

const sluice_json_value *sluice_json_root(const sluice_json_document *document);
const char *sluice_json_file(const sluice_json_document *document);
void sluice_json_free(sluice_json_document *document);

/* The member `key` of an object; NULL when `object` is NULL, not an object, or has no such member. */
const sluice_json_member *sluice_json_member_of(const sluice_json_value *object, const char *key);
const sluice_json_value *sluice_json_get(const sluice_json_value *object, const char *key);

/* An error at byte `offset` of the document's text. */
SLUICE_NEW_ERROR sluice_status *sluice_json_error(const sluice_json_document *document, size_t offset, sluice_code code,
                                                  const char *format, ...) SLUICE_PRINTF(4, 5);

/* The kind as it is called in messages: "an object", "a string", ... */
const char *sluice_json_kind_name(sluice_json_kind kind);

/* Writing. A growing text buffer with the few helpers that every JSON writer here needs; numbers are written so that
 * they read back to the same value. A failed allocation is remembered in `failed` and later calls do nothing. */
typedef struct sluice_text {
  char *data; /* terminated; owned; freed by sluice_text_free */
  size_t length, capacity;
  bool failed;
} sluice_text;
void sluice_text_append(sluice_text *text, const char *data, size_t length);
void sluice_text_printf(sluice_text *text, const char *format, ...) SLUICE_PRINTF(2, 3);
void sluice_text_json_string(sluice_text *text, const char *string);              /* quoted and escaped */
void sluice_text_json_bytes(sluice_text *text, const char *bytes, size_t length); /* the same, NUL bytes too */
void sluice_text_json_double(sluice_text *text, double value);
void sluice_text_free(sluice_text *text);

#ifdef __cplusplus
}
#endif
#endif
