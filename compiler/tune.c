/* Bundle i of the file has the i-th candidate of every kernel in every bucket; bundle 0 has the defaults, in the same
 * buckets. */
#include "compiler/tune.h"

#include "compiler/candidates.h"
#include "sluice/bundle.h"
#include "sluice/memory.h"

#include <string.h>

/* Launches that the tuner runs: the kernels, and what makes the input of one or finishes its output. */
static const char *const families[] = {"gemm",  "expert_gemm",    "sort_experts",    "topk_experts",
                                       "route", "attention_part", "attention_merge", "topk_attention",
                                       NULL};

typedef struct tuner {
  const model_config *config;
  const tune_options *options;
  const char *target;
  configuration *defaults;
  candidate_list *lists;
  size_t list_count, most; /* candidates of any list */
} tuner;

/* Sequences that decode a token each, or one with a prompt. */
static cost_step step_of(const tune_options *options, uint32_t tokens) {
  enum { DECODING = 64 };
  const bool decode = tokens <= DECODING;
  return (cost_step){.tokens = tokens, .sequences = decode ? tokens : 1, .context = options->context};
}

static sluice_status *find_lists(tuner *t) {
  const tune_options *o = t->options;
  size_t asked = 0;
  bool recorded;
  SLUICE_TRY(compile_ask(t->config, o->compile, t->defaults));
  while (configuration_asked(t->defaults, asked, &recorded)) asked++;
  t->lists = sluice_allocate_array(asked * o->bucket_count, sizeof *t->lists);
  if (!t->lists) return sluice_out_of_memory();
  for (size_t i = 0; i < asked; i++) {
    const kernel_question question = *configuration_asked(t->defaults, i, &recorded);
    if (!tuning_has(question.family)) continue;
    for (size_t b = 0; b < o->bucket_count; b++) {
      candidate_list *list = &t->lists[t->list_count];
      const cost_step step = step_of(o, o->tokens[b]);
      SLUICE_TRY(candidates_find(t->target, t->defaults, &o->rates, &question, b ? o->tokens[b - 1] + 1 : 0,
                                 o->tokens[b], &step, o->candidates, list));
      if (!list->count) continue;
      if (list->count > t->most) t->most = list->count;
      t->list_count++;
    }
  }
  if (t->list_count) return NULL;
  return sluice_error(SLUICE_INVALID, "no kernel of this model has a choice on %s: there is nothing to tune",
                      t->target);
}

/* What stands in bundle `index` for a list; NULL: nothing, the default runs. */
static const kernel_variant *variant_of(const candidate_list *list, size_t index) {
  return index < list->count ? &list->item[index].variant : NULL;
}

/* Lists of one kernel are neighbours. */
static sluice_status *configure(const tuner *t, size_t index, configuration *c) {
  for (size_t i = 0, next; i < t->list_count; i = next) {
    const kernel_question *question = &t->lists[i].question;
    kernel_variants variants;
    SLUICE_TRY(configuration_find(t->defaults, question, &variants));
    for (next = i; next < t->list_count && question_same_shape(&t->lists[next].question, question); next++) {
      const kernel_variant *v = variant_of(&t->lists[next], index);
      if (!v) v = variant_of(&t->lists[next], 0);
      if (!variants_replace(&variants, v))
        return sluice_error(SLUICE_USAGE, "--shapes makes more than %d ranges of sizes for %s: name fewer shapes",
                            MOST_VARIANTS, question->family);
    }
    SLUICE_TRY(configuration_add(c, question, &variants));
  }
  return NULL;
}

static sluice_status *write_entry(const candidate_list *list, size_t index, bool first, sluice_text *out) {
  const kernel_variant *v = variant_of(list, index);
  char *shape = tuning_shape_text(&list->question), *choices = tuning_choices_text(list->question.family, v);
  if (shape && choices)
    sluice_text_printf(out,
                       "%s\n{\"kernel\": \"%s\", \"shape\": %s, \"size\": \"tokens\", \"from\": %u, \"to\": %u, "
                       "\"configuration\": %s, \"at\": {\"context\": %u, \"sequences\": %u, \"tokens\": %u}, "
                       "\"expected_us\": %.3f}",
                       first ? "" : ",", list->question.family, shape, v->from, v->to, choices, list->step.context,
                       list->step.sequences, list->step.tokens, list->item[index].seconds * 1e6);
  const bool failed = !shape || !choices;
  sluice_release(shape);
  sluice_release(choices);
  return failed ? sluice_out_of_memory() : NULL;
}

static sluice_status *write_section(const tuner *t, size_t index, sluice_text *out) {
  sluice_text_printf(out, "{\"candidate\": %zu, \"candidates\": %zu, \"kernels\": [", index, t->most);
  bool first = true;
  for (size_t i = 0; i < t->list_count; i++) {
    if (index >= t->lists[i].count) continue;
    SLUICE_TRY(write_entry(&t->lists[i], index, first, out));
    first = false;
  }
  sluice_text_printf(out, "]}\n");
  return out->failed ? sluice_out_of_memory() : NULL;
}

/* Appends bundle `index`. */
static sluice_status *add_bundle(const tuner *t, size_t index, sluice_text *out) {
  configuration *chosen;
  SLUICE_TRY(configuration_open(t->target, &chosen));
  sluice_text section = {0};
  bundle_image bundle = {0};
  sluice_status *status = configure(t, index, chosen);
  if (!status) status = write_section(t, index, &section);
  if (!status) status = compile_kernels(t->config, t->options->compile, chosen, families, &section, &bundle);
  if (!status) sluice_text_append(out, bundle.data, bundle.length);
  if (!status && out->failed) status = sluice_out_of_memory();
  bundle_image_free(&bundle);
  sluice_text_free(&section);
  configuration_close(chosen);
  return status;
}

static sluice_status *make_bundles(const tuner *t, sluice_text *out) {
  const tune_options *o = t->options;
  for (size_t i = 0; i < t->most; i++) {
    if (o->progress) o->progress(i, t->most);
    sluice_status *status = add_bundle(t, i, out);
    if (status && (i == 0 || sluice_status_code(status) == SLUICE_OUT_OF_MEMORY)) return status;
    if (status) /* others are there */
      sluice_text_printf(o->notes, "candidates %zu are left out: %s\n", i, sluice_status_message(status));
    sluice_status_free(status);
  }
  if (o->progress) o->progress(t->most, t->most);
  return NULL;
}

sluice_status *tune_model(const model_config *config, const tune_options *options) {
  tuner t = {.config = config, .options = options, .target = options->compile->targets[0]};
  SLUICE_TRY(configuration_open(t.target, &t.defaults));
  sluice_text out = {0};
  sluice_status *status = find_lists(&t);
  if (!status) status = make_bundles(&t, &out);
  if (!status) status = file_write_atomic(options->compile->output, out.data, out.length);
  sluice_text_free(&out);
  sluice_release(t.lists);
  configuration_close(t.defaults);
  return status;
}
