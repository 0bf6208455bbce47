#include "backends/amdgcn/amdgcn.h"
#include "backends/common/tool.h"

#include "sluice/memory.h"

#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* Runs ld.lld on the objects in `directory`. */
static sluice_status *run_linker(const char *directory, size_t count) {
  static const char linker[] = SLUICE_LLVM_PREFIX "/bin/ld.lld";
  char (*names)[96] = sluice_allocate_array(count + 1, sizeof *names);
  char **arguments = sluice_allocate_array(count + 12, sizeof *arguments);
  if (!names || !arguments) {
    sluice_release(names);
    sluice_release(arguments);
    return sluice_out_of_memory();
  }
  size_t n = 0;
  static char program[] = "ld.lld", shared[] = "-shared", undefined[] = "--no-undefined", id[] = "--build-id=none",
              threads[] = "--threads=1", strip[] = "--strip-debug", hash[] = "--hash-style=gnu", output[] = "-o";
  char *fixed[] = {program, shared, undefined, id, threads, strip, hash, output};
  for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++) arguments[n++] = fixed[i];
  for (size_t i = 0; i <= count; i++) {
    if (i == 0)
      snprintf(names[i], sizeof names[i], "%s/linked", directory);
    else
      snprintf(names[i], sizeof names[i], "%s/%zu.o", directory, i - 1);
    arguments[n++] = names[i];
  }
  pid_t child = 0;
  int wait_status = 0;
  int error = posix_spawn(&child, linker, NULL, NULL, arguments, environ);
  sluice_status *status = NULL;
  if (error)
    status = sluice_error(SLUICE_NOT_FOUND, "%s cannot be run: %s; install lld-22", linker, strerror(error));
  else {
    while (waitpid(child, &wait_status, 0) < 0 && errno == EINTR) continue;
    if (!WIFEXITED(wait_status) || WEXITSTATUS(wait_status) != 0)
      status = sluice_error(SLUICE_INTERNAL, "%s failed on generated code; see its message above", linker);
  }
  sluice_release(names);
  sluice_release(arguments);
  return status;
}

sluice_status *amdgcn_link(const char *target, const kernel_spec *specs, size_t count, void *const *objects,
                           const size_t *lengths, size_t object_count, code_object *code) {
  (void)target;
  char directory[] = "/tmp/sluice-link-XXXXXX", path[96];
  if (!mkdtemp(directory)) return sluice_error(SLUICE_IO, "no temporary directory in /tmp: %s", strerror(errno));
  sluice_status *status = NULL;
  size_t written = 0;
  for (; written < object_count && !status; written++) {
    snprintf(path, sizeof path, "%s/%zu.o", directory, written);
    status = tool_write_file(path, objects[written], lengths[written]);
  }
  if (!status) status = run_linker(directory, object_count);
  snprintf(path, sizeof path, "%s/linked", directory);
  if (!status) status = tool_read_file(path, &code->data, &code->length);
  unlink(path);
  for (size_t i = 0; i < written; i++) {
    snprintf(path, sizeof path, "%s/%zu.o", directory, i);
    unlink(path);
  }
  rmdir(directory);
  if (!status) status = amdgcn_read_metadata(code->data, code->length, specs, count, code->kernels);
  return status;
}
