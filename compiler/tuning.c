/* From tuning records to the configuration of a target, with a note for whatever they do not say. */
#include "compiler/tuning.h"

#include "sluice/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* ---- Shapes and choices as text ---- */

bool tuning_has(const char *family) {
  static const char *const families[] = {"gemm", "expert_gemm", "attention_part", "topk_attention"};
  for (size_t i = 0; i < sizeof families / sizeof *families; i++)
    if (strcmp(family, families[i]) == 0) return true;
  return false;
}

enum { SHAPE_FIELDS = 8 };
typedef struct shape_field {
  const char *name;
  int64_t value;
} shape_field;

/* In the order of their names. */
static void shape_fields(const kernel_question *q, shape_field out[SHAPE_FIELDS]) {
  const shape_field list[SHAPE_FIELDS] = {{"head_dim", q->head_dim}, {"heads", q->heads},   {"k", q->k},
                                          {"kv_heads", q->kv_heads}, {"matrix", q->matrix}, {"n", q->n},
                                          {"page", q->page},         {"pairs", q->pairs}};
  memcpy(out, list, sizeof list);
}

static char *finish(sluice_text *text) {
  if (!text->failed) return text->data;
  sluice_text_free(text);
  return NULL;
}

char *tuning_shape_text(const kernel_question *question) {
  shape_field list[SHAPE_FIELDS];
  shape_fields(question, list);
  sluice_text text = {0};
  sluice_text_printf(&text, "{");
  for (int i = 0; i < SHAPE_FIELDS; i++)
    if (list[i].value)
      sluice_text_printf(&text, "%s\"%s\": %lld", text.length > 1 ? ", " : "", list[i].name, (long long)list[i].value);
  sluice_text_printf(&text, "}");
  return finish(&text);
}

static int compare_choices(const void *a, const void *b) {
  return strcmp(choice_name(*(const kernel_choice *)a), choice_name(*(const kernel_choice *)b));
}

char *tuning_choices_text(const char *family, const kernel_variant *variant) {
  const kernel_choice *choices;
  const size_t count = family_choices(family, &choices);
  kernel_choice sorted[CHOICE_COUNT];
  if (count) memcpy(sorted, choices, count * sizeof *sorted);
  qsort(sorted, count, sizeof *sorted, compare_choices);
  sluice_text text = {0};
  sluice_text_printf(&text, "{");
  for (size_t i = 0; i < count; i++) {
    const int64_t value = variant->choice[sorted[i]];
    sluice_text_printf(&text, "%s\"%s\": ", i ? ", " : "", choice_name(sorted[i]));
    if (sorted[i] == CHOOSE_SCHEDULE)
      sluice_text_printf(&text, "\"%s\"", schedule_name((kernel_schedule)value));
    else
      sluice_text_printf(&text, "%lld", (long long)value);
  }
  sluice_text_printf(&text, "}");
  return finish(&text);
}

/* ---- Reading a record ---- */

static sluice_status *read_shape(const sluice_tuning_record *record, kernel_question *out) {
  *out = (kernel_question){.family = record->kernel, .to = UINT32_MAX};
  sluice_json_document *document;
  SLUICE_TRY(sluice_json_parse(record->shape, strlen(record->shape), "shape", &document));
  const sluice_json_value *root = sluice_json_root(document);
  int64_t values[SHAPE_FIELDS] = {0};
  shape_field list[SHAPE_FIELDS];
  shape_fields(out, list);
  for (int i = 0; i < SHAPE_FIELDS; i++) {
    const sluice_json_value *value = sluice_json_get(root, list[i].name);
    if (value && value->kind == SLUICE_JSON_NUMBER) values[i] = value->integer;
  }
  sluice_json_free(document);
  out->head_dim = values[0];
  out->heads = values[1];
  out->k = values[2];
  out->kv_heads = values[3];
  out->matrix = values[4] != 0;
  out->n = values[5];
  out->page = values[6];
  out->pairs = values[7] != 0;
  return NULL;
}

