#include "runtime/tensor_names.h"

#include "runtime/checkpoint_kind.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static bool ends_in(const char *text, const char *end) {
  size_t length = strlen(text), end_length = strlen(end);
  return length >= end_length && strcmp(text + length - end_length, end) == 0;
}

static bool starts_with(const char *text, const char *start) {
  return strncmp(text, start, strlen(start)) == 0;
}

/* ---- Spellings ---- */

/* What the names of the text model start with in place of "language_model.": with their "model." for what lies in the
 * model, without for the head. */
static const struct {
  const char *model, *head;
} prefixes[] = {
    {"language_model.model.", "language_model."}, /* released, and save_pretrained */
    {"model.language_model.", ""},                /* in transformers' memory */
    {"model.", "model."},                         /* the text model alone */
};

/* Ends of names that are spelled otherwise. A tensor of `parts` matrices has their rows one after another, of which
 * this is number `part`; a stack has one more dimension in front, the experts. */
static const struct {
  const char *released, *other;
  unsigned parts, part;
  bool stack;
} endings[] = {
    {"", "", 1, 0, false},
    {".experts.{expert}.w1.weight", ".experts.{expert}.gate_proj.weight", 1, 0, false},
    {".experts.{expert}.w2.weight", ".experts.{expert}.down_proj.weight", 1, 0, false},
    {".experts.{expert}.w3.weight", ".experts.{expert}.up_proj.weight", 1, 0, false},
    {".experts.{expert}.w1.weight", ".experts.gate_up_proj", 2, 0, true},
    {".experts.{expert}.w2.weight", ".experts.down_proj", 1, 0, true},
    {".experts.{expert}.w3.weight", ".experts.gate_up_proj", 2, 1, true},
    {".gate_proj.weight", ".gate_up_proj.weight", 2, 0, false},
    {".up_proj.weight", ".gate_up_proj.weight", 2, 1, false},
    {".e_score_correction_bias", ".gate.e_score_correction_bias", 1, 0, false},
    {".self_attn.index_q_proj.weight", ".self_attn.indexer.q_proj.weight", 1, 0, false},
    {".self_attn.index_k_proj.weight", ".self_attn.indexer.k_proj.weight", 1, 0, false},
    {".self_attn.index_q_norm.weight", ".self_attn.indexer.q_norm.weight", 1, 0, false},
    {".self_attn.index_k_norm.weight", ".self_attn.indexer.k_norm.weight", 1, 0, false},
};

/* A layer's MLP, dense or of experts, may be called either. */
static const char *const mlps[] = {".block_sparse_moe.", ".mlp."};

enum { PREFIXES = COUNT(prefixes), ENDINGS = COUNT(endings), SPELLINGS = PREFIXES * 2 * ENDINGS };

static sluice_status *too_long(const char *pattern) {
  return sluice_error(SLUICE_INVALID, "a tensor name of the plan is longer than %d bytes: %.60s...",
                      SLUICE_MAX_TENSOR_NAME, pattern);
}

/* Replaces "{expert}" in `pattern`. */
static sluice_status *number_expert(const char *pattern, uint32_t expert, char out_name[SLUICE_MAX_TENSOR_NAME]) {
  const char *mark = strstr(pattern, "{expert}");
  int length = mark ? snprintf(out_name, SLUICE_MAX_TENSOR_NAME, "%.*s%u%s", (int)(mark - pattern), pattern, expert,
                               mark + strlen("{expert}"))
                    : snprintf(out_name, SLUICE_MAX_TENSOR_NAME, "%s", pattern);
  return length < 0 || length >= SLUICE_MAX_TENSOR_NAME ? too_long(pattern) : NULL;
}

sluice_status *sluice_source_name(const sluice_plan *plan, const sluice_plan_source *source, uint32_t expert,
                                  char out_name[SLUICE_MAX_TENSOR_NAME]) {
  return number_expert(sluice_plan_string(plan, source->name), expert, out_name);
}

/* Spelling number `spelling` of a released name, "{expert}" left as it is; false when it has no such. Number 0 is the
 * name itself. */
