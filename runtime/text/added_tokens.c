#include "runtime/text/added_tokens.h"

#include "runtime/text/nfc.h"
#include "sluice/memory.h"

#include <stdlib.h>
#include <string.h>

/* A node's children are a list: nodes with many are few, and are near the root. */
typedef struct added_node {
  uint32_t first_child, next_sibling; /* 0: none */
  uint32_t token;                     /* index + 1 of the token that ends here, 0: none */
  unsigned char byte;
} added_node;

sluice_status *added_tokens_add(added_tokens *added, const added_token *token) {
  if (added->count == added->capacity) {
    const size_t capacity = added->capacity ? added->capacity * 2 : 64;
    added_token *grown = sluice_reallocate_array(added->tokens, capacity, sizeof *grown);
    if (!grown) return sluice_out_of_memory();
    added->tokens = grown;
    added->capacity = capacity;
  }
  added_token *copy = &added->tokens[added->count];
  *copy = *token;
  copy->content = sluice_copy_string(token->content, token->length);
  if (!copy->content) return sluice_out_of_memory();
  added->count++;
  return NULL;
}

static uint32_t child_of(const added_trie *trie, uint32_t node, unsigned char byte) {
  uint32_t child = trie->nodes[node].first_child;
  while (child && trie->nodes[child].byte != byte) child = trie->nodes[child].next_sibling;
  return child;
}

static sluice_status *add_node(added_trie *trie, added_node node) {
  if (trie->count == trie->capacity) {
    const size_t capacity = trie->capacity ? trie->capacity * 2 : 256;
    added_node *grown = sluice_reallocate_array(trie->nodes, capacity, sizeof *grown);
    if (!grown) return sluice_out_of_memory();
    trie->nodes = grown;
    trie->capacity = capacity;
  }
  trie->nodes[trie->count++] = node;
  return NULL;
}

static sluice_status *insert(added_tokens *added, uint32_t index) {
  const added_token *token = &added->tokens[index];
  added_trie *trie = token->normalized ? &added->normalized : &added->raw;
  if (!trie->count) SLUICE_TRY(add_node(trie, (added_node){0}));
  uint32_t node = 0;
  for (size_t i = 0; i < token->length; i++) {
    const unsigned char byte = (unsigned char)token->content[i];
    uint32_t child = child_of(trie, node, byte);
    if (!child) {
      child = (uint32_t)trie->count;
      SLUICE_TRY(add_node(trie, (added_node){.next_sibling = trie->nodes[node].first_child, .byte = byte}));
      trie->nodes[node].first_child = child;
    }
    node = child;
  }
  if (trie->nodes[node].token)
    return sluice_error(SLUICE_INVALID, "two added tokens are \"%.100s\" (ids %d and %d)", token->content,
                        added->tokens[trie->nodes[node].token - 1].id, token->id);
  trie->nodes[node].token = index + 1;
  trie->starts[(unsigned char)token->content[0]] = true;
  return NULL;
}

static int compare_ids(const void *a, const void *b) {
  const int32_t x = ((const added_token *)a)->id, y = ((const added_token *)b)->id;
  return (x > y) - (x < y);
}

static sluice_status *normalize(added_token *token) {
  sluice_text normal = {0};
  nfc_append(token->content, token->length, &normal);
  if (normal.failed) {
    sluice_text_free(&normal);
    return sluice_out_of_memory();
  }
  sluice_release(token->content);
  token->content = normal.data;
  token->length = normal.length;
  return NULL;
}

sluice_status *added_tokens_finish(added_tokens *added, bool nfc) {
  if (added->count) qsort(added->tokens, added->count, sizeof *added->tokens, compare_ids);
  for (size_t i = 1; i < added->count; i++)
    if (added->tokens[i].id == added->tokens[i - 1].id)
      return sluice_error(SLUICE_INVALID, "two added tokens have the id %d: \"%.100s\" and \"%.100s\"",
                          added->tokens[i].id, added->tokens[i - 1].content, added->tokens[i].content);
  for (size_t i = 0; nfc && i < added->count; i++)
    if (added->tokens[i].normalized) SLUICE_TRY(normalize(&added->tokens[i]));
  for (size_t i = 0; i < added->count; i++) SLUICE_TRY(insert(added, (uint32_t)i));
  return NULL;
}

void added_tokens_free(added_tokens *added) {
  for (size_t i = 0; i < added->count; i++) sluice_release(added->tokens[i].content);
  sluice_release(added->tokens);
  sluice_release(added->raw.nodes);
  sluice_release(added->normalized.nodes);
  *added = (added_tokens){0};
}

const added_token *added_tokens_of_id(const added_tokens *added, int32_t id) {
  const added_token key = {.id = id};
  if (!added->count) return NULL;
  return bsearch(&key, added->tokens, added->count, sizeof key, compare_ids);
}

const added_token *added_trie_longest(const added_tokens *added, const added_trie *trie, const char *text,
                                      size_t length, size_t at) {
  uint32_t node = 0, found = 0;
  while (at < length && (node = child_of(trie, node, (unsigned char)text[at])) != 0) {
    at++;
    if (trie->nodes[node].token) found = trie->nodes[node].token;
  }
  return found ? &added->tokens[found - 1] : NULL;
}
