/* Expressions of tokenizer.json are written for Oniguruma, in Ruby's syntax. Most of it means the same to PCRE2; what
 * does not is rewritten (white space, scripts, {,n}) or refused by name. What is let through has no back references,
 * no recursion and no callouts.
 *
 *   expression    alternatives separated by |, of atoms with quantifiers
 *   atom          character, escape, class in brackets, group in parentheses, . ^ $
 */
#include "runtime/text/split.h"

#include "sluice/json.h"

#include <string.h>

typedef struct reader {
  const char *text;
  size_t length, at;
  sluice_text out;
} reader;

/* White space as Unicode and Oniguruma have it; PCRE2's \s has U+180E too. And all the rest. */
#define SPACES                                                                                                         \
  "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"
#define NO_SPACES                                                                                                      \
  "\\x{0}-\\x{8}\\x{e}-\\x{1f}\\x{21}-\\x{84}\\x{86}-\\x{9f}\\x{a1}-\\x{167f}\\x{1681}-\\x{1fff}\\x{200b}-\\x{2027}"   \
  "\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}\\x{3001}-\\x{10ffff}"

static sluice_status *refuse(const reader *r, size_t start, const char *why) {
  const size_t length = r->at > start ? r->at - start : 1;
  return sluice_error(SLUICE_UNSUPPORTED, "the regular expression has \"%.*s\" at byte %zu: %s", (int)length,
                      r->text + start, start, why);
}

static bool more(const reader *r) {
  return r->at < r->length;
}

static bool next_is(const reader *r, const char *word) {
  const size_t length = strlen(word);
  return r->length - r->at >= length && memcmp(r->text + r->at, word, length) == 0;
}

static void put(reader *r, const char *text) {
  sluice_text_append(&r->out, text, strlen(text));
}

/* A character that stands for itself, as PCRE2 reads it within classes and outside. */
static void put_character(reader *r, char c) {
  if (c && strchr("\\[](){}*+?|^$.-&~#", c)) put(r, "\\");
  sluice_text_append(&r->out, &c, 1);
}

