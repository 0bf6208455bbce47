/* The processes of `sluice-run launch`: started together, ended together, one report. */
#ifndef SLUICE_TOOLS_CHILDREN_H
#define SLUICE_TOOLS_CHILDREN_H

#include "runtime/collectives.h"

#include <stdbool.h>

/* What a child is told. */
typedef struct tool_child {
  uint32_t rank, ranks;
  int memory; /* descriptor of the group's shared memory */
} tool_child;

/* Starts `ranks` children and waits for them. Returns twice, like fork: in a child with `*out_is_child`, which is to
 * run its command and return from main; in the parent when all children have ended.
 *
 * Rank 0 has this process's standard input and output; the others read nothing and print nothing but errors. What
 * several children say alike is printed once. Signals that would end this process are passed on to all children. When
 * one child fails the others have GRACE seconds to find out by themselves, which they do in the middle of a step; then
 * they are ended. When this process is killed, they are killed, too.
 *
 * `*out_code`: what the first child that failed exited with, 1 if a signal ended it, 0 if none failed. */
SLUICE_MUST_USE sluice_status *tool_children_run(uint32_t ranks, tool_child *out_child, bool *out_is_child,
                                                 int *out_code);

#endif
