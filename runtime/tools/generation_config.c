#include "runtime/tools/generation_config.h"

#include "sluice/memory.h"

#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static sluice_status *read_number(const sluice_json_document *document, const char *key, double least, double most,
                                  double *out) {
  const sluice_json_value *v = sluice_json_get(sluice_json_root(document), key);
  if (!v || v->kind == SLUICE_JSON_NULL) return NULL;
  if (v->kind != SLUICE_JSON_NUMBER || v->number < least || v->number > most)
    return sluice_json_error(document, v->offset, SLUICE_INVALID, "\"%s\": expected a number in %g .. %g", key, least,
                             most);
  *out = v->number;
  return NULL;
}

static sluice_status *add_stop_id(const sluice_json_document *document, const sluice_json_value *v,
                                  generation_config *config) {
  if (v->kind != SLUICE_JSON_NUMBER || !v->is_integer || v->integer < 0 || v->integer > INT32_MAX)
    return sluice_json_error(document, v->offset, SLUICE_INVALID, "\"eos_token_id\": expected token ids");
  if (config->stop_id_count == GENERATION_MAX_STOP_IDS)
    return sluice_json_error(document, v->offset, SLUICE_UNSUPPORTED, "\"eos_token_id\": more than %d ids",
                             GENERATION_MAX_STOP_IDS);
  config->stop_ids[config->stop_id_count++] = (int32_t)v->integer;
  return NULL;
}

static sluice_status *read_stop_ids(const sluice_json_document *document, generation_config *config) {
  const sluice_json_value *v = sluice_json_get(sluice_json_root(document), "eos_token_id");
  if (!v || v->kind == SLUICE_JSON_NULL) return NULL;
  config->has_stop_ids = true;
  if (v->kind != SLUICE_JSON_ARRAY) return add_stop_id(document, v, config);
  for (size_t i = 0; i < v->length; i++) SLUICE_TRY(add_stop_id(document, &v->items[i], config));
  return NULL;
}

static sluice_status *read_document(const sluice_json_document *document, generation_config *config) {
  const sluice_json_value *root = sluice_json_root(document), *sample = sluice_json_get(root, "do_sample");
  if (root->kind != SLUICE_JSON_OBJECT || (sample && sample->kind != SLUICE_JSON_BOOL))
    return sluice_json_error(document, sample ? sample->offset : 0, SLUICE_INVALID,
                             "expected an object, with \"do_sample\" true or false");
  SLUICE_TRY(read_stop_ids(document, config));
  SLUICE_TRY(read_number(document, "repetition_penalty", 1e-3, 1e3, &config->repetition_penalty));
  if (!sample || !sample->boolean) return NULL; /* greedy, whatever else stands there */
  double top_k = 0;
  config->temperature = 1;
  SLUICE_TRY(read_number(document, "temperature", 0, 1e6, &config->temperature));
  SLUICE_TRY(read_number(document, "top_p", 0, 1, &config->top_p));
  SLUICE_TRY(read_number(document, "min_p", 0, 1, &config->min_p));
  SLUICE_TRY(read_number(document, "top_k", 0, INT32_MAX, &top_k));
  config->top_k = (uint64_t)top_k;
  return NULL;
}

/* The file's path, NULL when there is none; *status is an error of memory. */
static char *find_file(const char *weights, sluice_status **status) {
  struct stat info;
  if (stat(weights, &info) != 0) return NULL; /* synthetic, or refused later, with its own message */
  const char *slash = strrchr(weights, '/');
  const size_t folder = S_ISDIR(info.st_mode) ? strlen(weights) : slash ? (size_t)(slash - weights) : 0;
  char *path = folder ? sluice_format_string("%.*s/generation_config.json", (int)folder, weights)
                      : sluice_format_string("generation_config.json");
  if (!path) *status = sluice_out_of_memory();
  if (!path || access(path, F_OK) == 0) return path;
  sluice_release(path);
  return NULL;
}

sluice_status *generation_config_read(const char *weights, generation_config *out_config) {
  *out_config = (generation_config){.top_p = 1, .repetition_penalty = 1};
  sluice_status *status = NULL;
  char *path = find_file(weights, &status);
  if (!path) return status;
  sluice_json_document *document = NULL;
  status = sluice_json_parse_file(path, &document);
  if (!status) status = read_document(document, out_config);
  sluice_json_free(document);
  sluice_release(path);
  return status;
}

sluice_status *generation_stops(const sluice_model *model, const generation_config *config, int32_t token,
                                bool *out_stop) {
  *out_stop = false;
  for (uint32_t i = 0; i < config->stop_id_count; i++)
    if (config->stop_ids[i] == token) *out_stop = true;
  if (config->has_stop_ids) return NULL;
  const sluice_json_value *ids = sluice_json_get(sluice_model_manifest(model), "stop_ids");
  if (!ids) return NULL;
  if (ids->kind != SLUICE_JSON_ARRAY)
    return sluice_error(SLUICE_INVALID, "the bundle's \"stop_ids\" are %s, expected an array",
                        sluice_json_kind_name(ids->kind));
  for (size_t i = 0; i < ids->length; i++)
    if (ids->items[i].is_integer && ids->items[i].integer == token) *out_stop = true;
  return NULL;
}
