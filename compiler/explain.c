/* `sluice explain`: what each launch of a step costs, from the plan's cost records, and the manifest's fusion remarks.
 */
#include "backends/common/configuration.h"
#include "compiler/inspect.h"

#include "compiler/products.h"
#include "sluice/dtype.h"
#include "sluice/memory.h"

#include <stdio.h>
#include <string.h>

/* The step that is asked about. */
typedef struct step_shape {
  uint64_t tokens, sequences, context;
  uint64_t keys;          /* sum over the tokens of the keys each sees */
  uint64_t distinct_keys; /* the same keys, counted once for each sequence */
} step_shape;

/* What floor times of a target are made of; 0: unknown. */
typedef struct rates {
  double bandwidth, flops; /* bytes and FLOPs a second */
  const product *product;  /* where the ones that were not given come from; NULL: nowhere */
} rates;

typedef struct launch_total {
  double bytes, flops, seconds;
} launch_total;

/* Tokens of each sequence are its last ones: token i of n sees context - n + 1 + i keys. */
static step_shape shape_of(const explain_options *options, const sluice_plan_header *header) {
  step_shape s = {.sequences = options->sequences ? (uint64_t)options->sequences : 1};
  s.tokens = options->tokens ? (uint64_t)options->tokens : s.sequences;
  s.context = options->context ? (uint64_t)options->context : header->max_context;
  uint64_t each = s.tokens / s.sequences;
  if (each == 0) each = 1;
  if (s.context < each) s.context = each;
  s.keys = s.sequences * (each * (s.context - each) + each * (each + 1) / 2);
  s.distinct_keys = s.sequences * s.context;
  return s;
}

/* Sum over the tokens of min(keys seen, limit). */
static uint64_t limited_keys(const step_shape *s, uint64_t limit) {
  uint64_t each = s->tokens / s->sequences ? s->tokens / s->sequences : 1, sum = 0, least = s->context - each + 1;
  if (least >= limit) return s->sequences * each * limit;
  for (uint64_t i = 0; i < each; i++) sum += least + i < limit ? least + i : limit;
  return s->sequences * sum;
}

/* Distinct experts of the step when tokens choose at random: E (1 - (1 - k/E)^T). */
static double distinct_experts(const sluice_plan_header *header, uint64_t tokens) {
  if (header->experts == 0) return 0;
  double miss = 1, per_token = 1 - (double)header->experts_per_token / header->experts;
  for (uint64_t i = 0; i < tokens && miss > 1e-9; i++) miss *= per_token;
  return header->experts * (1 - miss);
}

static launch_total cost_of(const sluice_plan *plan, const sluice_plan_launch *launch, const step_shape *s,
                            const rates *at) {
  const sluice_plan_cost *c = &launch->cost;
  bool by_rows = launch->grid[0].size == SLUICE_SIZE_ROWS || launch->grid[1].size == SLUICE_SIZE_ROWS;
  double rows = (double)(by_rows ? s->sequences : s->tokens);
  double limited = c->key_limit ? (double)limited_keys(s, c->key_limit) : 0;
  /* Keys are read from memory once for each sequence, whatever the number of its tokens, if caches serve the rest. */
  double limited_read = limited < (double)s->distinct_keys ? limited : (double)s->distinct_keys;
  launch_total t = {0};
  t.bytes = (double)c->fixed_bytes + rows * (double)c->row_bytes + (double)s->distinct_keys * (double)c->key_bytes +
            limited_read * (double)c->limited_key_bytes +
            distinct_experts(plan->header, s->tokens) * (double)c->expert_bytes;
  t.flops = (double)c->fixed_flops + rows * (double)c->row_flops + (double)s->keys * (double)c->key_flops +
            limited * (double)c->limited_key_flops;
  if (at->bandwidth > 0) t.seconds = t.bytes / at->bandwidth;
  if (at->bandwidth > 0 && at->flops > 0 && t.flops / at->flops > t.seconds) t.seconds = t.flops / at->flops;
  return t;
}

/* What the ranges of launches are of, see sluice_plan_launch. */
static void sizes_of(const sluice_plan *plan, const step_shape *s, int32_t out_sizes[SLUICE_SIZE_COUNT]) {
  uint64_t each = s->tokens / s->sequences,
           pages = (s->context + plan->header->page_tokens - 1) / plan->header->page_tokens;
  const uint64_t sizes[SLUICE_SIZE_COUNT] = {
      [SLUICE_SIZE_ONE] = 1,
      [SLUICE_SIZE_TOKENS] = s->tokens,
      [SLUICE_SIZE_ROWS] = s->sequences,
      [SLUICE_SIZE_SEQUENCES] = s->sequences,
      [SLUICE_SIZE_TILES] = (each + plan->header->query_tile - 1) / plan->header->query_tile * s->sequences,
      [SLUICE_SIZE_PAGE_STRIDE] = pages,
      [SLUICE_SIZE_CONTEXT] = pages * plan->header->page_tokens,
      [SLUICE_SIZE_PAGES] = pages,
      [SLUICE_SIZE_LONGEST] = each < plan->header->query_tile ? each : plan->header->query_tile};
  for (int i = 0; i < SLUICE_SIZE_COUNT; i++) out_sizes[i] = sizes[i] < INT32_MAX ? (int32_t)sizes[i] : INT32_MAX;
}

