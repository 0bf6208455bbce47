#include "compiler/layouts.h"

#include "compiler/parallel.h"
#include "sluice/memory.h"

#include <stdio.h>

typedef struct load {                         /* what all devices together are asked for */
  uint64_t devices, sequences, each, context; /* each: tokens of a sequence in a step */
} load;

typedef struct layout {
  char name[24];
  uint64_t ranks, copies; /* copies of the model, each on so many ranks */
  char *refused;          /* why the model does not allow it; NULL: it does */
  step_memory memory;     /* of one device */
  uint64_t room;          /* tokens, all sequences of a copy together, whose cache finds room */
  bool fits;
  step_cost cost;
  double tokens_second; /* of all devices */
} layout;

compile_options layout_options(const product *machine, int64_t ranks) {
  return (compile_options){.targets = &machine->target,
                           .target_count = 1,
                           .products = &machine->name,
                           .product_count = 1,
                           .dtype = SLUICE_BF16,
                           .emit = EMIT_BUNDLE,
                           .passes = {.ranks = ranks}};
}

static load load_of(const explain_options *options, const model_config *config) {
  load l = {.devices = options->devices ? (uint64_t)options->devices : 8,
            .sequences = options->sequences ? (uint64_t)options->sequences : 1,
            .context = (uint64_t)(options->context ? options->context : config->max_positions)};
  l.each = options->tokens ? (uint64_t)options->tokens / l.sequences : 1;
  return l;
}

static sluice_status *check_load(const load *l, const model_config *config) {
  if (l->each >= 1 && l->each <= l->context && l->context <= (uint64_t)config->max_positions) return NULL;
  return sluice_error(SLUICE_INVALID,
                      "a step of %llu tokens for each of %llu sequences of %llu tokens: expected at least one, no more "
                      "than the sequence has, and at most %lld tokens of context",
                      (unsigned long long)l->each, (unsigned long long)l->sequences, (unsigned long long)l->context,
                      (long long)config->max_positions);
}

/* Figures of a layout whose plan there is. */
static void measure(layout *a, const load *l, const sluice_plan *plan, const product *machine,
                    const step_rates *rates) {
  const uint64_t sequences = (l->sequences + a->copies - 1) / a->copies;
  const step_shape shape = step_shape_of(sequences * l->each, sequences, l->context);
  const uint64_t memory = (uint64_t)(machine->gigabytes * 1e9);
  a->memory = step_memory_of(plan, sequences, l->context, shape.tokens);
  a->fits = a->memory.weights + a->memory.cache + a->memory.arena <= memory;
  const uint64_t taken = a->memory.weights + a->memory.arena, tokens = plan->header->page_tokens;
  const uint64_t page = step_memory_of(plan, 1, tokens, 1).cache;
  a->room = taken < memory && page ? (memory - taken) / page * tokens : 0;
  a->cost = step_cost_of_step(plan, &shape, rates);
  a->tokens_second = (double)(l->sequences * l->each) / step_cost_seconds(&a->cost);
}

static sluice_status *make(layout *a, const load *l, const model_config *config, const product *machine,
                           const step_rates *rates) {
  const compile_options compile = layout_options(machine, (int64_t)a->ranks);
  plan_image image;
  sluice_plan plan;
  sluice_status *status = compile_plan(config, &compile, NULL, &image);
  if (a->ranks > 1 && sluice_status_code(status) == SLUICE_INVALID) {
    a->refused = sluice_format_string("%s", sluice_status_message(status));
    sluice_status_free(status);
    return a->refused ? NULL : sluice_out_of_memory();
  }
  SLUICE_TRY(status);
  status = sluice_plan_open(image.data, image.length, &plan);
  if (!status) measure(a, l, &plan, machine, rates);
  plan_image_free(&image);
  return status;
}

