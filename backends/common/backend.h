/* What a folder of backends/ brings: its targets and how code is made for them. backends/targets.h lists them all. */
#ifndef BACKENDS_COMMON_BACKEND_H
#define BACKENDS_COMMON_BACKEND_H

#include "backends/common/atoms.h"
#include "backends/common/legal.h"
#include "backends/targets.h"

typedef struct backend {
  /* Whether `name` is one of its targets, an alias included; `canonical` gets the name with all parts. */
  bool (*canonicalise)(const char *name, char canonical[32]);
  const char *known; /* its targets, for messages */
  /* The functions below get canonical names. */
  const target_facts *(*facts)(const char *target);
  target_tiles (*tiles)(const char *target); /* its default configurations */
  /* Those whose kernels add up a row alike for steps of all sizes; NULL: `tiles` do. */
  target_tiles (*invariant_tiles)(const char *target);
  const family_schedule *schedules; /* what its own kernels can do; ends with NO_SCHEDULE; NULL: it has none */
  /* Sets lanes and stages of a variant of one of `schedules`; NULL with those. */
  void (*complete)(const char *target, const kernel_question *question, kernel_variant *variant);
  /* A target machine; NULL with a message in *out_error. Runs in a child. */
  LLVMTargetMachineRef (*machine)(const char *target, char **out_error);
  const atoms *(*atoms)(const char *target);
  /* Most children that code generation is shared among when the result is linked. */
  size_t children;
  LLVMCodeGenFileType file_type; /* what `link` wants of each child */
  const char *linked_name;       /* file name of the result in a save directory: "kernels.so" */
  /* Why `link` may leave the result empty, and what to do about it; NULL: it never does. */
  const char *unlinked;
  /* Makes `code->data` and what else belongs to it from the children's files, and completes code->kernels. */
  sluice_status *(*link)(const char *target, const kernel_spec *specs, size_t count, void *const *files,
                         const size_t *lengths, size_t file_count, code_object *code);
} backend;

#define BACKEND_DECLARATION(name) extern const backend name##_backend;
BACKENDS(BACKEND_DECLARATION)
#undef BACKEND_DECLARATION

/* The backend of a target name; NULL: none. */
const backend *backend_find(const char *target);

#endif