static bool same_launch(const sluice_plan_launch *a, const sluice_plan_launch *b) {
  return a->kernel == b->kernel && a->label == b->label && memcmp(&a->cost, &b->cost, sizeof a->cost) == 0;
}

/* "12.34", or `unknown` without a bandwidth. */
typedef struct floor_text {
  char text[32];
} floor_text;

static floor_text write_floor(const rates *at, double seconds, int digits, const char *unknown) {
  floor_text result;
  if (at->bandwidth > 0)
    snprintf(result.text, sizeof result.text, "%.*f", digits, seconds * 1e6);
  else
    snprintf(result.text, sizeof result.text, "%s", unknown);
  return result;
}

/* What was chosen for the kernel: "  tile_m 8, slice 96", or the members of a JSON object. */
static sluice_status *write_choices(const sluice_plan *plan, const sluice_plan_launch *launch, bool json,
                                    sluice_text *out) {
  const char *attributes = sluice_plan_string(plan, plan->kernels[launch->kernel].attributes);
  sluice_json_document *document;
  SLUICE_TRY(sluice_json_parse(attributes, strlen(attributes), "attributes of a kernel", &document));
  bool first = true;
  for (int i = 0; i < CHOICE_COUNT; i++) {
    const char *name = choice_name((kernel_choice)i);
    const sluice_json_value *value = sluice_json_get(sluice_json_root(document), name);
    const bool number = value && value->kind == SLUICE_JSON_NUMBER;
    if (!number && !(value && value->kind == SLUICE_JSON_STRING)) continue;
    sluice_text_printf(out, json ? "%s\"%s\":" : "%s%s ", first ? (json ? "" : "  ") : json ? "," : ", ", name);
    if (number)
      sluice_text_printf(out, "%.0f", value->number);
    else /* a name of ours */
      sluice_text_printf(out, json ? "\"%s\"" : "%s", value->string);
    first = false;
  }
  sluice_json_free(document);
  return NULL;
}

static sluice_status *write_line(const sluice_plan *plan, const sluice_plan_launch *launch, uint64_t times,
                                 const launch_total *total, const rates *at, bool json, bool first, sluice_text *out) {
  const char *kernel = sluice_plan_string(plan, plan->kernels[launch->kernel].name);
  const char *label = sluice_plan_string(plan, launch->label);
  if (json)
    sluice_text_printf(
        out,
        "%s{\"op\":\"%s\",\"kernel\":\"%s\",\"launches\":%llu,\"bytes\":%.0f,\"flops\":%.0f,\"floor_us\":%s,"
        "\"configuration\":{",
        first ? "" : ",", label, kernel, (unsigned long long)times, total->bytes, total->flops,
        write_floor(at, total->seconds, 3, "null").text);
  else
    sluice_text_printf(out, "  %-18s %-22s %5llu %15.0f %17.0f %12s", label, kernel, (unsigned long long)times,
                       total->bytes, total->flops, write_floor(at, total->seconds, 2, "-").text);
  SLUICE_TRY(write_choices(plan, launch, json, out));
  sluice_text_printf(out, json ? "}}" : "\n");
  return NULL;
}

