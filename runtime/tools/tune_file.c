/* Files of sluice tune: bundles one behind the other, each with a tuning section that says what it is for. */
#include "runtime/tools/tune.h"

#include "sluice/file.h"
#include "sluice/memory.h"

#include <stdio.h>
#include <string.h>

#define MOST_ENTRIES 4096u

/* ---- Entries ---- */

static void entry_free(tune_entry *entry) {
  sluice_release(entry->kernel);
  sluice_release(entry->shape);
  sluice_release(entry->configuration);
  sluice_release(entry->at);
  *entry = (tune_entry){.kernel = NULL};
}

/* A member that is an integer of 0 to 2^32 - 1; absent ones are 0. */
static int64_t number(const sluice_json_value *object, const char *name) {
  const sluice_json_value *value = sluice_json_get(object, name);
  return value && value->kind == SLUICE_JSON_NUMBER && value->is_integer && value->integer > 0 &&
                 value->integer <= UINT32_MAX
             ? value->integer
             : 0;
}

static sluice_status *read_step(const sluice_json_document *document, const sluice_json_value *at,
                                const sluice_plan *plan, tune_entry *entry) {
  const int64_t tokens = number(at, "tokens"), sequences = number(at, "sequences"), context = number(at, "context");
  if (tokens < 1 || sequences < 1 || tokens % sequences != 0)
    return sluice_json_error(document, at->offset, SLUICE_INVALID, "a step of %lld tokens in %lld sequences",
                             (long long)tokens, (long long)sequences);
  entry->phase = tokens == sequences ? BENCH_DECODE : BENCH_PREFILL;
  const bench_request request = {(uint64_t)sequences, (uint64_t)context, (uint64_t)(tokens / sequences), BENCH_UNSET};
  const bench_request decode = {(uint64_t)sequences, (uint64_t)context, BENCH_UNSET, BENCH_UNSET};
  return bench_shape_resolve(entry->phase == BENCH_DECODE ? &decode : &request, entry->phase, true, plan, &entry->step);
}

static sluice_status *read_entry(const sluice_json_document *document, const sluice_json_value *value,
                                 const sluice_plan *plan, tune_entry *entry) {
  const sluice_json_value *kernel = sluice_json_get(value, "kernel"), *shape = sluice_json_get(value, "shape"),
                          *at = sluice_json_get(value, "at");
  if (!kernel || kernel->kind != SLUICE_JSON_STRING || !shape || !at)
    return sluice_json_error(document, value->offset, SLUICE_INVALID, "not the description of a candidate");
  entry->kernel = sluice_copy_string(kernel->string, strlen(kernel->string));
  entry->shape = sluice_tuning_object(shape);
  entry->at = sluice_tuning_object(at);
  entry->configuration = sluice_tuning_object(sluice_json_get(value, "configuration"));
  if (!entry->kernel || !entry->shape || !entry->at || !entry->configuration)
    return sluice_json_error(document, value->offset, SLUICE_INVALID, "not the description of a candidate");
  entry->from = number(value, "from");
  entry->to = number(value, "to");
  entry->n = number(shape, "n");
  entry->k = number(shape, "k");
  entry->heads = number(shape, "heads");
  entry->kv_heads = number(shape, "kv_heads");
  entry->head_dim = number(shape, "head_dim");
  entry->page = number(shape, "page");
  entry->pairs = number(shape, "pairs") != 0;
  return read_step(document, at, plan, entry);
}

static sluice_status *read_entries(const sluice_json_document *document, tune_candidate *candidate) {
  const sluice_json_value *list = sluice_json_get(sluice_json_root(document), "kernels");
  if (!list || list->kind != SLUICE_JSON_ARRAY || list->length > MOST_ENTRIES)
    return sluice_json_error(document, 0, SLUICE_INVALID, "no list of kernels");
  candidate->entries = sluice_allocate_array(list->length, sizeof *candidate->entries);
  if (!candidate->entries) return sluice_out_of_memory();
  for (size_t i = 0; i < list->length; i++)
    SLUICE_TRY(read_entry(document, &list->items[i], &candidate->model->plan, &candidate->entries[candidate->count++]));
  return NULL;
}

