#include "support/golden.h"

sluice_status *golden_tensor(const golden *g, const char *name, const sluice_tensor_info **out_info,
                             const void **out_data) {
  const sluice_tensor_info *info = sluice_safetensors_find(g->file, name);
  if (!info) return sluice_error(SLUICE_INVALID, "the golden file has no %s", name);
  if (out_info) *out_info = info;
  *out_data = sluice_safetensors_data(g->file, info);
  return NULL;
}

static sluice_status *read_all(golden *g) {
  const sluice_tensor_info *info;
  const void *data;
  SLUICE_TRY(golden_tensor(g, "input_ids", &info, &data));
  g->ids = data;
  g->prompt = (uint32_t)info->shape[0];
  SLUICE_TRY(golden_tensor(g, "decode.tokens", NULL, &data));
  g->tokens = data;
  SLUICE_TRY(golden_tensor(g, "prefill.logits", &info, &data));
  g->prefill = data;
  g->rows = (uint32_t)info->shape[0];
  g->vocabulary = (uint32_t)info->shape[1];
  SLUICE_TRY(golden_tensor(g, "decode.logits", &info, &data));
  g->decode = data;
  g->steps = (uint32_t)info->shape[0];
  return NULL;
}

sluice_status *golden_open(golden *g, const char *path) {
  *g = (golden){0};
  SLUICE_TRY(sluice_safetensors_open(path, &g->file));
  sluice_status *status = read_all(g);
  if (status) golden_close(g);
  return status;
}

void golden_close(golden *g) {
  sluice_safetensors_close(g->file);
  *g = (golden){0};
}

bool golden_same_set(const int32_t *a, const int32_t *b, uint32_t count) {
  for (uint32_t i = 0; i < count; i++) {
    uint32_t in_a = 0, in_b = 0;
    for (uint32_t j = 0; j < count; j++) {
      in_a += a[j] == a[i];
      in_b += b[j] == a[i];
    }
    if (in_a != in_b) return false;
  }
  return true;
}
