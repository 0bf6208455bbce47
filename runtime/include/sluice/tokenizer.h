/* Tokenizers: text to token ids and back. Part of libsluice_text.
 *
 *   sluice_tokenizer   an opened file: immutable, may be used from any number of threads
 *   sluice_encoder     scratch memory for encoding; one thread at a time
 *   sluice_decoder     ids to text, also one id after another; a plain struct, one thread at a time
 *
 * Files. A directory or a file, in either of these forms:
 *   tokenizer.json     of Hugging Face, with a byte-level BPE model:
 *                        model          BPE; merges as "a b" or ["a", "b"]; ignore_merges
 *                        normalizer     null, NFC, or a Sequence of these
 *                        pre_tokenizer  Split by a regular expression or a string (every behaviour, inverted too),
 *                                       ByteLevel, or a Sequence of these
 *                        post_processor null, ByteLevel, TemplateProcessing (of one text), or a Sequence of these
 *                        decoder        ByteLevel
 *                        added_tokens   lstrip, rstrip, normalized, special
 *   *.tiktoken         lines of a token in base64 and its rank; the pieces are cut as o200k does. Special tokens come
 *                        from "added_tokens_decoder" of tokenizer_config.json in the same folder, when there is one.
 * What a file asks for beyond this is refused by name, never ignored.
 *
 * Ids equal those of the `tokenizers` library for the same file.
 *
 * Text that is not valid UTF-8. Encoding reads each longest ill-formed part (a maximal subpart, Unicode 3.9) as U+FFFD,
 * as Python's errors="replace" does. Decoding gives valid UTF-8: bytes that do not form a character become U+FFFD by
 * the same rule.
 *
 * Time is linear in the text's length but for long words, where it is n log n. A regular expression that a hostile file
 * made slow is stopped with an error, after a number of steps in proportion to the text.
 */
#ifndef SLUICE_TOKENIZER_H
#define SLUICE_TOKENIZER_H

#include "sluice/json.h"
#include "sluice/status.h"

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct sluice_tokenizer sluice_tokenizer;
typedef struct sluice_encoder sluice_encoder;

/* Opens `path`: a file, or a directory that holds tokenizer.json or else exactly one *.tiktoken or tiktoken.model. */
SLUICE_MUST_USE sluice_status *sluice_tokenizer_open(const char *path, sluice_tokenizer **out_tokenizer);

/* The same from memory; `file` names the text in errors. `config`: the text of tokenizer_config.json, NULL: none. */
SLUICE_MUST_USE sluice_status *sluice_tokenizer_parse_json(const char *text, size_t length, const char *file,
                                                           sluice_tokenizer **out_tokenizer);
SLUICE_MUST_USE sluice_status *sluice_tokenizer_parse_tiktoken(const char *text, size_t length, const char *file,
                                                               const sluice_json_document *config,
                                                               sluice_tokenizer **out_tokenizer);

void sluice_tokenizer_close(sluice_tokenizer *tokenizer); /* NULL is allowed; encoders and decoders first */

/* One more than the largest id. There may be ids without a token below it. */
int32_t sluice_tokenizer_size(const sluice_tokenizer *tokenizer);
/* The bytes of a token, not terminated, which need not be whole characters; NULL for an id without a token. They live
 * as long as the tokenizer. */
const char *sluice_tokenizer_bytes(const sluice_tokenizer *tokenizer, int32_t id, size_t *out_length);
/* The id of an added token ("]~b]"), -1 when there is none. */
int32_t sluice_tokenizer_added_id(const sluice_tokenizer *tokenizer, const char *content);
/* Whether the id is an added token, and whether one that the file calls special. */
bool sluice_tokenizer_is_added(const sluice_tokenizer *tokenizer, int32_t id);
bool sluice_tokenizer_is_special(const sluice_tokenizer *tokenizer, int32_t id);

/* ---- Text to ids ---- */

/* What added tokens written out in a text are. */
typedef enum sluice_added_tokens {
  SLUICE_ADDED_NONE = 0, /* text like any other: for what a user typed */
  SLUICE_ADDED_PLAIN,    /* those that are not special are tokens (encode_special_tokens=True of `tokenizers`) */
  SLUICE_ADDED_ALL,      /* all of them are tokens: for what a chat template wrote (`tokenizers` as it comes) */
} sluice_added_tokens;

typedef struct sluice_span {
  size_t start, end; /* bytes [start, end) */
} sluice_span;

typedef struct sluice_encode_options {
  sluice_added_tokens added;
  /* Parts of the text, ascending and apart, in which added tokens are text whatever `added` says: the users' words
   * within a rendered template. An added token is recognised when none of its bytes lies in such a part; otherwise the
   * text is cut into pieces across the edges of parts as if they were not there. */
  const sluice_span *plain;
  size_t plain_count;
  bool post_process; /* put the tokens around the text that the file's post-processor names */
} sluice_encode_options;

SLUICE_MUST_USE sluice_status *sluice_encoder_create(const sluice_tokenizer *tokenizer, sluice_encoder **out_encoder);
void sluice_encoder_free(sluice_encoder *encoder); /* NULL is allowed */

/* Encodes `length` bytes. `options` NULL: all zero. The ids belong to the encoder and live until its next call. At most
 * 2^31 - 1 bytes of text. */
SLUICE_MUST_USE sluice_status *sluice_encode(sluice_encoder *encoder, const char *text, size_t length,
                                             const sluice_encode_options *options, const int32_t **out_ids,
                                             size_t *out_count);

/* ---- Ids to text ---- */

/* {.tokenizer = ...} is a decoder that has seen nothing. */
typedef struct sluice_decoder {
  const sluice_tokenizer *tokenizer;
  bool skip_special;        /* special tokens give no text */
  unsigned char pending[4]; /* the start of a character whose end has not come */
  unsigned char pending_count;
} sluice_decoder;

/* Appends the text of `ids` to `text`: whole characters only. What is left waits in the decoder for the next call, so
 * decoding in any number of calls and one sluice_decode_finish gives the same bytes as decoding at once. Ids without a
 * token give nothing. Memory that ran short is remembered in `text->failed`. */
void sluice_decode(sluice_decoder *decoder, const int32_t *ids, size_t count, sluice_text *text);
/* The end of the ids: a character that is still waiting for its end becomes U+FFFD. */
void sluice_decode_finish(sluice_decoder *decoder, sluice_text *text);

#ifdef __cplusplus
}
#endif
#endif
