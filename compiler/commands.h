/* The commands of `sluice`, one file each. */
#ifndef COMPILER_COMMANDS_H
#define COMPILER_COMMANDS_H

#include "compiler/options.h"
#include "sluice/dtype.h"
#include "sluice/json.h"

extern const command_description command_synth, command_compile, command_opt, command_inspect, command_explain,
    command_keygen, command_sign, command_tune, command_tuning;

/* Warnings of the config reader, to stderr. */
void command_warning(void *user, const char *line);
/* Prints lines about tuning to stderr. */
void command_print_notes(const sluice_text *lines);
/* The type that --`option` names; `name` NULL: `absent`. */
SLUICE_MUST_USE sluice_status *command_find_dtype(const char *option, const char *name, sluice_dtype absent,
                                                  sluice_dtype *out_dtype);
/* Prints the passes with their summaries: the end of two commands' help. */
void command_print_passes(FILE *out);
/* Writes `text`, which was made with `status`, to stdout unless that is an error, and frees it. Returns the first
 * error; a failed `text` is one. */
SLUICE_MUST_USE sluice_status *command_print_text(sluice_text *text, sluice_status *status);

#endif
