#include "sluice/status.h"

#include "sluice/memory.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

struct sluice_status {
  sluice_code code;
  unsigned line, column;
  char *message;
  char *file;        /* NULL: no place */
  char *source_line; /* the part of it around the column that is shown; NULL: none */
  size_t caret;      /* where to point in it, in characters from 0 */
};

static char memory_message[] = "out of memory";
static sluice_status memory_status = {.code = SLUICE_OUT_OF_MEMORY, .message = memory_message};

sluice_status *sluice_out_of_memory(void) {
  return &memory_status;
}

/* Length of the character at `text` when it is safe on a terminal: printable ASCII, or valid UTF-8 from U+00A0 on;
 * otherwise 0. */
static size_t printable_length(const unsigned char *text, size_t left) {
  const unsigned char c = text[0];
  if (c < 0x80) return c >= 32 && c != 127;
  const size_t length = c < 0xc2 ? 0 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : c < 0xf5 ? 4 : 0;
  if (!length || length > left) return 0;
  for (size_t i = 1; i < length; i++)
    if ((text[i] & 0xc0) != 0x80) return 0;
  const bool control = c == 0xc2 && text[1] < 0xa0,
             overlong = (c == 0xe0 && text[1] < 0xa0) || (c == 0xf0 && text[1] < 0x90),
             out_of_range = (c == 0xed && text[1] > 0x9f) || (c == 0xf4 && text[1] > 0x8f);
  return control || overlong || out_of_range ? 0 : length;
}

/* Makes text that may hold bytes of an input file safe to print, and one line: tabs and ends of lines become spaces,
 * every other byte that is not part of a printable character becomes '?'. */
static void make_printable(char *text, size_t length) {
  for (size_t i = 0; i < length;) {
    const size_t character = printable_length((const unsigned char *)text + i, length - i);
    if (!character) text[i] = text[i] == '\t' || text[i] == '\n' || text[i] == '\r' ? ' ' : '?';
    i += character ? character : 1;
  }
}

static bool continues_character(char c) {
  return ((unsigned char)c & 0xc0) == 0x80;
}

static char *format_arguments(const char *format, va_list arguments) {
  va_list copy;
  va_copy(copy, arguments);
  int length = vsnprintf(NULL, 0, format, copy);
  va_end(copy);
  char *text = length < 0 ? NULL : sluice_allocate_array((size_t)length + 1, 1);
  if (!text) return NULL;
  vsnprintf(text, (size_t)length + 1, format, arguments);
  make_printable(text, (size_t)length);
  return text;
}

/* With a message, or the status of memory that is short. */
static sluice_status *make_status(sluice_code code, const char *format, va_list arguments) {
  sluice_status *status = sluice_allocate(sizeof *status);
  if (!status) return sluice_out_of_memory();
  status->code = code;
  status->message = format_arguments(format, arguments);
  if (status->message) return status;
  sluice_status_free(status);
  return sluice_out_of_memory();
}

sluice_status *sluice_error(sluice_code code, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  sluice_status *status = make_status(code, format, arguments);
  va_end(arguments);
  return status;
}

/* Keeps the part of the source line around the column. */
static void keep_source(sluice_status *status, const char *line, size_t length) {
  enum { WIDTH = 160, BEFORE = 100 };
  size_t caret = status->column ? status->column - 1 : 0;
  if (caret > length) caret = length;
  size_t start = caret > BEFORE ? caret - BEFORE : 0;
  while (start < caret && continues_character(line[start])) start++;
  const size_t count = length - start < WIDTH ? length - start : WIDTH;
  status->source_line = sluice_copy_string(line + start, count);
  if (!status->source_line) return;
  make_printable(status->source_line, count);
  for (size_t i = 0; i < caret - start; i++) status->caret += !continues_character(status->source_line[i]);
}

sluice_status *sluice_error_at(sluice_code code, const char *file, unsigned line, unsigned column,
                               const char *source_line, size_t source_length, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  sluice_status *status = make_status(code, format, arguments);
  va_end(arguments);
  if (status == &memory_status) return status;
  status->line = line;
  status->column = column;
  status->file = sluice_copy_string(file, strlen(file));
  if (status->file) make_printable(status->file, strlen(file));
  if (source_line) keep_source(status, source_line, source_length);
  if (status->file && (status->source_line || !source_line)) return status;
  sluice_status_free(status);
  return sluice_out_of_memory();
}

sluice_status *sluice_annotate(sluice_status *status, const char *format, ...) {
  if (!status || status == &memory_status) return status;
  va_list arguments;
  va_start(arguments, format);
  char *context = format_arguments(format, arguments);
  va_end(arguments);
  char *message = context ? sluice_format_string("%s: %s", context, status->message) : NULL;
  sluice_release(context);
  if (!message) return status; /* the error itself matters more than its context */
  sluice_release(status->message);
  status->message = message;
  return status;
}

sluice_code sluice_status_code(const sluice_status *status) {
  return status ? status->code : SLUICE_OK;
}

const char *sluice_status_message(const sluice_status *status) {
  return status ? status->message : "ok";
}

char *sluice_status_format(const sluice_status *status) {
  if (!status) return sluice_copy_string("ok\n", 3);
  if (!status->file) return sluice_format_string("error: %s\n", status->message);
  char place[64] = "";
  if (status->line && status->column)
    snprintf(place, sizeof place, ":%u:%u", status->line, status->column);
  else if (status->line)
    snprintf(place, sizeof place, ":%u", status->line);
  if (!status->source_line) return sluice_format_string("%s%s: error: %s\n", status->file, place, status->message);
  if (!status->column)
    return sluice_format_string("%s%s: error: %s\n%s\n", status->file, place, status->message, status->source_line);
  return sluice_format_string("%s%s: error: %s\n%s\n%*s^\n", status->file, place, status->message, status->source_line,
                              (int)status->caret, "");
}

void sluice_status_print(const sluice_status *status) {
  if (!status) return;
  char *text = sluice_status_format(status);
  fputs(text ? text : "error: out of memory\n", stderr);
  sluice_release(text);
}

void sluice_status_free(sluice_status *status) {
  if (!status || status == &memory_status) return;
  sluice_release(status->message);
  sluice_release(status->file);
  sluice_release(status->source_line);
  sluice_release(status);
}

int sluice_exit_code(const sluice_status *status) {
  switch (sluice_status_code(status)) {
  case SLUICE_OK:
    return 0;
  case SLUICE_USAGE:
    return 2;
  case SLUICE_INTERNAL:
    return 70;
  default:
    return 1;
  }
}
