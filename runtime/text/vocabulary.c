#include "runtime/text/vocabulary.h"

#include "sluice/memory.h"

#include <string.h>

/* Multiplication by an odd constant and folding of the high half: every bit of the key reaches the low bits that
 * choose a slot. The constants are the fraction bits of the golden ratio and of the square root of 3. */
static uint64_t mix(uint64_t key) {
  key *= 0x9E3779B97F4A7C15u;
  key ^= key >> 32;
  key *= 0xBB67AE8584CAA73Bu;
  return key ^ key >> 32;
}

/* FNV-1a, byte after byte, so that a token gives the hashes of its beginnings in one go. */
#define HASH_START 0xCBF29CE484222325u

static uint64_t hash_byte(uint64_t hash, char byte) {
  return (hash ^ (unsigned char)byte) * 0x100000001B3u;
}

static uint64_t hash_bytes(const char *bytes, size_t length) {
  uint64_t hash = HASH_START;
  for (size_t i = 0; i < length; i++) hash = hash_byte(hash, bytes[i]);
  return hash;
}

/* The slot where the search for a hash begins. */
static size_t slot_of(const vocabulary *v, uint64_t hash) {
  return (hash ^ hash >> 32) & v->slot_mask;
}

/* A table is at most half full, so that even among millions of keys a free slot is a few dozen steps away. Only keys
 * that somebody chose to collide are further apart, and those are refused: they would make reading a file quadratic. */
#define LONGEST_WALK 1024

static sluice_status *collision(void) {
  return sluice_error(SLUICE_INVALID,
                      "more than %d tokens or merges share a place in a hash table; such a vocabulary "
                      "does not come about by training",
                      LONGEST_WALK);
}

/* A power of two that is at least twice `count`. */
static size_t table_size(size_t count) {
  size_t size = 16;
  while (size < 2 * count) size *= 2;
  return size;
}

sluice_status *vocabulary_reserve(vocabulary *v, int32_t size, size_t tokens) {
  v->tokens = sluice_allocate_array((size_t)size, sizeof *v->tokens);
  if (!v->tokens) return sluice_out_of_memory();
  for (int32_t i = 0; i < size; i++) v->tokens[i].length = VOCABULARY_ABSENT;
  v->size = size;
  const size_t slots = table_size(tokens);
  v->slots = sluice_allocate_array(slots, sizeof *v->slots);
  if (!v->slots) return sluice_out_of_memory();
  for (size_t i = 0; i < slots; i++) v->slots[i].id = -1;
  v->slot_mask = slots - 1;
  for (int i = 0; i < 256; i++) v->byte_ids[i] = -1;
  return NULL;
}

void vocabulary_free(vocabulary *v) {
  sluice_release(v->bytes);
  sluice_release(v->tokens);
  sluice_release(v->slots);
  sluice_release(v->pairs);
  *v = (vocabulary){0};
}

static bool append_bytes(vocabulary *v, const char *bytes, size_t length) {
  if (length > UINT32_MAX - 1 - v->byte_count) return false;
  if (v->byte_capacity - v->byte_count < length) {
    size_t capacity = v->byte_capacity ? v->byte_capacity : 4096;
    while (capacity - v->byte_count < length) capacity *= 2;
    char *grown = sluice_reallocate_array(v->bytes, capacity, 1);
    if (!grown) return false;
    v->bytes = grown;
    v->byte_capacity = capacity;
  }
  if (length) memcpy(v->bytes + v->byte_count, bytes, length);
  v->byte_count += length;
  return true;
}

sluice_status *vocabulary_set(vocabulary *v, int32_t id, const char *bytes, size_t length, bool find) {
  const uint32_t start = (uint32_t)v->byte_count;
  if (!append_bytes(v, bytes, length)) return sluice_out_of_memory();
  v->tokens[id] = (vocabulary_token){.start = start, .length = (uint32_t)length};
  if (!find) return NULL;
  if (length == 1) v->byte_ids[(unsigned char)bytes[0]] = id;
  const uint64_t hash = hash_bytes(bytes, length);
  size_t at = slot_of(v, hash);
  for (int walked = 0; v->slots[at].id >= 0; at = (at + 1) & v->slot_mask)
    if (++walked > LONGEST_WALK) return collision();
  v->slots[at] = (vocabulary_slot){.hash = (uint32_t)(hash >> 32), .id = id};
  return NULL;
}