static bool is_general_category(const char *name, size_t length) {
  static const char *const names[] = {"L",  "Lu", "Ll", "Lt", "Lm", "Lo", "M",  "Mn", "Mc", "Me", "N",  "Nd", "Nl",
                                      "No", "P",  "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "S",  "Sm", "Sc", "Sk",
                                      "So", "Z",  "Zs", "Zl", "Zp", "C",  "Cc", "Cf", "Cs", "Co", "Cn"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (strlen(names[i]) == length && memcmp(names[i], name, length) == 0) return true;
  return false;
}

/* \p{Name}, \p{^Name} or \P{Name}, its backslash at `start` and r->at behind the letter. Names that are no general
 * category are scripts; PCRE2 takes such a name for the script's extensions too unless it is told. */
static sluice_status *read_property(reader *r, size_t start) {
  bool negated = r->text[r->at - 1] == 'P';
  const char *end = more(r) && r->text[r->at] == '{' ? memchr(r->text + r->at, '}', r->length - r->at) : NULL;
  if (!end) return refuse(r, start, "a property is written \\p{Name}");
  r->at++;
  if (r->text[r->at] == '^') {
    negated = !negated;
    r->at++;
  }
  const char *name = r->text + r->at;
  const size_t length = (size_t)(end - name);
  r->at += length + 1;
  for (size_t i = 0; i < length; i++)
    if (!((name[i] >= 'a' && name[i] <= 'z') || (name[i] >= 'A' && name[i] <= 'Z') || name[i] == '_'))
      return refuse(r, start, "no property has such a name");
  if (!length) return refuse(r, start, "a property needs a name");
  sluice_text_printf(&r->out, "\\%c{%s%.*s}", negated ? 'P' : 'p',
                     is_general_category(name, length) ? "" : "sc:", (int)length, name);
  return NULL;
}

static bool is_hex(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

/* \xHH, \x{H...} or \uHHHH, r->at behind the letter. */
static sluice_status *read_code_point(reader *r, size_t start) {
  const bool braces = next_is(r, "{");
  const size_t most = r->text[r->at - 1] == 'u' ? 4 : braces ? 6 : 2;
  if (braces) r->at++;
  const size_t first = r->at;
  while (more(r) && r->at - first < most && is_hex(r->text[r->at])) r->at++;
  const size_t digits = r->at - first;
  if (braces ? digits == 0 || !next_is(r, "}") : digits != most)
    return refuse(r, start, "a character is written \\xHH, \\x{H} or \\uHHHH");
  sluice_text_printf(&r->out, "\\x{%.*s}", (int)digits, r->text + first);
  if (braces) r->at++;
  return NULL;
}

/* An escape; `in_class`: between brackets. r->at is at the backslash. */
static sluice_status *read_escape(reader *r, bool in_class) {
  const size_t start = r->at++;
  if (!more(r)) return refuse(r, start, "nothing follows the backslash");
  const char c = r->text[r->at++];
  switch (c) {
  case 's':
    put(r, in_class ? SPACES : "[" SPACES "]");
    return NULL;
  case 'S':
    put(r, in_class ? NO_SPACES : "[^" SPACES "]");
    return NULL;
  case 'd':
    put(r, "\\p{Nd}");
    return NULL;
  case 'D':
    put(r, "\\P{Nd}");
    return NULL;
  case 'p':
  case 'P':
    return read_property(r, start);
  case 'x':
  case 'u':
    return read_code_point(r, start);
  case 'r':
  case 'n':
  case 't':
  case 'f':
  case 'a':
  case 'e':
    sluice_text_printf(&r->out, "\\%c", c);
    return NULL;
  case 'v':
    put(r, "\\x{b}");
    return NULL;
  default:
    if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (unsigned char)c >= 0x80)
      return refuse(r, start, "this escape is not done");
    put_character(r, c);
    return NULL;
  }
}

static sluice_status *read_class(reader *r) {
  const size_t start = r->at++;
  put(r, "[");
  if (next_is(r, "^")) {
    put(r, "^");
    r->at++;
  }
  if (next_is(r, "]")) return refuse(r, start, "a class must not begin with a bracket; write \\]");
  while (more(r) && r->text[r->at] != ']') {
    const char c = r->text[r->at];
    if (c == '[') return refuse(r, r->at, "classes within classes are not done; write \\[ for a bracket");
    if (next_is(r, "&&")) return refuse(r, r->at, "the intersection of classes is not done");
    if (c == '\\') {
      SLUICE_TRY(read_escape(r, true));
      continue;
    }
    if (c == '-')
      put(r, "-");
    else
      put_character(r, c);
    r->at++;
  }
  if (!more(r)) return refuse(r, start, "this class has no end");
  r->at++;
  put(r, "]");
  return NULL;
}

static sluice_status *read_group(reader *r) {
  static const char *const kinds[] = {"(?:", "(?i:", "(?=", "(?!", "(?<=", "(?<!", "(?>"};
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
    if (next_is(r, kinds[i])) {
      put(r, kinds[i]);
      r->at += strlen(kinds[i]);
      return NULL;
    }
  if (next_is(r, "(?") || next_is(r, "(*")) {
    const size_t start = r->at;
    r->at += r->length - r->at < 3 ? r->length - r->at : 3;
    return refuse(r, start, "groups are ( (?: (?i: (?= (?! (?<= (?<! (?>");
  }
  put(r, "(?:");
  r->at++;
  return NULL;
}

static size_t digits_at(const reader *r, size_t at) {
  size_t end = at;
  while (end < r->length && r->text[end] >= '0' && r->text[end] <= '9') end++;
  return end - at;
}

/* {n}, {n,}, {,m}, {n,m}, the brace at r->at: a quantifier, or else a brace that stands for itself. */
static sluice_status *read_braces(reader *r) {
  const size_t start = r->at, least = digits_at(r, start + 1);
  size_t at = start + 1 + least, most = 0;
  const bool range = at < r->length && r->text[at] == ',';
  if (range) {
    most = digits_at(r, at + 1);
    at += 1 + most;
  }
  if (at >= r->length || r->text[at] != '}' || least + most == 0) {
    put(r, "\\{");
    r->at++;
    return NULL;
  }
  r->at = at + 1;
  if (!least)
    sluice_text_printf(&r->out, "{0%.*s", (int)(at - start), r->text + start + 1);
  else
    sluice_text_append(&r->out, r->text + start, r->at - start);
  if (next_is(r, "+") || (!range && next_is(r, "?"))) {
    r->at++;
    return refuse(r, start, "Ruby and PCRE2 read this quantifier differently; write a group");
  }
  return NULL;
}

static sluice_status *read_atom(reader *r) {
  const char c = r->text[r->at];
  switch (c) {
  case '\\':
    return read_escape(r, false);
  case '[':
    return read_class(r);
  case '(':
    return read_group(r);
  case '{':
    return read_braces(r);
  case '|':
  case ')':
  case '*':
  case '+':
  case '?':
  case '.':
  case '^':
  case '$':
    sluice_text_append(&r->out, &c, 1);
    break;
  default:
    put_character(r, c);
  }
  r->at++;
  return NULL;
}

/* Compiles what PCRE2 shall read. ^ and $ match at every line, as in Ruby; lines end with a line feed alone. */
static sluice_status *compile(const char *pattern, size_t length, pcre2_code **out_code) {
  pcre2_compile_context *context = pcre2_compile_context_create(NULL);
  if (!context) return sluice_out_of_memory();
  pcre2_set_newline(context, PCRE2_NEWLINE_LF);
  int error;
  PCRE2_SIZE place;
  const uint32_t options =
      PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_DOLLAR_ENDONLY | PCRE2_NEVER_BACKSLASH_C | PCRE2_USE_OFFSET_LIMIT;
  pcre2_code *code = pcre2_compile((PCRE2_SPTR)pattern, length, options, &error, &place, context);
  pcre2_compile_context_free(context);
  if (!code) {
    unsigned char message[128];
    pcre2_get_error_message(error, message, sizeof message);
    return sluice_error(SLUICE_INVALID, "the regular expression does not compile: %s (\"%.40s\" follows)", message,
                        place < length ? pattern + place : "");
  }
  uint32_t empty = 0;
  pcre2_pattern_info(code, PCRE2_INFO_MATCHEMPTY, &empty);
  if (empty) {
    pcre2_code_free(code);
    return sluice_error(SLUICE_UNSUPPORTED,
                        "the regular expression can match nothing at all; expected one that takes a "
                        "character at least");
  }
  /* Without memory for machine code, as on hardened systems, PCRE2 interprets. */
  pcre2_jit_compile(code, PCRE2_JIT_COMPLETE | PCRE2_JIT_PARTIAL_HARD);
  *out_code = code;
  return NULL;
}

sluice_status *split_compile(const char *expression, size_t length, pcre2_code **out_code) {
  reader r = {.text = expression, .length = length};
  sluice_status *status = NULL;
  while (!status && more(&r)) status = read_atom(&r);
  if (!status && r.out.failed) status = sluice_out_of_memory();
  if (!status) status = compile(r.out.data ? r.out.data : "", r.out.length, out_code);
  sluice_text_free(&r.out);
  return status;
}

sluice_status *split_compile_literal(const char *string, size_t length, pcre2_code **out_code) {
  reader r = {.text = string, .length = length};
  for (; more(&r); r.at++) put_character(&r, string[r.at]);
  sluice_status *status = r.out.failed ? sluice_out_of_memory() : NULL;
  if (!status) status = compile(r.out.data ? r.out.data : "", r.out.length, out_code);
  sluice_text_free(&r.out);
  return status;
}
