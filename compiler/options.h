/* Command lines: a table of options for each command, read into a structure, printed as help. */
#ifndef COMPILER_OPTIONS_H
#define COMPILER_OPTIONS_H

#include "sluice/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

typedef enum option_kind {
  OPTION_FLAG,    /* bool */
  OPTION_TEXT,    /* const char *, borrowed from argv */
  OPTION_INPUT,   /* the same: a file that is read */
  OPTION_OUTPUT,  /* the same: a file that is written */
  OPTION_LIST,    /* option_list: comma-separated, may be given several times */
  OPTION_INTEGER, /* int64_t, decimal, from `minimum` */
  OPTION_NUMBER,  /* double, finite, above 0 */
} option_kind;

typedef struct option_list { /* starts zeroed, freed with option_list_free */
  char **items;
  size_t count;
} option_list;
SLUICE_MUST_USE sluice_status *option_list_add(option_list *list, const char *item); /* copies it */
void option_list_free(option_list *list);

typedef struct option_description {
  const char *name; /* without the dashes */
  int letter;       /* 0: none */
  option_kind kind;
  const char *argument; /* as help shows it; NULL for flags */
  size_t offset;        /* of the value in the command's structure */
  const char *help;
  int64_t minimum;
  bool required;
} option_description;

typedef struct command_description {
  const char *name;
  const char *operand; /* what its operand is called */
  const char *summary; /* one line */
  const option_description *options;
  size_t option_count;
  bool many;                /* operands, one or more, which go into the option_list at `operands` of the structure */
  size_t operands;          /* otherwise there is one */
  void (*notes)(FILE *out); /* more help; NULL: none */
  sluice_status *(*run)(const struct command_description *self, int argc, char **argv);
} command_description;

/* Reads `argv` (without program and command name) into `values`. `--name=value`, `--name value`, `-o value`, `-ovalue`;
 * `--` ends the options; "-" is an operand. `*out_help` is set and nothing more checked when --help is there. A wrong
 * command line is SLUICE_USAGE, and so is an output that is an input or another output too (sluice_file_uses_check; the
 * operand is an input). Of many operands `*out_operand` is the first. Lists in `values` are the caller's to free in
 * every case. */
SLUICE_MUST_USE sluice_status *options_parse(const command_description *command, int argc, char **argv, void *values,
                                             const char **out_operand, bool *out_help);
void options_print_help(const command_description *command, FILE *out);

#endif