static int32_t find_hashed(const vocabulary *v, uint64_t hash, const char *bytes, size_t length) {
  for (size_t at = slot_of(v, hash); v->slots[at].id >= 0; at = (at + 1) & v->slot_mask) {
    if (v->slots[at].hash != (uint32_t)(hash >> 32)) continue;
    const vocabulary_token *token = &v->tokens[v->slots[at].id];
    if (token->length == length && memcmp(v->bytes + token->start, bytes, length) == 0) return v->slots[at].id;
  }
  return -1;
}

int32_t vocabulary_find(const vocabulary *v, const char *bytes, size_t length) {
  return find_hashed(v, hash_bytes(bytes, length), bytes, length);
}

void vocabulary_find_beginnings(const vocabulary *v, const char *bytes, size_t length, int32_t *ids) {
  uint64_t hash = HASH_START;
  for (size_t i = 0; i < length; i++) {
    hash = hash_byte(hash, bytes[i]);
    ids[i] = find_hashed(v, hash, bytes, i + 1);
  }
}

/* Whether a token is the bytes of one followed by those of another. */
static bool is_joined(const vocabulary *v, int32_t id, const vocabulary_token *left, const vocabulary_token *right) {
  const vocabulary_token *token = &v->tokens[id];
  return token->length == (size_t)left->length + right->length &&
         memcmp(v->bytes + token->start, v->bytes + left->start, left->length) == 0 &&
         memcmp(v->bytes + token->start + left->length, v->bytes + right->start, right->length) == 0;
}

int32_t vocabulary_find_joined(const vocabulary *v, int32_t left, int32_t right, int32_t guess) {
  const vocabulary_token *l = &v->tokens[left], *r = &v->tokens[right];
  if (guess >= 0 && guess < v->size && is_joined(v, guess, l, r)) return guess;
  uint64_t hash = hash_bytes(v->bytes + l->start, l->length);
  for (size_t i = 0; i < r->length; i++) hash = hash_byte(hash, v->bytes[r->start + i]);
  for (size_t at = slot_of(v, hash); v->slots[at].id >= 0; at = (at + 1) & v->slot_mask)
    if (v->slots[at].hash == (uint32_t)(hash >> 32) && is_joined(v, v->slots[at].id, l, r)) return v->slots[at].id;
  return -1;
}

static size_t pair_place(const vocabulary *v, int32_t left, int32_t right) {
  return mix((uint64_t)(uint32_t)left << 32 | (uint32_t)right) & v->pair_mask;
}

static sluice_status *add_pair(vocabulary *v, const vocabulary_pair *pair) {
  size_t at = pair_place(v, pair->left, pair->right);
  for (int walked = 0; v->pairs[at].left >= 0; at = (at + 1) & v->pair_mask) {
    if (v->pairs[at].left == pair->left && v->pairs[at].right == pair->right) break;
    if (++walked > LONGEST_WALK) return collision();
  }
  v->pairs[at] = *pair;
  return NULL;
}

/* The table is larger than the caches: slots are asked for some pairs ahead of their use. */
#define PAIRS_AHEAD 16

sluice_status *vocabulary_set_pairs(vocabulary *v, const vocabulary_pair *pairs, size_t count) {
  const size_t size = table_size(count);
  v->pairs = sluice_allocate_array(size, sizeof *v->pairs);
  if (!v->pairs) return sluice_out_of_memory();
  for (size_t i = 0; i < size; i++) v->pairs[i].left = -1;
  v->pair_mask = size - 1;
  for (size_t i = 0; i < count; i++) {
    if (i + PAIRS_AHEAD < count) {
      const vocabulary_pair *ahead = &pairs[i + PAIRS_AHEAD];
      __builtin_prefetch(&v->pairs[pair_place(v, ahead->left, ahead->right)], 1);
    }
    SLUICE_TRY(add_pair(v, &pairs[i]));
  }
  return NULL;
}

const vocabulary_pair *vocabulary_merge(const vocabulary *v, int32_t left, int32_t right) {
  for (size_t at = pair_place(v, left, right); v->pairs[at].left >= 0; at = (at + 1) & v->pair_mask)
    if (v->pairs[at].left == left && v->pairs[at].right == right) return &v->pairs[at];
  return NULL;
}
