/* Ed25519 as RFC 8032, section 5.1 describes it, written to be checked against that text rather than to be fast: one
 * addition formula, one loop for products with scalars, no tables. Nothing branches on or indexes by a secret. */
#include "runtime/sha512.h"
#include "sluice/signature.h"

#include <string.h>

typedef unsigned __int128 wide;

/* ---- The field: integers modulo p = 2^255 - 19 ---- */

/* The sum of limb[i] * 2^(51 i). Limbs are below 2^52 after `carry`, and below 2^54 in operands of `multiply`. */
typedef struct element {
  uint64_t limb[5];
} element;

#define LIMB_MASK (((uint64_t)1 << 51) - 1)

static const element zero = {{0}}, one = {{1}};
/* d = -121665 / 121666 of the curve -x^2 + y^2 = 1 + d x^2 y^2; 2 d; a square root of -1 */
static const element curve_d = {{0x34dca135978a3, 0x1a8283b156ebd, 0x5e7a26001c029, 0x739c663a03cbb, 0x52036cee2b6ff}};
static const element curve_2d = {{0x69b9426b2f159, 0x35050762add7a, 0x3cf44c0038052, 0x6738cc7407977, 0x2406d9dc56dff}};
static const element root_of_minus_one = {
    {0x61b274a0ea0b0, 0xd5a5fc8f189d, 0x7ef5e9cbd0c60, 0x78595a6804c9e, 0x2b8324804fc1d}};

static element carry(element a) {
  for (int i = 0; i < 4; i++) {
    a.limb[i + 1] += a.limb[i] >> 51;
    a.limb[i] &= LIMB_MASK;
  }
  a.limb[0] += 19 * (a.limb[4] >> 51); /* 2^255 = 19 */
  a.limb[4] &= LIMB_MASK;
  a.limb[1] += a.limb[0] >> 51;
  a.limb[0] &= LIMB_MASK;
  return a;
}

static element add(element a, element b) {
  for (int i = 0; i < 5; i++) a.limb[i] += b.limb[i];
  return carry(a);
}

/* a + 4 p - b, so that no limb is negative */
static element subtract(element a, element b) {
  for (int i = 0; i < 5; i++) a.limb[i] += 4 * (LIMB_MASK - (i == 0 ? 18 : 0)) - b.limb[i];
  return carry(a);
}

static element multiply(element a, element b) {
  wide sum[5] = {0};
  for (int i = 0; i < 5; i++)
    for (int j = 0; j < 5; j++) sum[(i + j) % 5] += (wide)a.limb[i] * (i + j < 5 ? b.limb[j] : 19 * b.limb[j]);
  element result;
  wide over = 0;
  for (int i = 0; i < 5; i++) {
    sum[i] += over;
    result.limb[i] = (uint64_t)sum[i] & LIMB_MASK;
    over = sum[i] >> 51;
  }
  wide low = result.limb[0] + 19 * over;
  result.limb[0] = (uint64_t)low & LIMB_MASK;
  result.limb[1] += (uint64_t)(low >> 51);
  return carry(result);
}

/* a to the power of `bits` bits, all 1 but for the last 8, which are `low_bits`. */
static element power(element a, unsigned bits, unsigned low_bits) {
  element result = one;
  for (unsigned i = bits; i-- > 0;) {
    result = multiply(result, result);
    if (i >= 8 || (low_bits >> i & 1)) result = multiply(result, a);
  }
  return result;
}

static element inverse(element a) {
  return power(a, 255, 0xeb); /* p - 2 = 2^255 - 21 */
}

static element power_root(element a) {
  return power(a, 252, 0xfd); /* (p - 5) / 8 = 2^252 - 3 */
}

static void element_bytes(element a, uint8_t out[32]) {
  a = carry(carry(a));
  /* a < 2^255 + 19 < 2 p: subtract p where that leaves no negative number, which adding 19 shows in bit 255 */
  element above = a;
  above.limb[0] += 19;
  for (int i = 0; i < 4; i++) {
    above.limb[i + 1] += above.limb[i] >> 51;
    above.limb[i] &= LIMB_MASK;
  }
  uint64_t choose = 0 - (above.limb[4] >> 51);
  above.limb[4] &= LIMB_MASK;
  for (int i = 0; i < 5; i++) a.limb[i] = (above.limb[i] & choose) | (a.limb[i] & ~choose);
  for (unsigned i = 0; i < 32; i++) {
    unsigned bit = 8 * i, limb = bit / 51, shift = bit % 51;
    uint64_t bits = a.limb[limb] >> shift;
    if (shift > 43 && limb < 4) bits |= a.limb[limb + 1] << (51 - shift);
    out[i] = (uint8_t)bits;
  }
}

