/* Ed25519 and SHA-512 against RFC 8032 and FIPS 180-4, what must not verify, and key files. tests/cli/sign.sh compares
 * with OpenSSL and signs bundles. */
#include "runtime/sha512.h"
#include "sluice/memory.h"
#include "sluice/signature.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static size_t from_hex(const char *hex, uint8_t *out) {
  size_t length = strlen(hex) / 2;
  for (size_t i = 0; i < length; i++) {
    unsigned byte = 0;
    assert_int_equal(sscanf(hex + 2 * i, "%2x", &byte), 1);
    out[i] = (uint8_t)byte;
  }
  return length;
}

static void sha512(const void *data, size_t length, size_t piece, uint8_t out[64]) {
  sluice_sha512 hash;
  sluice_sha512_begin(&hash);
  for (size_t at = 0; at < length; at += piece)
    sluice_sha512_add(&hash, (const char *)data + at, length - at < piece ? length - at : piece);
  sluice_sha512_end(&hash, out);
}

/* "abc" and the two-block message of FIPS 180-4's examples, nothing, and lengths around a block. */
static void sha512_examples(void **state) {
  (void)state;
  static const struct {
    const char *text, *digest;
  } cases[] = {
      {"", "cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce47d0d13c5d85f2b0ff8318d2877eec2f63b931bd474"
           "17a81"
           "a538327af927da3e"},
      {"abc",
       "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80"
       "e2a9ac94fa54ca49f"},
      {"abcdefghbcdefghicdefghijdefghijkefghijklfghijklmghijklmnhijklmnoijklmnopjklmnopqklmnopqrlmnopqrsmnopqrstnopqrst"
       "u",
       "8e959b75dae313da8cf4f72814fc143f8f7779c6eb9f7fa17299aeadb6889018501d289e4900f7e4331b99dec4b5433ac7d329eeb6dd265"
       "4"
       "5e96e55b874be909"},
  };
  uint8_t wanted[64], digest[64];
  for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
    from_hex(cases[i].digest, wanted);
    for (size_t piece = 1; piece < 130; piece += 43) {
      sha512(cases[i].text, strlen(cases[i].text), piece, digest);
      assert_memory_equal(digest, wanted, 64);
    }
  }
}

static const struct {
  const char *seed, *key, *message, *signature;
} vectors[] = {
    {"9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
     "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", "",
     "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe246"
     "55"
     "141438e7a100b"},
    {"4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
     "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c", "72",
     "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb"
     "0"
     "0d291612bb0c00"},
    {"c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
     "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025", "af82",
     "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc"
     "0"
     "27beceea1ec40a"},
    {"833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42",
     "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
     "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2"
     "a9a"
     "c94fa54ca49f",
     "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac17ad"
     "9"
     "bef1177331a704"},
};
enum { VECTORS = sizeof vectors / sizeof *vectors };

typedef struct signed_text {
  uint8_t seed[32], key[32], signature[64], message[64];
  size_t length;
} signed_text;

static signed_text vector(size_t i) {
  signed_text v;
  from_hex(vectors[i].seed, v.seed);
  from_hex(vectors[i].key, v.key);
  from_hex(vectors[i].signature, v.signature);
  v.length = from_hex(vectors[i].message, v.message);
  return v;
}

static void rfc_8032(void **state) {
  (void)state;
  for (size_t i = 0; i < VECTORS; i++) {
    signed_text v = vector(i);
    uint8_t key[32], signature[64];
    sluice_ed25519_public_key(v.seed, key);
    assert_memory_equal(key, v.key, sizeof key);
    sluice_ed25519_sign(v.seed, v.message, v.length, signature);
    assert_memory_equal(signature, v.signature, sizeof signature);
    assert_true(sluice_ed25519_verify(v.key, v.message, v.length, v.signature));
  }
}

/* Every bit of key, message and signature counts, and the length of the message. */
static void every_bit_counts(void **state) {
  (void)state;
  for (size_t i = 0; i < VECTORS; i++) {
    signed_text v = vector(i);
    for (unsigned bit = 0; bit < 8 * (32 + 64 + v.length); bit++) {
      signed_text w = v;
      unsigned byte = bit / 8;
      uint8_t *at = byte < 32 ? &w.key[byte] : byte < 96 ? &w.signature[byte - 32] : &w.message[byte - 96];
      *at ^= (uint8_t)(1u << bit % 8);
      assert_false(sluice_ed25519_verify(w.key, w.message, w.length, w.signature));
    }
    if (v.length) assert_false(sluice_ed25519_verify(v.key, v.message, v.length - 1, v.signature));
    assert_false(sluice_ed25519_verify(vector((i + 1) % VECTORS).key, v.message, v.length, v.signature));
  }
}

