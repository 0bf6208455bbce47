#include "sluice/status.h"

#include "sluice/memory.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct sluice_status {
  sluice_code code;
  unsigned line, column;
  char *message;
  char *file;        /* NULL: no place */
  char *source_line; /* NULL: none */
};

static char memory_message[] = "out of memory";
static sluice_status memory_status = {.code = SLUICE_OUT_OF_MEMORY, .message = memory_message};

sluice_status *sluice_out_of_memory(void) {
  return &memory_status;
}

static char *format_arguments(const char *format, va_list arguments) {
  va_list copy;
  va_copy(copy, arguments);
  int length = vsnprintf(NULL, 0, format, copy);
  va_end(copy);
  char *text = length < 0 ? NULL : sluice_allocate_array((size_t)length + 1, 1);
  if (text) vsnprintf(text, (size_t)length + 1, format, arguments);
  return text;
}

sluice_status *sluice_error(sluice_code code, const char *format, ...) {
  sluice_status *status = sluice_allocate(sizeof *status);
  if (!status) return sluice_out_of_memory();
  va_list arguments;
  va_start(arguments, format);
  status->message = format_arguments(format, arguments);
  va_end(arguments);
  status->code = code;
  if (status->message) return status;
  sluice_status_free(status);
  return sluice_out_of_memory();
}

sluice_status *sluice_error_at(sluice_code code, const char *file, unsigned line, unsigned column,
                               const char *source_line, size_t source_length, const char *format, ...) {
  sluice_status *status = sluice_allocate(sizeof *status);
  if (!status) return sluice_out_of_memory();
  va_list arguments;
  va_start(arguments, format);
  status->message = format_arguments(format, arguments);
  va_end(arguments);
  status->code = code;
  status->line = line;
  status->column = column;
  status->file = sluice_copy_string(file, strlen(file));
  if (source_line) status->source_line = sluice_copy_string(source_line, source_length);
  if (status->message && status->file && (status->source_line || !source_line)) return status;
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

/* The source line as it can be shown on a terminal: one column for each byte, cut to a window around the caret. Writes
 * at most 160 bytes and returns the caret's column in it, from 0. */
static size_t visible_line(const sluice_status *status, char window[161]) {
  enum { WIDTH = 160, BEFORE = 100 };
  size_t length = strlen(status->source_line), caret = status->column ? status->column - 1 : 0;
  if (caret > length) caret = length;
  size_t start = caret > BEFORE ? caret - BEFORE : 0;
  size_t count = length - start < WIDTH ? length - start : WIDTH;
  for (size_t i = 0; i < count; i++) {
    unsigned char c = (unsigned char)status->source_line[start + i];
    window[i] = (char)(c == '\t' ? ' ' : c < 32 || c == 127 ? '?' : c);
  }
  window[count] = 0;
  return caret - start;
}

char *sluice_status_format(const sluice_status *status) {
  if (!status) return sluice_copy_string("ok\n", 3);
  if (!status->file) return sluice_format_string("error: %s\n", status->message);
  char place[64] = "";
  if (status->line) snprintf(place, sizeof place, ":%u:%u", status->line, status->column);
  if (!status->source_line) return sluice_format_string("%s%s: error: %s\n", status->file, place, status->message);
  char window[161];
  size_t caret = visible_line(status, window);
  return sluice_format_string("%s%s: error: %s\n%s\n%*s^\n", status->file, place, status->message, window, (int)caret,
                              "");
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
