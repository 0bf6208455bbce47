/* `sluice explain`: what each launch of a step costs, from the plan's cost records, and the manifest's fusion remarks.
 */
#include "backends/common/configuration.h"
#include "compiler/inspect.h"
#include "compiler/layouts.h"
#include "compiler/parallel.h"
#include "compiler/step_cost.h"
#include "compiler/tuning.h"
#include "sluice/dtype.h"
#include "sluice/memory.h"

#include <stdio.h>
#include <string.h>

/* What floor times of a target are made of. */
typedef struct machine {
  step_rates rates;
  const product *product; /* where the rates that were not given come from; NULL: nowhere */
} machine;

/* How launches are written. */
typedef struct step_view {
  bool json;
  const sluice_json_value *tuning; /* the bundle's tuning section for the target; NULL: none */
  const int32_t *sizes;
} step_view;

static step_shape shape_of(const explain_options *options, const sluice_plan_header *header) {
  const uint64_t sequences = options->sequences ? (uint64_t)options->sequences : 1;
  return step_shape_of(options->tokens ? (uint64_t)options->tokens : sequences, sequences,
                       options->context ? (uint64_t)options->context : header->max_context);
}

static bool same_launch(const sluice_plan_launch *a, const sluice_plan_launch *b) {
  return a->kernel == b->kernel && a->label == b->label && memcmp(&a->cost, &b->cost, sizeof a->cost) == 0;
}

/* "12.34" of microseconds, or `unknown` without a bandwidth. */
typedef struct floor_text {
  char text[32];
} floor_text;

