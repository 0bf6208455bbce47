/* HMAC-SHA256 (RFC 2104), for proving that both ends of a connection know a secret. */
#ifndef SLUICE_RUNTIME_RANKS_HMAC_H
#define SLUICE_RUNTIME_RANKS_HMAC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SLUICE_HMAC_BYTES = 32, SLUICE_HMAC_LONGEST = 256 };

/* Of `length` bytes, at most SLUICE_HMAC_LONGEST. */
void sluice_hmac(const void *key, size_t key_length, const void *data, size_t length,
                 uint8_t out_digest[SLUICE_HMAC_BYTES]);

/* Compares in a time that does not depend on where they differ. */
bool sluice_hmac_equal(const uint8_t one[SLUICE_HMAC_BYTES], const uint8_t other[SLUICE_HMAC_BYTES]);

#endif
