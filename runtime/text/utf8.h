/* UTF-8 as Unicode 3.9 has it: no surrogates, nothing above U+10FFFF, shortest forms only. */
#ifndef SLUICE_TEXT_UTF8_H
#define SLUICE_TEXT_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define UTF8_REPLACEMENT "\xEF\xBF\xBD" /* U+FFFD */

/* What the bytes at `text` (`length` >= 1 of them) begin with. */
typedef struct utf8_step {
  unsigned length;     /* bytes of the character, or of the maximal ill-formed part: >= 1 */
  bool valid;          /* a character; otherwise ill-formed, or cut short: */
  bool incomplete;     /* the text ends within what may be a character */
  uint32_t code_point; /* when valid */
} utf8_step;
utf8_step utf8_next(const unsigned char *text, size_t length);

/* Bytes up to the first that is not part of a character; `length` when all is valid. */
size_t utf8_valid_prefix(const unsigned char *text, size_t length);

/* Writes a code point (no surrogate) and returns its length, 1 .. 4. */
unsigned utf8_write(uint32_t code_point, unsigned char *out);

#endif