/* False: `*why` says what the family does not know. */
static bool read_choice(const sluice_json_member *member, const char *family, kernel_variant *out) {
  const kernel_choice *choices;
  const size_t count = family_choices(family, &choices);
  size_t i = 0;
  while (i < count && strcmp(choice_name(choices[i]), member->key) != 0) i++;
  if (i == count) return false;
  const sluice_json_value *value = &member->value;
  const bool schedule = choices[i] == CHOOSE_SCHEDULE;
  if (schedule != (value->kind == SLUICE_JSON_STRING)) return false;
  out->choice[choices[i]] = schedule ? (int64_t)schedule_find(value->string, value->length) : value->integer;
  return !schedule || out->choice[CHOOSE_SCHEDULE] < SCHEDULE_COUNT;
}

/* `*out_why` is NULL when all of it was read. */
static sluice_status *read_choices(const sluice_tuning_record *record, kernel_variant *out, const char **out_why) {
  *out = (kernel_variant){.from = (uint32_t)record->from, .to = (uint32_t)record->to};
  *out_why = NULL;
  sluice_json_document *document;
  SLUICE_TRY(sluice_json_parse(record->configuration, strlen(record->configuration), "configuration", &document));
  const sluice_json_value *root = sluice_json_root(document);
  const kernel_choice *choices;
  if (root->length != family_choices(record->kernel, &choices)) *out_why = "it has other choices than the kernel";
  for (size_t i = 0; i < root->length && !*out_why; i++)
    if (!read_choice(&root->members[i], record->kernel, out)) *out_why = "it has a choice that the kernel has not";
  sluice_json_free(document);
  return NULL;
}

/* ---- Whose records ---- */

static bool is_called(const char *gpu, const char *product) {
  const size_t length = strlen(product);
  for (const char *at = gpu; *at; at++)
    if (strncasecmp(at, product, length) == 0) return true;
  return false;
}

/* The records of one GPU for a target are neighbours. */
static bool is_of(const tuning_use *use, const sluice_tuning_record *record, const char *target) {
  return use->gpu && strcmp(record->gpu, use->gpu) == 0 && strcmp(record->target, target) == 0;
}

sluice_status *tuning_choose_gpu(const sluice_tuning *records, const char *target, const char *product,
                                 tuning_use *use) {
  use->records = records;
  use->gpu = NULL;
  const char *other = NULL;
  for (size_t i = 0; i < records->count; i++) {
    const sluice_tuning_record *r = &records->items[i];
    if (strcmp(r->target, target) != 0) continue;
    if (product && !is_called(r->gpu, product)) {
      other = r->gpu;
      continue;
    }
    if (use->gpu && strcmp(use->gpu, r->gpu) != 0)
      return sluice_error(
          SLUICE_INVALID, "the tuning records for %s are of '%.80s' and of '%.80s', which are not the same: %s", target,
          use->gpu, r->gpu, product ? "keep them in files of their own" : "name the GPU with --target, such as h200");
    use->gpu = r->gpu;
  }
  if (!use->gpu && use->notes && other)
    sluice_text_printf(use->notes, "no tuning record is of the %s, only of '%s': the defaults of %s are taken\n",
                       product, other, target);
  else if (!use->gpu && use->notes)
    sluice_text_printf(use->notes, "no tuning record is for %s: its defaults are taken\n", target);
  return NULL;
}

/* ---- Into the configuration ---- */

static sluice_status *note_unused(const tuning_use *use, const sluice_tuning_record *record, const char *why) {
  if (use->notes)
    sluice_text_printf(use->notes, "%s %s, %lld to %lld %s: the record is not used, since %s\n", record->kernel,
                       record->shape, (long long)record->from, (long long)record->to, record->size, why);
  return NULL;
}

/* Choices that memory depends on: those of the default, in all sizes. Of experts, one sort serves two products, which
 * therefore agree in their tiles. NULL: all is well. */
static const char *differing_memory(const char *family, const kernel_variants *defaults, const kernel_variant *v) {
  static const struct {
    kernel_choice choice;
    const char *family; /* NULL: any */
    const char *why;
  } fixed[] = {{CHOOSE_PANEL, NULL, "weights would lie otherwise than for other sizes ('panel')"},
               {CHOOSE_GROUP, NULL, "weights would lie otherwise than for other sizes ('group')"},
               {CHOOSE_TILE_M, "expert_gemm", "tiles of experts are those of the defaults ('tile_m')"},
               {CHOOSE_APART, "expert_gemm", "the shared expert is where the defaults have it ('apart')"}};
  for (size_t i = 0; i < defaults->count; i++) {
    const kernel_variant *d = &defaults->item[i];
    if (d->to < v->from || d->from > v->to) continue;
    for (size_t f = 0; f < sizeof fixed / sizeof *fixed; f++)
      if ((!fixed[f].family || strcmp(fixed[f].family, family) == 0) &&
          d->choice[fixed[f].choice] != v->choice[fixed[f].choice])
        return fixed[f].why;
  }
  return NULL;
}

