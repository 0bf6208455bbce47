/* The manifest: JSON that says what was compiled, how, and which fusions happened. Holds no time, path or host name, so
 * that equal inputs give equal bytes. */
#include "compiler/compile.h"
#include "sluice/memory.h"
#include "sluice/runtime.h"

#include <string.h>

/* A run of equal layers: "first-last" or "first". */
static void write_range(sluice_text *out, int64_t first, int64_t last) {
  if (first == last)
    sluice_text_printf(out, "\"%lld\"", (long long)first);
  else
    sluice_text_printf(out, "\"%lld-%lld\"", (long long)first, (long long)last);
}

static bool same_kind(const layer_config *a, const layer_config *b) {
  if (a->sparse_attention != b->sparse_attention || a->moe != b->moe) return false;
  if (a->sparse_attention &&
      (a->index_heads != b->index_heads || a->index_dim != b->index_dim || a->block != b->block ||
       a->top_k_blocks != b->top_k_blocks || a->init_blocks != b->init_blocks || a->local_blocks != b->local_blocks))
    return false;
  if (!a->moe) return a->dense_width == b->dense_width;
  return a->experts == b->experts && a->experts_per_token == b->experts_per_token &&
         a->expert_width == b->expert_width && a->shared_width == b->shared_width;
}

static void write_layer(sluice_text *out, const layer_config *l) {
  if (l->sparse_attention)
    sluice_text_printf(out,
                       "\"attention\":\"sparse\",\"index_heads\":%lld,\"index_dim\":%lld,\"block\":%lld,\"k\":%lld,"
                       "\"init\":%lld,\"local\":%lld,",
                       (long long)l->index_heads, (long long)l->index_dim, (long long)l->block,
                       (long long)l->top_k_blocks, (long long)l->init_blocks, (long long)l->local_blocks);
  else
    sluice_text_printf(out, "\"attention\":\"full\",");
  if (l->moe)
    sluice_text_printf(
        out, "\"mlp\":\"experts\",\"experts\":%lld,\"experts_per_token\":%lld,\"width\":%lld,\"shared_width\":%lld}",
        (long long)l->experts, (long long)l->experts_per_token, (long long)l->expert_width, (long long)l->shared_width);
  else
    sluice_text_printf(out, "\"mlp\":\"dense\",\"width\":%lld}", (long long)l->dense_width);
}

static void write_model(sluice_text *out, const model_config *c) {
  sluice_text_printf(out,
                     "\"model\":{\"hidden\":%lld,\"layers\":%lld,\"heads\":%lld,\"kv_heads\":%lld,\"head_dim\":%lld,"
                     "\"rotary_dim\":%lld,\"vocabulary\":%lld,\"max_context\":%lld,\"layer_kinds\":[",
                     (long long)c->hidden, (long long)c->layers, (long long)c->heads, (long long)c->kv_heads,
                     (long long)c->head_dim, (long long)c->rotary_dim, (long long)c->vocabulary,
                     (long long)c->max_positions);
  for (int64_t first = 0; first < c->layers;) {
    int64_t last = first;
    while (last + 1 < c->layers && same_kind(&c->layer[first], &c->layer[last + 1])) last++;
    sluice_text_printf(out, "%s{\"layers\":", first ? "," : "");
    write_range(out, first, last);
    sluice_text_append(out, ",", 1);
    write_layer(out, &c->layer[first]);
    first = last + 1;
  }
  sluice_text_printf(out, "]}");
}

static bool same_remark(const pass_remark *a, const pass_remark *b) {
  return strcmp(a->pass, b->pass) == 0 && a->applied == b->applied && strcmp(a->reason, b->reason) == 0;
}

/* Remarks that differ in their layer alone, in layers that follow one another, become one. */
static sluice_status *write_fusions(sluice_text *out, const pass_remarks *remarks) {
  sluice_text_printf(out, "\"fusions\":[");
  size_t count = remarks ? remarks->count : 0;
  bool *written = sluice_allocate_array(count, sizeof *written);
  if (!written) return sluice_out_of_memory();
  bool first = true;
  for (size_t i = 0; i < count; i++) {
    if (written[i]) continue;
    const pass_remark *r = &remarks->items[i];
    int64_t last = r->layer;
    for (size_t j = i + 1; j < count && r->layer >= 0; j++)
      if (!written[j] && same_remark(r, &remarks->items[j]) &&
          (remarks->items[j].layer == last || remarks->items[j].layer == last + 1)) {
        last = remarks->items[j].layer;
        written[j] = true;
      }
    sluice_text_printf(out, "%s{\"pass\":", first ? "" : ",");
    first = false;
    sluice_text_json_string(out, r->pass);
    if (r->layer >= 0) {
      sluice_text_printf(out, ",\"layers\":");
      write_range(out, r->layer, last);
    }
    sluice_text_printf(out, ",\"applied\":%s,\"reason\":", r->applied ? "true" : "false");
    sluice_text_json_string(out, r->reason);
    sluice_text_append(out, "}", 1);
  }
  sluice_text_append(out, "]", 1);
  sluice_release(written);
  return NULL;
}

sluice_status *manifest_write(const model_config *config, const compile_options *options, const pass_remarks *remarks,
                              sluice_text *out) {
  sluice_text_printf(out, "{\"format\":%u,\"generator\":\"sluice %s\",", SLUICE_BUNDLE_VERSION, sluice_version());
  write_model(out, config);
  sluice_text_printf(out,
                     ",\"dtype\":\"%s\",\"weight_dtype\":\"%s\",\"max_context\":%lld,\"page_tokens\":%lld,"
                     "\"ranks\":%lld,\"batch_invariant\":%s,\"stop_ids\":[",
                     options->dtype == SLUICE_F32 ? "float32" : "bfloat16",
                     model_stored_dtype(config, options->dtype, options->weight_dtype) == SLUICE_BF16 ? "bfloat16"
                                                                                                      : "float32",
                     (long long)(options->max_context ? options->max_context : config->max_positions),
                     (long long)config->page, (long long)(options->passes.ranks > 1 ? options->passes.ranks : 1),
                     options->passes.batch_invariant ? "true" : "false");
  for (size_t i = 0; i < config->stop_id_count; i++)
    sluice_text_printf(out, "%s%lld", i ? "," : "", (long long)config->stop_ids[i]);
  sluice_text_printf(out, "],\"targets\":[");
  for (size_t i = 0; i < options->target_count; i++) {
    if (i) sluice_text_append(out, ",", 1);
    sluice_text_json_string(out, options->targets[i]);
  }
  sluice_text_printf(out, "],\"products\":[");
  for (size_t i = 0; i < options->product_count; i++) {
    if (i) sluice_text_append(out, ",", 1);
    sluice_text_json_string(out, options->products[i]);
  }
  sluice_text_printf(out, "],");
  SLUICE_TRY(write_fusions(out, remarks));
  sluice_text_printf(out, "}\n");
  return out->failed ? sluice_out_of_memory() : NULL;
}
