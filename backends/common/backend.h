/* What a target brings to backend_compile. One table for each folder of backends/; backend.c holds the list. */
#ifndef BACKENDS_COMMON_BACKEND_H
#define BACKENDS_COMMON_BACKEND_H

#include "backends/common/emit.h"

typedef struct backend {
  /* Whether `name` is one of its targets, an alias included; `canonical` gets the name with all parts. */
  bool (*canonicalise)(const char *name, char canonical[32]);
  const char *known; /* its targets, for messages */
  target_tiles (*tiles)(const char *target);
  /* A target machine; NULL with a message in *out_error. Runs in a child. */
  LLVMTargetMachineRef (*machine)(const char *target, char **out_error);
  const atoms *(*atoms)(const char *target);
  /* Most children that code generation is shared among when the result is linked. */
  size_t children;
  LLVMCodeGenFileType file_type; /* what `link` wants of each child */
  const char *linked_name;       /* file name of the result in a save directory: "kernels.so" */
  /* Makes `code->data` and what else belongs to it from the children's files, and completes code->kernels. */
  sluice_status *(*link)(const char *target, const kernel_spec *specs, size_t count, void *const *files,
                         const size_t *lengths, size_t file_count, code_object *code);
} backend;

extern const backend host_backend, nvptx_backend, amdgcn_backend;

#endif
