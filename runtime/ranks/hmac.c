#include "runtime/ranks/hmac.h"

#include "sluice/bundle.h"

#include <string.h>

enum { BLOCK = 64 };

void sluice_hmac(const void *key, size_t key_length, const void *data, size_t length,
                 uint8_t out_digest[SLUICE_HMAC_BYTES]) {
  uint8_t block[BLOCK] = {0}, inner[BLOCK + SLUICE_HMAC_LONGEST], outer[BLOCK + SLUICE_HMAC_BYTES];
  if (key_length > BLOCK)
    sluice_sha256(key, key_length, block);
  else if (key_length)
    memcpy(block, key, key_length);
  for (int i = 0; i < BLOCK; i++) {
    inner[i] = block[i] ^ 0x36;
    outer[i] = block[i] ^ 0x5c;
  }
  if (length > SLUICE_HMAC_LONGEST) length = SLUICE_HMAC_LONGEST;
  memcpy(inner + BLOCK, data, length);
  sluice_sha256(inner, BLOCK + length, outer + BLOCK);
  sluice_sha256(outer, sizeof outer, out_digest);
}

bool sluice_hmac_equal(const uint8_t one[SLUICE_HMAC_BYTES], const uint8_t other[SLUICE_HMAC_BYTES]) {
  uint8_t differing = 0;
  for (int i = 0; i < SLUICE_HMAC_BYTES; i++) differing = (uint8_t)(differing | (one[i] ^ other[i]));
  return differing == 0;
}
