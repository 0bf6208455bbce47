/* The declarations of runtime/devices/hip.h and gpu_driver.h against AMD's header, where that is installed, and what is
 * said when there is no HIP library, no GPU, or the wrong library. */
#include "runtime/devices/gpu.h"
#include "runtime/devices/hip.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#if __has_include(<hip/hip_runtime_api.h>)
#define __HIP_PLATFORM_AMD__ 1
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wstrict-prototypes"
#include <hip/hip_runtime_api.h>
#pragma GCC diagnostic pop
_Static_assert(GPU_SUCCESS == (int)hipSuccess && GPU_OUT_OF_MEMORY == (int)hipErrorOutOfMemory, "results");
_Static_assert(GPU_NO_DEVICE == (int)hipErrorNoDevice && GPU_NO_BINARY == (int)hipErrorNoBinaryForGpu, "results");
_Static_assert(HIP_INVALID_DEVICE == (int)hipErrorInvalidDevice, "results");
_Static_assert(HIP_ATTRIBUTE_CLOCK_RATE == (int)hipDeviceAttributeClockRate, "attributes");
_Static_assert(HIP_ATTRIBUTE_PROCESSORS == (int)hipDeviceAttributeMultiprocessorCount, "attributes");
_Static_assert(HIP_ATTRIBUTE_MEMORY_CLOCK_RATE == (int)hipDeviceAttributeMemoryClockRate, "attributes");
_Static_assert(HIP_ATTRIBUTE_L2_CACHE_SIZE == (int)hipDeviceAttributeL2CacheSize, "attributes");
_Static_assert(GPU_STREAM_NON_BLOCKING == hipStreamNonBlocking, "flags");
_Static_assert(GPU_EVENT_DISABLE_TIMING == hipEventDisableTiming, "flags");
_Static_assert(GPU_CAPTURE_THREAD_LOCAL == (int)hipStreamCaptureModeThreadLocal, "flags");
_Static_assert(sizeof(gpu_pointer) == sizeof(hipDeviceptr_t) && sizeof(gpu_stream) == sizeof(hipStream_t), "handles");
#endif

static void refused(sluice_status *status, sluice_code code, const char *words) {
  assert_non_null(status);
  assert_int_equal(sluice_status_code(status), code);
  if (!strstr(sluice_status_message(status), words))
    fail_msg("\"%s\" lacks \"%s\"", sluice_status_message(status), words);
  sluice_status_free(status);
}

static void libraries_that_will_not_do(void **state) {
  (void)state;
  sluice_device *device = NULL;
  refused(sluice_hip_open_library("/nowhere/libamdhip64.so", 0, 1, &device), SLUICE_NOT_FOUND,
          "no HIP library of AMD's driver: tried /nowhere/libamdhip64.so: ");
  refused(sluice_hip_open_library("/nowhere/libamdhip64.so", 0, 1, &device), SLUICE_NOT_FOUND, "install ROCm 6 or 7");
  refused(sluice_hip_open_library("libm.so.6", 0, 1, &device), SLUICE_UNSUPPORTED, "lacks hipInit: it is older than");
  assert_null(device);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(libraries_that_will_not_do)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
