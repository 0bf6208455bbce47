/* dce: drops pure ops whose results nobody uses. From the back, so that one walk finds whole chains. */
#include "passes/fusions.h"
#include "passes/rewrite.h"
#include "sluice/memory.h"

bool pass_eliminate_dead(pass_state *state, MlirModule module) {
  rewrite_list ops;
  if (!rewrite_collect(state, module, NULL, &ops)) return false;
  for (size_t i = ops.count; i-- > 0;) {
    bool used = !ir_is_pure(ops.items[i]);
    for (intptr_t j = 0; j < mlirOperationGetNumResults(ops.items[i]) && !used; j++)
      used = !mlirOpOperandIsNull(mlirValueGetFirstUse(mlirOperationGetResult(ops.items[i], j)));
    if (!used) mlirOperationDestroy(ops.items[i]);
  }
  sluice_release(ops.items);
  return true;
}
