#include "backends/common/kernel.h"
#include "compiler/commands.h"
#include "compiler/compile.h"
#include "compiler/input.h"
#include "compiler/parallel.h"
#include "passes/passes.h"
#include "sluice/memory.h"

#include <string.h>

typedef struct opt_arguments {
  option_list passes, print_after;
  const char *target, *output, *parallel;
  bool batch_invariant, print_diff, verify_each, time;
} opt_arguments;

#define AT(field) offsetof(opt_arguments, field)
static const option_description opt_options[] = {
    {"passes", 0, OPTION_LIST, "NAME[,NAME...]", AT(passes), "passes to run, in this order (none: verify and print)", 0,
     false},
    {"target", 0, OPTION_TEXT, "T", AT(target), "target that passes look at (host:x86-64-v3)", 0, false},
    {"parallel", 0, OPTION_TEXT, "tp=N", AT(parallel), "layout that partition makes (one rank)", 0, false},
    {"batch-invariant", 0, OPTION_FLAG, NULL, AT(batch_invariant), "choose as sluice compile --batch-invariant does", 0,
     false},
    {"output", 'o', OPTION_OUTPUT, "FILE", AT(output), "file to write (standard output)", 0, false},
    {"print-ir-after", 0, OPTION_LIST, "NAME|all", AT(print_after), "print the IR after a pass, to stderr", 0, false},
    {"print-ir-diff", 0, OPTION_FLAG, NULL, AT(print_diff), "print what each pass changed, to stderr", 0, false},
    {"verify-each", 0, OPTION_FLAG, NULL, AT(verify_each), "verify the IR after each pass", 0, false},
    {"time-passes", 0, OPTION_FLAG, NULL, AT(time), "print the time of each pass, to stderr", 0, false},
};

static sluice_status *run_passes(ir_context *context, const opt_arguments *arguments, const char *target,
                                 const char *path, const char *text, size_t length) {
  MlirModule module;
  SLUICE_TRY(ir_parse(context, text, length, path, &module));
  pass_options options = {.target = target,
                          .print_after = (const char *const *)arguments->print_after.items,
                          .print_after_count = arguments->print_after.count,
                          .batch_invariant = arguments->batch_invariant,
                          .print_diff = arguments->print_diff,
                          .verify_each = arguments->verify_each,
                          .time = arguments->time};
  sluice_status *status = parallel_parse(arguments->parallel, &options.ranks);
  if (!status && arguments->passes.count)
    status = pass_run(context, module, (const char *const *)arguments->passes.items, arguments->passes.count, &options);
  if (!status) {
    char *printed = ir_print(module);
    status = printed ? file_write_atomic(arguments->output ? arguments->output : "-", printed, strlen(printed))
                     : sluice_out_of_memory();
    sluice_release(printed);
  }
  mlirModuleDestroy(module);
  return status;
}

static sluice_status *run(const command_description *self, int argc, char **argv) {
  opt_arguments arguments = {0};
  const char *path;
  bool help;
  char target[32];
  char *text = NULL;
  size_t length = 0;
  ir_context *context = NULL;
  sluice_status *status = options_parse(self, argc, argv, &arguments, &path, &help);
  if (!status && help) {
    options_print_help(self, stdout);
  } else if (!status) {
    if (arguments.target) status = target_canonicalise(arguments.target, target);
    if (!status) status = input_read(path, SIZE_MAX, &text, &length);
    if (!status) status = ir_context_create(&context);
    if (!status) status = run_passes(context, &arguments, arguments.target ? target : NULL, path, text, length);
  }
  if (context) ir_context_destroy(context);
  sluice_release(text);
  option_list_free(&arguments.passes);
  option_list_free(&arguments.print_after);
  return status;
}

const command_description command_opt = {
    .name = "opt",
    .operand = "FILE.mlir|-",
    .summary = "Runs passes on IR text and prints the result.",
    .options = opt_options,
    .option_count = sizeof opt_options / sizeof opt_options[0],
    .notes = command_print_passes,
    .run = run,
};
