/* The lexer: text to tokens, with Jinja's whitespace control as transformers sets it (trim_blocks, lstrip_blocks). */
#include "runtime/text/jinja/jinja.h"
#include "runtime/text/utf8.h"
#include "sluice/memory.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

const char *const jinja_token_names[] = {"the end of the template",
                                         "text",
                                         "the begin of a tag",
                                         "\"%}\"",
                                         "the begin of a print",
                                         "\"}}\"",
                                         "a name",
                                         "a string",
                                         "an integer",
                                         "a float",
                                         "\"+\"",
                                         "\"-\"",
                                         "\"**\"",
                                         "\"*\"",
                                         "\"//\"",
                                         "\"/\"",
                                         "\"%\"",
                                         "\"~\"",
                                         "\"[\"",
                                         "\"]\"",
                                         "\"(\"",
                                         "\")\"",
                                         "\"{\"",
                                         "\"}\"",
                                         "\"==\"",
                                         "\"!=\"",
                                         "\">=\"",
                                         "\">\"",
                                         "\"<=\"",
                                         "\"<\"",
                                         "\"=\"",
                                         "\".\"",
                                         "\":\"",
                                         "\"|\"",
                                         "\",\"",
                                         "\";\"",
                                         "\"in\"",
                                         "\"not in\""};

/* In the order of the kinds from TOKEN_ADD on; a longer one stands before its own beginning. */
static const char *const operators[] = {"+", "-",  "**", "*",  "//", "/",  "%", "~", "[", "]", "(", ")", "{",
                                        "}", "==", "!=", ">=", ">",  "<=", "<", "=", ".", ":", "|", ",", ";"};

typedef struct lexer {
  sluice_template *template;
  const char *text;
  size_t length, at;
  bool line_starting;                   /* what was read last ends with a newline */
  char brackets[JINJA_MAX_NESTING + 1]; /* what closes the open ones */
  size_t open;
} lexer;

#define LEX_ERROR(l, offset, ...) jinja_error_at((l)->template, (offset), SLUICE_INVALID, __VA_ARGS__)

/* ---- Small things ---- */

static bool starts(const lexer *l, size_t at, const char *word) {
  size_t length = strlen(word);
  return l->length - at >= length && memcmp(l->text + at, word, length) == 0;
}

static size_t skip_space(const lexer *l, size_t at) {
  while (at < l->length) {
    size_t length = l->length - at;
    if (!jinja_is_space(jinja_code_point(l->text + at, &length))) break;
    at += length;
  }
  return at;
}

/* Where the white space at the end of [start, end) begins. */
static size_t strip_end(const lexer *l, size_t start, size_t end) {
  while (end > start) {
    size_t at = end - 1;
    while (at > start && ((unsigned char)l->text[at] & 0xc0) == 0x80) at--;
    size_t length = end - at;
    if (!jinja_is_space(jinja_code_point(l->text + at, &length))) break;
    end = at;
  }
  return end;
}

static sluice_status *add(lexer *l, jinja_token_kind kind, size_t offset, jinja_token **out) {
  sluice_template *t = l->template;
  if (t->token_count == t->token_capacity) {
    size_t capacity = t->token_capacity ? 2 * t->token_capacity : 256;
    jinja_token *grown = sluice_reallocate_array(t->tokens, capacity, sizeof *grown);
    if (!grown) return sluice_out_of_memory();
    t->tokens = grown;
    t->token_capacity = capacity;
  }
  *out = &t->tokens[t->token_count++];
  **out = (jinja_token){.kind = kind, .offset = offset};
  return NULL;
}

static sluice_status *string_value(sluice_template *t, const char *bytes, size_t length, jinja_value *out) {
  jinja_string *string = jinja_take(&t->arena, sizeof *string);
  jinja_buffer *buffer = jinja_take(&t->arena, sizeof *buffer);
  char *data = jinja_take(&t->arena, length + 1);
  if (!string || !buffer || !data) return sluice_out_of_memory();
  memcpy(data, bytes, length);
  *buffer = (jinja_buffer){.data = data, .length = length, .capacity = length};
  *string = (jinja_string){.buffer = buffer, .length = length, .characters = SIZE_MAX};
  jinja_characters(string); /* now, since a template may be used by several threads */
  *out = (jinja_value){.kind = JINJA_STRING, .string = string};
  return NULL;
}

static sluice_status *add_data(lexer *l, size_t start, size_t end) {
  if (start == end) return NULL;
  jinja_token *token;
  SLUICE_TRY(add(l, TOKEN_DATA, start, &token));
  return string_value(l->template, l->text + start, end - start, &token->value);
}

