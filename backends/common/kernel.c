#include "backends/common/kernel.h"

#include "sluice/memory.h"

#include <string.h>

static const kernel_attribute *find(const kernel_spec *spec, const char *name, kernel_attribute_kind kind,
                                    sluice_status **status) {
  for (size_t i = 0; i < spec->attribute_count; i++)
    if (strcmp(spec->attributes[i].name, name) == 0 && spec->attributes[i].kind == kind) return &spec->attributes[i];
  static const char *const kinds[] = {"an integer", "a float", "a string"};
  if (!*status)
    *status =
        sluice_error(SLUICE_INTERNAL, "kernel %s has no attribute '%s' that is %s", spec->symbol, name, kinds[kind]);
  return NULL;
}

int64_t kernel_integer(const kernel_spec *spec, const char *name, sluice_status **status) {
  const kernel_attribute *a = find(spec, name, KERNEL_INTEGER, status);
  return a ? a->integer : 0;
}

double kernel_float(const kernel_spec *spec, const char *name, sluice_status **status) {
  const kernel_attribute *a = find(spec, name, KERNEL_FLOAT, status);
  return a ? a->number : 0;
}

const char *kernel_string(const kernel_spec *spec, const char *name, sluice_status **status) {
  const kernel_attribute *a = find(spec, name, KERNEL_STRING, status);
  return a ? a->string : "";
}

sluice_dtype kernel_dtype(const kernel_spec *spec, const char *name, sluice_status **status) {
  const char *text = kernel_string(spec, name, status);
  if (strcmp(text, "f32") == 0) return SLUICE_F32;
  if (strcmp(text, "bf16") != 0 && !*status)
    *status = sluice_error(SLUICE_INTERNAL, "kernel %s: '%s' is '%s', expected f32 or bf16", spec->symbol, name, text);
  return SLUICE_BF16;
}

void code_object_free(code_object *code) {
  sluice_release(code->data);
  sluice_release(code->assembly);
  sluice_release(code->kernels);
  *code = (code_object){0};
}