/* S + n L is the same scalar in another spelling. */
static void malleable_signatures(void **state) {
  (void)state;
  uint8_t order[32];
  from_hex("edd3f55c1a631258d69cf7a2def9de1400000000000000000000000000000010", order);
  for (size_t i = 0; i < VECTORS; i++) {
    signed_text v = vector(i);
    for (int n = 1; n < 15; n++) {
      unsigned carry = 0;
      for (int j = 0; j < 32; j++) {
        carry += v.signature[32 + j] + (unsigned)order[j];
        v.signature[32 + j] = (uint8_t)carry;
        carry >>= 8;
      }
      if (carry) break; /* beyond 256 bits */
      assert_false(sluice_ed25519_verify(v.key, v.message, v.length, v.signature));
    }
  }
}

/* Keys of small order, for which R = the neutral point and S = 0 would fit any message, and encodings of points that
 * are not the canonical one or of none. */
static void bad_keys(void **state) {
  (void)state;
  static const char *const keys[] = {
      "0100000000000000000000000000000000000000000000000000000000000000",
      "0100000000000000000000000000000000000000000000000000000000000080",
      "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
      "0000000000000000000000000000000000000000000000000000000000000000",
      "0000000000000000000000000000000000000000000000000000000000000080",
      "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
      "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
      "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
      "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
      "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
      "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
      "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
      "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
      "0200000000000000000000000000000000000000000000000000000000000000",
  };
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
    uint8_t key[32];
    assert_int_equal(from_hex(keys[i], key), 32);
    for (unsigned message = 0; message < 32; message++)
      for (size_t r = 0; r < sizeof keys / sizeof *keys; r++) {
        uint8_t signature[64] = {0};
        from_hex(keys[r], signature);
        assert_false(sluice_ed25519_verify(key, &message, sizeof message, signature));
      }
  }
}

static char path[] = "/tmp/sluice-key-XXXXXX";

static void write_file(const char *text) {
  FILE *file = fopen(path, "wb");
  assert_non_null(file);
  fputs(text, file);
  fclose(file);
}

static void refused(sluice_status *status, const char *text) {
  assert_non_null(status);
  assert_non_null(strstr(sluice_status_message(status), text));
  sluice_status_free(status);
}

static void key_files(void **state) {
  (void)state;
  signed_text v = vector(0);
  uint8_t key[32];
  sluice_key_text public_text, private_text;
  sluice_public_key_print(v.key, &public_text);
  sluice_private_key_print(v.seed, &private_text);
  /* as `openssl pkey` prints this pair */
  assert_string_equal(public_text.text, "-----BEGIN PUBLIC KEY-----\n"
                                        "MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n"
                                        "-----END PUBLIC KEY-----\n");
  assert_string_equal(private_text.text, "-----BEGIN PRIVATE KEY-----\n"
                                         "MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n"
                                         "-----END PRIVATE KEY-----\n");
  write_file(public_text.text);
  assert_null(sluice_public_key_read(path, key));
  assert_memory_equal(key, v.key, sizeof key);
  refused(sluice_private_key_read(path, key), "is the public key");
  write_file(private_text.text);
  assert_null(sluice_private_key_read(path, key));
  assert_memory_equal(key, v.seed, sizeof key);
  refused(sluice_public_key_read(path, key), "is the private key");
  /* every byte that is missing or another one */
  size_t length = strlen(public_text.text);
  for (size_t i = 0; i + 1 < length; i++) {
    sluice_key_text cut = public_text;
    cut.text[i] = 0;
    write_file(cut.text);
    refused(sluice_public_key_read(path, key), "no Ed25519 public key");
  }
  for (size_t i = 0; i < length; i++) {
    sluice_key_text changed = public_text;
    if (changed.text[i] == '\n') continue;
    changed.text[i] = '!';
    write_file(changed.text);
    refused(sluice_public_key_read(path, key), "no Ed25519 public key");
  }
  refused(sluice_public_key_read("/nonexistent/key", key), "cannot read the key");
  refused(sluice_public_key_read("/tmp", key), "cannot read the key");
}

int main(void) {
  int file = mkstemp(path);
  if (file < 0) return 1;
  close(file);
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(sha512_examples),      cmocka_unit_test(rfc_8032), cmocka_unit_test(every_bit_counts),
      cmocka_unit_test(malleable_signatures), cmocka_unit_test(bad_keys), cmocka_unit_test(key_files),
  };
  int failed = cmocka_run_group_tests(tests, NULL, NULL);
  unlink(path);
  return failed;
}
