/* Opening a bundle for a device. */
#include "runtime/model.h"
#include "sluice/signature.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

double sluice_seconds(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

sluice_bytes_text sluice_describe_bytes(uint64_t bytes) {
  static const char *const units[] = {"bytes", "kB", "MB", "GB", "TB"};
  sluice_bytes_text result;
  double value = (double)bytes;
  int unit = 0;
  while (value >= 1000 && unit < 4) {
    value /= 1000;
    unit++;
  }
  snprintf(result.text, sizeof result.text, unit ? "%.1f %s" : "%.0f %s", value, units[unit]);
  return result;
}

/* "cuda", "cuda:0", ... for kind "cuda": true and the number. */
static bool parse_device(const char *device, const char *kind, unsigned *out_index) {
  const size_t length = strlen(kind);
  *out_index = 0;
  if (strncmp(device, kind, length) != 0) return false;
  if (device[length] == 0) return true;
  if (device[length] != ':' || device[length + 1] < '0' || device[length + 1] > '9') return false;
  char *end;
  unsigned long index = strtoul(device + length + 1, &end, 10);
  *out_index = index > 65535 ? 65535 : (unsigned)index;
  return *end == 0;
}

static sluice_status *open_device(const sluice_model_options *options, sluice_device **out_device) {
  static const struct {
    const char *kind;
    sluice_status *(*open)(unsigned index, unsigned threads, sluice_device **out_device);
  } gpus[] = {{"cuda", sluice_cuda_open}, {"hip", sluice_hip_open}};
  const char *device = options && options->device ? options->device : "host";
  unsigned threads = options ? options->threads : 0, index;
  if (strcmp(device, "host") == 0 || strcmp(device, "cpu") == 0) return sluice_host_open(threads, out_device);
  for (size_t i = 0; i < sizeof gpus / sizeof *gpus; i++)
    if (parse_device(device, gpus[i].kind, &index))
      return sluice_annotate(gpus[i].open(index, threads, out_device), "device \"%s\"", device);
  return sluice_error(SLUICE_USAGE, "unknown device \"%s\": expected \"host\", \"cuda:N\" or \"hip:N\"", device);
}

/* The section of the best plan for the device. */
static sluice_status *choose_target(const sluice_bundle *bundle, const sluice_device *device, const char *path,
                                    uint32_t *out_section) {
  const sluice_bundle_header *header = sluice_bundle_contents(bundle);
  char built_for[SLUICE_BUNDLE_MAX_SECTIONS * 40] = "";
  size_t used = 0;
  unsigned best = 0;
  for (uint32_t i = 0; i < header->section_count; i++) {
    const sluice_bundle_section *section = &header->sections[i];
    if (section->kind != SLUICE_SECTION_PLAN) continue;
    used += (size_t)snprintf(built_for + used, sizeof built_for - used, "%s%s", used ? ", " : "", section->target);
    unsigned preference = device->driver->preference(device, section->target);
    if (preference > best) {
      best = preference;
      *out_section = i;
    }
  }
  if (!best)
    return sluice_error(SLUICE_UNSUPPORTED,
                        "%s was built for %s; this machine is %s: compile it again with --target=%s", path,
                        used ? built_for : "no target at all", device->name, device->target);
  return NULL;
}

/* As many ranks as the bundle was compiled for. */
static sluice_status *check_ranks(const sluice_model *model, const char *path) {
  const uint32_t wanted = model->plan.header->ranks, found = model->group ? model->group->ranks : 1;
  if (wanted == found) return NULL;
  if (wanted == 1)
    return sluice_error(SLUICE_INVALID,
                        "%s was compiled for one device, but %u ranks open it: compile it with --parallel tp=%u", path,
                        found, found);
  return sluice_error(SLUICE_INVALID,
                      "%s was compiled for %u ranks that share the model, but is opened by %u: start %u of them "
                      "(sluice-run launch -n %u ...), or compile it without --parallel",
                      path, wanted, found, wanted, wanted);
}

static sluice_status *open_plan(sluice_model *model, const char *path) {
  uint32_t section = 0;
  SLUICE_TRY(choose_target(model->bundle, model->device, path, &section));
  const sluice_bundle_section *entry = &sluice_bundle_contents(model->bundle)->sections[section];
  memcpy(model->target, entry->target, sizeof entry->target);
  int binary = sluice_bundle_find(model->bundle, SLUICE_SECTION_CODE, model->target);
  int assembly = sluice_bundle_find(model->bundle, SLUICE_SECTION_ASSEMBLY, model->target);
  if (binary < 0 && assembly < 0)
    return sluice_error(SLUICE_INVALID, "%s: the bundle has a plan but no code for %s", path, model->target);
  SLUICE_TRY(sluice_bundle_plan(model->bundle, section, path, &model->plan));

  SLUICE_TRY(check_ranks(model, path));
  uint64_t count = model->plan.header->weights.count;
  model->offsets = sluice_allocate_array((size_t)count, sizeof *model->offsets);
  if (!model->offsets) return sluice_out_of_memory();
  for (uint64_t i = 0; i < count; i++) {
    model->offsets[i] = model->weight_bytes;
    model->weight_bytes += model->plan.weights[i].bytes;
  }
  sluice_code_sections code = {0};
  if (binary >= 0) {
    code.binary = sluice_bundle_data(model->bundle, (uint32_t)binary);
    code.binary_length = sluice_bundle_code_length(model->bundle, (uint32_t)binary);
  }
  if (assembly >= 0) {
    code.assembly = sluice_bundle_data(model->bundle, (uint32_t)assembly);
    code.assembly_length = sluice_bundle_code_length(model->bundle, (uint32_t)assembly);
  }
  return sluice_annotate(model->device->driver->load_code(model->device, &code, &model->plan, &model->code), "%s",
                         path);
}

static sluice_status *open_all(sluice_model *model, const char *path, const sluice_model_options *options) {
  if (options && options->trusted_key)
    SLUICE_TRY(sluice_bundle_check_signature(model->bundle, path, options->trusted_key));
  const sluice_bundle_section *manifest = &sluice_bundle_contents(model->bundle)->sections[0];
  SLUICE_TRY(sluice_json_parse(sluice_bundle_data(model->bundle, 0), (size_t)manifest->length, path, &model->manifest));
  if (sluice_json_root(model->manifest)->kind != SLUICE_JSON_OBJECT)
    return sluice_error(SLUICE_INVALID, "%s: damaged bundle: the manifest is %s, expected an object", path,
                        sluice_json_kind_name(sluice_json_root(model->manifest)->kind));
  const double start = sluice_seconds();
  SLUICE_TRY(open_device(options, &model->device));
  model->device_seconds = sluice_seconds() - start;
  model->group = options ? options->group : NULL;
  return open_plan(model, path);
}

/* `bundle` NULL: what is at `path`. */
static sluice_status *open_model(const void *bundle, size_t length, const char *path,
                                 const sluice_model_options *options, sluice_model **out_model) {
  *out_model = NULL;
  sluice_model *model = sluice_allocate(sizeof *model);
  if (!model) return sluice_out_of_memory();
  sluice_status *status = bundle ? sluice_bundle_open_memory(bundle, length, path, &model->bundle)
                                 : sluice_bundle_open(path, &model->bundle);
  if (!status) status = open_all(model, path, options);
  if (status) {
    sluice_model_close(model);
    return status;
  }
  *out_model = model;
  return NULL;
}

sluice_status *sluice_model_open(const char *bundle_path, const sluice_model_options *options,
                                 sluice_model **out_model) {
  return open_model(NULL, 0, bundle_path, options, out_model);
}

sluice_status *sluice_model_open_memory(const void *bundle, size_t length, const char *name,
                                        const sluice_model_options *options, sluice_model **out_model) {
  return open_model(bundle, length, name, options, out_model);
}

void sluice_model_close(sluice_model *model) {
  if (!model) return;
  if (model->device) {
    model->device->driver->unload_code(model->device, model->code);
    model->device->driver->release(model->device, model->weights);
    model->device->driver->close(model->device);
  }
  sluice_release(model->offsets);
  sluice_release(model->skipped);
  sluice_json_free(model->manifest);
  sluice_bundle_close(model->bundle);
  sluice_release(model);
}

const sluice_plan *sluice_model_plan(const sluice_model *model) {
  return &model->plan;
}

const char *sluice_model_target(const sluice_model *model) {
  return model->target;
}

double sluice_model_device_seconds(const sluice_model *model) {
  return model->device_seconds;
}

const char *sluice_model_skipped(const sluice_model *model) {
  return model->skipped;
}

const sluice_bundle *sluice_model_bundle(const sluice_model *model) {
  return model->bundle;
}

const sluice_json_value *sluice_model_manifest(const sluice_model *model) {
  return sluice_json_root(model->manifest);
}
