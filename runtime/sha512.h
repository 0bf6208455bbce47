/* SHA-512 (FIPS 180-4), in pieces. */
#ifndef SLUICE_RUNTIME_SHA512_H
#define SLUICE_RUNTIME_SHA512_H

#include <stddef.h>
#include <stdint.h>

typedef struct sluice_sha512 {
  uint64_t state[8];
  uint64_t length; /* bytes so far */
  uint8_t block[128];
} sluice_sha512;

void sluice_sha512_begin(sluice_sha512 *hash);
void sluice_sha512_add(sluice_sha512 *hash, const void *data, size_t length);
void sluice_sha512_end(sluice_sha512 *hash, uint8_t out_digest[64]);

#endif
