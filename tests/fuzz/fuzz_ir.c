/* libFuzzer: textual IR from strangers, through MLIR's parser and verifier and then ours. An accepted module prints as
 * text that is accepted again. */
#include "ir/ir.h"
#include "sluice/memory.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t length);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t length) {
  ir_context *context = NULL;
  sluice_status *status = ir_context_create(&context);
  if (status) {
    sluice_status_free(status);
    return 0;
  }
  MlirModule module = {0};
  status = ir_parse(context, length ? (const char *)data : "", length, "fuzz.mlir", &module);
  if (!status) {
    char *text = ir_print(module);
    MlirModule again = {0};
    if (text) status = ir_parse(context, text, strlen(text), "again.mlir", &again);
    if (status) {
      sluice_status_print(status);
      __builtin_trap();
    }
    if (text) mlirModuleDestroy(again);
    sluice_release(text);
    mlirModuleDestroy(module);
  } else if (!*sluice_status_message(status)) {
    __builtin_trap();
  }
  sluice_status_free(status);
  ir_context_destroy(context);
  return 0;
}