static void write_json(const layout *a, bool first, sluice_text *out) {
  sluice_text_printf(out, "%s{\"layout\":\"%s\",\"ranks\":%llu,\"copies\":%llu,", first ? "" : ",", a->name,
                     (unsigned long long)a->ranks, (unsigned long long)a->copies);
  if (a->refused) {
    sluice_text_printf(out, "\"refused\":");
    sluice_text_json_string(out, a->refused);
    sluice_text_printf(out, "}");
    return;
  }
  const step_cost *c = &a->cost;
  sluice_text_printf(out,
                     "\"weights\":%llu,\"cache\":%llu,\"arena\":%llu,\"fits\":%s,\"room_tokens\":%llu,"
                     "\"step_us\":%.3f,\"memory_us\":%.3f,\"arithmetic_us\":%.3f,\"links_us\":%.3f,"
                     "\"tokens_second\":%.1f}",
                     (unsigned long long)a->memory.weights, (unsigned long long)a->memory.cache,
                     (unsigned long long)a->memory.arena, a->fits ? "true" : "false", (unsigned long long)a->room,
                     step_cost_seconds(c) * 1e6, c->memory_seconds * 1e6, c->arithmetic_seconds * 1e6,
                     c->links_seconds * 1e6, a->tokens_second);
}

static void write_line(const layout *a, const load *l, const product *machine, sluice_text *out) {
  sluice_text_printf(out, "  %-8s %6llu", a->name, (unsigned long long)a->copies);
  if (a->refused) {
    sluice_text_printf(out, "  refused: %s\n", a->refused);
    return;
  }
  const step_cost *c = &a->cost;
  const double seconds = step_cost_seconds(c);
  sluice_text_printf(out, " %10.1f %9.1f %9.3f %9.3f %9.3f %9.3f %10.1f %10.1f %11llu  ",
                     (double)a->memory.weights / 1e9,
                     (double)(a->memory.weights + a->memory.cache + a->memory.arena) / 1e9, seconds * 1e3,
                     c->memory_seconds * 1e3, c->arithmetic_seconds * 1e3, c->links_seconds * 1e3, a->tokens_second,
                     a->tokens_second / (double)l->sequences, (unsigned long long)a->room);
  if (a->fits)
    sluice_text_printf(out, "yes\n");
  else
    sluice_text_printf(out, "no, %.0f GB\n", machine->gigabytes);
}

static void write_head(const load *l, sluice_text *out) {
  sluice_text_printf(out, "%llu device(s), a step of %llu token(s) for each of %llu sequence(s) of %llu tokens\n",
                     (unsigned long long)l->devices, (unsigned long long)l->each, (unsigned long long)l->sequences,
                     (unsigned long long)l->context);
  sluice_text_printf(out, "  %-8s %6s %10s %9s %9s %9s %9s %9s %10s %10s %11s  %s\n", "layout", "copies", "weights GB",
                     "all GB", "step ms", "memory", "arith.", "links", "tokens/s", "/sequence", "room tokens", "fits");
}

static void write_best(const layout *best, bool json, sluice_text *out) {
  if (json && best)
    sluice_text_printf(out, "],\"best\":\"%s\"}\n", best->name);
  else if (json)
    sluice_text_printf(out, "],\"best\":null}\n");
  else if (best)
    sluice_text_printf(out, "most tokens/s that fit: %s, %llu of them\n", best->name, (unsigned long long)best->copies);
  else
    sluice_text_printf(out, "none fits: more devices, fewer sequences or a shorter context may\n");
}

sluice_status *layouts_write(const model_config *config, const product *machine, const step_rates *rates,
                             const explain_options *options, sluice_text *out) {
  const load l = load_of(options, config);
  SLUICE_TRY(check_load(&l, config));
  layout best = {0};
  bool first = true;
  if (options->json)
    sluice_text_printf(out, "{\"product\":\"%s\",\"devices\":%llu,\"sequences\":%llu,\"context\":%llu,\"layouts\":[",
                       machine->name, (unsigned long long)l.devices, (unsigned long long)l.sequences,
                       (unsigned long long)l.context);
  else
    write_head(&l, out);
  for (uint64_t ranks = 1; ranks <= l.devices && ranks <= SLUICE_PLAN_RANKS; ranks++) {
    if (l.devices % ranks) continue;
    layout a = {.ranks = ranks, .copies = l.devices / ranks};
    snprintf(a.name, sizeof a.name, "tp=%llu", (unsigned long long)ranks);
    SLUICE_TRY(make(&a, &l, config, machine, rates));
    if (options->json)
      write_json(&a, first, out);
    else
      write_line(&a, &l, machine, out);
    first = false;
    sluice_release(a.refused);
    a.refused = NULL;
    if (a.fits && a.tokens_second > best.tokens_second) best = a;
  }
  write_best(best.fits ? &best : NULL, options->json, out);
  return NULL;
}
