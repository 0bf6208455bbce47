/* `sluice tuning merge` and `sluice tuning report`. */
#include "compiler/commands.h"
#include "compiler/compile.h"
#include "compiler/suggest.h"
#include "compiler/tuning_report.h"
#include "sluice/tuning.h"

#include <string.h>

typedef struct tuning_arguments {
  option_list files;
  const char *output;
} tuning_arguments;

#define AT(field) offsetof(tuning_arguments, field)
static const option_description tuning_command_options[] = {
    {"output", 'o', OPTION_OUTPUT, "FILE", AT(output), "file to write", 0, true},
};

static sluice_status *write_output(const tuning_arguments *arguments, sluice_text *text) {
  sluice_status *status = text->failed ? sluice_out_of_memory() : NULL;
  if (!status) status = file_write_atomic(arguments->output, text->data ? text->data : "", text->length);
  sluice_text_free(text);
  return status;
}

/* Merging is reading into one set. */
static sluice_status *run_with(const command_description *self, int argc, char **argv,
                               void (*write)(const sluice_tuning *tuning, sluice_text *out)) {
  tuning_arguments arguments = {0};
  const char *first;
  bool help;
  sluice_tuning tuning = {0};
  sluice_text text = {0};
  sluice_status *status = options_parse(self, argc, argv, &arguments, &first, &help);
  if (!status && help) options_print_help(self, stdout);
  for (size_t i = 0; i < arguments.files.count && !status && !help; i++)
    status = sluice_tuning_read(arguments.files.items[i], &tuning);
  if (!status && !help) {
    write(&tuning, &text);
    status = write_output(&arguments, &text);
  }
  sluice_tuning_free(&tuning);
  option_list_free(&arguments.files);
  return status;
}

static sluice_status *run_merge(const command_description *self, int argc, char **argv) {
  return run_with(self, argc, argv, sluice_tuning_write);
}

static sluice_status *run_report(const command_description *self, int argc, char **argv) {
  return run_with(self, argc, argv, tuning_report_write);
}

#define OPTIONS                                                                                                        \
  .options = tuning_command_options, .option_count = sizeof tuning_command_options / sizeof tuning_command_options[0], \
  .many = true, .operands = AT(files)

static const command_description subcommands[] = {
    {.name = "tuning merge",
     .operand = "RECORD.jsonl",
     .summary = "Makes one file of several; of two records of one kernel, shape, range and GPU the later one stays.",
     OPTIONS,
     .run = run_merge},
    {.name = "tuning report",
     .operand = "RECORD.jsonl",
     .summary = "Writes an HTML page that shows each kernel's time, its default's and the floor.",
     OPTIONS,
     .run = run_report},
};
enum { SUBCOMMANDS = sizeof subcommands / sizeof *subcommands };

static void print_subcommands(FILE *out) {
  fprintf(out, "\n");
  for (int i = 0; i < SUBCOMMANDS; i++) fprintf(out, "  %-14s %s\n", subcommands[i].name + 7, subcommands[i].summary);
  fprintf(out, "\n'sluice tuning merge --help' lists its options.\n");
}

static sluice_status *run(const command_description *self, int argc, char **argv) {
  if (argc && (strcmp(argv[0], "--help") == 0 || strcmp(argv[0], "-h") == 0)) {
    options_print_help(self, stdout);
    return NULL;
  }
  for (int i = 0; argc && i < SUBCOMMANDS; i++)
    if (strcmp(argv[0], subcommands[i].name + 7) == 0) return subcommands[i].run(&subcommands[i], argc - 1, argv + 1);
  return sluice_error(SLUICE_USAGE, "'sluice tuning' is followed by merge or report, not '%.40s'",
                      argc ? argv[0] : "nothing");
}

const command_description command_tuning = {
    .name = "tuning",
    .operand = "merge|report RECORD.jsonl...",
    .summary = "Merges the records of sluice-run tune, or shows them.",
    .notes = print_subcommands,
    .run = run,
};
