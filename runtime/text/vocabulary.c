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

static sluice_status *make_slots(vocabulary *v, size_t count) {
  v->slots = sluice_allocate_array(count, sizeof *v->slots);
  if (!v->slots) return sluice_out_of_memory();
  for (size_t i = 0; i < count; i++) v->slots[i].id = -1; /* also has the memory made in order, which is quicker */
  v->slot_mask = count - 1;
  return NULL;
}

sluice_status *vocabulary_begin(vocabulary *v, size_t tokens) {
  for (int i = 0; i < 256; i++) v->byte_ids[i] = -1;
  return make_slots(v, table_size(tokens));
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

static sluice_status *reserve_ids(vocabulary *v, int32_t size) {
  if (size > v->capacity) {
    const int32_t capacity = size < 1024 ? 1024 : size > VOCABULARY_MAX_ID / 2 ? VOCABULARY_MAX_ID : 2 * size;
    vocabulary_token *grown = sluice_reallocate_array(v->tokens, (size_t)capacity, sizeof *grown);
    if (!grown) return sluice_out_of_memory();
    v->tokens = grown;
    v->capacity = capacity;
  }
  for (; v->size < size; v->size++) v->tokens[v->size].length = VOCABULARY_ABSENT;
  return NULL;
}

static sluice_status *put_in_slot(vocabulary *v, uint64_t hash, int32_t id) {
  size_t at = slot_of(v, hash);
  for (int walked = 0; v->slots[at].id >= 0; at = (at + 1) & v->slot_mask)
    if (++walked > LONGEST_WALK) return collision();
  v->slots[at] = (vocabulary_slot){.hash = (uint32_t)(hash >> 32), .id = id};
  return NULL;
}

static sluice_status *grow_slots(vocabulary *v) {
  vocabulary_slot *old = v->slots;
  const size_t count = v->slot_mask + 1;
  sluice_status *status = make_slots(v, 2 * count);
  if (status) {
    v->slots = old;
    return status;
  }
  for (size_t i = 0; i < count && !status; i++) {
    if (old[i].id < 0) continue;
    const vocabulary_token *token = &v->tokens[old[i].id];
    status = put_in_slot(v, hash_bytes(v->bytes + token->start, token->length), old[i].id);
  }
  sluice_release(old);
  return status;
}

bool vocabulary_has(const vocabulary *v, int32_t id) {
  return id < v->size && v->tokens[id].length != VOCABULARY_ABSENT;
}

sluice_status *vocabulary_set(vocabulary *v, int32_t id, const char *bytes, size_t length, bool find) {
  const uint32_t start = (uint32_t)v->byte_count;
  if (!append_bytes(v, bytes, length)) return sluice_out_of_memory();
  SLUICE_TRY(reserve_ids(v, id + 1));
  v->tokens[id] = (vocabulary_token){.start = start, .length = (uint32_t)length};
  if (!find) return NULL;
  if (length == 1) v->byte_ids[(unsigned char)bytes[0]] = id;
  if (2 * ++v->found_count > v->slot_mask) SLUICE_TRY(grow_slots(v));
  return put_in_slot(v, hash_bytes(bytes, length), id);
}

static int32_t find_hashed(const vocabulary *v, uint64_t hash, const char *bytes, size_t length) {
  for (size_t at = slot_of(v, hash); v->slots[at].id >= 0; at = (at + 1) & v->slot_mask) {
    if (v->slots[at].hash != (uint32_t)(hash >> 32)) continue;
    const int32_t id = v->slots[at].id;
    const vocabulary_token *token = &v->tokens[id];
    if (token->length == length && memcmp(v->bytes + token->start, bytes, length) == 0) return id;
  }
  return -1;
}

int32_t vocabulary_find(const vocabulary *v, const char *bytes, size_t length) {
  return find_hashed(v, hash_bytes(bytes, length), bytes, length);
}

void vocabulary_find_many(const vocabulary *v, const vocabulary_key *keys, size_t count, int32_t *ids) {
  uint64_t hashes[VOCABULARY_MOST_KEYS];
  for (size_t i = 0; i < count; i++) {
    hashes[i] = hash_bytes(keys[i].bytes, keys[i].length);
    __builtin_prefetch(&v->slots[slot_of(v, hashes[i])]);
  }
  for (size_t i = 0; i < count; i++) {
    ids[i] = v->slots[slot_of(v, hashes[i])].id;
    if (ids[i] >= 0) __builtin_prefetch(&v->tokens[ids[i]]);
  }
  for (size_t i = 0; i < count; i++)
    if (ids[i] >= 0) __builtin_prefetch(v->bytes + v->tokens[ids[i]].start);
  for (size_t i = 0; i < count; i++) ids[i] = find_hashed(v, hashes[i], keys[i].bytes, keys[i].length);
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
  for (int32_t id = guess; id <= guess + 1; id++)
    if (id >= 0 && id < v->size && is_joined(v, id, l, r)) return id;
  uint64_t hash = hash_bytes(v->bytes + l->start, l->length);
  for (size_t i = 0; i < r->length; i++) hash = hash_byte(hash, v->bytes[r->start + i]);
  for (size_t at = slot_of(v, hash); v->slots[at].id >= 0; at = (at + 1) & v->slot_mask) {
    const int32_t id = v->slots[at].id;
    if (v->slots[at].hash == (uint32_t)(hash >> 32) && is_joined(v, id, l, r)) return id;
  }
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