const tune_entry *tune_find_entry(const tune_candidate *candidate, const tune_entry *like) {
  for (uint32_t i = 0; i < candidate->count; i++) {
    const tune_entry *e = &candidate->entries[i];
    if (e->from == like->from && e->to == like->to && strcmp(e->kernel, like->kernel) == 0 &&
        strcmp(e->shape, like->shape) == 0)
      return e;
  }
  return NULL;
}

/* ---- The file ---- */

static sluice_status *open_candidate(const void *data, size_t length, const char *path,
                                     const sluice_model_options *options, tune_candidate *candidate) {
  SLUICE_TRY(sluice_model_open_memory(data, length, path, options, &candidate->model));
  const sluice_bundle *bundle = candidate->model->bundle;
  const int section = sluice_bundle_find(bundle, SLUICE_SECTION_TUNING, candidate->model->target);
  if (section < 0)
    return sluice_error(SLUICE_INVALID, "%s is a bundle to run, not a file of candidates: make one with sluice tune",
                        path);
  sluice_json_document *document;
  SLUICE_TRY(sluice_json_parse(sluice_bundle_data(bundle, (uint32_t)section),
                               (size_t)sluice_bundle_contents(bundle)->sections[section].length, path, &document));
  sluice_status *status = read_entries(document, candidate);
  sluice_json_free(document);
  return status;
}

static sluice_status *open_all(const char *path, const sluice_model_options *options, tune_file *file) {
  size_t length;
  SLUICE_TRY(sluice_read_file(path, SLUICE_BUNDLE_MAX_BYTES, &file->data, &length));
  for (size_t start = 0; start < length && file->count < TUNE_MOST_CANDIDATES;) {
    const sluice_bundle_header *header = (const void *)((const char *)file->data + start);
    uint64_t own = length - start; /* what the bundle reader then refuses */
    if (own >= sizeof *header && header->file_length <= own && header->file_length >= sizeof *header)
      own = header->file_length;
    SLUICE_TRY(open_candidate(header, (size_t)own, path, options, &file->candidates[file->count++]));
    start += (size_t)own;
  }
  if (!file->count) return sluice_error(SLUICE_INVALID, "%s is empty, expected a file of sluice tune", path);
  return NULL;
}

sluice_status *tune_file_open(const char *path, const sluice_model_options *options, tune_file *out_file) {
  *out_file = (tune_file){.count = 0};
  sluice_status *status = open_all(path, options, out_file);
  if (status) tune_file_close(out_file);
  return status;
}

void tune_file_close(tune_file *file) {
  for (uint32_t i = 0; i < file->count; i++) {
    tune_candidate *candidate = &file->candidates[i];
    for (uint32_t e = 0; e < candidate->count; e++) entry_free(&candidate->entries[e]);
    sluice_release(candidate->entries);
    sluice_model_close(candidate->model);
  }
  sluice_release(file->data);
  *file = (tune_file){.count = 0};
}

/* ---- Launches ---- */

static bool is_family(const sluice_plan *plan, uint32_t launch, const char *family) {
  return strcmp(sluice_plan_string(plan, plan->kernels[plan->launches[launch].kernel].family), family) == 0;
}

/* Whether the steps that run the launch are in the bucket. */
static bool is_in_bucket(const sluice_plan *plan, const sluice_plan_launch *launch, const tune_entry *entry) {
  for (uint32_t i = 0; i < launch->range_count; i++) {
    const sluice_plan_range *range = &plan->ranges[launch->first_range + i];
    if (range->size == SLUICE_SIZE_TOKENS || range->size == SLUICE_SIZE_ROWS)
      return range->from >= entry->from && range->to <= entry->to;
  }
  return entry->from == 0 && entry->to == UINT32_MAX;
}

