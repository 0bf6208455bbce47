#include "compiler/inspect.h"

#include "compiler/step_cost.h"
#include "sluice/dtype.h"
#include "sluice/memory.h"
#include "sluice/signature.h"

#include <stdio.h>
#include <string.h>

static const char *const section_names[] = {"?",        "manifest", "plan",         "code",
                                            "assembly", "tuning",   "verification", "signature"};

static void write_sections(const sluice_bundle *bundle, bool json, sluice_text *out) {
  const sluice_bundle_header *header = sluice_bundle_contents(bundle);
  sluice_text_printf(out, json ? "\"file_bytes\":%llu,\"sections\":[" : "%llu bytes\n\nsections\n",
                     (unsigned long long)header->file_length);
  for (uint32_t i = 0; i < header->section_count; i++) {
    const sluice_bundle_section *s = &header->sections[i];
    char digest[65];
    for (size_t d = 0; d < 32; d++) snprintf(digest + 2 * d, 3, "%02x", s->digest[d]);
    const char *kind = s->kind < sizeof section_names / sizeof *section_names ? section_names[s->kind] : "?";
    if (json)
      sluice_text_printf(
          out, "%s{\"kind\":\"%s\",\"target\":\"%.31s\",\"offset\":%llu,\"length\":%llu,\"sha256\":\"%s\"}",
          i ? "," : "", kind, s->target, (unsigned long long)s->offset, (unsigned long long)s->length, digest);
    else
      sluice_text_printf(out, "  %-12s %-18s offset %-8llu %8llu bytes  sha256 %.16s...\n", kind, s->target,
                         (unsigned long long)s->offset, (unsigned long long)s->length, digest);
  }
  if (json) sluice_text_append(out, "]", 1);
  const sluice_bundle_signature *signature = sluice_bundle_signature_of(bundle);
  char key[2 * SLUICE_KEY_BYTES + 1] = "";
  for (size_t i = 0; signature && i < SLUICE_KEY_BYTES; i++) snprintf(key + 2 * i, 3, "%02x", signature->key[i]);
  if (json)
    sluice_text_printf(out, signature ? ",\"signing_key\":\"%s\"" : ",\"signing_key\":null", key);
  else if (signature)
    sluice_text_printf(out, "\nsigned, as it says, with %s\n", key);
}

static void write_kernels(const sluice_plan *plan, bool json, sluice_text *out) {
  const sluice_plan_header *h = plan->header;
  if (json)
    sluice_text_printf(out, "\"launches\":%llu,\"joins\":%llu,\"kernels\":[", (unsigned long long)h->launches.count,
                       (unsigned long long)h->joins.count);
  else
    sluice_text_printf(out, "  %llu launches and %llu joins of %llu kernels a step\n",
                       (unsigned long long)h->launches.count, (unsigned long long)h->joins.count,
                       (unsigned long long)h->kernels.count);
  for (uint64_t i = 0; i < h->kernels.count; i++) {
    const sluice_plan_kernel *k = &plan->kernels[i];
    uint64_t launches = 0;
    for (uint64_t n = 0; n < h->launches.count; n++) launches += plan->launches[n].kernel == i;
    for (uint64_t n = 0; n < h->joins.count; n++) launches += plan->joins[n].kernel == i;
    if (json)
      sluice_text_printf(
          out,
          "%s{\"name\":\"%s\",\"family\":\"%s\",\"attributes\":%s,\"launches\":%llu,\"workgroup_bytes\":%u,"
          "\"lanes\":%u,\"registers\":%u,\"spill_bytes\":%u,\"code_bytes\":%u,\"cache_first\":%u}",
          i ? "," : "", sluice_plan_string(plan, k->name), sluice_plan_string(plan, k->family),
          sluice_plan_string(plan, k->attributes), (unsigned long long)launches, k->workgroup_bytes, k->lanes,
          k->registers, k->spill_bytes, k->code_bytes, k->cache_first);
    else
      sluice_text_printf(out, "  %-22s %4llu launches, %6u bytes workgroup memory, %6u bytes code\n      %s\n",
                         sluice_plan_string(plan, k->name), (unsigned long long)launches, k->workgroup_bytes,
                         k->code_bytes, sluice_plan_string(plan, k->attributes));
  }
  if (json) sluice_text_append(out, "],", 2);
}