/* Puts a record over `variants`. */
static sluice_status *lay_over(const tuning_use *use, const configuration *c, const kernel_question *question,
                               const sluice_tuning_record *record, kernel_variants *variants) {
  kernel_variant part;
  const char *why;
  SLUICE_TRY(read_choices(record, &part, &why));
  if (why) return note_unused(use, record, why);
  if (!variants_at(variants, part.from) || !variants_at(variants, part.to))
    return note_unused(use, record, "the target has no such kernel for these sizes");
  why = differing_memory(record->kernel, variants, &part);
  if (why) return note_unused(use, record, why);
  const kernel_variants alone = {.count = 1, .item = {part}};
  sluice_status *illegal = configuration_check(c, question, &alone);
  if (illegal) {
    if (sluice_status_code(illegal) != SLUICE_INVALID) return illegal;
    sluice_status *status = note_unused(use, record, sluice_status_message(illegal));
    sluice_status_free(illegal);
    return status;
  }
  if (!variants_replace(variants, &part)) return note_unused(use, record, "there are too many ranges of sizes");
  return NULL;
}

static bool same_kernel(const sluice_tuning_record *a, const sluice_tuning_record *b) {
  return strcmp(a->kernel, b->kernel) == 0 && strcmp(a->shape, b->shape) == 0;
}

/* Whether `a` is to be laid over before `b`: of two that overlap, the wider one is below. */
static bool is_wider(const sluice_tuning_record *a, const sluice_tuning_record *b) {
  return a->to - a->from > b->to - b->from;
}

/* The records [first, last) are of one kernel. */
static sluice_status *apply_kernel(const tuning_use *use, configuration *c, size_t first, size_t last) {
  const sluice_tuning_record *items = use->records->items;
  if (!tuning_has(items[first].kernel)) return note_unused(use, &items[first], "no such kernel is tuned");
  kernel_question question;
  SLUICE_TRY(read_shape(&items[first], &question));
  kernel_variants variants;
  SLUICE_TRY(configuration_find(c, &question, &variants));
  const size_t count = last - first;
  size_t *order = sluice_allocate_array(count, sizeof *order);
  if (!order) return sluice_out_of_memory();
  for (size_t i = 0; i < count; i++) {
    size_t at = i;
    for (; at > 0 && is_wider(&items[first + i], &items[order[at - 1]]); at--) order[at] = order[at - 1];
    order[at] = first + i;
  }
  sluice_status *status = NULL;
  for (size_t i = 0; i < count && !status; i++) status = lay_over(use, c, &question, &items[order[i]], &variants);
  sluice_release(order);
  if (status || !variants.count) return status;
  variants_merge(&variants);
  return configuration_add(c, &question, &variants);
}

sluice_status *tuning_apply(const tuning_use *use, const char *target, configuration *c) {
  for (size_t i = 0, next; i < use->records->count; i = next) {
    next = i + 1;
    if (!is_of(use, &use->records->items[i], target)) continue;
    while (next < use->records->count && is_of(use, &use->records->items[next], target) &&
           same_kernel(&use->records->items[i], &use->records->items[next]))
      next++;
    SLUICE_TRY(apply_kernel(use, c, i, next));
  }
  return NULL;
}

/* ---- What came of it ---- */

static sluice_status *note_range(const tuning_use *use, const kernel_question *question, int64_t from, int64_t to) {
  char *shape = tuning_shape_text(question);
  if (!shape) return sluice_out_of_memory();
  sluice_text_printf(use->notes, "%s %s, %lld ", question->family, shape, (long long)from);
  if (to < UINT32_MAX)
    sluice_text_printf(use->notes, "to %lld tokens: no record, the default is taken\n", (long long)to);
  else
    sluice_text_printf(use->notes, "and more tokens: no record, the default is taken\n");
  sluice_release(shape);
  return NULL;
}

