#include "compiler/commands.h"
#include "compiler/products.h"
#include "compiler/tune.h"
#include "sluice/memory.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct tune_arguments {
  option_list shapes;
  const char *target, *dtype, *rates, *output;
  int64_t context, max_context, candidates;
} tune_arguments;

#define AT(field) offsetof(tune_arguments, field)
static const option_description tune_command_options[] = {
    {"target", 0, OPTION_TEXT, "T", AT(target), "what to compile for: host (this CPU, the default), h100, h200, ...", 0,
     false},
    {"output", 'o', OPTION_OUTPUT, "FILE", AT(output), "file to write, for sluice-run tune", 0, true},
    {"shapes", 0, OPTION_LIST, "N[,N...]", AT(shapes),
     "tokens of the steps to tune for; each ends a bucket of sizes (1,8,64,512,4096)", 0, false},
    {"context", 0, OPTION_INTEGER, "N", AT(context),
     "tokens that sequences have in the cache (8192, or what the model allows)", 0, false},
    {"candidates", 0, OPTION_INTEGER, "N", AT(candidates),
     "configurations of each kernel and bucket, the default among them (6)", 2, false},
    {"rates", 0, OPTION_INPUT, "GPU.json", AT(rates), "of the machine, by sluice-run calibrate (from its data sheet)",
     0, false},
    {"dtype", 0, OPTION_TEXT, "float32|bfloat16", AT(dtype), "type of activations and cache (bfloat16)", 0, false},
    {"max-context", 0, OPTION_INTEGER, "N", AT(max_context), "longest sequence in tokens (the model's)", 1, false},
};

static sluice_status *read_shapes(const option_list *list, tune_options *out) {
  static const uint32_t usual[] = {1, 8, 64, 512, 4096};
  if (!list->count) {
    memcpy(out->tokens, usual, sizeof usual);
    out->bucket_count = sizeof usual / sizeof *usual;
  }
  for (size_t i = 0; i < list->count; i++) {
    char *end;
    errno = 0;
    const unsigned long long value = strtoull(list->items[i], &end, 10);
    if (list->items[i][0] < '0' || list->items[i][0] > '9' || *end || errno || value < 1 || value > 1 << 20)
      return sluice_error(SLUICE_USAGE, "--shapes: '%.40s' is no number of tokens from 1 to %d", list->items[i],
                          1 << 20);
    if (i && value <= out->tokens[i - 1])
      return sluice_error(SLUICE_USAGE, "--shapes: %llu comes behind %u, expected ascending numbers", value,
                          out->tokens[i - 1]);
    if (i == MOST_BUCKETS) return sluice_error(SLUICE_USAGE, "--shapes: more than %d shapes", MOST_BUCKETS);
    out->tokens[i] = (uint32_t)value;
    out->bucket_count = i + 1;
  }
  return NULL;
}

/* Shapes that the model's longest sequence has no room for end the list, or are wrong when they were asked for. */
static sluice_status *fit_context(const tune_arguments *arguments, int64_t longest, tune_options *out) {
  while (!arguments->shapes.count && out->bucket_count > 1 && out->tokens[out->bucket_count - 1] > longest / 2)
    out->bucket_count--;
  const int64_t most = out->tokens[out->bucket_count - 1] > 64 ? out->tokens[out->bucket_count - 1] : 1;
  if (most > longest)
    return sluice_error(SLUICE_USAGE, "--shapes: %lld tokens, but the longest sequence has %lld", (long long)most,
                        (long long)longest);
  const int64_t wanted = arguments->context ? arguments->context : 8192, room = longest - most;
  if (arguments->context > room)
    return sluice_error(SLUICE_USAGE, "--context: %lld, but a step of %lld tokens leaves room for %lld",
                        (long long)arguments->context, (long long)most, (long long)room);
  out->context = (uint32_t)(wanted < room ? wanted : room);
  return NULL;
}

static void show_progress(size_t done, size_t all) {
  if (isatty(STDERR_FILENO))
    fprintf(stderr, done < all ? "\r\033[Kcompiling candidates %zu of %zu" : "\r\033[K", done + 1, all);
}

static sluice_status *tune_with(const tune_arguments *arguments, const model_config *config) {
  char target[32];
  SLUICE_TRY(target_canonicalise(arguments->target ? arguments->target : "host", target));
  const char *targets[] = {target};
  const product *p = arguments->target ? product_find(arguments->target) : NULL;
  const char *products[] = {p ? p->name : NULL};
  compile_options compile = {.targets = targets,
                             .target_count = 1,
                             .products = products,
                             .product_count = p != NULL,
                             .max_context = arguments->max_context,
                             .emit = EMIT_BUNDLE,
                             .output = arguments->output};
  static const char *const disabled[] = {"join-launches"}; /* kernels are timed one by one */
  compile.passes = (pass_options){.disabled = disabled, .disabled_count = 1};
  SLUICE_TRY(command_find_dtype("dtype", arguments->dtype, SLUICE_BF16, &compile.dtype));
  sluice_text notes = {0};
  tune_options options = {.compile = &compile,
                          .rates = machine_rates_of(p),
                          .candidates = arguments->candidates ? (size_t)arguments->candidates : 6,
                          .progress = show_progress,
                          .notes = &notes};
  SLUICE_TRY(read_shapes(&arguments->shapes, &options));
  const int64_t longest = arguments->max_context ? arguments->max_context : config->max_positions;
  SLUICE_TRY(fit_context(arguments, longest, &options));
  if (arguments->rates) SLUICE_TRY(machine_rates_read(arguments->rates, &options.rates));
  sluice_status *status = tune_model(config, &options);
  if (!status) command_print_notes(&notes);
  sluice_text_free(&notes);
  return status;
}

static sluice_status *run(const command_description *self, int argc, char **argv) {
  tune_arguments arguments = {0};
  const char *config_path;
  bool help;
  model_config *config = NULL;
  sluice_status *status = options_parse(self, argc, argv, &arguments, &config_path, &help);
  if (!status && help) options_print_help(self, stdout);
  if (!status && !help) status = model_config_read(config_path, command_warning, NULL, &config);
  if (!status && !help) status = tune_with(&arguments, config);
  model_config_free(config);
  option_list_free(&arguments.shapes);
  return status;
}

const command_description command_tune = {
    .name = "tune",
    .operand = "MODEL_DIR|CONFIG",
    .summary = "Compiles configurations of each kernel that may be fast, for sluice-run tune to time.",
    .options = tune_command_options,
    .option_count = sizeof tune_command_options / sizeof tune_command_options[0],
    .run = run,
};
