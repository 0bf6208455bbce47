#include "compiler/commands.h"
#include "compiler/inspect.h"

#define AT(field) offsetof(inspect_options, field)
static const option_description inspect_command_options[] = {
    {"json", 0, OPTION_FLAG, NULL, AT(json), "print JSON", 0, false},
    {"sequences", 0, OPTION_INTEGER, "N", AT(sequences), "memory needed: sequences (1)", 1, false},
    {"context", 0, OPTION_INTEGER, "N", AT(context), "memory needed: tokens of each (the longest context)", 1, false},
    {"step-tokens", 0, OPTION_INTEGER, "N", AT(step_tokens), "memory needed: tokens fed in one step (up to 512)", 1,
     false},
};

static sluice_status *run(const command_description *self, int argc, char **argv) {
  inspect_options options = {0};
  bool help;
  SLUICE_TRY(options_parse(self, argc, argv, &options, &options.path, &help));
  if (help) {
    options_print_help(self, stdout);
    return NULL;
  }
  sluice_text text = {0};
  return command_print_text(&text, inspect_bundle(&options, &text));
}

const command_description command_inspect = {
    .name = "inspect",
    .operand = "BUNDLE",
    .summary = "Lists what a bundle holds: sections, targets, kernels, weights, memory.",
    .options = inspect_command_options,
    .option_count = sizeof inspect_command_options / sizeof inspect_command_options[0],
    .run = run,
};