static floor_text write_floor(const step_rates *rates, double seconds, int digits, const char *unknown) {
  floor_text result;
  if (rates->bandwidth > 0)
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

/* ---- Where a configuration comes from ---- */

static int64_t integer(const sluice_json_value *object, const char *name) {
  const sluice_json_value *value = sluice_json_get(object, name);
  return value && value->kind == SLUICE_JSON_NUMBER ? value->integer : 0;
}

static const char *word(const sluice_json_value *object, const char *name) {
  const sluice_json_value *value = sluice_json_get(object, name);
  return value && value->kind == SLUICE_JSON_STRING ? value->string : "";
}

/* Whether the kernel's attributes have all that the record says of shape and configuration. Two matrices whose products
 * become one are known by the epilogue. */
static bool agrees(const sluice_json_value *attributes, const sluice_json_value *record) {
  const sluice_json_value *parts[] = {sluice_json_get(record, "shape"), sluice_json_get(record, "configuration")};
  if (integer(parts[0], "n") &&
      (integer(parts[0], "pairs") != 0) != (strcmp(word(attributes, "epilogue"), "swiglu") == 0))
    return false;
  for (size_t p = 0; p < sizeof parts / sizeof *parts; p++)
    for (size_t i = 0; parts[p] && parts[p]->kind == SLUICE_JSON_OBJECT && i < parts[p]->length; i++) {
      const sluice_json_member *m = &parts[p]->members[i];
      const sluice_json_value *found = sluice_json_get(attributes, m->key);
      if (!found || found->kind != m->value.kind) continue; /* not an attribute: matrix, pairs, apart */
      if (found->kind == SLUICE_JSON_NUMBER ? found->integer != m->value.integer
                                            : strcmp(found->string, m->value.string) != 0)
        return false;
    }
  return true;
}

/* The record of the bundle's tuning section that chose the launch's kernel for such steps; NULL: the target's default.
 */
static const sluice_json_value *find_record(const sluice_json_value *tuning, const char *family,
                                            const sluice_json_value *attributes, const int32_t sizes[]) {
  const sluice_json_value *list = sluice_json_get(tuning, "kernels");
  const bool rows = strcmp(word(attributes, "size"), "rows") == 0;
  const int64_t size = sizes[rows ? SLUICE_SIZE_ROWS : SLUICE_SIZE_TOKENS];
  for (size_t i = 0; list && list->kind == SLUICE_JSON_ARRAY && i < list->length; i++) {
    const sluice_json_value *r = &list->items[i];
    if (strcmp(word(r, "kernel"), family) == 0 && integer(r, "from") <= size && size <= integer(r, "to") &&
        agrees(attributes, r))
      return r;
  }
  return NULL;
}

/* For kernels that can be tuned, where there is a tuning section. */
static sluice_status *write_source(const step_view *view, const sluice_plan *plan, const sluice_plan_launch *launch,
                                   sluice_text *out) {
  const char *family = sluice_plan_string(plan, plan->kernels[launch->kernel].family);
  if (!view->tuning || !tuning_has(family)) return NULL;
  const char *text = sluice_plan_string(plan, plan->kernels[launch->kernel].attributes);
  sluice_json_document *document;
  SLUICE_TRY(sluice_json_parse(text, strlen(text), "attributes of a kernel", &document));
  const sluice_json_value *r = find_record(view->tuning, family, sluice_json_root(document), view->sizes);
  sluice_json_free(document);
  const sluice_json_value *median = sluice_json_get(r, "median_us"), *usual = sluice_json_get(r, "default_us");
  if (!r || !median || !usual) {
    sluice_text_printf(out, view->json ? ",\"source\":\"default\"" : "; the default: no record");
    return NULL;
  }
  const long long tokens = (long long)integer(sluice_json_get(r, "at"), "tokens");
  if (view->json) {
    sluice_text_printf(out, ",\"source\":\"record\",\"date\":");
    sluice_text_json_string(out, word(r, "date"));
    sluice_text_printf(out, ",\"expected_us\":%.3f,\"default_us\":%.3f,\"timed_tokens\":%lld", median->number,
                       usual->number, tokens);
  } else {
    sluice_text_printf(out, "; tuned %.10s: %.2f us with %lld tokens (default %.2f)", word(r, "date"), median->number,
                       tokens, usual->number);
  }
  return NULL;
}

static sluice_status *write_line(const sluice_plan *plan, const sluice_plan_launch *launch, uint64_t times,
                                 const step_cost *one, const step_rates *rates, const step_view *view, bool first,
                                 sluice_text *out) {
  const bool json = view->json;
  const char *kernel = sluice_plan_string(plan, plan->kernels[launch->kernel].name);
  const char *label = sluice_plan_string(plan, launch->label);
  const double seconds = step_cost_seconds(one);
  if (json)
    sluice_text_printf(
        out,
        "%s{\"op\":\"%s\",\"kernel\":\"%s\",\"launches\":%llu,\"bytes\":%.0f,\"flops\":%.0f,\"floor_us\":%s,"
        "\"links_us\":%s,\"configuration\":{",
        first ? "" : ",", label, kernel, (unsigned long long)times, one->bytes, one->flops,
        write_floor(rates, seconds, 3, "null").text, write_floor(rates, one->links_seconds, 3, "null").text);
  else
    sluice_text_printf(out, "  %-18s %-22s %5llu %15.0f %17.0f %12s", label, kernel, (unsigned long long)times,
                       one->bytes, one->flops, write_floor(rates, seconds, 2, "-").text);
  SLUICE_TRY(write_choices(plan, launch, json, out));
  if (json) sluice_text_printf(out, "}");
  SLUICE_TRY(write_source(view, plan, launch, out));
  sluice_text_printf(out, json ? "}" : "\n");
  return NULL;
}

/* What takes the largest part of the step. */
static const char *limit_of(const step_cost *sum) {
  if (sum->links_seconds > sum->memory_seconds && sum->links_seconds > sum->arithmetic_seconds) return "links";
  return sum->memory_seconds >= sum->arithmetic_seconds ? "memory" : "arithmetic";
}

static void write_step_json(const sluice_plan *plan, const step_shape *shape, const step_rates *rates,
                            const step_cost *sum, sluice_text *out) {
  int32_t sizes[SLUICE_SIZE_COUNT];
  step_sizes(plan, shape, sizes);
  const double seconds = step_cost_seconds(sum);
  sluice_text_printf(
      out,
      "],\"step\":{\"launches\":%llu,\"joined_launches\":%llu,\"exchanges\":%llu,\"bytes\":%.0f,"
      "\"flops\":%.0f,\"floor_us\":%s,",
      (unsigned long long)sum->launches, (unsigned long long)sluice_plan_count_launches(plan, sizes, true),
      (unsigned long long)sum->exchanges, sum->bytes, sum->flops, write_floor(rates, seconds, 3, "null").text);
  sluice_text_printf(out, "\"memory_us\":%s,", write_floor(rates, sum->memory_seconds, 3, "null").text);
  sluice_text_printf(out, "\"arithmetic_us\":%s,", write_floor(rates, sum->arithmetic_seconds, 3, "null").text);
  sluice_text_printf(out, "\"links_us\":%s,", write_floor(rates, sum->links_seconds, 3, "null").text);
  sluice_text_printf(out, seconds > 0 ? "\"tokens_second\":%.1f}}" : "\"tokens_second\":null}}",
                     (double)shape->tokens / seconds);
}

static void write_step(const sluice_plan *plan, const step_shape *shape, const step_rates *rates, const step_cost *sum,
                       sluice_text *out) {
  const double seconds = step_cost_seconds(sum);
  sluice_text_printf(out, "  %-18s %-22s %5llu %15.0f %17.0f %12s\n", "whole step", "",
                     (unsigned long long)sum->launches, sum->bytes, sum->flops,
                     write_floor(rates, seconds, 2, "-").text);
  if (seconds <= 0) return;
  const uint32_t ranks = plan->header->ranks;
  sluice_text_printf(out, "  one after another: memory %.1f us, arithmetic %.1f us", sum->memory_seconds * 1e6,
                     sum->arithmetic_seconds * 1e6);
  if (ranks > 1)
    sluice_text_printf(out, ", links %.1f us (%llu exchanges)", sum->links_seconds * 1e6,
                       (unsigned long long)sum->exchanges);
  const double rate = (double)shape->tokens / seconds;
  sluice_text_printf(out, "; at most %.1f tokens/s", rate);
  if (ranks > 1) sluice_text_printf(out, ", %.1f for each of %u devices", rate / ranks, ranks);
  sluice_text_printf(out, "; %s limits\n", limit_of(sum));
}

static bool runs_alike(const sluice_plan *plan, uint64_t a, uint64_t b, const int32_t sizes[SLUICE_SIZE_COUNT]) {
  return sluice_plan_runs(plan, &plan->launches[b], sizes) && same_launch(&plan->launches[a], &plan->launches[b]);
}

/* Launches that agree in op, kernel and cost are listed once, where the first of them stands. */
static sluice_status *write_launches(const sluice_plan *plan, const step_shape *shape, const step_rates *rates,
                                     bool json, const sluice_json_value *tuning, sluice_text *out) {
  uint64_t count = plan->header->launches.count;
  bool *listed = sluice_allocate_array(count, sizeof *listed), first = true;
  if (!listed) return sluice_out_of_memory();
  int32_t sizes[SLUICE_SIZE_COUNT];
  step_sizes(plan, shape, sizes);
  const step_view view = {json, tuning, sizes};
  sluice_status *status = NULL;
  for (uint64_t i = 0; i < count && !status; i++) {
    if (listed[i] || !sluice_plan_runs(plan, &plan->launches[i], sizes)) continue;
    const step_cost one = step_cost_of_launch(plan, &plan->launches[i], shape, rates);
    uint64_t times = 0;
    for (uint64_t j = i; j < count; j++)
      if (!listed[j] && runs_alike(plan, i, j, sizes)) {
        listed[j] = true;
        times++;
      }
    status = write_line(plan, &plan->launches[i], times, &one, rates, &view, first, out);
    first = false;
  }
  sluice_release(listed);
  if (status) return status;
  const step_cost sum = step_cost_of_step(plan, shape, rates);
  (json ? write_step_json : write_step)(plan, shape, rates, &sum, out);
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

static machine machine_of(const explain_options *options, uint32_t dtype, const product *p) {
  machine m = {.rates = {.bandwidth = options->bandwidth * 1e9, .flops = options->flops * 1e12}, .product = p};
  if (p && options->bandwidth <= 0) m.rates.bandwidth = p->gigabytes_second * 1e9;
  if (p && options->flops <= 0 && dtype == SLUICE_BF16) m.rates.flops = p->bf16_teraflops * 1e12;
  if (p) m.rates.links = p->links;
  if (options->link_latency > 0) m.rates.links.microseconds = options->link_latency;
  if (options->link_rate > 0) m.rates.links.gigabytes_second = options->link_rate;
  if (options->link_latency > 0 || options->link_rate > 0)
    m.rates.links.source = options->link_latency > 0 && options->link_rate > 0 ? "as given" : "one of them as given";
  return m;
}

/* Where the floors come from, a line each. */
static void write_rates(const explain_options *options, const machine *m, uint32_t ranks, sluice_text *out) {
  if (m->rates.bandwidth <= 0) {
    sluice_text_printf(out,
                       "  no floors: no machine's rates are known for it; --product (%s) or --bandwidth says which\n",
                       product_names);
    return;
  }
  const char *given = "as given", *sheet = m->product ? m->product->name : "";
  sluice_text_printf(out, "  floors: memory at %.0f GB/s%s%s", m->rates.bandwidth / 1e9,
                     options->bandwidth > 0 ? " " : ", data sheet of ", options->bandwidth > 0 ? given : sheet);
  if (m->rates.flops > 0)
    sluice_text_printf(out, "; arithmetic at %.0f TFLOP/s%s%s", m->rates.flops / 1e12,
                       options->flops > 0 ? " " : ", dense bf16, data sheet of ", options->flops > 0 ? given : sheet);
  sluice_text_printf(out, m->rates.flops > 0 ? "\n" : "; arithmetic is not counted\n");
  if (ranks < 2) return;
  if (m->rates.links.gigabytes_second > 0)
    sluice_text_printf(out, "  links: %.1f us, and %.1f GB/s from %s; %s\n", m->rates.links.microseconds,
                       m->rates.links.gigabytes_second,
                       m->rates.links.mesh ? "each of the others at once" : "all others together",
                       m->rates.links.source);
  else
    sluice_text_printf(out, "  links are not counted: --product or --link-rate says what they are\n");
}

static sluice_status *check_shape(const step_shape *shape, uint32_t max_context) {
  if (shape->context <= max_context && shape->tokens >= shape->sequences) return NULL;
  return sluice_error(SLUICE_INVALID,
                      "a step of %llu tokens in %llu sequences of %llu tokens: expected at least a token for each "
                      "sequence and at most %u tokens of context",
                      (unsigned long long)shape->tokens, (unsigned long long)shape->sequences,
                      (unsigned long long)shape->context, max_context);
}

static void write_origin(bool tuned, sluice_text *out) {
  sluice_text_printf(out, "  configurations: %s\n",
                     tuned ? "tuning records, and the target's defaults where they say nothing"
                           : "the target's defaults");
}

static sluice_status *write_plan(const char *target, const sluice_plan *plan, const sluice_json_value *manifest,
                                 const sluice_json_value *tuning, const explain_options *options, bool first,
                                 sluice_text *out) {
  const step_shape shape = shape_of(options, plan->header);
  const product *p = find_product(options, manifest, target);
  const machine m = machine_of(options, plan->header->dtype, p);
  const uint32_t ranks = plan->header->ranks;
  SLUICE_TRY(check_shape(&shape, plan->header->max_context));
  if (options->json) {
    sluice_text_printf(out,
                       "%s{\"target\":\"%.31s\",\"ranks\":%u,\"tokens\":%llu,\"sequences\":%llu,\"context\":%llu,"
                       "\"product\":%s%s%s,\"bandwidth\":%.0f,\"flop_rate\":%.0f,\"launches\":[",
                       first ? "" : ",", target, ranks, (unsigned long long)shape.tokens,
                       (unsigned long long)shape.sequences, (unsigned long long)shape.context, p ? "\"" : "",
                       p ? p->name : "null", p ? "\"" : "", m.rates.bandwidth, m.rates.flops);
  } else {
    sluice_text_printf(out, "%starget %.31s, a step of %llu token(s) in %llu sequence(s) of %llu tokens",
                       first ? "" : "\n", target, (unsigned long long)shape.tokens, (unsigned long long)shape.sequences,
                       (unsigned long long)shape.context);
    if (ranks > 1) sluice_text_printf(out, ", on each of %u ranks", ranks);
    sluice_text_printf(out, "\n");
    write_rates(options, &m, ranks, out);
    write_origin(tuning != NULL, out);
    sluice_text_printf(out, "  %-18s %-22s %5s %15s %17s %12s  %s\n", "op", "kernel", "times", "bytes each",
                       "FLOPs each", "floor us", "configuration");
  }
  return write_launches(plan, &shape, &m.rates, options->json, tuning, out);
}

static sluice_status *write_targets(const sluice_bundle *bundle, const sluice_json_value *manifest,
                                    const explain_options *options, sluice_text *out) {
  const sluice_bundle_header *header = sluice_bundle_contents(bundle);
  bool first = true;
  for (uint32_t i = 0; i < header->section_count; i++) {
    if (header->sections[i].kind != SLUICE_SECTION_PLAN) continue;
    sluice_plan plan;
    SLUICE_TRY(sluice_bundle_plan(bundle, i, options->path, &plan));
    sluice_json_document *tuning = NULL;
    const int section = sluice_bundle_find(bundle, SLUICE_SECTION_TUNING, header->sections[i].target);
    if (section >= 0)
      SLUICE_TRY(sluice_json_parse(sluice_bundle_data(bundle, (uint32_t)section),
                                   (size_t)header->sections[section].length, options->path, &tuning));
    sluice_status *status = write_plan(header->sections[i].target, &plan, manifest,
                                       tuning ? sluice_json_root(tuning) : NULL, options, first, out);
    sluice_json_free(tuning);
    SLUICE_TRY(status);
    first = false;
  }
  return NULL;
}

static bool is_batch_invariant(const sluice_json_value *manifest) {
  const sluice_json_value *found = sluice_json_get(manifest, "batch_invariant");
  return found && found->kind == SLUICE_JSON_BOOL && found->boolean;
}

/* The end of both forms: `text` is the manifest's. */
static void write_end(const char *text, size_t length, const sluice_json_value *manifest, bool json, sluice_text *out) {
  const bool invariant = is_batch_invariant(manifest);
  if (!json) {
    if (invariant) sluice_text_printf(out, "\nbatch-invariant: the kernels of steps of all sizes add up a row alike\n");
    write_fusions(manifest, out);
    return;
  }
  const sluice_json_value *fusions = sluice_json_get(manifest, "fusions");
  sluice_text_printf(out, "],\"batch_invariant\":%s", invariant ? "true" : "false");
  if (fusions) {
    /* From the array's first byte to its bracket. */
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
  if (!status) write_end(text, length, sluice_json_root(manifest), options->json, out);
  sluice_json_free(manifest);
  sluice_bundle_close(bundle);
  if (!status && out->failed) status = sluice_out_of_memory();
  return status;
}

/* ---- models that are not compiled yet ---- */

static sluice_status *explain_layout(const model_config *config, const product *p, const explain_options *options,
                                     sluice_text *out) {
  int64_t ranks;
  SLUICE_TRY(parallel_parse(options->parallel, &ranks));
  const compile_options compile = layout_options(p, ranks);
  pass_remarks remarks = {0};
  plan_image image = {0};
  sluice_plan plan;
  sluice_text text = {0};
  sluice_json_document *manifest = NULL;
  sluice_status *status = compile_plan(config, &compile, &remarks, &image);
  if (!status) status = sluice_plan_open(image.data, image.length, &plan);
  if (!status) status = manifest_write(config, &compile, &remarks, &text);
  if (!status && text.failed) status = sluice_out_of_memory();
  if (!status) status = sluice_json_parse(text.data, text.length, options->path, &manifest);
  if (!status) {
    if (options->json) sluice_text_printf(out, "{\"targets\":[");
    status = write_plan(p->target, &plan, sluice_json_root(manifest), NULL, options, true, out);
  }
  if (!status) write_end(text.data, text.length, sluice_json_root(manifest), options->json, out);
  sluice_json_free(manifest);
  sluice_text_free(&text);
  plan_image_free(&image);
  pass_remarks_free(&remarks);
  return status;
}

sluice_status *explain_model(const model_config *config, const explain_options *options, sluice_text *out) {
  const product *p = options->product ? product_find(options->product) : NULL;
  if (!p)
    return sluice_error(SLUICE_USAGE, "--product is %s%.60s%s, but --parallel needs one of %s",
                        options->product ? "'" : "", options->product ? options->product : "missing",
                        options->product ? "'" : "", product_names);
  sluice_status *status;
  if (strcmp(options->parallel, "auto") == 0) {
    const machine m = machine_of(options, SLUICE_BF16, p);
    if (!options->json) {
      sluice_text_printf(out, "%s:\n", p->name);
      write_rates(options, &m, 2, out);
    }
    status = layouts_write(config, p, &m.rates, options, out);
  } else {
    status = explain_layout(config, p, options, out);
  }
  if (!status && out->failed) status = sluice_out_of_memory();
  return status;
}
