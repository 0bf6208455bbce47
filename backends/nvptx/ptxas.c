/* PTX to machine code by ptxas, and reading its report. */
#include "backends/common/tool.h"
#include "backends/nvptx/nvptx.h"
#include "sluice/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The first executable ptxas of PATH, relative entries aside, and of CUDA's usual folder. */
static bool find_ptxas(char path[512]) {
  const char *list = getenv("PATH");
  while (list && *list) {
    const char *end = strchr(list, ':');
    size_t length = end ? (size_t)(end - list) : strlen(list);
    int written = snprintf(path, 512, "%.*s/ptxas", (int)length, list);
    if (list[0] == '/' && written > 0 && written < 512 && access(path, X_OK) == 0) return true;
    list = end ? end + 1 : NULL;
  }
  snprintf(path, 512, "/usr/local/cuda/bin/ptxas");
  return access(path, X_OK) == 0;
}

/* The files of a run; `files` are inherited. */
typedef struct assembly {
  tool_file files[2]; /* PTX, cubin */
  tool_file report;
} assembly;

static sluice_status *run(const char *ptxas, assembly *a, const char *ptx, size_t length) {
  SLUICE_TRY(tool_file_create(&a->files[0], ptx, length));
  SLUICE_TRY(tool_file_create(&a->files[1], NULL, 0));
  SLUICE_TRY(tool_file_create(&a->report, NULL, 0));
  char program[] = "ptxas", architecture[] = "-arch=sm_90a", verbose[] = "-v", to[] = "-o";
  char *arguments[] = {program, architecture, verbose, to, a->files[1].name, a->files[0].name, NULL};
  return tool_run(ptxas, arguments, a->files, 2, &a->report, &a->report);
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

/* Reads report and result. */
static sluice_status *collect(const assembly *a, const kernel_spec *specs, size_t count, code_object *code) {
  void *report = NULL;
  size_t length = 0;
  SLUICE_TRY(tool_file_read(&a->report, &report, &length));
  nvptx_read_report(report, specs, count, code->kernels);
  const char *serialised = nvptx_find_serialised(report);
  sluice_status *status = NULL;
  if (serialised)
    status = sluice_error(SLUICE_INTERNAL, "ptxas does not keep matrix instructions in flight: %.*s",
                          (int)strcspn(serialised, "\n"), serialised);
  sluice_release(report);
  return status ? status : tool_file_read(&a->files[1], &code->data, &code->length);
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
  assembly a = {.files = {{.descriptor = -1}, {.descriptor = -1}}, .report = {.descriptor = -1}};
  sluice_status *status = run(ptxas, &a, code->assembly, lengths[0]);
  if (!status) status = collect(&a, specs, count, code);
  tool_file_close(&a.files[0]);
  tool_file_close(&a.files[1]);
  tool_file_close(&a.report);
  return status;
}
