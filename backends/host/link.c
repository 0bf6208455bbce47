#include "backends/common/tool.h"
#include "backends/host/host.h"

sluice_status *host_link(const char *target, const kernel_spec *specs, size_t count, void *const *objects,
                         const size_t *lengths, size_t object_count, code_object *code) {
  (void)target;
  SLUICE_TRY(tool_link("kernels", objects, lengths, object_count, &code->data, &code->length));
  host_symbol_sizes(code->data, code->length, specs, count, code->kernels);
  return NULL;
}
