/* sluice-run generate: continues a prompt. */
#include "runtime/tools/logprobs.h"
#include "runtime/tools/prompt.h"
#include "runtime/tools/ranks.h"
#include "runtime/tools/run.h"
#include "runtime/tools/sampling.h"
#include "runtime/tools/seen.h"
#include "runtime/tools/stream.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef struct generate_options {
  tool_model_options model;
  const char *ids, *prompt, *prompt_file, *tokenizer;
  bool special; /* added tokens written in the prompt are tokens */
  uint64_t max_new, chunk, dump_rows;
  tool_sampling sampling;
  bool ignore_eos, allow_nan, dump_layers, json;
  const char *dump, *trace;
  tool_rank_options ranks;
} generate_options;

typedef struct generation {
  generation_config config;
  sluice_tokenizer *tokenizer; /* NULL: ids go in and come out */
  text_stream stream;
  seen_tokens seen; /* kept where a penalty is on */
  tool_prompt prompt;
  int32_t *tokens; /* new ones */
  double *seconds; /* of each new token, from the first one on: the step that made it */
  uint32_t token_count;
  float *decode_logits; /* [token_count - 1][vocabulary], kept for --dump only */
  sluice_text logprobs; /* JSON, one object for each new token */
  bool stopped;         /* by a stop id */
  uint64_t nan_tokens;  /* chosen from rows of logits with a NaN */
  double weights_seconds, prompt_seconds, decode_seconds;
  double first_token_seconds; /* from opening the bundle on, without the weights */
} generation;

/* ---- Before the model is opened ---- */

static sluice_status *read_prompt(const generate_options *options, generation *g) {
  if (options->ids) return tool_prompt_ids(options->ids, &g->prompt);
  sluice_text text = {0};
  SLUICE_TRY(tool_tokenizer_open(options->tokenizer, options->model.weights, &g->tokenizer));
  if (options->prompt)
    return tool_prompt_text(g->tokenizer, options->prompt, strlen(options->prompt), options->special, &g->prompt);
  sluice_status *status = tool_read_file(options->prompt_file, "the prompt", &text);
  if (!status) status = tool_prompt_text(g->tokenizer, text.data, text.length, options->special, &g->prompt);
  sluice_text_free(&text);
  return status;
}

/* Ids that the model has no embedding for, as when a tokenizer is not the model's. */
static sluice_status *check_prompt(const sluice_model *model, const generation *g) {
  const uint32_t vocabulary = sluice_model_plan(model)->header->vocabulary;
  for (uint32_t i = 0; i < g->prompt.count; i++) {
    if ((uint32_t)g->prompt.ids[i] < vocabulary) continue;
    if (!g->tokenizer)
      return sluice_error(SLUICE_INVALID, "token %d is outside the vocabulary of %u", g->prompt.ids[i], vocabulary);
    return sluice_error(SLUICE_INVALID,
                        "the tokenizer gives the id %d, and the model has %u tokens: it is another model's tokenizer",
                        g->prompt.ids[i], vocabulary);
  }
  return NULL;
}

/* ---- Generating ---- */

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

/* Takes a new token, and its log-probabilities where they are wanted. True in *out_end: no more. */
static sluice_status *take(const sluice_model *model, const generate_options *options, int32_t token,
                           const sluice_logprobs *logprobs, double seconds, generation *g, bool *out_end) {
  g->seconds[g->token_count] = seconds;
  g->tokens[g->token_count++] = token;
  seen_tokens_add(&g->seen, token, true);
  if (options->sampling.logprobs) {
    if (g->token_count > 1) sluice_text_printf(&g->logprobs, ", ");
    logprobs_append(logprobs, token, &g->logprobs);
    if (g->logprobs.failed) return sluice_out_of_memory();
  }
  if (!options->ignore_eos) SLUICE_TRY(generation_stops(model, &g->config, token, &g->stopped));
  if (g->tokenizer && !g->stopped) SLUICE_TRY(text_stream_push(&g->stream, token));
  *out_end = g->stopped || g->stream.stopped || g->token_count == options->max_new;
  return NULL;
}

