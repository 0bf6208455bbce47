/* Command line options of sluice-run: one table for each command gives parsing and --help. */
#ifndef SLUICE_TOOLS_OPTIONS_H
#define SLUICE_TOOLS_OPTIONS_H

#include "sluice/runtime.h"

typedef enum tool_option_kind {
  TOOL_FLAG,   /* bool */
  TOOL_TEXT,   /* const char * */
  TOOL_INPUT,  /* const char *, a file or directory that is read */
  TOOL_OUTPUT, /* const char *, a file that is written */
  TOOL_COUNT,  /* uint64_t, decimal */
  TOOL_REAL,   /* double, finite */
  TOOL_LIST,   /* tool_list, may be given many times */
} tool_option_kind;

#define TOOL_LIST_MOST 16
typedef struct tool_list {
  const char *items[TOOL_LIST_MOST];
  size_t count;
} tool_list;

typedef struct tool_option {
  const char *name; /* with the dashes */
  tool_option_kind kind;
  void *value;
  const char *argument; /* its name in --help; NULL for a flag */
  const char *help;
} tool_option;

typedef struct tool_command {
  const char *usage;   /* the line after "usage: "; "sluice-run COMMAND FILE.sluice ..." where the word is a bundle */
  const char *summary; /* lines for --help, each with a newline */
  const tool_option *options;
  size_t option_count;
} tool_command;

/* Parses `argv` (without program and command). One word without dashes is taken: `*out_file`; none where `out_file` is
 * NULL.
 * A program that holds its bundle takes no bundle: `*out_file` is the program's own path then.
 * `*out_help`: --help was given and printed, nothing more is to be done. An output that is an input or another output
 * too is refused (sluice_file_uses_check). */
SLUICE_MUST_USE sluice_status *tool_parse(const tool_command *command, int argc, char **argv, const char **out_file,
                                          bool *out_help);

/* The commands; `argv` without program and command. */
SLUICE_MUST_USE sluice_status *command_generate(int argc, char **argv);
SLUICE_MUST_USE sluice_status *command_verify(int argc, char **argv);
SLUICE_MUST_USE sluice_status *command_bench(int argc, char **argv);
SLUICE_MUST_USE sluice_status *command_memory(int argc, char **argv);
SLUICE_MUST_USE sluice_status *command_tokenize(int argc, char **argv);
SLUICE_MUST_USE sluice_status *command_template(int argc, char **argv);
SLUICE_MUST_USE sluice_status *command_chat(int argc, char **argv);
SLUICE_MUST_USE sluice_status *command_tune(int argc, char **argv);
SLUICE_MUST_USE sluice_status *command_calibrate(int argc, char **argv);
SLUICE_MUST_USE sluice_status *command_launch(int argc, char **argv);

/* Runs the command argv[1], as main does. */
SLUICE_MUST_USE sluice_status *tool_dispatch(int argc, char **argv);
/* What the program exits with when the command gives no error: that of another process, which said why. */
void tool_set_exit_code(int code);

#endif