/* Launches that agree in op, kernel and cost are listed once, where the first of them stands. */
static sluice_status *write_launches(const sluice_plan *plan, const step_shape *shape, const rates *at, bool json,
                                     sluice_text *out) {
  uint64_t count = plan->header->launches.count;
  bool *listed = sluice_allocate_array(count, sizeof *listed), first = true;
  if (!listed) return sluice_out_of_memory();
  launch_total sum = {0};
  uint64_t run = 0;
  int32_t sizes[SLUICE_SIZE_COUNT];
  sizes_of(plan, shape, sizes);
  sluice_status *status = NULL;
  for (uint64_t i = 0; i < count && !status; i++) {
    if (!sluice_plan_runs(plan, &plan->launches[i], sizes)) continue;
    run++;
    launch_total one = cost_of(plan, &plan->launches[i], shape, at);
    sum.bytes += one.bytes;
    sum.flops += one.flops;
    sum.seconds += one.seconds;
    if (listed[i]) continue;
    uint64_t times = 0;
    for (uint64_t j = i; j < count; j++)
      if (!listed[j] && sluice_plan_runs(plan, &plan->launches[j], sizes) &&
          same_launch(&plan->launches[i], &plan->launches[j])) {
        listed[j] = true;
        times++;
      }
    status = write_line(plan, &plan->launches[i], times, &one, at, json, first, out);
    first = false;
  }
  sluice_release(listed);
  if (status) return status;
  if (json)
    sluice_text_printf(
        out, "],\"step\":{\"launches\":%llu,\"joined_launches\":%llu,\"bytes\":%.0f,\"flops\":%.0f,\"floor_us\":%s}}",
        (unsigned long long)run, (unsigned long long)sluice_plan_count_launches(plan, sizes, true), sum.bytes,
        sum.flops, write_floor(at, sum.seconds, 3, "null").text);
  else
    sluice_text_printf(out, "  %-18s %-22s %5llu %15.0f %17.0f %12s\n", "whole step", "", (unsigned long long)run,
                       sum.bytes, sum.flops, write_floor(at, sum.seconds, 2, "-").text);
  return NULL;
}

static void write_fusions(const sluice_json_value *manifest, sluice_text *out) {
  const sluice_json_value *fusions = sluice_json_get(manifest, "fusions");
  sluice_text_printf(out, "\nfusions\n");
  for (size_t i = 0; fusions && fusions->kind == SLUICE_JSON_ARRAY && i < fusions->length; i++) {
    const sluice_json_value *f = &fusions->items[i], *pass = sluice_json_get(f, "pass"),
                            *layers = sluice_json_get(f, "layers"), *applied = sluice_json_get(f, "applied"),
                            *reason = sluice_json_get(f, "reason");
    if (!pass || pass->kind != SLUICE_JSON_STRING || !reason || reason->kind != SLUICE_JSON_STRING || !applied)
      continue;
    bool some = layers && layers->kind == SLUICE_JSON_STRING;
    sluice_text_printf(out, "  %-22s %s%-8s %s: %s\n", pass->string, some ? "layer " : "      ",
                       some ? layers->string : "", applied->boolean ? "applied" : "not applied", reason->string);
  }
}

/* The machine whose data sheet counts for code of `target`: the one asked for if it runs such code, or the first that
 * the bundle was compiled for by its name. */
static const product *find_product(const explain_options *options, const sluice_json_value *manifest,
                                   const char *target) {
  const product *asked = options->product ? product_find(options->product) : NULL;
  if (asked && strcmp(asked->target, target) == 0) return asked;
  const sluice_json_value *names = sluice_json_get(manifest, "products");
  for (size_t i = 0; names && names->kind == SLUICE_JSON_ARRAY && i < names->length; i++) {
    const sluice_json_value *name = &names->items[i];
    const product *p = name->kind == SLUICE_JSON_STRING ? product_find(name->string) : NULL;
    if (p && strcmp(p->target, target) == 0) return p;
  }
  return NULL;
}

/* Refuses a machine that runs none of the bundle's code. */
static sluice_status *check_product(const sluice_bundle *bundle, const explain_options *options) {
  if (!options->product) return NULL;
  const product *asked = product_find(options->product);
  if (!asked)
    return sluice_error(SLUICE_USAGE, "--product is '%s', expected one of %s; or give --bandwidth and --flops",
                        options->product, product_names);
  const sluice_bundle_header *header = sluice_bundle_contents(bundle);
  for (uint32_t i = 0; i < header->section_count; i++)
    if (header->sections[i].kind == SLUICE_SECTION_PLAN && strcmp(header->sections[i].target, asked->target) == 0)
      return NULL;
  return sluice_error(SLUICE_USAGE, "--product %s runs %s, but %s has no code for that; see 'sluice inspect'",
                      options->product, asked->target, options->path);
}

static rates rates_of(const explain_options *options, const sluice_plan *plan, const product *p) {
  rates at = {.bandwidth = options->bandwidth * 1e9, .flops = options->flops * 1e12, .product = p};
  if (p && options->bandwidth <= 0) at.bandwidth = p->gigabytes_second * 1e9;
  if (p && options->flops <= 0 && plan->header->dtype == SLUICE_BF16) at.flops = p->bf16_teraflops * 1e12;
  return at;
}

/* Where the floors come from, in one line. */
static void write_rates(const explain_options *options, const rates *at, sluice_text *out) {
  if (at->bandwidth <= 0) {
    sluice_text_printf(out,
                       "  no floors: no machine's rates are known for it; --product (%s) or --bandwidth says which\n",
                       product_names);
    return;
  }
  const char *given = "as given", *sheet = at->product ? at->product->name : "";
  sluice_text_printf(out, "  floors: memory at %.0f GB/s%s%s", at->bandwidth / 1e9,
                     options->bandwidth > 0 ? " " : ", data sheet of ", options->bandwidth > 0 ? given : sheet);
  if (at->flops > 0)
    sluice_text_printf(out, "; arithmetic at %.0f TFLOP/s%s%s", at->flops / 1e12,
                       options->flops > 0 ? " " : ", dense bf16, data sheet of ", options->flops > 0 ? given : sheet);
  sluice_text_printf(out, at->flops > 0 ? "\n" : "; arithmetic is not counted\n");
}

