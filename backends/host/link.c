#include "backends/common/tool.h"
#include "backends/host/host.h"

#include "sluice/memory.h"

#include <unistd.h>

static const char linker[] = SLUICE_LLVM_PREFIX "/bin/ld.lld";

/* Runs ld.lld on `objects`; what it makes comes out of its standard output. */
static sluice_status *run_linker(tool_file *objects, size_t count, code_object *code) {
  static char program[] = "ld.lld", shared[] = "-shared", undefined[] = "--no-undefined", id[] = "--build-id=none",
              threads[] = "--threads=1", strip[] = "--strip-debug", hash[] = "--hash-style=gnu",
              soname[] = "-soname=kernels", output[] = "-o", standard[] = "-";
  char *fixed[] = {program, shared, undefined, id, threads, strip, hash, soname, output, standard};
  enum { FIXED = sizeof fixed / sizeof *fixed };
  char **arguments = sluice_allocate_array(FIXED + count + 1, sizeof *arguments);
  if (!arguments) return sluice_out_of_memory();
  for (size_t i = 0; i < FIXED; i++) arguments[i] = fixed[i];
  for (size_t i = 0; i < count; i++) arguments[FIXED + i] = objects[i].name;
  tool_file linked = {.descriptor = -1}, report = {.descriptor = -1};
  sluice_status *status = tool_file_create(&linked, NULL, 0);
  if (!status) status = tool_file_create(&report, NULL, 0);
  if (!status) status = tool_run(linker, arguments, objects, count, &linked, &report);
  if (status && sluice_status_code(status) == SLUICE_NOT_FOUND) status = sluice_annotate(status, "install lld-22");
  if (!status) status = tool_file_read(&linked, &code->data, &code->length);
  tool_file_close(&report);
  tool_file_close(&linked);
  sluice_release(arguments);
  return status;
}

sluice_status *host_link(const char *target, const kernel_spec *specs, size_t count, void *const *objects,
                         const size_t *lengths, size_t object_count, code_object *code) {
  (void)target;
  tool_file *files = sluice_allocate_array(object_count, sizeof *files);
  if (!files) return sluice_out_of_memory();
  for (size_t i = 0; i < object_count; i++) files[i].descriptor = -1;
  sluice_status *status = NULL;
  for (size_t i = 0; i < object_count && !status; i++) status = tool_file_create(&files[i], objects[i], lengths[i]);
  if (!status) status = run_linker(files, object_count, code);
  for (size_t i = 0; i < object_count; i++) tool_file_close(&files[i]);
  sluice_release(files);
  if (!status) host_symbol_sizes(code->data, code->length, specs, count, code->kernels);
  return status;
}
