#include "runtime/text/utf8.h"

#include <string.h>

/* The length a first byte announces, 0 for a byte that starts nothing, and the range of the second byte, which alone
 * keeps out longer forms than needed, surrogates and what is above U+10FFFF. */
static unsigned announced(unsigned char first, unsigned char *low, unsigned char *high) {
  *low = 0x80, *high = 0xBF;
  if (first < 0x80) return 1;
  if (first < 0xC2) return 0;
  if (first < 0xE0) return 2;
  if (first < 0xF0) {
    if (first == 0xE0) *low = 0xA0;
    if (first == 0xED) *high = 0x9F;
    return 3;
  }
  if (first > 0xF4) return 0;
  if (first == 0xF0) *low = 0x90;
  if (first == 0xF4) *high = 0x8F;
  return 4;
}

utf8_step utf8_next(const unsigned char *text, size_t length) {
  unsigned char low, high;
  const unsigned size = announced(text[0], &low, &high);
  if (size == 0) return (utf8_step){.length = 1};
  if (size == 1) return (utf8_step){.length = 1, .valid = true, .code_point = text[0]};
  uint32_t code_point = text[0] & (0xFFu >> (size + 1));
  for (unsigned i = 1; i < size; i++) {
    if (i == length) return (utf8_step){.length = i, .incomplete = true};
    if (text[i] < low || text[i] > high) return (utf8_step){.length = i};
    code_point = code_point << 6 | (text[i] & 0x3Fu);
    low = 0x80, high = 0xBF;
  }
  return (utf8_step){.length = size, .valid = true, .code_point = code_point};
}

size_t utf8_valid_prefix(const unsigned char *text, size_t length) {
  size_t at = 0;
  while (at < length) {
    uint64_t word;
    if (length - at >= sizeof word) {
      memcpy(&word, text + at, sizeof word);
      if (!(word & 0x8080808080808080u)) {
        at += sizeof word;
        continue;
      }
    }
    const utf8_step step = utf8_next(text + at, length - at);
    if (!step.valid) break;
    at += step.length;
  }
  return at;
}

unsigned utf8_write(uint32_t code_point, unsigned char *out) {
  if (code_point < 0x80) {
    out[0] = (unsigned char)code_point;
    return 1;
  }
  const unsigned size = code_point < 0x800 ? 2 : code_point < 0x10000 ? 3 : 4;
  for (unsigned i = size - 1; i > 0; i--, code_point >>= 6) out[i] = (unsigned char)(0x80 | (code_point & 0x3F));
  out[0] = (unsigned char)((0xF00u >> size & 0xF0) | code_point);
  return size;
}