static sluice_status *decode(const sluice_model *model, sluice_session *session, const generate_options *options,
                             sluice_sampling *sampling, const prompt_run *run, generation *g) {
  uint32_t vocabulary = run->vocabulary;
  int32_t token = run->next;
  const sluice_logprobs *logprobs = &run->next_logprobs;
  double seconds = 0;
  if (!accept(options, run->next_nan, g)) return NULL;
  for (bool end = false;;) {
    SLUICE_TRY(take(model, options, token, logprobs, seconds, g, &end));
    if (end) return NULL;
    const double start = tool_now();
    sampling->seen_count = g->seen.count;
    sluice_chunk chunk = {
        .sequence = run->sequence, .tokens = &token, .count = 1, .logit_rows = 1, .sampling = *sampling};
    sluice_step_result result;
    SLUICE_TRY(tool_trace_step(options->model.trace, "decode", model, session, &chunk, 1, &result));
    if (g->decode_logits) {
      const float *logits;
      SLUICE_TRY(sluice_step_logits(session, &logits));
      memcpy(g->decode_logits + (size_t)(g->token_count - 1) * vocabulary, logits, vocabulary * sizeof *logits);
    }
    logprobs = result.logprobs;
    seconds = tool_now() - start;
    token = result.sampled[0];
    if (!accept(options, result.nan[0], g)) return NULL;
  }
}

static sluice_status *run_session(const sluice_model *model, sluice_session *session, const generate_options *options,
                                  generation *g, double opened) {
  int32_t sequence;
  SLUICE_TRY(sluice_sequence_add(session, &sequence));
  sluice_sampling sampling = tool_sampling_values(&options->sampling);
  if (tool_sampling_has_penalties(&options->sampling)) {
    SLUICE_TRY(seen_tokens_create(sluice_model_plan(model)->header->vocabulary, &g->seen));
    for (uint32_t i = 0; i < g->prompt.count; i++) seen_tokens_add(&g->seen, g->prompt.ids[i], false);
    sampling.seen = g->seen.list;
    sampling.seen_count = g->seen.count;
  }
  uint64_t rows = options->dump ? options->dump_rows : 1;
  if (rows > g->prompt.count) rows = g->prompt.count;
  prompt_run run;
  double start = tool_now();
  sluice_status *status =
      prompt_run_feed(model, session, sequence, g->prompt.ids, g->prompt.count, (uint32_t)options->chunk,
                      (uint32_t)rows, options->dump_layers, &sampling, options->model.trace, &run);
  g->prompt_seconds = tool_now() - start;
  g->first_token_seconds = tool_now() - opened - g->weights_seconds;
  if (!status && options->dump) {
    g->decode_logits = sluice_allocate_array(options->max_new * run.vocabulary, sizeof *g->decode_logits);
    if (!g->decode_logits) status = sluice_out_of_memory();
  }
  start = tool_now();
  if (!status) status = decode(model, session, options, &sampling, &run, g);
  if (!status && g->tokenizer) status = text_stream_finish(&g->stream);
  g->decode_seconds = tool_now() - start;
  if (!status && options->dump && !stopped_by_nan(options, g))
    status = tool_dump(options->dump, &run, g->prompt.ids, g->tokens, g->token_count, g->decode_logits);
  prompt_run_free(&run);
  return status;
}

static uint64_t weights_bytes(const sluice_model *model) {
  const sluice_plan *plan = sluice_model_plan(model);
  uint64_t bytes = 0;
  for (uint64_t i = 0; i < plan->header->weights.count; i++) bytes += plan->weights[i].bytes;
  return bytes;
}

static const char *finish_reason(const generate_options *options, const generation *g) {
  if (stopped_by_nan(options, g)) return "nan";
  if (g->stopped) return "stop_id";
  return g->stream.stopped ? "stop_string" : "max_new";
}

