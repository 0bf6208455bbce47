#include "sluice/json.h"
#include "sluice/memory.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Makes room for `more` bytes and a terminator. */
static bool reserve(sluice_text *text, size_t more) {
  if (text->failed) return false;
  if (text->capacity - text->length > more) return true;
  size_t capacity = text->capacity ? text->capacity : 256;
  while (capacity - text->length <= more) {
    if (capacity > SIZE_MAX / 2) {
      text->failed = true;
      return false;
    }
    capacity *= 2;
  }
  char *data = sluice_reallocate_array(text->data, capacity, 1);
  if (!data) {
    text->failed = true;
    return false;
  }
  text->data = data;
  text->capacity = capacity;
  return true;
}

void sluice_text_append(sluice_text *text, const char *data, size_t length) {
  if (!reserve(text, length)) return;
  memcpy(text->data + text->length, data, length);
  text->length += length;
  text->data[text->length] = 0;
}

void sluice_text_printf(sluice_text *text, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  int length = vsnprintf(NULL, 0, format, arguments);
  va_end(arguments);
  if (length < 0 || !reserve(text, (size_t)length)) return;
  va_start(arguments, format);
  vsnprintf(text->data + text->length, (size_t)length + 1, format, arguments);
  va_end(arguments);
  text->length += (size_t)length;
}

void sluice_text_json_string(sluice_text *text, const char *string) {
  sluice_text_json_bytes(text, string, strlen(string));
}

void sluice_text_json_bytes(sluice_text *text, const char *bytes, size_t length) {
  sluice_text_append(text, "\"", 1);
  for (const char *c = bytes; c < bytes + length; c++) {
    if (*c == '"' || *c == '\\')
      sluice_text_printf(text, "\\%c", *c);
    else if ((unsigned char)*c < 32)
      sluice_text_printf(text, "\\u%04x", (unsigned)(unsigned char)*c);
    else
      sluice_text_append(text, c, 1);
  }
  sluice_text_append(text, "\"", 1);
}

void sluice_text_json_double(sluice_text *text, double value) {
  /* The shortest of these that reads back to the same value. JSON has no infinities: those become null. */
  char buffer[40];
  if (!isfinite(value)) {
    sluice_text_append(text, "null", 4);
    return;
  }
  for (int digits = 6; digits <= 17; digits++) {
    snprintf(buffer, sizeof buffer, "%.*g", digits, value);
    if (strtod(buffer, NULL) == value) break;
  }
  /* A locale's decimal point may be other bytes than JSON's. */
  const size_t whole = strspn(buffer, "-0123456789"), point = strcspn(buffer + whole, "0123456789e");
  sluice_text_append(text, buffer, whole);
  if (point) sluice_text_append(text, ".", 1);
  sluice_text_append(text, buffer + whole + point, strlen(buffer + whole + point));
}

void sluice_text_free(sluice_text *text) {
  sluice_release(text->data);
  *text = (sluice_text){0};
}
