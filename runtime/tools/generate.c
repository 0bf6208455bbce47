/* sluice-run generate: continues a prompt of token ids. */
#include "runtime/tools/options.h"
#include "runtime/tools/run.h"

#include <errno.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct generate_options {
  tool_model_options model;
  const char *ids;
  uint64_t max_new, chunk, top_k, seed, dump_rows;
  double temperature, top_p;
  bool ignore_eos, allow_nan, dump_layers, json;
  const char *dump, *trace;
} generate_options;

typedef struct generation {
  int32_t *prompt;
  uint32_t prompt_length;
  int32_t *tokens; /* new ones */
  uint32_t token_count;
  float *decode_logits; /* [token_count - 1][vocabulary], kept for --dump only */
  bool stopped;         /* by a stop id */
  uint64_t nan_tokens;  /* chosen from rows of logits with a NaN */
  double weights_seconds, prompt_seconds, decode_seconds;
  double first_token_seconds; /* from opening the bundle on, without the weights */
} generation;

/* ---- The prompt ---- */

static sluice_status *read_text(const char *path, sluice_text *text) {
  FILE *file = strcmp(path, "-") == 0 ? stdin : fopen(path, "re");
  if (!file)
    return sluice_error(errno == ENOENT ? SLUICE_NOT_FOUND : SLUICE_IO, "%s: cannot read the token ids: %s", path,
                        strerror(errno));
  char part[65536];
  size_t count;
  while ((count = fread(part, 1, sizeof part, file)) > 0) sluice_text_append(text, part, count);
  bool failed = ferror(file) != 0;
  if (file != stdin) fclose(file);
  if (failed) return sluice_error(SLUICE_IO, "%s: cannot read the token ids", path);
  return text->failed ? sluice_out_of_memory() : NULL;
}

static bool is_separator(char c) {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == ',';
}

static sluice_status *parse_ids(const char *path, const sluice_text *text, generation *g) {
  size_t capacity = text->length / 2 + 1, at = 0;
  g->prompt = sluice_allocate_array(capacity, sizeof *g->prompt);
  if (!g->prompt) return sluice_out_of_memory();
  for (;;) {
    while (at < text->length && is_separator(text->data[at])) at++;
    if (at == text->length) break;
    int64_t value = 0;
    size_t start = at;
    for (; at < text->length && text->data[at] >= '0' && text->data[at] <= '9' && value <= INT32_MAX; at++)
      value = value * 10 + (text->data[at] - '0');
    if (at == start || value > INT32_MAX || (at < text->length && !is_separator(text->data[at])))
      return sluice_error(SLUICE_INVALID,
                          "%s: byte %zu: \"%.12s\" is no token id; expected non-negative integers separated by spaces, "
                          "commas or newlines",
                          path, start, text->data + start);
    g->prompt[g->prompt_length++] = (int32_t)value;
  }
  if (!g->prompt_length) return sluice_error(SLUICE_INVALID, "%s: no token ids", path);
  return NULL;
}

static sluice_status *read_prompt(const char *path, generation *g) {
  sluice_text text = {0};
  sluice_status *status = read_text(path, &text);
  if (!status) status = parse_ids(path, &text, g);
  sluice_text_free(&text);
  return status;
}

/* ---- Generating ---- */

static sluice_status *is_stop_id(const sluice_model *model, int32_t token, bool *out_stop) {
  *out_stop = false;
  const sluice_json_value *ids = sluice_json_get(sluice_model_manifest(model), "stop_ids");
  if (!ids) return NULL;
  if (ids->kind != SLUICE_JSON_ARRAY)
    return sluice_error(SLUICE_INVALID, "the bundle's \"stop_ids\" are %s, expected an array",
                        sluice_json_kind_name(ids->kind));
  for (size_t i = 0; i < ids->length; i++)
    if (ids->items[i].is_integer && ids->items[i].integer == token) *out_stop = true;
  return NULL;
}

static bool stopped_by_nan(const generate_options *options, const generation *g) {
  return g->nan_tokens && !options->allow_nan;
}

