#include "runtime/tools/seen.h"

#include "sluice/memory.h"

sluice_status *seen_tokens_create(uint32_t vocabulary, seen_tokens *out_seen) {
  *out_seen = (seen_tokens){.list = sluice_allocate_array(vocabulary, sizeof *out_seen->list),
                            .places = sluice_allocate_array(vocabulary, sizeof *out_seen->places)};
  return out_seen->list && out_seen->places ? NULL : sluice_out_of_memory();
}

void seen_tokens_add(seen_tokens *seen, int32_t token, bool generated) {
  if (!seen->places) return;
  uint32_t *place = &seen->places[token];
  if (!*place) {
    seen->list[seen->count] = (sluice_seen_token){.token = token};
    *place = ++seen->count;
  }
  seen->list[*place - 1].count += generated;
}

void seen_tokens_free(seen_tokens *seen) {
  sluice_release(seen->list);
  sluice_release(seen->places);
  *seen = (seen_tokens){0};
}
