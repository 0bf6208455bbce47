/* libFuzzer target for the check of the host's code objects: what it lets through, the system's loader must take or
 * refuse without harm. Nothing of the object is called. */
#include "runtime/devices/host_code.h"

#include <dlfcn.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t length);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t length) {
  sluice_host_code code;
  sluice_status *status = sluice_host_code_open(data, length, &code);
  if (!status) {
    (void)dlsym(code.handle, "plain");
    (void)dlsym(code.handle, "no such function");
  }
  sluice_status_free(status);
  sluice_host_code_close(&code);
  return 0;
}
