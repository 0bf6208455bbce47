/* sluice-run memory: what a session would need. */
#include "sluice/memory.h"
#include "runtime/tools/options.h"
#include "runtime/tools/run.h"

#include <stdio.h>

static void print_text(const sluice_model *model, const sluice_memory_plan *plan) {
  const struct {
    const char *name;
    uint64_t bytes;
  } lines[] = {{"weights", plan->weights},
               {"cache", plan->cache},
               {"workspace", plan->arena},
               {"inputs and outputs", plan->inputs_outputs},
               {"together", plan->total},
               {"available", plan->available},
               {"one cache page", plan->bytes_per_page}};
  printf("%-20s %s\n", "target", sluice_model_target(model));
  for (size_t i = 0; i < sizeof lines / sizeof lines[0]; i++)
    printf("%-20s %20llu bytes %12s\n", lines[i].name, (unsigned long long)lines[i].bytes,
           lines[i].bytes < 1000 ? "" : sluice_describe_bytes(lines[i].bytes).text);
  printf("%-20s %20llu tokens\n", "longest context", (unsigned long long)plan->longest_context);
}

static void print_json(const sluice_model *model, const sluice_memory_plan *plan) {
  printf("{\"target\": \"%s\", \"weights\": %llu, \"cache\": %llu, \"arena\": %llu, \"inputs_outputs\": %llu, "
         "\"total\": %llu, \"available\": %llu, \"bytes_per_page\": %llu, \"longest_context\": %llu, \"fits\": %s}\n",
         sluice_model_target(model), (unsigned long long)plan->weights, (unsigned long long)plan->cache,
         (unsigned long long)plan->arena, (unsigned long long)plan->inputs_outputs, (unsigned long long)plan->total,
         (unsigned long long)plan->available, (unsigned long long)plan->bytes_per_page,
         (unsigned long long)plan->longest_context, plan->total <= plan->available ? "true" : "false");
}

sluice_status *command_memory(int argc, char **argv) {
  tool_model_options model_options = {0};
  uint64_t sequences = 1, context = 0, step = 512;
  bool json = false;
  const tool_option options[] = {
      {"--sequences", TOOL_COUNT, &sequences, "N", "sequences in one step (1)"},
      {"--context", TOOL_COUNT, &context, "N", "tokens of each sequence (0: the longest the bundle allows)"},
      {"--step-tokens", TOOL_COUNT, &step, "N", "tokens of one step (512)"},
      {"--device", TOOL_TEXT, &model_options.device, "D", "host, cuda:N, hip:N (host)"},
      {"--trust", TOOL_INPUT, &model_options.trust, "KEY", "run the bundle only if it is signed with this key"},
      {"--json", TOOL_FLAG, &json, NULL, "print a JSON object"},
  };
  const tool_command command = {"sluice-run memory FILE.sluice [--sequences N] [--context N] [options]",
                                "Prints what a session needs and what the machine has. No weights are read.\n", options,
                                sizeof options / sizeof options[0]};
  const char *file;
  bool help;
  SLUICE_TRY(tool_parse(&command, argc, argv, &file, &help));
  if (help) return NULL;
  if (sequences < 1 || sequences > 1u << 20 || step < 1 || step > 1u << 24 || context > INT32_MAX)
    return sluice_error(SLUICE_USAGE, "--sequences must lie in 1 .. %u, --step-tokens in 1 .. %u, --context below 2^31",
                        1u << 20, 1u << 24);
  sluice_model *model = NULL;
  SLUICE_TRY(tool_open_model(file, &model_options, &model));
  const sluice_plan_header *header = sluice_model_plan(model)->header;
  if (!context) context = header->max_context;
  uint64_t pages = (context + header->page_tokens - 1) / header->page_tokens; /* every sequence has its own last page */
  sluice_session_options session_options = {.max_sequences = (uint32_t)sequences,
                                            .max_step_tokens = (uint32_t)step,
                                            .cache_tokens = sequences * pages * header->page_tokens};
  sluice_memory_plan plan;
  sluice_status *status = sluice_model_memory(model, &session_options, &plan);
  if (!status) (json ? print_json : print_text)(model, &plan);
  sluice_model_close(model);
  return status;
}
