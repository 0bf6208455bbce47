/* PTX to machine code by ptxas, and reading its report. */
#include "backends/common/tool.h"
#include "backends/nvptx/nvptx.h"
#include "sluice/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

/* The first executable ptxas of PATH and of CUDA's usual folder. */
static bool find_ptxas(char path[512]) {
  const char *list = getenv("PATH");
  while (list && *list) {
    const char *end = strchr(list, ':');
    size_t length = end ? (size_t)(end - list) : strlen(list);
    int written = snprintf(path, 512, "%.*s/ptxas", (int)length, list);
    if (length && written > 0 && written < 512 && access(path, X_OK) == 0) return true;
    list = end ? end + 1 : NULL;
  }
  snprintf(path, 512, "/usr/local/cuda/bin/ptxas");
  return access(path, X_OK) == 0;
}

static sluice_status *run(const char *ptxas, const char *directory) {
  char input[96], output[96], report[96];
  snprintf(input, sizeof input, "%s/kernels.ptx", directory);
  snprintf(output, sizeof output, "%s/kernels.cubin", directory);
  snprintf(report, sizeof report, "%s/report", directory);
  char program[] = "ptxas", architecture[] = "-arch=sm_90a", verbose[] = "-v", to[] = "-o";
  char *arguments[] = {program, architecture, verbose, to, output, input, NULL};
  posix_spawn_file_actions_t actions;
  if (posix_spawn_file_actions_init(&actions)) return sluice_out_of_memory();
  int error = posix_spawn_file_actions_addopen(&actions, 1, report, O_WRONLY | O_CREAT | O_TRUNC, 0600);
  if (!error) error = posix_spawn_file_actions_adddup2(&actions, 1, 2);
  pid_t child = 0;
  if (!error) error = posix_spawn(&child, ptxas, &actions, NULL, arguments, environ);
  posix_spawn_file_actions_destroy(&actions);
  if (error) return sluice_error(SLUICE_NOT_FOUND, "%s cannot be run: %s", ptxas, strerror(error));
  int wait_status = 0;
  while (waitpid(child, &wait_status, 0) < 0 && errno == EINTR) continue;
  if (WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == 0) return NULL;
  void *text = NULL;
  size_t length = 0;
  sluice_status *unread = tool_read_file(report, &text, &length);
  sluice_status *status = sluice_error(SLUICE_INTERNAL, "%s failed on generated code: %.*s", ptxas,
                                       (int)(length < 400 ? length : 400), text ? (char *)text : "");
  sluice_status_free(unread);
  sluice_release(text);
  return status;
}

static const kernel_spec *find_kernel(const kernel_spec *specs, size_t count, const char *name, size_t length) {
  for (size_t i = 0; i < count; i++)
    if (strlen(specs[i].symbol) == length && strncmp(specs[i].symbol, name, length) == 0) return &specs[i];
  return NULL;
}

void nvptx_read_report(const char *report, const kernel_spec *specs, size_t count, kernel_info *kernels) {
  kernel_info *at = NULL;
  for (const char *line = report; *line;) {
    size_t length = strcspn(line, "\n");
    static const char entry[] = "Compiling entry function '", spill[] = "bytes spill stores, ", used[] = "Used ";
    const char *found = memmem(line, length, entry, sizeof entry - 1);
    if (found) {
      found += sizeof entry - 1;
      const kernel_spec *spec = find_kernel(specs, count, found, strcspn(found, "'\n"));
      at = spec ? &kernels[spec - specs] : NULL;
    }
    found = memmem(line, length, spill, sizeof spill - 1);
    if (found && at) {
      const char *comma = memchr(line, ',', length); /* "0 bytes stack frame, 8 bytes spill stores, 4 bytes ..." */
      at->spill_bytes = (uint32_t)(strtoul(comma + 1, NULL, 10) + strtoul(found + sizeof spill - 1, NULL, 10));
    }
    found = memmem(line, length, used, sizeof used - 1);
    if (found && at) at->registers = (uint32_t)strtoul(found + sizeof used - 1, NULL, 10);
    line += length + (line[length] == '\n');
  }
}

const char *nvptx_find_serialised(const char *report) {
  for (const char *at = report; (at = strstr(at, "C75")); at += 3)
    if (at[3] >= '0' && at[3] <= '9' && at[4] >= '0' && at[4] <= '9') {
      while (at > report && at[-1] != '\n') at--;
      return at;
    }
  return NULL;
}

/* Reads result and report. */
static sluice_status *collect(const char *directory, const kernel_spec *specs, size_t count, code_object *code) {
  char path[96];
  void *data = NULL;
  size_t length = 0;
  snprintf(path, sizeof path, "%s/report", directory);
  SLUICE_TRY(tool_read_file(path, &data, &length));
  char *report = sluice_format_string("%.*s", (int)length, (char *)data);
  sluice_release(data);
  if (!report) return sluice_out_of_memory();
  nvptx_read_report(report, specs, count, code->kernels);
  const char *serialised = nvptx_find_serialised(report);
  sluice_status *status = NULL;
  if (serialised)
    status = sluice_error(SLUICE_INTERNAL, "ptxas does not keep matrix instructions in flight: %.*s",
                          (int)strcspn(serialised, "\n"), serialised);
  sluice_release(report);
  if (status) return status;
  snprintf(path, sizeof path, "%s/kernels.cubin", directory);
  return tool_read_file(path, &code->data, &code->length);
}

static void remove_file(const char *directory, const char *name) {
  char path[96];
  snprintf(path, sizeof path, "%s/%s", directory, name);
  unlink(path);
}

sluice_status *nvptx_assemble(const char *target, const kernel_spec *specs, size_t count, void *const *files,
                              const size_t *lengths, size_t file_count, code_object *code) {
  (void)target;
  if (file_count != 1) return sluice_error(SLUICE_INTERNAL, "%zu PTX modules, expected one", file_count);
  code->assembly = sluice_format_string("%.*s", (int)lengths[0], (char *)files[0]);
  if (!code->assembly) return sluice_out_of_memory();
  code->assembly_length = lengths[0] + 1; /* the driver wants the NUL */
  char ptxas[512];
  if (!find_ptxas(ptxas)) return NULL;
  char directory[] = "/tmp/sluice-ptxas-XXXXXX", path[96];
  if (!mkdtemp(directory)) return sluice_error(SLUICE_IO, "no temporary directory in /tmp: %s", strerror(errno));
  snprintf(path, sizeof path, "%s/kernels.ptx", directory);
  sluice_status *status = tool_write_file(path, code->assembly, lengths[0]);
  if (!status) status = run(ptxas, directory);
  if (!status) status = collect(directory, specs, count, code);
  remove_file(directory, "kernels.ptx");
  remove_file(directory, "kernels.cubin");
  remove_file(directory, "report");
  rmdir(directory);
  return status;
}