/* Seconds a token, after the first. */
static double seconds_per_token(const generation *g) {
  return g->token_count > 1 ? g->decode_seconds / (g->token_count - 1) : 0;
}

static void append_real(sluice_text *text, const char *key, double value) {
  sluice_text_printf(text, ", \"%s\": ", key);
  sluice_text_json_double(text, value);
}

static void append_tokens(sluice_text *text, const generate_options *options, const generation *g) {
  sluice_text_printf(text, ", \"prompt_tokens\": %u, \"ids\": [", g->prompt.count);
  for (uint32_t i = 0; i < g->token_count; i++) sluice_text_printf(text, "%s%d", i ? ", " : "", g->tokens[i]);
  sluice_text_printf(text, "]");
  if (g->tokenizer) {
    sluice_text_printf(text, ", \"text\": ");
    sluice_text_json_bytes(text, g->stream.text.data ? g->stream.text.data : "", g->stream.text.length);
  }
  if (options->sampling.logprobs)
    sluice_text_printf(text, ", \"logprobs\": [%s]", g->logprobs.data ? g->logprobs.data : "");
  sluice_text_printf(text, ", \"token_seconds\": [");
  for (uint32_t i = 1; i < g->token_count; i++) {
    if (i > 1) sluice_text_printf(text, ", ");
    sluice_text_json_double(text, g->seconds[i]);
  }
  sluice_text_printf(text, "]");
}

static sluice_status *print_json(const sluice_model *model, const generate_options *options, const generation *g) {
  sluice_text text = {0};
  const double each = seconds_per_token(g);
  sluice_text_printf(&text, "{\"target\": ");
  sluice_text_json_string(&text, sluice_model_target(model));
  append_tokens(&text, options, g);
  sluice_text_printf(&text, ", \"stopped\": \"%s\", \"nan_tokens\": %llu", finish_reason(options, g),
                     (unsigned long long)g->nan_tokens);
  append_real(&text, "prompt_seconds", g->prompt_seconds);
  append_real(&text, "decode_seconds", g->decode_seconds);
  append_real(&text, "tokens_per_second", each > 0 ? 1 / each : 0);
  append_real(&text, "first_token_seconds", g->first_token_seconds);
  append_real(&text, "device_seconds", sluice_model_device_seconds(model));
  append_real(&text, "weights_seconds", g->weights_seconds);
  sluice_text_printf(&text, ", \"weights_bytes\": %llu}\n", (unsigned long long)weights_bytes(model));
  const bool failed = text.failed;
  if (!failed) fwrite(text.data, 1, text.length, stdout);
  sluice_text_free(&text);
  return failed ? sluice_out_of_memory() : NULL;
}

static sluice_status *print_result(const sluice_model *model, const generate_options *options, const generation *g) {
  if (options->json) return print_json(model, options, g);
  if (!g->tokenizer) /* text was printed as it came */
    for (uint32_t i = 0; i < g->token_count; i++) printf("%s%d", i ? " " : "", g->tokens[i]);
  putchar('\n');
  if (isatty(STDERR_FILENO)) {
    const double each = seconds_per_token(g);
    fflush(stdout);
    fprintf(stderr, "[%u tokens after %u, %s; first token after %.2f s, then %.1f ms each, %.1f tokens/s]\n",
            g->token_count, g->prompt.count, finish_reason(options, g), g->first_token_seconds, 1e3 * each,
            each > 0 ? 1 / each : 0);
  }
  return NULL;
}

/* Whether the model allows a longer context than the bundle was compiled for. */
static bool could_be_longer(const sluice_model *model) {
  const sluice_json_value *described = sluice_json_get(sluice_model_manifest(model), "model");
  const sluice_json_value *limit = sluice_json_get(described, "max_context");
  return limit && limit->is_integer && limit->integer > sluice_model_plan(model)->header->max_context;
}