/* `nan`: the logits that the next token was chosen from hold a NaN. True when generation goes on. */
static bool accept(const generate_options *options, bool nan, generation *g) {
  if (!nan) return true;
  if (options->allow_nan && !g->nan_tokens)
    fprintf(stderr, "warning: new token %u and maybe later ones are chosen from logits that hold NaN\n",
            g->token_count + 1);
  g->nan_tokens++;
  return options->allow_nan;
}

static sluice_status *decode(const sluice_model *model, sluice_session *session, const generate_options *options,
                             const sluice_sampling *sampling, const prompt_run *run, generation *g) {
  uint32_t vocabulary = run->vocabulary;
  int32_t token = run->next;
  if (!accept(options, run->next_nan, g)) return NULL;
  for (;;) {
    g->tokens[g->token_count++] = token;
    if (!options->ignore_eos) SLUICE_TRY(is_stop_id(model, token, &g->stopped));
    if (g->stopped || g->token_count == options->max_new) return NULL;
    sluice_chunk chunk = {
        .sequence = run->sequence, .tokens = &token, .count = 1, .logit_rows = 1, .sampling = *sampling};
    sluice_step_result result;
    SLUICE_TRY(tool_trace_step(options->model.trace, "decode", model, session, &chunk, 1, &result));
    if (g->decode_logits) {
      const float *logits;
      SLUICE_TRY(sluice_step_logits(session, &logits));
      memcpy(g->decode_logits + (size_t)(g->token_count - 1) * vocabulary, logits, vocabulary * sizeof *logits);
    }
    token = result.sampled[0];
    if (!accept(options, result.nan[0], g)) return NULL;
  }
}

static sluice_status *run_session(const sluice_model *model, sluice_session *session, const generate_options *options,
                                  generation *g, double opened) {
  int32_t sequence;
  SLUICE_TRY(sluice_sequence_add(session, &sequence));
  sluice_sampling sampling = {.temperature = (float)options->temperature,
                              .top_p = fmaxf((float)options->top_p, FLT_MIN), /* 0 is "off" there */
                              .top_k = (int32_t)options->top_k,
                              .seed = options->seed};
  uint64_t rows = options->dump ? options->dump_rows : 1;
  if (rows > g->prompt_length) rows = g->prompt_length;
  prompt_run run;
  double start = tool_now();
  sluice_status *status =
      prompt_run_feed(model, session, sequence, g->prompt, g->prompt_length, (uint32_t)options->chunk, (uint32_t)rows,
                      options->dump_layers, &sampling, options->model.trace, &run);
  g->prompt_seconds = tool_now() - start;
  g->first_token_seconds = tool_now() - opened - g->weights_seconds;
  if (!status && options->dump) {
    g->decode_logits = sluice_allocate_array(options->max_new * run.vocabulary, sizeof *g->decode_logits);
    if (!g->decode_logits) status = sluice_out_of_memory();
  }
  start = tool_now();
  if (!status) status = decode(model, session, options, &sampling, &run, g);
  g->decode_seconds = tool_now() - start;
  if (!status && options->dump && !stopped_by_nan(options, g))
    status = tool_dump(options->dump, &run, g->prompt, g->tokens, g->token_count, g->decode_logits);
  prompt_run_free(&run);
  return status;
}

static uint64_t weights_bytes(const sluice_model *model) {
  const sluice_plan *plan = sluice_model_plan(model);
  uint64_t bytes = 0;
  for (uint64_t i = 0; i < plan->header->weights.count; i++) bytes += plan->weights[i].bytes;
  return bytes;
}

