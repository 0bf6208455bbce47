#include "runtime/text/byte_alphabet.h"

#include <stdint.h>

static bool stands_for_itself(unsigned byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || (byte >= 0xAE && byte <= 0xFF);
}

/* The byte that U+0100 + `index` stands for: the others are 0 .. 0x20, 0x7F .. 0xA0 and 0xAD. */
static int other_byte(uint32_t index) {
  if (index <= 0x20) return (int)index;
  if (index <= 0x20 + 0x22) return (int)(index - 0x21 + 0x7F);
  return index == 0x43 ? 0xAD : -1;
}

bool byte_alphabet_read(const char *text, size_t length, char *out, size_t *out_length) {
  size_t written = 0;
  for (size_t at = 0; at < length;) {
    const unsigned char first = (unsigned char)text[at];
    if (first >= 0x21 && first <= 0x7E) {
      out[written++] = text[at++];
      continue;
    }
    /* The rest of the alphabet is U+00A1 .. U+0143: two bytes each. */
    if (first < 0xC2 || first > 0xC5 || length - at < 2) return false;
    const uint32_t point = (first & 0x1Fu) << 6 | ((unsigned char)text[at + 1] & 0x3Fu);
    const int byte = point >= 0x100 ? other_byte(point - 0x100) : stands_for_itself(point) ? (int)point : -1;
    if (byte < 0) return false;
    out[written++] = (char)byte;
    at += 2;
  }
  *out_length = written;
  return true;
}
