#include "runtime/tools/stream.h"

#include <string.h>

/* Where the first stop string in what is not printed begins; the text's length when there is none. */
static size_t find_stop(const text_stream *s) {
  size_t first = s->text.length;
  for (size_t i = 0; i < s->stop_count; i++) {
    const char *found =
        memmem(s->text.data + s->printed, s->text.length - s->printed, s->stops[i], strlen(s->stops[i]));
    if (found && (size_t)(found - s->text.data) < first) first = (size_t)(found - s->text.data);
  }
  return first;
}

/* Bytes at the text's end that a stop string may begin with. */
static size_t held_back(const text_stream *s) {
  size_t most = 0;
  for (size_t i = 0; i < s->stop_count; i++) {
    size_t length = strlen(s->stops[i]) - 1;
    if (length > s->text.length - s->printed) length = s->text.length - s->printed;
    while (length > most && memcmp(s->text.data + s->text.length - length, s->stops[i], length) != 0) length--;
    if (length > most) most = length;
  }
  return most;
}

static void print_up_to(text_stream *s, size_t end) {
  if (s->out && end > s->printed) {
    fwrite(s->text.data + s->printed, 1, end - s->printed, s->out);
    fflush(s->out);
  }
  s->printed = end;
}

static sluice_status *advance(text_stream *s, bool last) {
  if (s->text.failed) return sluice_out_of_memory();
  if (!s->text.length) return NULL;
  const size_t stop = find_stop(s);
  s->stopped = stop < s->text.length;
  s->text.length = stop;
  s->text.data[stop] = 0;
  print_up_to(s, s->stopped || last ? stop : stop - held_back(s));
  return NULL;
}

sluice_status *text_stream_push(text_stream *stream, int32_t id) {
  if (stream->stopped) return NULL;
  sluice_decode(&stream->decoder, &id, 1, &stream->text);
  return advance(stream, false);
}

sluice_status *text_stream_finish(text_stream *stream) {
  if (stream->stopped) return NULL;
  sluice_decode_finish(&stream->decoder, &stream->text);
  return advance(stream, true);
}

void text_stream_free(text_stream *stream) {
  sluice_text_free(&stream->text);
}
