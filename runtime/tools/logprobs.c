#include "runtime/tools/logprobs.h"

void logprobs_append(const sluice_logprobs *logprobs, int32_t token, sluice_text *out) {
  sluice_text_printf(out, "{\"id\": %d, \"logprob\": ", token);
  sluice_text_json_double(out, (double)logprobs->chosen);
  sluice_text_printf(out, ", \"top\": [");
  for (uint32_t i = 0; i < logprobs->count; i++) {
    sluice_text_printf(out, "%s[%d, ", i ? ", " : "", logprobs->top[i].token);
    sluice_text_json_double(out, (double)logprobs->top[i].logprob);
    sluice_text_printf(out, "]");
  }
  sluice_text_printf(out, "]}");
}