static sluice_status *print_result(const sluice_model *model, const generate_options *options, const generation *g) {
  if (!options->json) {
    for (uint32_t i = 0; i < g->token_count; i++) printf("%s%d", i ? " " : "", g->tokens[i]);
    putchar('\n');
    return NULL;
  }
  sluice_text text = {0};
  sluice_text_printf(&text, "{\"target\": ");
  sluice_text_json_string(&text, sluice_model_target(model));
  sluice_text_printf(&text, ", \"prompt_tokens\": %u, \"ids\": [", g->prompt_length);
  for (uint32_t i = 0; i < g->token_count; i++) sluice_text_printf(&text, "%s%d", i ? ", " : "", g->tokens[i]);
  sluice_text_printf(&text, "], \"stopped\": \"%s\", \"nan_tokens\": %llu, \"prompt_seconds\": ",
                     stopped_by_nan(options, g) ? "nan"
                     : g->stopped               ? "stop_id"
                                                : "max_new",
                     (unsigned long long)g->nan_tokens);
  sluice_text_json_double(&text, g->prompt_seconds);
  sluice_text_printf(&text, ", \"decode_seconds\": ");
  sluice_text_json_double(&text, g->decode_seconds);
  sluice_text_printf(&text, ", \"first_token_seconds\": ");
  sluice_text_json_double(&text, g->first_token_seconds);
  sluice_text_printf(&text, ", \"device_seconds\": ");
  sluice_text_json_double(&text, sluice_model_device_seconds(model));
  sluice_text_printf(&text, ", \"weights_seconds\": ");
  sluice_text_json_double(&text, g->weights_seconds);
  sluice_text_printf(&text, ", \"weights_bytes\": %llu", (unsigned long long)weights_bytes(model));
  sluice_text_printf(&text, "}\n");
  bool failed = text.failed;
  if (!failed) fputs(text.data, stdout);
  sluice_text_free(&text);
  return failed ? sluice_out_of_memory() : NULL;
}

/* `opened`: when the bundle began to be opened. */
static sluice_status *run_model(sluice_model *model, sluice_session **session, const generate_options *options,
                                generation *g, double opened) {
  uint64_t context = g->prompt_length + options->max_new - 1; /* the last new token is never fed */
  uint32_t longest = sluice_model_plan(model)->header->max_context;
  if (context > longest)
    return sluice_error(SLUICE_INVALID,
                        "a prompt of %u tokens and %llu new ones exceed the longest context %u that the bundle was "
                        "compiled for; compile it with a larger --max-context or ask for fewer",
                        g->prompt_length, (unsigned long long)options->max_new, longest);
  g->tokens = sluice_allocate_array(options->max_new, sizeof *g->tokens);
  if (!g->tokens) return sluice_out_of_memory();
  uint64_t step = options->chunk < g->prompt_length ? options->chunk : g->prompt_length;
  sluice_session_options session_options = {
      .max_sequences = 1, .max_step_tokens = (uint32_t)step, .cache_tokens = context};
  SLUICE_TRY(sluice_session_create(model, &session_options, session));
  return run_session(model, *session, options, g, opened);
}

static sluice_status *generate(const char *file, const generate_options *options, generation *g) {
  SLUICE_TRY(read_prompt(options->ids, g));
  sluice_model *model = NULL;
  double start = tool_now();
  tool_model_options model_options = options->model;
  model_options.weights_seconds = &g->weights_seconds;
  SLUICE_TRY(tool_open_model(file, &model_options, &model));
  sluice_session *session = NULL;
  sluice_status *status = run_model(model, &session, options, g, start);
  sluice_session_close(session);
  bool nan = !status && stopped_by_nan(options, g);
  if (!status && (!nan || options->json)) status = print_result(model, options, g);
  if (!status && nan)
    status = sluice_error(SLUICE_CHECK_FAILED,
                          "%s: the logits that new token %u would be chosen from hold NaN: the weights are damaged, or "
                          "values are too large for their type; --allow-nan goes on",
                          file, g->token_count + 1);
  sluice_model_close(model);
  return status;
}

