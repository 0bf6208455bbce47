#include "backends/amdgcn/amdgcn.h"
#include "backends/common/tool.h"

sluice_status *amdgcn_link(const char *target, const kernel_spec *specs, size_t count, void *const *objects,
                           const size_t *lengths, size_t object_count, code_object *code) {
  (void)target;
  SLUICE_TRY(tool_link(NULL, objects, lengths, object_count, &code->data, &code->length));
  return amdgcn_read_metadata(code->data, code->length, specs, count, code->kernels);
}
