#include "runtime/ranks/identity.h"

#include "sluice/bundle.h"
#include "sluice/file.h"
#include "sluice/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LONGEST_CONFIG ((size_t)1 << 26)

void sluice_identity_add(sluice_identity *identity, const char *what, const char *value) {
  for (int i = 0; i < SLUICE_IDENTITY_ITEMS; i++) {
    sluice_identity_item *item = &identity->items[i];
    if (item->what[0]) continue;
    snprintf(item->what, sizeof item->what, "%s", what);
    snprintf(item->value, sizeof item->value, "%s", value);
    return;
  }
}

void sluice_identity_add_digest(sluice_identity *identity, const char *what, const uint8_t digest[32]) {
  char text[65];
  for (int i = 0; i < 32; i++) snprintf(text + 2 * (size_t)i, 3, "%02x", digest[i]);
  sluice_identity_add(identity, what, text);
}

/* ---- Checkpoints ---- */

static void add_to_digest(uint8_t digest[32], const char *text) {
  char joined[1024];
  memcpy(joined, digest, 32);
  const int length = snprintf(joined + 32, sizeof joined - 32, "%s", text);
  const size_t kept = length < 0 ? 0 : (size_t)length < sizeof joined - 32 ? (size_t)length : sizeof joined - 33;
  sluice_sha256(joined, 32 + kept, digest);
}

static void add_tensor(uint8_t digest[32], const sluice_tensor_info *tensor) {
  char text[128];
  add_to_digest(digest, tensor->name);
  add_to_digest(digest, tensor->dtype_name);
  for (unsigned i = 0; i < tensor->rank; i++) {
    snprintf(text, sizeof text, "%lld", (long long)tensor->shape[i]);
    add_to_digest(digest, text);
  }
}

/* Beside a directory's shards; a checkpoint that is one file has none. */
static sluice_status *add_config(sluice_identity *identity, const char *source) {
  void *data;
  size_t length;
  uint8_t digest[32];
  char *path = sluice_format_string("%s/config.json", source);
  if (!path) return sluice_out_of_memory();
  sluice_status *status = NULL;
  if (access(path, F_OK) == 0) {
    status = sluice_read_file(path, LONGEST_CONFIG, &data, &length);
    if (!status) {
      sluice_sha256(data, length, digest);
      sluice_identity_add_digest(identity, "config.json", digest);
      sluice_release(data);
    }
  }
  sluice_release(path);
  return status;
}

sluice_status *sluice_identity_add_checkpoint(sluice_identity *identity, const sluice_checkpoint *checkpoint) {
  const char *source = sluice_checkpoint_source(checkpoint);
  uint8_t digest[32] = {0};
  if (sluice_checkpoint_is_synthetic(checkpoint)) {
    sluice_identity_add(identity, "checkpoint", source);
    return NULL;
  }
  for (size_t i = 0; i < sluice_checkpoint_tensor_count(checkpoint); i++)
    add_tensor(digest, sluice_checkpoint_tensor(checkpoint, i));
  sluice_identity_add_digest(identity, "checkpoint", digest);
  return add_config(identity, source);
}

/* ---- Comparing ---- */

/* "1, 3" of the ranks whose item differs from rank 0's; empty: none. */
static void list_differing(const sluice_identity *all, uint32_t ranks, int item, char *text, size_t capacity) {
  size_t used = 0;
  text[0] = 0;
  for (uint32_t r = 1; r < ranks && used + 8 < capacity; r++)
    if (memcmp(&all[r].items[item], &all[0].items[item], sizeof(sluice_identity_item)) != 0)
      used += (size_t)snprintf(text + used, capacity - used, "%s%u", used ? ", " : "", r);
}

static sluice_status *compare(const sluice_identity *all, uint32_t ranks) {
  for (int i = 0; i < SLUICE_IDENTITY_ITEMS; i++) {
    char differing[256];
    list_differing(all, ranks, i, differing, sizeof differing);
    if (!differing[0]) continue;
    const sluice_identity_item *first = &all[0].items[i], *other = &all[strtoul(differing, NULL, 10)].items[i];
    return sluice_error(SLUICE_INVALID, "%s of rank %s differs from rank 0's (%.16s, rank 0: %.16s): %s",
                        first->what[0] ? first->what : other->what, differing, other->value[0] ? other->value : "none",
                        first->value[0] ? first->value : "none", "start all ranks with the same files and options");
  }
  return NULL;
}

sluice_status *sluice_identity_agree(sluice_group *group, const sluice_identity *identity) {
  sluice_identity *all = sluice_allocate_array(group->ranks, sizeof *all);
  if (!all) return sluice_out_of_memory();
  sluice_status *status = group->collectives->all_gather(group, identity, sizeof *identity, all);
  for (uint32_t r = 0; r < group->ranks && !status; r++)
    for (int i = 0; i < SLUICE_IDENTITY_ITEMS; i++) {
      all[r].items[i].what[sizeof all[r].items[i].what - 1] = 0;
      all[r].items[i].value[sizeof all[r].items[i].value - 1] = 0;
    }
  if (!status) status = compare(all, group->ranks);
  sluice_release(all);
  return status;
}