/* `opened`: when the bundle began to be opened. */
static sluice_status *run_model(sluice_model *model, sluice_session **session, const generate_options *options,
                                generation *g, double opened) {
  uint64_t context = g->prompt.count + options->max_new - 1; /* the last new token is never fed */
  uint32_t longest = sluice_model_plan(model)->header->max_context;
  if (context > longest)
    return sluice_error(SLUICE_INVALID,
                        "a prompt of %u tokens and %llu new ones exceed the longest context %u that the bundle was "
                        "compiled for%s",
                        g->prompt.count, (unsigned long long)options->max_new, longest,
                        could_be_longer(model) ? "; compile it with a larger --max-context or ask for fewer"
                                               : ", which is the model's own limit; ask for fewer");
  SLUICE_TRY(check_prompt(model, g));
  g->tokens = sluice_allocate_array(options->max_new, sizeof *g->tokens);
  g->seconds = sluice_allocate_array(options->max_new, sizeof *g->seconds);
  if (!g->tokens || !g->seconds) return sluice_out_of_memory();
  uint64_t step = options->chunk < g->prompt.count ? options->chunk : g->prompt.count;
  sluice_session_options session_options = {
      .max_sequences = 1, .max_step_tokens = (uint32_t)step, .cache_tokens = context};
  SLUICE_TRY(sluice_session_create(model, &session_options, session));
  return run_session(model, *session, options, g, opened);
}

static sluice_status *generate(const char *file, generate_options *options, generation *g) {
  SLUICE_TRY(generation_config_read(options->model.weights, &g->config));
  tool_sampling_set_defaults(&options->sampling, &g->config);
  SLUICE_TRY(read_prompt(options, g));
  g->stream = (text_stream){.decoder = {.tokenizer = g->tokenizer, .skip_special = true},
                            .stops = options->sampling.stops.items,
                            .stop_count = options->sampling.stops.count,
                            .out = options->json ? NULL : stdout};
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
  const int prompts = (options->ids != NULL) + (options->prompt != NULL) + (options->prompt_file != NULL);
  if (!options->model.weights || prompts != 1)
    return sluice_error(SLUICE_USAGE,
                        "generate needs --weights and one of --prompt, --prompt-file and --ids; see --help");
  if (options->ids && (options->tokenizer || options->sampling.stops.count || options->special))
    return sluice_error(SLUICE_USAGE, "--tokenizer, --stop and --special go with --prompt or --prompt-file");
  SLUICE_TRY(tool_sampling_check(&options->sampling, options->json));
  if (options->max_new < 1 || options->max_new > INT32_MAX)
    return sluice_error(SLUICE_USAGE, "--max-new must lie in 1 .. %d", INT32_MAX);
  if (options->chunk < 1 || options->chunk > 1u << 24)
    return sluice_error(SLUICE_USAGE, "--chunk must lie in 1 .. %u", 1u << 24);
  if (options->dump_rows < 1) return sluice_error(SLUICE_USAGE, "--dump-rows must be at least 1");
  if (options->dump_layers && !options->dump) return sluice_error(SLUICE_USAGE, "--dump-layers needs --dump");
  return NULL;
}

static sluice_status *generate_traced(const char *file, generate_options *o) {
  generation g = {0};
  sluice_status *status = tool_trace_close(o->model.trace, generate(file, o, &g));
  sluice_tokenizer_close(g.tokenizer);
  text_stream_free(&g.stream);
  seen_tokens_free(&g.seen);
  tool_prompt_free(&g.prompt);
  sluice_release(g.tokens);
  sluice_release(g.seconds);
  sluice_text_free(&g.logprobs);
  sluice_release(g.decode_logits);
  return status;
}

/* Every rank does all that rank 0 does, from the same arguments. */
static sluice_status *check_ranks(const generate_options *o) {
  if (o->dump || o->trace)
    return sluice_error(SLUICE_USAGE, "--dump and --trace are not for several ranks: each has a part of the values");
  const char *files[] = {o->ids, o->prompt_file};
  for (size_t i = 0; i < sizeof files / sizeof *files; i++)
    if (files[i] && strcmp(files[i], "-") == 0)
      return sluice_error(SLUICE_USAGE, "several ranks read the prompt from a file, not from standard input");
  return NULL;
}

