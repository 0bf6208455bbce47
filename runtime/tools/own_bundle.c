#include "runtime/tools/own_bundle.h"

#include "sluice/program.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

/* Read from memory, as the compiler leaves it in the file. */
static const volatile char mark[] = SLUICE_PROGRAM_MARK;
static const char *name = "sluice-run";

void own_bundle_begin(const char *called) {
  if (called && *called) name = called;
}

const char *own_bundle_program(void) {
  static const char with[] = SLUICE_PROGRAM_MARK_WITH_BUNDLE;
  for (size_t i = 0; i < sizeof with; i++)
    if (mark[i] != with[i]) return NULL;
  return name;
}

sluice_status *own_bundle_path(const char **out_path) {
  static char path[PATH_MAX];
  const ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
  if (length < 0) return sluice_error(SLUICE_IO, "/proc/self/exe: %s", strerror(errno));
  path[length] = 0;
  *out_path = path;
  return NULL;
}