/* Bit 255 is left out. */
static element element_of(const uint8_t bytes[32]) {
  element a = zero;
  for (unsigned i = 0; i < 255; i++) a.limb[i / 51] |= (uint64_t)(bytes[i / 8] >> (i % 8) & 1) << (i % 51);
  return a;
}

static bool equal(element a, element b) {
  uint8_t x[32], y[32];
  element_bytes(a, x);
  element_bytes(b, y);
  return memcmp(x, y, sizeof x) == 0;
}

/* ---- The curve: extended coordinates, x = X / Z, y = Y / Z, x y = T / Z ---- */

typedef struct point {
  element x, y, z, t;
} point;

static const point neutral = {{{0}}, {{1}}, {{1}}, {{0}}};
static const point base = {{{0x62d608f25d51a, 0x412a4b4f6592a, 0x75b7171a4b31d, 0x1ff60527118fe, 0x216936d3cd6e5}},
                           {{0x6666666666658, 0x4cccccccccccc, 0x1999999999999, 0x3333333333333, 0x6666666666666}},
                           {{1}},
                           {{0x68ab3a5b7dda3, 0xeea2a5eadbb, 0x2af8df483c27e, 0x332b375274732, 0x67875f0fd78b7}}};

/* Complete: right for equal points and the neutral one too. */
static point point_add(point p, point q) {
  element a = multiply(subtract(p.y, p.x), subtract(q.y, q.x)), b = multiply(add(p.y, p.x), add(q.y, q.x));
  element c = multiply(multiply(p.t, curve_2d), q.t), d = multiply(add(p.z, p.z), q.z);
  element e = subtract(b, a), f = subtract(d, c), g = add(d, c), h = add(b, a);
  return (point){multiply(e, f), multiply(g, h), multiply(f, g), multiply(e, h)};
}

static point choose(point a, point b, uint64_t second) {
  uint64_t mask = 0 - second;
  element *to[] = {&a.x, &a.y, &a.z, &a.t};
  const element *from[] = {&b.x, &b.y, &b.z, &b.t};
  for (int i = 0; i < 4; i++)
    for (int j = 0; j < 5; j++) to[i]->limb[j] = (to[i]->limb[j] & ~mask) | (from[i]->limb[j] & mask);
  return a;
}

static point point_multiply(const uint8_t scalar[32], point p) {
  point result = neutral;
  for (unsigned i = 256; i-- > 0;) {
    result = point_add(result, result);
    result = choose(result, point_add(result, p), scalar[i / 8] >> (i % 8) & 1);
  }
  return result;
}

static void point_bytes(point p, uint8_t out[32]) {
  element z = inverse(p.z);
  uint8_t x[32];
  element_bytes(multiply(p.x, z), x);
  element_bytes(multiply(p.y, z), out);
  out[31] |= (uint8_t)((x[0] & 1) << 7);
}

/* False unless `bytes` are the one encoding of a point. */
static bool point_of(const uint8_t bytes[32], point *out) {
  uint8_t again[32];
  element y = element_of(bytes);
  element square = multiply(y, y), u = subtract(square, one), v = add(multiply(square, curve_d), one);
  element v3 = multiply(multiply(v, v), v), v7 = multiply(multiply(v3, v3), v);
  element x = multiply(multiply(u, v3), power_root(multiply(u, v7)));
  element check = multiply(v, multiply(x, x));
  if (equal(check, subtract(zero, u)))
    x = multiply(x, root_of_minus_one);
  else if (!equal(check, u))
    return false;
  element_bytes(x, again);
  if ((again[0] & 1) != bytes[31] >> 7) x = subtract(zero, x);
  *out = (point){x, y, one, multiply(x, y)};
  point_bytes(*out, again); /* y not below p, or x = 0 with the sign of an odd number, gives other bytes */
  return memcmp(again, bytes, sizeof again) == 0;
}

/* ---- Scalars: integers modulo the order of the base point ---- */

/* 2^252 + 27742317777372353535851937790883648493 */
static const uint64_t order[4] = {0x5812631a5cf5d3ed, 0x14def9dea2f79cd6, 0, 0x1000000000000000};

/* The 512-bit number `wide_number` modulo the order, a bit at a time. */
static void scalar_reduce(const uint64_t wide_number[8], uint8_t out[32]) {
  uint64_t r[4] = {0};
  for (unsigned i = 512; i-- > 0;) {
    uint64_t bit = wide_number[i / 64] >> (i % 64) & 1, difference[4], borrow = 0;
    for (int j = 0; j < 4; j++) { /* r < order < 2^253, so that 2 r + 1 fits */
      uint64_t next = r[j] >> 63;
      r[j] = r[j] << 1 | bit;
      bit = next;
    }
    for (int j = 0; j < 4; j++) {
      wide d = (wide)r[j] - order[j] - borrow;
      difference[j] = (uint64_t)d;
      borrow = (uint64_t)(d >> 64) & 1;
    }
    uint64_t keep = 0 - borrow;
    for (int j = 0; j < 4; j++) r[j] = (r[j] & keep) | (difference[j] & ~keep);
  }
  for (unsigned i = 0; i < 32; i++) out[i] = (uint8_t)(r[i / 8] >> (8 * (i % 8)));
}

