#include "compiler/commands.h"
#include "compiler/synth.h"

#include <unistd.h>

typedef struct synth_arguments {
  int64_t seed, shard_size;
  const char *output;
} synth_arguments;

static const option_description synth_options[] = {
    {"seed", 0, OPTION_INTEGER, "N", offsetof(synth_arguments, seed), "seed of the weights", 0, true},
    {"output", 'o', OPTION_TEXT, "DIR", offsetof(synth_arguments, output), "directory to write, made when missing", 0,
     true},
    {"shard-size", 0, OPTION_INTEGER, "BYTES", offsetof(synth_arguments, shard_size),
     "largest shard in bytes (5000000000)", 1, false},
};

static sluice_status *run(const command_description *self, int argc, char **argv) {
  synth_arguments arguments = {.shard_size = 5000000000};
  const char *config_path;
  bool help;
  SLUICE_TRY(options_parse(self, argc, argv, &arguments, &config_path, &help));
  if (help) {
    options_print_help(self, stdout);
    return NULL;
  }
  model_config *config = NULL;
  SLUICE_TRY(model_config_read(config_path, command_warning, NULL, &config));
  sluice_status *status =
      synth_write(config, (uint64_t)arguments.seed, arguments.output, arguments.shard_size, isatty(STDERR_FILENO) == 1);
  model_config_free(config);
  return status;
}

const command_description command_synth = {
    .name = "synth",
    .operand = "MODEL_DIR|CONFIG",
    .summary = "Writes a synthetic checkpoint: weights that are a function of tensor name, element and seed.",
    .options = synth_options,
    .option_count = sizeof synth_options / sizeof synth_options[0],
    .run = run,
};
