#include "runtime/devices/cuda_driver.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

sluice_status *cuda_check(const cuda_driver *driver, cuda_result result, const char *what) {
  if (result == CUDA_SUCCESS_) return NULL;
  const char *name = NULL, *text = NULL;
  if (driver->error_name(result, &name) || !name) name = "unknown error";
  if (driver->error_text(result, &text) || !text) text = "the driver has no text for it";
  return sluice_error(result == CUDA_OUT_OF_MEMORY ? SLUICE_OUT_OF_MEMORY : SLUICE_DEVICE, "%s failed: %s (%d): %s",
                      what, name, result, text);
}

/* dlopen's message behind what was tried so far. */
static void note_failure(char *tried, size_t size, const char *path) {
  const char *why = dlerror();
  size_t used = strlen(tried);
  snprintf(tried + used, size - used, "%s%s: %s", used ? "; " : "", path, why ? why : "unknown reason");
}

static void *open_library(const char *path, char *tried, size_t size) {
  static const char *const usual[] = {"libcuda.so.1", "/usr/lib/x86_64-linux-gnu/libcuda.so.1",
                                      "/usr/local/nvidia/lib64/libcuda.so.1", "/usr/lib/wsl/lib/libcuda.so.1"};
  size_t count = path ? 1 : sizeof usual / sizeof *usual;
  for (size_t i = 0; i < count; i++) {
    const char *candidate = path ? path : usual[i];
    void *library = dlopen(candidate, RTLD_NOW | RTLD_LOCAL);
    if (library) return library;
    note_failure(tried, size, candidate);
  }
  return NULL;
}

typedef struct symbol_row {
  const char *name;
  size_t offset;
  int required;
} symbol_row;

static sluice_status *find_symbols(cuda_driver *driver) {
#define REQUIRED(entry, symbol, parameters) {symbol, offsetof(cuda_driver, entry), 1},
#define OPTIONAL(entry, symbol, parameters) {symbol, offsetof(cuda_driver, entry), 0},
  static const symbol_row rows[] = {CUDA_REQUIRED(REQUIRED) CUDA_OPTIONAL(OPTIONAL)};
#undef REQUIRED
#undef OPTIONAL
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    void *symbol = dlsym(driver->library, rows[i].name);
    if (!symbol && rows[i].required)
      return sluice_error(
          SLUICE_UNSUPPORTED,
          "the NVIDIA driver library lacks %s: it is older than CUDA 12.3 (driver 545); install a newer "
          "driver",
          rows[i].name);
    memcpy((char *)driver + rows[i].offset, &symbol, sizeof symbol);
  }
  return NULL;
}

static sluice_status *start(cuda_driver *driver) {
  SLUICE_TRY(find_symbols(driver));
  int version = 0;
  SLUICE_TRY(cuda_check(driver, driver->driver_version(&version), "asking for the NVIDIA driver's version"));
  if (version < CUDA_OLDEST_DRIVER)
    return sluice_error(SLUICE_UNSUPPORTED,
                        "the NVIDIA driver supports CUDA %d.%d; CUDA %d.%d (driver 545) or newer is needed: install a "
                        "newer driver",
                        version / 1000, version % 1000 / 10, CUDA_OLDEST_DRIVER / 1000, CUDA_OLDEST_DRIVER % 1000 / 10);
  cuda_result result = driver->init(0);
  if (result == CUDA_NO_DEVICE) return sluice_error(SLUICE_NOT_FOUND, "the NVIDIA driver finds no GPU in this machine");
  return cuda_check(driver, result, "starting the NVIDIA driver");
}

sluice_status *cuda_driver_open(const char *path, cuda_driver *out_driver) {
  *out_driver = (cuda_driver){0};
  char tried[1024] = "";
  out_driver->library = open_library(path, tried, sizeof tried);
  if (!out_driver->library)
    return sluice_error(SLUICE_NOT_FOUND, "no NVIDIA driver: tried %s; install the driver, or use --device host",
                        tried);
  sluice_status *status = start(out_driver);
  if (status) {
    cuda_driver_close(out_driver);
    return status;
  }
  return NULL;
}

void cuda_driver_close(cuda_driver *driver) {
  if (driver->library) dlclose(driver->library);
  *driver = (cuda_driver){0};
}
