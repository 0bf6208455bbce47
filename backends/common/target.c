/* The list of all backends, and what is asked of a target by its name. */
#include "backends/common/target.h"
#include "backends/common/backend.h"
#include "sluice/json.h"

#include <string.h>

#define BACKEND_ADDRESS(name) &name##_backend,
static const backend *const backends[] = {BACKENDS(BACKEND_ADDRESS)};
#undef BACKEND_ADDRESS
enum { COUNT = sizeof backends / sizeof *backends };

const backend *backend_find(const char *target) {
  char canonical[32];
  for (size_t i = 0; i < COUNT; i++)
    if (backends[i]->canonicalise(target, canonical)) return backends[i];
  return NULL;
}

sluice_status *target_canonicalise(const char *name, char canonical[32]) {
  sluice_text known = {0};
  for (size_t i = 0; i < COUNT; i++) {
    memset(canonical, 0, 32);
    if (backends[i]->canonicalise(name, canonical)) {
      sluice_text_free(&known);
      return NULL;
    }
    sluice_text_printf(&known, "%s%s", i ? "; " : "", backends[i]->known);
  }
  sluice_status *status = known.failed
                              ? sluice_out_of_memory()
                              : sluice_error(SLUICE_UNSUPPORTED, "unknown target '%s'; known are %s", name, known.data);
  sluice_text_free(&known);
  return status;
}

sluice_status *target_find_facts(const char *target, const target_facts **out_facts) {
  const backend *b = backend_find(target);
  if (!b) return sluice_error(SLUICE_UNSUPPORTED, "nothing is known about a target '%s'", target);
  *out_facts = b->facts(target);
  return NULL;
}
