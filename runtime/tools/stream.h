/* Text as it is generated: whole characters, and nothing of what may become a stop string. */
#ifndef SLUICE_TOOLS_STREAM_H
#define SLUICE_TOOLS_STREAM_H

#include "sluice/tokenizer.h"

#include <stdio.h>

typedef struct text_stream {
  sluice_decoder decoder;   /* it says whether special tokens give text */
  const char *const *stops; /* none is empty */
  size_t stop_count;
  FILE *out;        /* NULL: nothing is printed */
  sluice_text text; /* all of it so far, up to a stop string */
  size_t printed;   /* bytes of `text` that no stop string can take back */
  bool stopped;     /* by a stop string */
} text_stream;

/* Takes the next token. Nothing more is taken once `stopped`. */
SLUICE_MUST_USE sluice_status *text_stream_push(text_stream *stream, int32_t id);
/* The end: prints what was held back. */
SLUICE_MUST_USE sluice_status *text_stream_finish(text_stream *stream);
void text_stream_free(text_stream *stream);

#endif