static bool spell(const char *released, unsigned spelling, char out_name[SLUICE_MAX_TENSOR_NAME]) {
  unsigned prefix = spelling % PREFIXES, mlp = spelling / PREFIXES % 2, ending = spelling / PREFIXES / 2;
  if (!ends_in(released, endings[ending].released)) return false;
  const char *start = "", *rest = released;
  if (starts_with(released, prefixes[0].model)) {
    start = prefixes[prefix].model;
    rest += strlen(prefixes[0].model);
  } else if (starts_with(released, prefixes[0].head)) {
    start = prefixes[prefix].head;
    rest += strlen(prefixes[0].head);
  } else if (prefix) {
    return false;
  }
  int kept = (int)(strlen(rest) - strlen(endings[ending].released)); /* before the ending */
  const char *end = endings[ending].other, *from = NULL, *to = NULL;
  for (unsigned i = 0; i < 2 && mlp; i++)
    if (strstr(rest, mlps[i])) {
      from = strstr(rest, mlps[i]);
      to = mlps[1 - i];
    }
  if (mlp && !from) return false;
  int length;
  if (!from) {
    length = snprintf(out_name, SLUICE_MAX_TENSOR_NAME, "%s%.*s%s", start, kept, rest, end);
  } else {
    /* The ending starts with the dot that ends the MLP's name. */
    int before = (int)(from - rest),
        after = before + (int)strlen(from == strstr(rest, mlps[0]) ? mlps[0] : mlps[1]) - 1;
    length = snprintf(out_name, SLUICE_MAX_TENSOR_NAME, "%s%.*s%.*s%.*s%s", start, before, rest, (int)strlen(to) - 1,
                      to, kept > after ? kept - after : 0, rest + after, end);
  }
  return length > 0 && length < SLUICE_MAX_TENSOR_NAME;
}

sluice_status *tensor_find(const sluice_checkpoint *checkpoint, const sluice_plan *plan,
                           const sluice_plan_source *source, uint32_t expert, uint32_t experts,
                           tensor_place *out_place) {
  const char *released = sluice_plan_string(plan, source->name);
  char pattern[SLUICE_MAX_TENSOR_NAME], name[SLUICE_MAX_TENSOR_NAME];
  *out_place = (tensor_place){0};
  for (unsigned spelling = 0; spelling < SPELLINGS; spelling++) {
    if (!spell(released, spelling, pattern)) continue;
    SLUICE_TRY(number_expert(pattern, expert, name));
    const sluice_tensor_info *info = sluice_checkpoint_find(checkpoint, name);
    if (!info) continue;
    unsigned ending = spelling / PREFIXES / 2, rank = 0;
    uint64_t matrix = (uint64_t)source->tensor_rows * source->tensor_columns, part = endings[ending].part;
    if (endings[ending].stack) {
      out_place->shape[rank++] = experts;
      part += (uint64_t)expert * endings[ending].parts;
    }
    if (source->rank == 2) out_place->shape[rank++] = (int64_t)source->tensor_rows * endings[ending].parts;
    out_place->shape[rank++] = source->tensor_columns;
    out_place->rank = rank;
    out_place->first = part * matrix;
    out_place->info = info;
    return NULL;
  }
  return NULL;
}

/* ---- What is not there ---- */

static const char *const quantised_ends[] = {".weight_packed",
                                             ".weight_scale",
                                             ".weight_scale_inv",
                                             ".weight_scale_2",
                                             ".weight_global_scale",
                                             ".input_scale",
                                             ".weight_zero_point",
                                             ".input_global_scale",
                                             ".weight_shape",
                                             ".weight_g_idx",
                                             ".qweight",
                                             ".qzeros",
                                             ".scales",
                                             ".g_idx",
                                             ".biases",
                                             ".weight_blocks",
                                             ".weight_scales",
                                             ".gate_up_proj_blocks",
                                             ".down_proj_blocks"};

/* A tensor of a quantised weight whose released name is `name`, NULL when there is none. */
static const sluice_tensor_info *find_quantised(const sluice_checkpoint *checkpoint, const char *name) {
  if (!ends_in(name, ".weight")) return NULL;
  char other[SLUICE_MAX_TENSOR_NAME + 32];
  for (size_t i = 0; i < COUNT(quantised_ends); i++) {
    snprintf(other, sizeof other, "%.*s%s", (int)(strlen(name) - strlen(".weight")), name, quantised_ends[i]);
    const sluice_tensor_info *info = sluice_checkpoint_find(checkpoint, other);
    if (info) return info;
  }
  return NULL;
}

/* The number of the layer that a tensor of the text model is in, -1 for none. */
static long layer_of(const char *name) {
  for (size_t i = 0; i < PREFIXES; i++) {
    if (!starts_with(name, prefixes[i].model)) continue;
    const char *rest = name + strlen(prefixes[i].model);
    if (!starts_with(rest, "layers.") || !isdigit((unsigned char)rest[7])) continue;
    return strtol(rest + 7, NULL, 10);
  }
  return -1;
}

/* A tensor that shows how a file names things that has no layer under a name that sluice knows; NULL for others. */
static const sluice_tensor_info *strange_name(const sluice_checkpoint *checkpoint) {
  const sluice_tensor_info *strange = NULL;
  const char *what;
  for (size_t i = 0; i < sluice_checkpoint_tensor_count(checkpoint); i++) {
    const sluice_tensor_info *info = sluice_checkpoint_tensor(checkpoint, i);
    if (layer_of(info->name) >= 0) return NULL;
    tensor_leftover kind = tensor_classify(info, UINT32_MAX, &what);
    bool head = ends_in(info->name, "lm_head.weight");
    if (!strange && !head && kind != LEFTOVER_OTHER_MODEL && kind != LEFTOVER_TEXT) strange = info;
  }
  return strange;
}