static void load(const uint8_t *bytes, size_t words, uint64_t *out) {
  for (size_t i = 0; i < words; i++) {
    out[i] = 0;
    for (size_t j = 8; j-- > 0;) out[i] = out[i] << 8 | bytes[8 * i + j];
  }
}

/* a b + c modulo the order */
static void scalar_multiply_add(const uint8_t a[32], const uint8_t b[32], const uint8_t c[32], uint8_t out[32]) {
  uint64_t x[4], y[4], sum[8] = {0};
  load(a, 4, x);
  load(b, 4, y);
  load(c, 4, sum);
  for (int i = 0; i < 4; i++) {
    uint64_t over = 0;
    for (int j = 0; j < 4; j++) {
      wide t = (wide)x[i] * y[j] + sum[i + j] + over;
      sum[i + j] = (uint64_t)t;
      over = (uint64_t)(t >> 64);
    }
    for (int j = i + 4; j < 8; j++) {
      wide t = (wide)sum[j] + over;
      sum[j] = (uint64_t)t;
      over = (uint64_t)(t >> 64);
    }
  }
  scalar_reduce(sum, out);
}

static bool below_order(const uint8_t scalar[32]) {
  uint64_t s[4];
  load(scalar, 4, s);
  for (int i = 3; i >= 0; i--)
    if (s[i] != order[i]) return s[i] < order[i];
  return false;
}

/* ---- Signatures ---- */

typedef struct piece {
  const void *data;
  size_t length;
} piece;

/* SHA-512 of up to three pieces, modulo the order. */
static void hash_scalar(piece a, piece b, piece c, uint8_t out[32]) {
  sluice_sha512 hash;
  uint8_t digest[64];
  uint64_t number[8];
  sluice_sha512_begin(&hash);
  sluice_sha512_add(&hash, a.data, a.length);
  sluice_sha512_add(&hash, b.data, b.length);
  sluice_sha512_add(&hash, c.data, c.length);
  sluice_sha512_end(&hash, digest);
  load(digest, 8, number);
  scalar_reduce(number, out);
  explicit_bzero(&hash, sizeof hash);
  explicit_bzero(digest, sizeof digest);
  explicit_bzero(number, sizeof number);
}

/* The secret scalar and, behind it, the prefix of the nonce's hash. */
static void expand(const uint8_t seed[32], uint8_t out[64]) {
  sluice_sha512 hash;
  sluice_sha512_begin(&hash);
  sluice_sha512_add(&hash, seed, 32);
  sluice_sha512_end(&hash, out);
  explicit_bzero(&hash, sizeof hash);
  out[0] &= 0xf8;
  out[31] = (uint8_t)((out[31] & 0x7f) | 0x40);
}

void sluice_ed25519_public_key(const uint8_t seed[32], uint8_t out_key[32]) {
  uint8_t secret[64];
  expand(seed, secret);
  point_bytes(point_multiply(secret, base), out_key);
  explicit_bzero(secret, sizeof secret);
}

void sluice_ed25519_sign(const uint8_t seed[32], const void *message, size_t length, uint8_t out_signature[64]) {
  uint8_t secret[64], key[32], nonce[32], challenge[32];
  expand(seed, secret);
  point_bytes(point_multiply(secret, base), key);
  hash_scalar((piece){secret + 32, 32}, (piece){message, length}, (piece){NULL, 0}, nonce);
  point_bytes(point_multiply(nonce, base), out_signature);
  hash_scalar((piece){out_signature, 32}, (piece){key, 32}, (piece){message, length}, challenge);
  scalar_multiply_add(challenge, secret, nonce, out_signature + 32);
  explicit_bzero(secret, sizeof secret);
  explicit_bzero(nonce, sizeof nonce);
}

bool sluice_ed25519_verify(const uint8_t key[32], const void *message, size_t length, const uint8_t signature[64]) {
  point a;
  if (!below_order(signature + 32) || !point_of(key, &a)) return false;
  point eight = point_add(a, a);
  eight = point_add(eight, eight);
  eight = point_add(eight, eight);
  if (equal(eight.x, zero)) return false; /* of small order: signatures of it say nothing */
  uint8_t challenge[32], again[32];
  hash_scalar((piece){signature, 32}, (piece){key, 32}, (piece){message, length}, challenge);
  a.x = subtract(zero, a.x);
  a.t = subtract(zero, a.t);
  point_bytes(point_add(point_multiply(signature + 32, base), point_multiply(challenge, a)), again);
  return memcmp(again, signature, sizeof again) == 0; /* R = S B - k A, which also refuses other encodings of R */
}
