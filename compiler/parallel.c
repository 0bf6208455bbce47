#include "compiler/parallel.h"

#include "sluice/plan.h"

#include <stdlib.h>
#include <string.h>

sluice_status *parallel_parse(const char *text, int64_t *out_ranks) {
  *out_ranks = 1;
  if (!text) return NULL;
  char *end = NULL;
  const bool tensor = strncmp(text, "tp=", 3) == 0 && text[3] >= '0' && text[3] <= '9';
  const long ranks = tensor ? strtol(text + 3, &end, 10) : 0;
  if (!tensor || *end)
    return sluice_error(SLUICE_USAGE, "--parallel is '%.60s', expected tp=N: N ranks that split heads and widths",
                        text);
  if (ranks < 1 || ranks > (long)SLUICE_PLAN_RANKS)
    return sluice_error(SLUICE_USAGE, "--parallel tp=%.20s: expected 1 to %u ranks", text + 3, SLUICE_PLAN_RANKS);
  *out_ranks = ranks;
  return NULL;
}