/* Attributes of kernels have the names of shapes; what makes one product of two matrices is its epilogue. */
static bool has_shape(const sluice_json_value *attributes, const tune_entry *entry) {
  const struct {
    const char *name;
    int64_t value;
  } shape[] = {{"n", entry->n},
               {"k", entry->k},
               {"heads", entry->heads},
               {"kv_heads", entry->kv_heads},
               {"head_dim", entry->head_dim},
               {"page", entry->page}};
  for (size_t i = 0; i < sizeof shape / sizeof *shape; i++)
    if (shape[i].value && number(attributes, shape[i].name) != shape[i].value) return false;
  if (!entry->n) return true;
  const sluice_json_value *epilogue = sluice_json_get(attributes, "epilogue");
  const bool pairs = epilogue && epilogue->kind == SLUICE_JSON_STRING && strcmp(epilogue->string, "swiglu") == 0;
  return pairs == entry->pairs;
}

static sluice_status *is_of_entry(const sluice_plan *plan, uint32_t launch, const tune_entry *entry, bool *out_is) {
  *out_is = is_family(plan, launch, entry->kernel) && is_in_bucket(plan, &plan->launches[launch], entry);
  if (!*out_is) return NULL;
  const char *text = sluice_plan_string(plan, plan->kernels[plan->launches[launch].kernel].attributes);
  sluice_json_document *attributes;
  SLUICE_TRY(sluice_json_parse(text, strlen(text), "attributes of a kernel", &attributes));
  *out_is = has_shape(sluice_json_root(attributes), entry);
  sluice_json_free(attributes);
  return NULL;
}

/* Launches of the layer that are timed with `first`: what sorts for the products of experts and all of these; what
 * merges the parts of attention. */
static bool belongs(const sluice_plan *plan, uint32_t first, uint32_t launch) {
  if (launch == first) return true;
  if (plan->launches[launch].layer != plan->launches[first].layer) return false;
  if (is_family(plan, first, "expert_gemm"))
    return is_family(plan, launch, "expert_gemm") || is_family(plan, launch, "sort_experts") ||
           is_family(plan, launch, "route");
  return is_family(plan, first, "attention_part") && is_family(plan, launch, "attention_merge");
}

sluice_status *tune_find_group(const sluice_model *model, const tune_entry *entry, bench_group *out_group) {
  const sluice_plan *plan = &model->plan;
  const uint32_t count = (uint32_t)plan->header->launches.count;
  bench_extents extents;
  bench_shape_extents(&entry->step, plan, bench_runs_as_graph(model, &entry->step), &extents);
  *out_group = (bench_group){.times = 1};
  uint32_t first = 0;
  for (bool found = false; first < count; first++) {
    if (!sluice_plan_runs(plan, &plan->launches[first], extents.sizes)) continue;
    SLUICE_TRY(is_of_entry(plan, first, entry, &found));
    if (found) break;
  }
  if (first == count) return NULL;
  out_group->layer = plan->launches[first].layer;
  snprintf(out_group->name, sizeof out_group->name, "%.60s", entry->kernel);
  out_group->launches = sluice_allocate_array(count, sizeof *out_group->launches);
  if (!out_group->launches) return sluice_out_of_memory();
  for (uint32_t i = 0; i < count; i++)
    if (belongs(plan, first, i) && sluice_plan_runs(plan, &plan->launches[i], extents.sizes))
      out_group->launches[out_group->count++] = i;
  return NULL;
}

sluice_status *tune_is_in_group(const sluice_model *model, const bench_group *group, const tune_entry *entry,
                                bool *out_is) {
  *out_is = false;
  for (uint32_t i = 0; i < group->count && !*out_is; i++)
    SLUICE_TRY(is_of_entry(&model->plan, group->launches[i], entry, out_is));
  return NULL;
}