sluice_status *tensor_missing(const sluice_checkpoint *checkpoint, const sluice_plan *plan,
                              const sluice_plan_source *source, uint32_t expert) {
  const char *released = sluice_plan_string(plan, source->name), *from = sluice_checkpoint_source(checkpoint);
  char pattern[SLUICE_MAX_TENSOR_NAME], name[SLUICE_MAX_TENSOR_NAME];
  for (unsigned spelling = 0; spelling < SPELLINGS; spelling++) {
    if (!spell(released, spelling, pattern)) continue;
    SLUICE_TRY(number_expert(pattern, expert, name));
    const sluice_tensor_info *quantised = find_quantised(checkpoint, name);
    if (quantised)
      return sluice_error(SLUICE_UNSUPPORTED,
                          "%s: tensor \"%s\" is of a quantised checkpoint, which sluice does not read: use the model's "
                          "BF16 weights",
                          quantised->file, quantised->name);
    const char *problem, *shard = sluice_checkpoint_promised(checkpoint, name, &problem);
    if (!shard) continue;
    return sluice_error(SLUICE_NOT_FOUND, "tensor \"%s\" is not in %s, where the index has it%s%s", name, shard,
                        problem ? ": " : "; download that file again", problem ? problem : "");
  }
  SLUICE_TRY(number_expert(released, expert, name));
  if (checkpoint_is_shard(from))
    return sluice_error(SLUICE_NOT_FOUND,
                        "%s: this file is one shard of many and lacks the tensor \"%s\": give the folder that it lies "
                        "in",
                        from, name);
  const sluice_tensor_info *shown = strange_name(checkpoint);
  if (shown) {
    int length = (int)strcspn(shown->name, ".");
    return sluice_error(SLUICE_NOT_FOUND,
                        "%s: the checkpoint lacks the tensor \"%s\" in every spelling that sluice knows; its names "
                        "start with \"%.*s.\": \"%.200s\" for one",
                        from, name, length, shown->name, shown->name);
  }
  return sluice_error(SLUICE_NOT_FOUND,
                      "%s: the checkpoint lacks the tensor \"%s\": it is not complete, or not the model of the "
                      "config.json that was compiled",
                      from, name);
}

/* ---- What is there and not asked for ---- */

static bool has_component(const char *name, const char *component) { /* "mtp." */
  const char *found = strstr(name, component);
  while (found && found != name && found[-1] != '.') found = strstr(found + 1, component);
  return found != NULL;
}

tensor_leftover tensor_classify(const sluice_tensor_info *info, uint32_t layers, const char **out_what) {
  const char *name = info->name;
  static const char *const vision[] = {"vision_tower.", "multi_modal_projector.", "patch_merge_mlp."};
  *out_what = "";
  for (size_t i = 0; i < COUNT(vision); i++)
    if (starts_with(starts_with(name, "model.") ? name + strlen("model.") : name, vision[i]))
      return LEFTOVER_OTHER_MODEL;
  if (strstr(name, "lora_") || strstr(name, ".base_layer.") || strstr(name, ".modules_to_save."))
    return LEFTOVER_ADAPTER;
  for (unsigned i = 0; i < info->rank; i++)
    if (info->shape[i] == 0) {
      *out_what = "empty";
      return LEFTOVER_SKIPPED;
    }
  if (has_component(name, "mtp.") || has_component(name, "dspark.")) {
    *out_what = "for speculation";
    return LEFTOVER_SKIPPED;
  }
  if (ends_in(name, "lm_head.weight")) { /* asked for by every other model */
    *out_what = "the head is the embedding";
    return LEFTOVER_HEAD;
  }
  long layer = layer_of(name);
  if (layer >= 0 && (unsigned long)layer >= layers) {
    *out_what = "behind the last layer";
    return LEFTOVER_SKIPPED;
  }
  for (size_t i = 0; i < COUNT(quantised_ends); i++)
    if (ends_in(name, quantised_ends[i])) return LEFTOVER_QUANTISED;
  if (ends_in(name, ".rotary_emb.inv_freq")) {
    *out_what = "computed";
    return LEFTOVER_SKIPPED;
  }
  if (ends_in(name, ".k_scale") || ends_in(name, ".v_scale") || ends_in(name, ".q_scale")) {
    *out_what = "for a quantised cache";
    return LEFTOVER_SKIPPED;
  }
  for (size_t i = 0; i < PREFIXES; i++)
    if (starts_with(name, prefixes[i].model)) return LEFTOVER_TEXT;
  if (starts_with(name, "language_model.") || starts_with(name, "lm_head.")) return LEFTOVER_TEXT;
  *out_what = "of no known part";
  return LEFTOVER_SKIPPED;
}