static sluice_status *write_targets(const sluice_bundle *bundle, const sluice_json_value *manifest,
                                    const explain_options *options, sluice_text *out) {
  const sluice_bundle_header *header = sluice_bundle_contents(bundle);
  bool first = true;
  for (uint32_t i = 0; i < header->section_count; i++) {
    if (header->sections[i].kind != SLUICE_SECTION_PLAN) continue;
    sluice_plan plan;
    SLUICE_TRY(sluice_bundle_plan(bundle, i, options->path, &plan));
    step_shape shape = shape_of(options, plan.header);
    const product *p = find_product(options, manifest, header->sections[i].target);
    const rates at = rates_of(options, &plan, p);
    if (shape.context > plan.header->max_context || shape.tokens < shape.sequences)
      return sluice_error(SLUICE_INVALID,
                          "a step of %llu tokens in %llu sequences of %llu tokens: expected at least a token for each "
                          "sequence and at most %u tokens of context",
                          (unsigned long long)shape.tokens, (unsigned long long)shape.sequences,
                          (unsigned long long)shape.context, plan.header->max_context);
    if (options->json)
      sluice_text_printf(out,
                         "%s{\"target\":\"%.31s\",\"tokens\":%llu,\"sequences\":%llu,\"context\":%llu,"
                         "\"product\":%s%s%s,\"bandwidth\":%.0f,\"flop_rate\":%.0f,\"launches\":[",
                         first ? "" : ",", header->sections[i].target, (unsigned long long)shape.tokens,
                         (unsigned long long)shape.sequences, (unsigned long long)shape.context, p ? "\"" : "",
                         p ? p->name : "null", p ? "\"" : "", at.bandwidth, at.flops);
    else
      sluice_text_printf(out, "%starget %.31s, a step of %llu token(s) in %llu sequence(s) of %llu tokens\n",
                         first ? "" : "\n", header->sections[i].target, (unsigned long long)shape.tokens,
                         (unsigned long long)shape.sequences, (unsigned long long)shape.context);
    if (!options->json) {
      write_rates(options, &at, out);
      sluice_text_printf(out, "  %-18s %-22s %5s %15s %17s %12s  %s\n", "op", "kernel", "times", "bytes each",
                         "FLOPs each", "floor us", "configuration");
    }
    first = false;
    SLUICE_TRY(write_launches(&plan, &shape, &at, options->json, out));
  }
  return NULL;
}

sluice_status *explain_bundle(const explain_options *options, sluice_text *out) {
  sluice_bundle *bundle;
  SLUICE_TRY(sluice_bundle_open(options->path, &bundle));
  sluice_json_document *manifest = NULL;
  int section = sluice_bundle_find(bundle, SLUICE_SECTION_MANIFEST, NULL);
  const char *text = section < 0 ? "{}" : sluice_bundle_data(bundle, (uint32_t)section);
  size_t length = section < 0 ? 2 : (size_t)sluice_bundle_contents(bundle)->sections[section].length;
  sluice_status *status = check_product(bundle, options);
  if (!status) status = sluice_json_parse(text, length, options->path, &manifest);
  if (!status) {
    if (options->json) sluice_text_printf(out, "{\"targets\":[");
    status = write_targets(bundle, sluice_json_root(manifest), options, out);
  }
  if (!status && !options->json) write_fusions(sluice_json_root(manifest), out);
  if (!status && options->json) {
    const sluice_json_value *fusions = sluice_json_get(sluice_json_root(manifest), "fusions");
    sluice_text_printf(out, "]");
    if (fusions) {
      /* The manifest's text, from the array's first byte to its bracket. */
      size_t end = fusions->offset;
      for (int depth = 0; end < length; end++) {
        if (text[end] == '"')
          while (++end < length && text[end] != '"') end += text[end] == '\\';
        else if (text[end] == '[')
          depth++;
        else if (text[end] == ']' && --depth == 0)
          break;
      }
      sluice_text_printf(out, ",\"fusions\":");
      sluice_text_append(out, text + fusions->offset, end + 1 - fusions->offset);
    }
    sluice_text_printf(out, "}\n");
  }
  sluice_json_free(manifest);
  sluice_bundle_close(bundle);
  if (!status && out->failed) status = sluice_out_of_memory();
  return status;
}