static void write_weights(const sluice_plan *plan, bool json, sluice_text *out) {
  const sluice_plan_header *h = plan->header;
  uint64_t total = 0;
  for (uint64_t i = 0; i < h->weights.count; i++) total += plan->weights[i].bytes;
  if (json)
    sluice_text_printf(out, "\"weight_bytes\":%llu,\"weights\":[", (unsigned long long)total);
  else
    sluice_text_printf(out, "  weights wanted, %llu bytes packed (%s)\n", (unsigned long long)total,
                       sluice_describe_bytes(total).text);
  for (uint64_t i = 0; i < h->weights.count; i++) {
    const sluice_plan_weight *w = &plan->weights[i];
    if (json)
      sluice_text_printf(out,
                         "%s{\"layout\":\"%s\",\"format\":\"%s\",\"batch\":%u,\"rows\":%u,\"columns\":%u,\"panel\":%u,"
                         "\"bytes\":%llu,\"tensors\":[",
                         i ? "," : "", sluice_layout_name(w->layout), sluice_format_name(w->format), w->batch, w->rows,
                         w->columns, w->panel, (unsigned long long)w->bytes);
    for (uint32_t s = 0; s < w->source_count; s++) {
      const sluice_plan_source *source = &plan->sources[w->first_source + s];
      const char *name = sluice_plan_string(plan, source->name);
      if (json)
        sluice_text_printf(
            out, source->rank == 1 ? "%s{\"name\":\"%s\",\"shape\":[%u]}" : "%s{\"name\":\"%s\",\"shape\":[%u,%u]}",
            s ? "," : "", name, source->rank == 1 ? source->tensor_columns : source->tensor_rows,
            source->tensor_columns);
      else if (source->rank == 1)
        sluice_text_printf(out, "      %s [%u]\n", name, source->tensor_columns);
      else
        sluice_text_printf(out, "      %s [%u, %u]%s%.0u%s\n", name, source->tensor_rows, source->tensor_columns,
                           w->batch > 1 ? " x " : "", w->batch > 1 ? w->batch : 0, w->batch > 1 ? " experts" : "");
    }
    if (json) sluice_text_append(out, "]}", 2);
  }
  if (json) sluice_text_append(out, "],", 2);
}

/* Memory of a session: weights, cache, and the arena for the largest step. */
static void write_memory(const sluice_plan *plan, const inspect_options *options, sluice_text *out) {
  const sluice_plan_header *h = plan->header;
  uint64_t sequences = options->sequences ? (uint64_t)options->sequences : 1;
  uint64_t context = options->context ? (uint64_t)options->context : h->max_context;
  uint64_t tokens = options->step_tokens        ? (uint64_t)options->step_tokens
                    : sequences * context < 512 ? sequences * context
                                                : 512;
  const step_memory m = step_memory_of(plan, sequences, context, tokens);
  sluice_text_printf(out,
                     options->json
                         ? "\"memory\":{\"sequences\":%llu,\"context\":%llu,\"step_tokens\":%llu,\"weights\":%llu,"
                           "\"cache\":%llu,\"arena\":%llu,\"total\":%llu}"
                         : "  memory for %llu sequence(s) of %llu tokens, steps of %llu tokens\n"
                           "      weights %llu, cache %llu, arena %llu, together %llu bytes",
                     (unsigned long long)sequences, (unsigned long long)context, (unsigned long long)tokens,
                     (unsigned long long)m.weights, (unsigned long long)m.cache, (unsigned long long)m.arena,
                     (unsigned long long)(m.weights + m.cache + m.arena));
  if (!options->json) sluice_text_printf(out, " (%s)\n", sluice_describe_bytes(m.weights + m.cache + m.arena).text);
}

static sluice_status *write_targets(const sluice_bundle *bundle, const inspect_options *options, sluice_text *out) {
  const sluice_bundle_header *header = sluice_bundle_contents(bundle);
  bool first = true;
  if (options->json) sluice_text_printf(out, ",\"targets\":[");
  for (uint32_t i = 0; i < header->section_count; i++) {
    if (header->sections[i].kind != SLUICE_SECTION_PLAN) continue;
    sluice_plan plan;
    SLUICE_TRY(sluice_bundle_plan(bundle, i, options->path, &plan));
    sluice_text_printf(out, options->json ? "%s{\"target\":\"%.31s\"," : "%s\ntarget %.31s\n",
                       options->json && !first ? "," : "", header->sections[i].target);
    first = false;
    write_kernels(&plan, options->json, out);
    write_weights(&plan, options->json, out);
    write_memory(&plan, options, out);
    if (options->json) sluice_text_append(out, "}", 1);
  }
  if (options->json) sluice_text_append(out, "]", 1);
  return NULL;
}

sluice_status *inspect_bundle(const inspect_options *options, sluice_text *out) {
  sluice_bundle *bundle;
  SLUICE_TRY(sluice_bundle_open(options->path, &bundle));
  int manifest = sluice_bundle_find(bundle, SLUICE_SECTION_MANIFEST, NULL);
  const char *text = manifest < 0 ? "{}" : sluice_bundle_data(bundle, (uint32_t)manifest);
  size_t length = manifest < 0 ? 2 : (size_t)sluice_bundle_contents(bundle)->sections[manifest].length;
  while (length && text[length - 1] == '\n') length--;
  if (options->json) {
    sluice_text_printf(out, "{\"manifest\":");
    sluice_text_append(out, text, length);
    sluice_text_append(out, ",", 1);
  } else {
    sluice_text_printf(out, "%s: %s, ", options->path,
                       sluice_describe_bytes(sluice_bundle_contents(bundle)->file_length).text);
  }
  write_sections(bundle, options->json, out);
  sluice_status *status = write_targets(bundle, options, out);
  if (options->json)
    sluice_text_append(out, "}\n", 2);
  else {
    sluice_text_printf(out, "\nmanifest\n");
    sluice_text_append(out, text, length);
    sluice_text_append(out, "\n", 1);
  }
  sluice_bundle_close(bundle);
  if (!status && out->failed) status = sluice_out_of_memory();
  return status;
}
