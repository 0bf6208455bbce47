#include "runtime/tools/logprobs.h"

#include <math.h>

void logprobs_append(const float *logits, uint32_t vocabulary, int32_t token, uint32_t count, sluice_text *out) {
  uint32_t top[LOGPROBS_MOST];
  uint32_t found = 0;
  double largest = -INFINITY, sum = 0;
  for (uint32_t i = 0; i < vocabulary; i++)
    if (logits[i] > largest) largest = logits[i];
  for (uint32_t i = 0; i < vocabulary; i++) {
    sum += exp(logits[i] - largest);
    uint32_t at = found;
    while (at > 0 && logits[i] > logits[top[at - 1]]) at--;
    if (at == count) continue;
    if (found < count) found++;
    for (uint32_t k = found - 1; k > at; k--) top[k] = top[k - 1];
    top[at] = i;
  }
  const double zero = largest + log(sum); /* the logarithm of the sum of all */
  sluice_text_printf(out, "{\"id\": %d, \"logprob\": ", token);
  sluice_text_json_double(out, logits[token] - zero);
  sluice_text_printf(out, ", \"top\": [");
  for (uint32_t i = 0; i < found; i++) {
    sluice_text_printf(out, "%s[%u, ", i ? ", " : "", top[i]);
    sluice_text_json_double(out, logits[top[i]] - zero);
    sluice_text_printf(out, "]");
  }
  sluice_text_printf(out, "]}");
}
