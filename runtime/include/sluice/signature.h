/* Signatures of bundles.
 *
 * A bundle is code: whoever opens it runs what its maker wrote. Its digests find damage, not malice. A signature says
 * who made it: Ed25519 (RFC 8032, without prehashing and context) of a message that stands for every byte of the bundle
 * but the signature's own (docs/bundle-format.md).
 *
 * Keys are files in PEM as OpenSSL writes them: a private key is PKCS #8 ("PRIVATE KEY"), a public key is a
 * SubjectPublicKeyInfo ("PUBLIC KEY").
 *
 * Threads: any function may be called by any thread.
 */
#ifndef SLUICE_SIGNATURE_H
#define SLUICE_SIGNATURE_H

#include "sluice/bundle.h"

#include <stdbool.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SLUICE_KEY_BYTES 32u
#define SLUICE_SIGNATURE_BYTES 64u

/* The section SLUICE_SECTION_SIGNATURE. */
typedef struct sluice_bundle_signature {
  uint8_t key[SLUICE_KEY_BYTES]; /* the signer's public key; only a hint, the reader brings its own */
  uint8_t signature[SLUICE_SIGNATURE_BYTES];
} sluice_bundle_signature;

/* What is signed: a name for this use of the key, then the header page that the bundle has without a signature. */
typedef struct sluice_signed_message {
  char purpose[32]; /* SLUICE_SIGNED_PURPOSE, zero-padded */
  sluice_bundle_header header;
} sluice_signed_message;
#define SLUICE_SIGNED_PURPOSE "sluice bundle signature 1"

void sluice_signed_message_of(const sluice_bundle *bundle, sluice_signed_message *out_message);

/* The signature that a bundle carries; NULL: it is not signed. */
const sluice_bundle_signature *sluice_bundle_signature_of(const sluice_bundle *bundle);

/* Fails (SLUICE_CHECK_FAILED) unless the bundle is signed with the private key of the public key `key`. `name` is used
 * in messages. */
SLUICE_MUST_USE sluice_status *sluice_bundle_check_signature(const sluice_bundle *bundle, const char *name,
                                                             const uint8_t key[SLUICE_KEY_BYTES]);

/* Reads a PEM file: a public key, or a private one (its 32-byte seed). */
SLUICE_MUST_USE sluice_status *sluice_public_key_read(const char *path, uint8_t out_key[SLUICE_KEY_BYTES]);
SLUICE_MUST_USE sluice_status *sluice_private_key_read(const char *path, uint8_t out_seed[SLUICE_KEY_BYTES]);
/* The text of such a file, NUL-terminated. */
typedef struct sluice_key_text {
  char text[160];
} sluice_key_text;
void sluice_public_key_print(const uint8_t key[SLUICE_KEY_BYTES], sluice_key_text *out_text);
void sluice_private_key_print(const uint8_t seed[SLUICE_KEY_BYTES], sluice_key_text *out_text);

/* Ed25519. Time and memory accesses of making keys and signatures do not depend on the seed. Verifying refuses, with
 * RFC 8032 and beyond it, encodings that are not canonical, S not below the group's order, and keys of small order. */
void sluice_ed25519_public_key(const uint8_t seed[SLUICE_KEY_BYTES], uint8_t out_key[SLUICE_KEY_BYTES]);
void sluice_ed25519_sign(const uint8_t seed[SLUICE_KEY_BYTES], const void *message, size_t length,
                         uint8_t out_signature[SLUICE_SIGNATURE_BYTES]);
bool sluice_ed25519_verify(const uint8_t key[SLUICE_KEY_BYTES], const void *message, size_t length,
                           const uint8_t signature[SLUICE_SIGNATURE_BYTES]);

#ifdef __cplusplus
}
#endif
#endif