/* ---- Tokens within tags ---- */

static bool is_word(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

static bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

static char at_or_nul(const lexer *l, size_t at) {
  return at < l->length ? l->text[at] : 0;
}

/* Digits with single underscores between them; where they end, `at` when there are none. */
static size_t skip_digits(const lexer *l, size_t at) {
  size_t end = at;
  while (is_digit(at_or_nul(l, at))) {
    end = ++at;
    if (at_or_nul(l, at) == '_' && is_digit(at_or_nul(l, at + 1))) at++;
  }
  return end;
}

/* The end of a float at `at`; `at` when there is none. */
static size_t skip_float(const lexer *l, size_t at) {
  if (at > 0 && l->text[at - 1] == '.') return at;
  size_t whole = skip_digits(l, at), end = whole;
  if (whole == at) return at;
  bool is_float = false;
  if (at_or_nul(l, end) == '.' && is_digit(at_or_nul(l, end + 1))) {
    end = skip_digits(l, end + 1);
    is_float = true;
  }
  char e = at_or_nul(l, end);
  if (e == 'e' || e == 'E') {
    size_t digits = end + 1;
    if (at_or_nul(l, digits) == '+' || at_or_nul(l, digits) == '-') digits++;
    size_t after = skip_digits(l, digits);
    if (after > digits) {
      end = after;
      is_float = true;
    }
  }
  return is_float ? end : at;
}

static bool base_digit(char c, int base) {
  int value = is_digit(c) ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : 99;
  return value < base;
}

static sluice_status *lex_integer(lexer *l) {
  size_t start = l->at, end = start;
  char mark = at_or_nul(l, start) == '0' ? (char)(at_or_nul(l, start + 1) | 32) : 0;
  int base = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 10;
  if (base != 10) {
    size_t at = start + 2;
    end = at;
    while (base_digit(at_or_nul(l, at), base) || (at_or_nul(l, at) == '_' && base_digit(at_or_nul(l, at + 1), base))) {
      end = ++at;
    }
    if (end == start + 2) base = 10;
  }
  if (base == 10) {
    /* Jinja has zeros, or a number without leading zeros. */
    end = skip_digits(l, start);
    if (l->text[start] == '0')
      for (size_t i = start; i < end; i++)
        if (l->text[i] != '0' && l->text[i] != '_') return LEX_ERROR(l, start, "an integer must not start with a zero");
  }
  jinja_token *token;
  SLUICE_TRY(add(l, TOKEN_INTEGER, start, &token));
  int64_t value;
  bool overflow = false;
  if (!jinja_parse_integer(l->text + start, end - start, base == 10 ? 10 : 0, &value, &overflow) || overflow)
    return LEX_ERROR(l, start, "this integer does not fit 64 bits");
  token->value = jinja_int(value);
  l->at = end;
  return NULL;
}

static sluice_status *lex_float(lexer *l, size_t end) {
  jinja_token *token;
  SLUICE_TRY(add(l, TOKEN_FLOAT, l->at, &token));
  double value;
  if (!jinja_parse_float(l->text + l->at, end - l->at, &value)) return LEX_ERROR(l, l->at, "malformed float");
  token->value = jinja_float(value);
  l->at = end;
  return NULL;
}

/* `digits` of base 16 or 8 at `at`; false when there are fewer. */
static bool read_digits(const char *text, size_t length, size_t digits, int base, uint32_t *out) {
  if (length < digits) return false;
  *out = 0;
  for (size_t i = 0; i < digits; i++) {
    if (!base_digit(text[i], base)) return false;
    *out = *out * (uint32_t)base + (uint32_t)(is_digit(text[i]) ? text[i] - '0' : (text[i] | 32) - 'a' + 10);
  }
  return true;
}

/* The escape after the backslash at text[0], as Python has it; appends to `out`. Sets `*used` (from the backslash on)
 * and gives false where Python refuses it. */
static bool unescape(const char *text, size_t length, char *out, size_t *out_length, size_t *used) {
  static const char plain[] = "\\'\"abfnrtv", values[] = "\\'\"\a\b\f\n\r\t\v";
  char c = length > 1 ? text[1] : 0;
  *used = 2;
  if (c == '\n') return true;
  const char *found = c ? strchr(plain, c) : NULL;
  if (found) {
    out[(*out_length)++] = values[found - plain];
    return true;
  }
  uint32_t code = 0;
  size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
  if (digits) {
    if (!read_digits(text + 2, length - 2, digits, 16, &code) || code > 0x10ffff || (code >= 0xd800 && code < 0xe000))
      return false;
    *used = 2 + digits;
  } else if (c >= '0' && c <= '7') {
    size_t count = 1;
    while (count < 3 && 1 + count < length && text[1 + count] >= '0' && text[1 + count] <= '7') count++;
    read_digits(text + 1, length - 1, count, 8, &code);
    *used = 1 + count;
  } else if (c == 'N') {
    return false; /* names of characters */
  } else {
    out[(*out_length)++] = '\\'; /* unknown escapes stay */
    *used = 1;
    return true;
  }
  *out_length += utf8_write(code, (unsigned char *)out + *out_length);
  return true;
}

static sluice_status *lex_string(lexer *l) {
  size_t start = l->at, end = start + 1;
  char quote = l->text[start];
  while (end < l->length && l->text[end] != quote) end += l->text[end] == '\\' ? 2 : 1;
  if (end >= l->length) return LEX_ERROR(l, start, "this string does not end");
  char *bytes = sluice_allocate(end - start + 1);
  if (!bytes) return sluice_out_of_memory();
  size_t length = 0;
  sluice_status *status = NULL;
  for (size_t at = start + 1; at < end && !status;) {
    size_t used = 1;
    if (l->text[at] != '\\')
      bytes[length++] = l->text[at];
    else if (!unescape(l->text + at, end - at, bytes, &length, &used))
      status = LEX_ERROR(l, at, "this escape in a string is not understood");
    at += used;
  }
  jinja_token *token = NULL;
  if (!status) status = add(l, TOKEN_STRING, start, &token);
  if (!status) status = string_value(l->template, bytes, length, &token->value);
  sluice_release(bytes);
  l->at = end + 1;
  return status;
}

static sluice_status *lex_operator(lexer *l) {
  size_t count = sizeof operators / sizeof operators[0], i = 0;
  while (i < count && !starts(l, l->at, operators[i])) i++;
  if (i == count) {
    size_t length = l->length - l->at;
    uint32_t code = jinja_code_point(l->text + l->at, &length);
    return LEX_ERROR(l, l->at, "the character \"%.*s\" (U+%04X) has no meaning in a tag", (int)length, l->text + l->at,
                     code);
  }
  const char *operator = operators[i];
  const char *opening = strchr("([{", operator[0]), *closing = strchr(")]}", operator[0]);
  if (opening) {
    if (l->open == JINJA_MAX_NESTING)
      return LEX_ERROR(l, l->at, "more than %d brackets in each other", JINJA_MAX_NESTING);
    l->brackets[l->open++] = operator[0] == '(' ? ')' : operator[0] == '[' ? ']' : '}';
  } else if (closing) {
    if (!l->open) return LEX_ERROR(l, l->at, "\"%s\" closes nothing", operator);
    if (l->brackets[--l->open] != operator[0])
      return LEX_ERROR(l, l->at, "found \"%s\", expected \"%c\"", operator, l->brackets[l->open]);
  }
  jinja_token *token;
  SLUICE_TRY(add(l, (jinja_token_kind)(TOKEN_ADD + (int)i), l->at, &token));
  l->at += strlen(operator);
  return NULL;
}

static sluice_status *lex_token(lexer *l) {
  char c = l->text[l->at];
  if (is_digit(c)) {
    size_t end = skip_float(l, l->at);
    return end > l->at ? lex_float(l, end) : lex_integer(l);
  }
  if (is_word(c)) {
    size_t end = l->at;
    while (is_word(at_or_nul(l, end))) end++;
    jinja_token *token;
    SLUICE_TRY(add(l, TOKEN_NAME, l->at, &token));
    token->name = jinja_intern(l->template, l->text + l->at, end - l->at);
    if (!token->name) return sluice_out_of_memory();
    l->at = end;
    return NULL;
  }
  if (c == '\'' || c == '"') return lex_string(l);
  return lex_operator(l);
}

/* ---- Tags ---- */

static void note_line(lexer *l) {
  l->line_starting = l->at > 0 && l->text[l->at - 1] == '\n';
}

/* The end of a tag at l->at, "-%}" with the space after it, "%}" with one newline: moves over it. */
static bool skip_end(lexer *l, const char *end, bool trim) {
  size_t at = l->at;
  char sign = at_or_nul(l, at);
  bool signed_ = (sign == '-' || (sign == '+' && trim)) && starts(l, at + 1, end);
  if (!signed_ && !starts(l, at, end)) return false;
  at += strlen(end) + (signed_ ? 1 : 0);
  if (signed_ && sign == '-')
    at = skip_space(l, at);
  else if (!signed_ && trim && at_or_nul(l, at) == '\n')
    at++;
  l->at = at;
  note_line(l);
  return true;
}

/* The inside of {% %} or {{ }}, from behind its begin. */
static sluice_status *lex_tag(lexer *l, size_t begin, bool print) {
  jinja_token *token;
  SLUICE_TRY(add(l, print ? TOKEN_PRINT_BEGIN : TOKEN_BLOCK_BEGIN, begin, &token));
  l->open = 0;
  for (;;) {
    size_t place = l->at;
    if (!l->open && skip_end(l, print ? "}}" : "%}", !print))
      return add(l, print ? TOKEN_PRINT_END : TOKEN_BLOCK_END, place, &token);
    if (l->at >= l->length) return LEX_ERROR(l, begin, "this tag does not end");
    l->at = skip_space(l, l->at);
    if (l->at > place || l->at >= l->length) continue;
    SLUICE_TRY(lex_token(l));
  }
}

static sluice_status *skip_comment(lexer *l, size_t begin) {
  for (; l->at < l->length; l->at++)
    if (skip_end(l, "#}", true)) return NULL;
  return LEX_ERROR(l, begin, "this comment does not end");
}

/* Data before the tag at `end`, without the space that `sign` or lstrip_blocks takes. */
static sluice_status *lex_data(lexer *l, size_t start, size_t end, char sign, bool print) {
  if (sign == '-') return add_data(l, start, strip_end(l, start, end));
  if (sign != '+' && !print) {
    size_t line = end;
    while (line > start && l->text[line - 1] != '\n') line--;
    if ((line > start || l->line_starting) && strip_end(l, line, end) == line) end = line;
  }
  return add_data(l, start, end);
}

/* Whether "{%" at `at` is a raw block's; `*out`: behind its tag. */
static bool is_raw(const lexer *l, size_t at, const char *word, size_t *out) {
  at += 2;
  if (at_or_nul(l, at) == '-' || at_or_nul(l, at) == '+') at++;
  at = skip_space(l, at);
  if (!starts(l, at, word)) return false;
  *out = skip_space(l, at + strlen(word));
  return true;
}

static sluice_status *lex_raw(lexer *l, size_t begin) {
  size_t start = l->at;
  for (size_t at = start; at + 1 < l->length; at++) {
    size_t after;
    if (!starts(l, at, "{%") || !is_raw(l, at, "endraw", &after)) continue;
    size_t back = l->at;
    l->at = after;
    bool line_starting = l->line_starting;
    if (!skip_end(l, "%}", true)) {
      l->at = back;
      continue;
    }
    bool now = l->line_starting;
    l->line_starting = line_starting;
    SLUICE_TRY(lex_data(l, start, at, at_or_nul(l, at + 2), false));
    l->line_starting = now;
    return NULL;
  }
  return LEX_ERROR(l, begin, "this raw block does not end");
}

static sluice_status *lex_begin(lexer *l, size_t start, size_t begin) {
  char kind = l->text[begin + 1], sign = at_or_nul(l, begin + 2);
  bool has_sign = sign == '-' || sign == '+';
  SLUICE_TRY(lex_data(l, start, begin, has_sign ? sign : 0, kind == '{'));
  size_t after;
  if (kind == '%' && is_raw(l, begin, "raw", &after)) {
    if (starts(l, after, "-%}") || starts(l, after, "%}")) {
      l->at = after;
      skip_end(l, "%}", false);
      return lex_raw(l, begin);
    }
  }
  l->at = begin + 2 + (has_sign ? 1 : 0);
  if (kind == '#') return skip_comment(l, begin);
  return lex_tag(l, begin, kind == '{');
}

sluice_status *jinja_lex(sluice_template *template) {
  lexer l = {.template = template, .text = template->text, .length = template->length, .line_starting = true};
  while (l.at < l.length) {
    size_t begin = l.at;
    while (begin < l.length &&
           !(l.text[begin] == '{' && begin + 1 < l.length && strchr("%{#", l.text[begin + 1]) && l.text[begin + 1]))
      begin++;
    if (begin == l.length) {
      SLUICE_TRY(add_data(&l, l.at, l.length));
      break;
    }
    SLUICE_TRY(lex_begin(&l, l.at, begin));
  }
  jinja_token *token;
  return add(&l, TOKEN_END, l.length, &token);
}
