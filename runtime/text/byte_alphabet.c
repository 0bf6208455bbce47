#include "runtime/text/byte_alphabet.h"

#include "runtime/text/utf8.h"

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
    const utf8_step step = utf8_next((const unsigned char *)text + at, length - at);
    if (!step.valid) return false;
    int byte = -1;
    if (step.code_point >= 0x100)
      byte = other_byte(step.code_point - 0x100);
    else if (stands_for_itself(step.code_point))
      byte = (int)step.code_point;
    if (byte < 0) return false;
    out[written++] = (char)byte;
    at += step.length;
  }
  *out_length = written;
  return true;
}
