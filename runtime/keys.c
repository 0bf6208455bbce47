/* Key files: PEM around a fixed DER prefix and 32 bytes. */
#include "sluice/signature.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

typedef struct key_form {
  const char *label;
  uint8_t prefix[16]; /* DER up to the key: SEQUENCEs, the OID 1.3.101.112, the head of its string */
  size_t prefix_length;
} key_form;

static const key_form public_form = {
    "PUBLIC KEY", {0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00}, 12};
static const key_form private_form = {
    "PRIVATE KEY",
    {0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20},
    16};

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static bool is_space(char c) {
  return c == '\n' || c == '\r' || c == ' ' || c == '\t';
}

/* Decodes up to `end`; the count of bytes, or SIZE_MAX when it is not base64 or more than `capacity` bytes. */
static size_t decode(const char *text, const char *end, uint8_t *out, size_t capacity) {
  uint32_t bits = 0;
  unsigned count = 0, padding = 0;
  size_t length = 0;
  for (; text < end; text++) {
    if (is_space(*text)) continue;
    const char *digit = *text && *text != '=' ? strchr(alphabet, *text) : NULL;
    if (*text == '=' ? ++padding > 2 : !digit || padding) return SIZE_MAX;
    bits = bits << 6 | (digit ? (uint32_t)(digit - alphabet) : 0);
    if (++count % 4) continue;
    for (unsigned i = 0; i < 3 - padding; i++) {
      if (length == capacity) return SIZE_MAX;
      out[length++] = (uint8_t)(bits >> (16 - 8 * i));
    }
  }
  return count % 4 ? SIZE_MAX : length;
}

/* The key in `text`, which holds one PEM block of `form`. */
static bool parse(const char *text, const key_form *form, uint8_t out_key[SLUICE_KEY_BYTES]) {
  char begin[48], finish[48];
  uint8_t bytes[16 + SLUICE_KEY_BYTES];
  snprintf(begin, sizeof begin, "-----BEGIN %s-----", form->label);
  snprintf(finish, sizeof finish, "-----END %s-----", form->label);
  const char *from = strstr(text, begin);
  if (!from) return false;
  from += strlen(begin);
  const char *to = strstr(from, finish);
  size_t length = form->prefix_length + SLUICE_KEY_BYTES;
  bool valid =
      to && decode(from, to, bytes, sizeof bytes) == length && memcmp(bytes, form->prefix, form->prefix_length) == 0;
  if (valid) memcpy(out_key, bytes + form->prefix_length, SLUICE_KEY_BYTES);
  explicit_bzero(bytes, sizeof bytes);
  return valid;
}

static sluice_status *read_key(const char *path, const key_form *form, const char *what, uint8_t *out_key) {
  char text[4096];
  FILE *file = fopen(path, "re");
  if (!file)
    return sluice_error(errno == ENOENT ? SLUICE_NOT_FOUND : SLUICE_IO, "%s: cannot read the key: %s", path,
                        strerror(errno));
  size_t length = fread(text, 1, sizeof text - 1, file);
  bool failed = ferror(file) != 0;
  fclose(file);
  text[length] = 0;
  sluice_status *status = NULL;
  uint8_t other[SLUICE_KEY_BYTES];
  if (failed)
    status = sluice_error(SLUICE_IO, "%s: cannot read the key", path);
  else if (!parse(text, form, out_key))
    status = parse(text, form == &public_form ? &private_form : &public_form, other)
                 ? sluice_error(SLUICE_INVALID, "%s is the %s key, expected the %s key of the pair", path,
                                form == &public_form ? "private" : "public", what)
                 : sluice_error(SLUICE_INVALID,
                                "%s holds no Ed25519 %s key in PEM (\"-----BEGIN %s-----\"), as 'sluice keygen' and "
                                "'openssl genpkey -algorithm ed25519' make them",
                                path, what, form->label);
  explicit_bzero(text, sizeof text);
  explicit_bzero(other, sizeof other);
  return status;
}

sluice_status *sluice_public_key_read(const char *path, uint8_t out_key[SLUICE_KEY_BYTES]) {
  return read_key(path, &public_form, "public", out_key);
}

sluice_status *sluice_private_key_read(const char *path, uint8_t out_seed[SLUICE_KEY_BYTES]) {
  return read_key(path, &private_form, "private", out_seed);
}

/* 44 and 48 bytes; base64 of 44 ends with one '='. */
static void print(const key_form *form, const uint8_t key[SLUICE_KEY_BYTES], sluice_key_text *out) {
  uint8_t bytes[16 + SLUICE_KEY_BYTES + 2] = {0};
  char digits[72];
  size_t length = form->prefix_length + SLUICE_KEY_BYTES, count = 0;
  memcpy(bytes, form->prefix, form->prefix_length);
  memcpy(bytes + form->prefix_length, key, SLUICE_KEY_BYTES);
  for (size_t i = 0; i < length; i += 3) {
    uint32_t bits = (uint32_t)bytes[i] << 16 | (uint32_t)bytes[i + 1] << 8 | bytes[i + 2];
    for (int shift = 18; shift >= 0; shift -= 6) digits[count++] = alphabet[bits >> shift & 63];
  }
  if (length % 3 == 2) digits[count - 1] = '=';
  digits[count] = 0;
  snprintf(out->text, sizeof out->text, "-----BEGIN %s-----\n%s\n-----END %s-----\n", form->label, digits, form->label);
  explicit_bzero(bytes, sizeof bytes);
  explicit_bzero(digits, sizeof digits);
}

void sluice_public_key_print(const uint8_t key[SLUICE_KEY_BYTES], sluice_key_text *out_text) {
  print(&public_form, key, out_text);
}

void sluice_private_key_print(const uint8_t seed[SLUICE_KEY_BYTES], sluice_key_text *out_text) {
  print(&private_form, seed, out_text);
}
