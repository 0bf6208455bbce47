/* What a tokenizer is made of: the readers of files fill it, encoders and decoders use it. */
#ifndef SLUICE_TEXT_TOKENIZER_H
#define SLUICE_TEXT_TOKENIZER_H

#include "runtime/text/added_tokens.h"
#include "runtime/text/split.h"
#include "runtime/text/vocabulary.h"
#include "sluice/tokenizer.h"

#define TOKENIZER_MAX_SPLITS 16

struct sluice_tokenizer {
  vocabulary vocabulary;
  bool ignore_merges; /* a piece that is a token is that token, whatever the merges would make of it */
  bool nfc;           /* text is normalised to NFC */
  split_step *splits; /* cut text into pieces, each step the pieces of the one before */
  size_t split_count;
  added_tokens added;
  int32_t *before, *after; /* ids that the post-processor puts around a text */
  size_t before_count, after_count;
};

/* An empty tokenizer, NULL when memory is short. */
sluice_tokenizer *tokenizer_new(void);

/* The tokenizer of a tokenizer.json, whose text it takes over (sluice_json_parse_into). */
SLUICE_MUST_USE sluice_status *tokenizer_read_json(char *text, size_t length, const char *file,
                                                   sluice_tokenizer **out_tokenizer);

/* Takes over the step's code, on success only. */
SLUICE_MUST_USE sluice_status *tokenizer_add_split(sluice_tokenizer *tokenizer, const split_step *step);

/* The last step of both readers, when vocabulary and added tokens are there: checks that every byte has a token, gives
 * added tokens their bytes and makes them findable. `file` is for messages. */
SLUICE_MUST_USE sluice_status *tokenizer_finish(sluice_tokenizer *tokenizer, const char *file);

#endif
