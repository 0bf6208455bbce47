#include "backends/common/tool.h"

#include "sluice/memory.h"

#include <stdio.h>

static const char linker[] = SLUICE_LLVM_PREFIX "/bin/ld.lld";

/* What ld.lld makes comes out of its standard output. */
static sluice_status *run_linker(const char *name, tool_file *objects, size_t count, void **out_data,
                                 size_t *out_length) {
  static char program[] = "ld.lld", shared[] = "-shared", undefined[] = "--no-undefined", id[] = "--build-id=none",
              threads[] = "--threads=1", strip[] = "--strip-debug", hash[] = "--hash-style=gnu", output[] = "-o",
              standard[] = "-";
  char *fixed[] = {program, shared, undefined, id, threads, strip, hash, output, standard};
  enum { FIXED = sizeof fixed / sizeof *fixed };
  char **arguments = sluice_allocate_array(FIXED + count + 2, sizeof *arguments);
  char *soname = sluice_format_string("-soname=%s", name ? name : "");
  tool_file linked = {.descriptor = -1}, report = {.descriptor = -1};
  sluice_status *status = arguments && soname ? NULL : sluice_out_of_memory();
  size_t n = 0;
  for (size_t i = 0; !status && i < FIXED; i++) arguments[n++] = fixed[i];
  if (!status && name) arguments[n++] = soname;
  for (size_t i = 0; !status && i < count; i++) arguments[n++] = objects[i].name;
  if (!status) status = tool_file_create(&linked, NULL, 0);
  if (!status) status = tool_file_create(&report, NULL, 0);
  if (!status) status = tool_run(linker, arguments, objects, count, &linked, &report);
  if (status && sluice_status_code(status) == SLUICE_NOT_FOUND) status = sluice_annotate(status, "install lld-22");
  if (!status) status = tool_file_read(&linked, out_data, out_length);
  tool_file_close(&report);
  tool_file_close(&linked);
  sluice_release(soname);
  sluice_release(arguments);
  return status;
}

sluice_status *tool_link(const char *name, void *const *objects, const size_t *lengths, size_t count, void **out_data,
                         size_t *out_length) {
  tool_file *files = sluice_allocate_array(count, sizeof *files);
  if (!files) return sluice_out_of_memory();
  for (size_t i = 0; i < count; i++) files[i].descriptor = -1;
  sluice_status *status = NULL;
  for (size_t i = 0; i < count && !status; i++) status = tool_file_create(&files[i], objects[i], lengths[i]);
  if (!status) status = run_linker(name, files, count, out_data, out_length);
  for (size_t i = 0; i < count; i++) tool_file_close(&files[i]);
  sluice_release(files);
  return status;
}
