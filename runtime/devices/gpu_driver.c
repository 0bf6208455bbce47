#include "runtime/devices/gpu_driver.h"

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

sluice_status *gpu_check(const gpu_driver *driver, gpu_result result, const char *what) {
  if (result == GPU_SUCCESS) return NULL;
  const char *name = NULL, *text = NULL;
  driver->of->describe(driver, result, &name, &text);
  if (!name) name = "unknown error";
  if (!text) text = "the driver has no text for it";
  return sluice_error(result == GPU_OUT_OF_MEMORY ? SLUICE_OUT_OF_MEMORY : SLUICE_DEVICE, "%s failed: %s (%d): %s",
                      what, name, result, text);
}

/* dlopen's message behind what was tried so far. */
static void note_failure(char *tried, size_t size, const char *path) {
  const char *why = dlerror();
  size_t used = strlen(tried);
  snprintf(tried + used, size - used, "%s%s: %s", used ? "; " : "", path, why ? why : "unknown reason");
}

static void *open_library(const gpu_library *of, const char *path, char *tried, size_t size) {
  const char *const given[] = {path, NULL};
  for (const char *const *candidate = path ? given : of->paths; *candidate; candidate++) {
    void *library = dlopen(*candidate, RTLD_NOW | RTLD_LOCAL);
    if (library) return library;
    note_failure(tried, size, *candidate);
  }
  return NULL;
}

static sluice_status *find_symbol(const gpu_driver *driver, const char *name, bool required, void *entry) {
  void *symbol = dlsym(driver->library, name);
  if (!symbol && required)
    return sluice_error(SLUICE_UNSUPPORTED, "the %s library lacks %s: %s", driver->of->product, name,
                        driver->of->too_old);
  memcpy(entry, &symbol, sizeof symbol);
  return NULL;
}

static sluice_status *find_symbols(gpu_driver *driver) {
  const bool hip = driver->of->hip;
#define REQUIRED(name, cuda, hip_name, parameters)                                                                     \
  SLUICE_TRY(find_symbol(driver, hip ? hip_name : cuda, true, &driver->name));
#define OPTIONAL(name, cuda, hip_name, parameters)                                                                     \
  SLUICE_TRY(find_symbol(driver, hip ? hip_name : cuda, false, &driver->name));
  GPU_ENTRIES(REQUIRED)
  GPU_OPTIONAL_ENTRIES(OPTIONAL)
#undef REQUIRED
#undef OPTIONAL
  for (const gpu_own_entry *own = driver->of->own; own->symbol; own++)
    SLUICE_TRY(find_symbol(driver, own->symbol, true, (char *)driver->own + own->offset));
  return NULL;
}

sluice_status *gpu_driver_open(const gpu_library *of, const char *path, void *own, gpu_driver *out_driver) {
  *out_driver = (gpu_driver){.of = of, .own = own};
  char tried[2048] = "";
  out_driver->library = open_library(of, path, tried, sizeof tried);
  if (!out_driver->library)
    return sluice_error(SLUICE_NOT_FOUND, "no %s: tried %s; %s, or use --device host", of->product, tried, of->advice);
  sluice_status *status = find_symbols(out_driver);
  if (!status) status = of->start(out_driver);
  if (status) gpu_driver_close(out_driver);
  return status;
}

void gpu_driver_close(gpu_driver *driver) {
  if (driver->library) dlclose(driver->library);
  *driver = (gpu_driver){0};
}
