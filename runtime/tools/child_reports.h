/* What the children of `sluice-run launch` write to standard error, put together: lines go out as they come, those of
 * ranks other than 0 with the rank before them; errors, which a child ends with, are kept to the end, and what several
 * children say alike is printed once. */
#ifndef SLUICE_TOOLS_CHILD_REPORTS_H
#define SLUICE_TOOLS_CHILD_REPORTS_H

#include "runtime/collectives.h"

enum { CHILD_LINE = 1024, CHILD_ERROR = 4096 };

typedef struct child_report {
  char line[CHILD_LINE]; /* what came after the last newline */
  size_t length;
  char error[CHILD_ERROR]; /* from the first line with an error on */
  size_t error_length;
  int killed_by; /* signal; 0: none */
} child_report;

typedef struct child_reports {
  child_report of[SLUICE_MOST_RANKS];
  uint32_t order[SLUICE_MOST_RANKS], count; /* ranks in the order in which they failed */
} child_reports;

void child_reports_add(child_reports *reports, uint32_t rank, const char *text, size_t length);
void child_reports_killed(child_reports *reports, uint32_t rank, int number);
/* Prints the errors, the first cause first. */
void child_reports_print(child_reports *reports);

#endif
