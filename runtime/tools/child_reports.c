#include "runtime/tools/child_reports.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static void note_failure(child_reports *reports, uint32_t rank) {
  for (uint32_t i = 0; i < reports->count; i++)
    if (reports->order[i] == rank) return;
  reports->order[reports->count++] = rank;
}

static void prefix(uint32_t rank) {
  if (rank) fprintf(stderr, "rank %u: ", rank);
}

static void end_line(child_reports *reports, uint32_t rank) {
  child_report *r = &reports->of[rank];
  const size_t length = r->length;
  r->line[length] = 0;
  r->length = 0;
  if (r->error_length || strncmp(r->line, "error: ", 7) == 0 || strstr(r->line, ": error: ")) {
    if (!r->error_length) note_failure(reports, rank);
    r->line[length] = '\n';
    const size_t room = sizeof r->error - 1 - r->error_length, kept = length + 1 < room ? length + 1 : room;
    memcpy(r->error + r->error_length, r->line, kept);
    r->error_length += kept;
    return;
  }
  prefix(rank);
  fprintf(stderr, "%s\n", r->line);
}

void child_reports_add(child_reports *reports, uint32_t rank, const char *text, size_t length) {
  child_report *r = &reports->of[rank];
  for (size_t i = 0; i < length; i++) {
    if (text[i] == '\n' || r->length == sizeof r->line - 1) end_line(reports, rank);
    if (text[i] != '\n') r->line[r->length++] = text[i];
  }
}

void child_reports_killed(child_reports *reports, uint32_t rank, int number) {
  reports->of[rank].killed_by = number;
  note_failure(reports, rank);
}

/* Whether an earlier rank said the same, and whether anybody did. */
static bool said_before(const child_reports *reports, uint32_t index, bool *out_by_another) {
  const child_report *own = &reports->of[reports->order[index]];
  bool before = false;
  *out_by_another = false;
  for (uint32_t i = 0; i < reports->count; i++) {
    if (i == index || strcmp(reports->of[reports->order[i]].error, own->error) != 0) continue;
    *out_by_another = true;
    before = before || i < index;
  }
  return before;
}

void child_reports_print(child_reports *reports) {
  for (uint32_t rank = 0; rank < SLUICE_MOST_RANKS; rank++)
    if (reports->of[rank].length) end_line(reports, rank);
  for (uint32_t i = 0; i < reports->count; i++) {
    const uint32_t rank = reports->order[i];
    const child_report *r = &reports->of[rank];
    bool by_another;
    if (r->error_length && !said_before(reports, i, &by_another)) {
      if (!by_another) prefix(rank);
      fputs(r->error, stderr);
    }
    if (r->killed_by)
      fprintf(stderr, "rank %u was killed by signal %d (%s)\n", rank, r->killed_by, strsignal(r->killed_by));
  }
}