static sluice_status *generate_on_ranks(const char *file, generate_options *o) {
  tool_ranks ranks;
  SLUICE_TRY(tool_ranks_join(&o->ranks, &ranks, &o->model.group));
  char *device = NULL;
  sluice_status *status = o->model.group ? check_ranks(o) : NULL;
  if (!status) status = tool_ranks_device(&ranks, o->model.device, &device);
  o->model.device = device;
  if (!status) status = tool_trace_open(o->trace, &o->model.trace);
  if (!status) status = generate_traced(file, o);
  if (o->model.group) o->model.group->collectives->leave(o->model.group);
  sluice_release(device);
  return status;
}

sluice_status *command_generate(int argc, char **argv) {
  generate_options o = {.max_new = 32, .chunk = 512, .dump_rows = 64, .sampling = TOOL_SAMPLING_NOT_GIVEN};
  const tool_option options[] = {
      {"--weights", TOOL_INPUT, &o.model.weights, "DIR|synthetic:SEED", "the checkpoint"},
      {"--prompt", TOOL_TEXT, &o.prompt, "TEXT", "the text to continue; the new text is printed as it comes"},
      {"--prompt-file", TOOL_INPUT, &o.prompt_file, "FILE|-", "a file with it"},
      {"--ids", TOOL_INPUT, &o.ids, "FILE|-",
       "token ids to continue instead, separated by spaces, commas or newlines; new ids are printed"},
      {"--tokenizer", TOOL_INPUT, &o.tokenizer, "PATH", "the tokenizer's file or folder (the one beside the weights)"},
      {"--special", TOOL_FLAG, &o.special, NULL, "added tokens written in the prompt are tokens, not text"},
      {"--max-new", TOOL_COUNT, &o.max_new, "N", "new tokens at most (32)"},
      {"--ignore-eos", TOOL_FLAG, &o.ignore_eos, NULL, "do not stop at the model's stop ids"},
      {"--allow-nan", TOOL_FLAG, &o.allow_nan, NULL, "go on, with a warning, when logits hold NaN; otherwise an error"},
      {"--chunk", TOOL_COUNT, &o.chunk, "N", "feed the prompt in steps of N tokens (512)"},
      TOOL_SAMPLING_OPTIONS(o.sampling),
      {"--device", TOOL_TEXT, &o.model.device, "D", "host, cuda:N, hip:N (host)"},
      {"--trust", TOOL_INPUT, &o.model.trust, "KEY", "run the bundle only if it is signed with this key"},
      {"--threads", TOOL_COUNT, &o.model.threads, "N", "threads on the host (0: one for each core)"},
      {"--dump", TOOL_OUTPUT, &o.dump, "OUT.safetensors", "write logits and tokens, as golden files have them"},
      {"--dump-rows", TOOL_COUNT, &o.dump_rows, "R", "rows of the prompt's end in the dump (64)"},
      {"--dump-layers", TOOL_FLAG, &o.dump_layers, NULL, "dump every layer's output and selections too"},
      {"--trace", TOOL_OUTPUT, &o.trace, "FILE", "write a Chrome/Perfetto trace; it waits for each launch"},
      TOOL_RANK_OPTIONS(o.ranks),
      {"--json", TOOL_FLAG, &o.json, NULL, "print a JSON object with ids and times, from opening the bundle on"},
  };
  const tool_command command = {"sluice-run generate FILE.sluice --weights DIR|synthetic:SEED --prompt TEXT [options]",
                                "Continues a prompt: text, or token ids, of which the new ones are printed on one line "
                                "with the stop id that ended them.\nTemperature, top-p, top-k and stop ids are, unless "
                                "given, those of generation_config.json beside the weights.\n",
                                options, sizeof options / sizeof options[0]};
  const char *file;
  bool help;
  SLUICE_TRY(tool_parse(&command, argc, argv, &file, &help));
  if (help) return NULL;
  SLUICE_TRY(check(&o));
  return generate_on_ranks(file, &o);
}