static sluice_status *check(const generate_options *options) {
  if (!options->model.weights || !options->ids)
    return sluice_error(SLUICE_USAGE, "generate needs --weights and --ids; see --help");
  if (options->max_new < 1 || options->max_new > INT32_MAX)
    return sluice_error(SLUICE_USAGE, "--max-new must lie in 1 .. %d", INT32_MAX);
  if (options->chunk < 1 || options->chunk > 1u << 24)
    return sluice_error(SLUICE_USAGE, "--chunk must lie in 1 .. %u", 1u << 24);
  if (options->top_k > INT32_MAX) return sluice_error(SLUICE_USAGE, "--top-k must lie in 0 .. %d", INT32_MAX);
  if (!(options->top_p >= 0 && options->top_p <= 1)) return sluice_error(SLUICE_USAGE, "--top-p must lie in 0 .. 1");
  if (options->dump_rows < 1) return sluice_error(SLUICE_USAGE, "--dump-rows must be at least 1");
  if (options->dump_layers && !options->dump) return sluice_error(SLUICE_USAGE, "--dump-layers needs --dump");
  return NULL;
}

sluice_status *command_generate(int argc, char **argv) {
  generate_options o = {.max_new = 32, .chunk = 512, .dump_rows = 64, .top_p = 1.0};
  const tool_option options[] = {
      {"--weights", TOOL_INPUT, &o.model.weights, "DIR|synthetic:SEED", "the checkpoint"},
      {"--ids", TOOL_INPUT, &o.ids, "FILE|-", "token ids of the prompt, separated by spaces, commas or newlines"},
      {"--max-new", TOOL_COUNT, &o.max_new, "N", "new tokens at most (32)"},
      {"--ignore-eos", TOOL_FLAG, &o.ignore_eos, NULL, "do not stop at the model's stop ids"},
      {"--allow-nan", TOOL_FLAG, &o.allow_nan, NULL, "go on, with a warning, when logits hold NaN; otherwise an error"},
      {"--chunk", TOOL_COUNT, &o.chunk, "N", "feed the prompt in steps of N tokens (512)"},
      {"--temperature", TOOL_REAL, &o.temperature, "X", "0: the most likely token (0)"},
      {"--top-p", TOOL_REAL, &o.top_p, "X",
       "draw from the most likely tokens that reach probability X (1: all; 0: the most likely one)"},
      {"--top-k", TOOL_COUNT, &o.top_k, "N", "draw from the N most likely tokens (0: all)"},
      {"--seed", TOOL_COUNT, &o.seed, "N", "of the random numbers (0)"},
      {"--device", TOOL_TEXT, &o.model.device, "D", "host, cuda:N, hip:N (host)"},
      {"--threads", TOOL_COUNT, &o.model.threads, "N", "threads on the host (0: one for each core)"},
      {"--dump", TOOL_OUTPUT, &o.dump, "OUT.safetensors", "write logits and tokens, as golden files have them"},
      {"--dump-rows", TOOL_COUNT, &o.dump_rows, "R", "rows of the prompt's end in the dump (64)"},
      {"--dump-layers", TOOL_FLAG, &o.dump_layers, NULL, "dump every layer's output and selections too"},
      {"--trace", TOOL_OUTPUT, &o.trace, "FILE", "write a Chrome/Perfetto trace; it waits for each launch"},
      {"--json", TOOL_FLAG, &o.json, NULL, "print a JSON object with ids and times, from opening the bundle on"},
  };
  const tool_command command = {"sluice-run generate FILE.sluice --weights DIR|synthetic:SEED --ids FILE|- [options]",
                                "Continues a prompt of token ids and prints the new ids on one line. A stop id ends "
                                "the output and is its last id.\n",
                                options, sizeof options / sizeof options[0]};
  const char *file;
  bool help;
  SLUICE_TRY(tool_parse(&command, argc, argv, &file, &help));
  if (help) return NULL;
  SLUICE_TRY(check(&o));
  SLUICE_TRY(tool_trace_open(o.trace, &o.model.trace));
  generation g = {0};
  sluice_status *status = tool_trace_close(o.model.trace, generate(file, &o, &g));
  sluice_release(g.prompt);
  sluice_release(g.tokens);
  sluice_release(g.decode_logits);
  return status;
}
