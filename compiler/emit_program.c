/* sluice compile --emit=program: sluice-run and a bundle in one file. */
#include "compiler/compile.h"
#include "sluice/bundle.h"
#include "sluice/file.h"
#include "sluice/memory.h"
#include "sluice/program.h"
#include "sluice/runtime.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <unistd.h>

sluice_status *emit_program_path(const char *name, char **out_path) {
  char self[PATH_MAX];
  const ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
  if (length < 0) return sluice_error(SLUICE_IO, "/proc/self/exe: %s", strerror(errno));
  self[length] = 0;
  *out_path = name ? sluice_format_string("%.*s/%s", (int)(strrchr(self, '/') - self), self, name)
                   : sluice_copy_string(self, (size_t)length);
  return *out_path ? NULL : sluice_out_of_memory();
}

/* Sets the mark by which the program knows that it holds a bundle. */
static sluice_status *set_mark(const char *path, char *program, size_t length) {
  static const char without[] = SLUICE_PROGRAM_MARK, with[] = SLUICE_PROGRAM_MARK_WITH_BUNDLE;
  _Static_assert(sizeof without == sizeof with, "one takes the other's place");
  char *mark = memmem(program, length, without, sizeof without);
  if (sluice_program_length(program, length) != length || !mark ||
      memmem(mark + 1, length - (size_t)(mark + 1 - program), without, sizeof without))
    return sluice_error(SLUICE_INVALID,
                        "%s: this is not the sluice-run that belongs to sluice %s; install both of one "
                        "version in one directory",
                        path, sluice_version());
  memcpy(mark, with, sizeof with);
  return NULL;
}

sluice_status *emit_program(const char *path, const bundle_image *bundle) {
  char *runtime;
  SLUICE_TRY(emit_program_path("sluice-run", &runtime));
  void *program = NULL;
  size_t length;
  sluice_status *status = sluice_read_file(runtime, SLUICE_BUNDLE_MAX_BYTES / 4, &program, &length);
  if (status) status = sluice_annotate(status, "--emit=program takes the sluice-run beside this program");
  if (!status) status = set_mark(runtime, program, length);
  if (!status) status = program_write(path, program, length, bundle);
  sluice_release(program);
  sluice_release(runtime);
  return status;
}