/* Ranges of one question that no record is for. */
static sluice_status *note_missing(const tuning_use *use, const char *target, const kernel_question *question) {
  char *shape = tuning_shape_text(question);
  if (!shape) return sluice_out_of_memory();
  int64_t next = 0; /* 0 tokens are no step */
  bool some = true;
  sluice_status *status = NULL;
  while (some && !status && next <= UINT32_MAX) {
    const sluice_tuning_record *covering = NULL, *following = NULL;
    for (size_t i = 0; i < use->records->count; i++) {
      const sluice_tuning_record *r = &use->records->items[i];
      if (!is_of(use, r, target) || strcmp(r->kernel, question->family) != 0 || strcmp(r->shape, shape) != 0) continue;
      if (r->from <= next && r->to >= next && (!covering || r->to > covering->to)) covering = r;
      if (r->from > next && (!following || r->from < following->from)) following = r;
    }
    const int64_t end = covering ? covering->to : following ? following->from - 1 : UINT32_MAX;
    if (!covering && end > 0) status = note_range(use, question, next, end);
    next = end + 1;
    some = covering || following;
  }
  sluice_release(shape);
  return status;
}

sluice_status *tuning_note_misses(const tuning_use *use, const char *target, const configuration *c) {
  bool recorded;
  const kernel_question *question;
  if (!use->notes || !use->gpu) return NULL;
  for (size_t i = 0; (question = configuration_asked(c, i, &recorded)); i++) {
    if (!tuning_has(question->family)) continue;
    kernel_variants variants;
    SLUICE_TRY(configuration_find(c, question, &variants));
    if (variants.count) SLUICE_TRY(note_missing(use, target, question));
  }
  return NULL;
}

/* The records of this question that chose this variant, each for the sizes that it decided. */
static sluice_status *write_entries(const tuning_use *use, const char *target, const kernel_question *question,
                                    const kernel_variant *variant, bool *first, sluice_text *out) {
  char *shape = tuning_shape_text(question), *choices = tuning_choices_text(question->family, variant);
  sluice_status *status = shape && choices ? NULL : sluice_out_of_memory();
  for (size_t i = 0; i < use->records->count && !status; i++) {
    const sluice_tuning_record *r = &use->records->items[i];
    if (!is_of(use, r, target) || strcmp(r->kernel, question->family) != 0 || strcmp(r->shape, shape) != 0) continue;
    if (r->from > variant->to || r->to < variant->from || strcmp(r->configuration, choices) != 0) continue;
    const int64_t from = r->from > variant->from ? r->from : variant->from,
                  to = r->to < variant->to ? r->to : variant->to;
    sluice_text_printf(out, "%s\n{\"kernel\": \"%s\", \"shape\": %s, \"size\": \"%s\", \"from\": %lld, \"to\": %lld, ",
                       *first ? "" : ",", r->kernel, r->shape, r->size, (long long)from, (long long)to);
    sluice_text_printf(out, "\"configuration\": %s, \"at\": %s, \"median_us\": %.3f, \"default_us\": %.3f, \"date\": ",
                       r->configuration, r->at, r->median_us, r->default_us);
    sluice_text_json_string(out, r->date);
    sluice_text_printf(out, "}");
    *first = false;
  }
  sluice_release(shape);
  sluice_release(choices);
  return status;
}

sluice_status *tuning_write_section(const tuning_use *use, const char *target, const configuration *c,
                                    sluice_text *out) {
  sluice_text_printf(out, "{\"gpu\": ");
  if (use->gpu)
    sluice_text_json_string(out, use->gpu);
  else
    sluice_text_printf(out, "null");
  sluice_text_printf(out, ", \"kernels\": [");
  bool first = true, recorded;
  const kernel_question *question;
  for (size_t i = 0; (question = configuration_asked(c, i, &recorded)); i++) {
    if (!recorded) continue;
    kernel_variants variants;
    SLUICE_TRY(configuration_find(c, question, &variants));
    for (size_t v = 0; v < variants.count; v++)
      SLUICE_TRY(write_entries(use, target, question, &variants.item[v], &first, out));
  }
  sluice_text_printf(out, "]}\n");
  return out->failed ? sluice_out_of_memory() : NULL;
}
