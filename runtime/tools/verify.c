/* sluice-run verify: runs a golden file's prompt and its decode steps, and compares. */
#include "runtime/tools/options.h"
#include "runtime/tools/run.h"
#include "sluice/json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Bounds in bfloat16, as multiples of what golden.bfloat16 has: see judge_reference. */
#define BF16_TYPICAL_RATIO 1.1
#define BF16_TOGETHER_RATIO 3.0
#define BF16_DEVIATIONS 3.0
#define LARGE_HIDDEN 4096 /* from here on the reference itself is less exact */

typedef struct golden_file {
  sluice_safetensors *file;
  const int32_t *input_ids, *rows, *decode_tokens;
  const float *prefill_logits, *decode_logits;
  uint32_t prompt, row_count, vocabulary, steps;
} golden_file;

typedef struct error_sums {     /* of two arrays of logits */
  double largest;               /* difference; infinite when one is not a number */
  double difference, reference; /* sums of squares */
} error_sums;

/* The first selection that is not the golden file's: lowest layer, then blocks before experts, as they run; then lowest
 * position, then head. */
typedef struct different_selection {
  char kind; /* 'b' or 'e'; 0: all are equal */
  unsigned long layer;
  size_t position, head;    /* head 0 for experts */
  sluice_text ours, golden; /* the ids that only one of the two has, "5, 9" */
} different_selection;

typedef struct verification {
  error_sums prefill, decode;
  uint64_t blocks, blocks_equal;   /* selections: (layer, head, position) */
  uint64_t experts, experts_equal; /* (layer, position) */
  double expert_weight_error;      /* largest, where the experts agree */
  uint32_t tokens, tokens_equal;
  different_selection first;
  bool *row_agrees; /* [rows]: all selections of the row agree */
  uint32_t agreeing_rows;

  bool has_reference;      /* the bfloat16 reference was found */
  uint32_t reference_rows; /* of it, that agree */
  uint32_t common_rows;    /* that agree in both; over these: */
  error_sums ours, theirs;
  double our_typical, their_typical; /* lower quartile of the rows' relative errors */
  double bound;
  bool passed, bounded;
} verification;

/* ---- Golden files ---- */

static sluice_status *find_tensor(const sluice_safetensors *file, const char *path, const char *name,
                                  sluice_dtype dtype, unsigned rank, const sluice_tensor_info **out_info,
                                  const void **out_data) {
  const sluice_tensor_info *info = sluice_safetensors_find(file, name);
  if (!info) return sluice_error(SLUICE_NOT_FOUND, "%s: the golden file lacks the tensor \"%s\"", path, name);
  if (info->dtype != dtype || info->rank != rank)
    return sluice_error(SLUICE_INVALID, "%s: tensor \"%s\" is %s of rank %u, expected %s of rank %u", path, name,
                        info->dtype_name, info->rank, sluice_dtype_name(dtype), rank);
  for (unsigned i = 0; i < rank; i++)
    if (info->shape[i] > INT32_MAX) return sluice_error(SLUICE_INVALID, "%s: tensor \"%s\" is too large", path, name);
  *out_info = info;
  *out_data = sluice_safetensors_data(file, info);
  return NULL;
}

static sluice_status *read_golden(const char *path, golden_file *golden) {
  SLUICE_TRY(sluice_safetensors_open(path, &golden->file));
  const sluice_tensor_info *ids, *rows, *prefill, *tokens, *decode;
  const void *data[5];
  SLUICE_TRY(find_tensor(golden->file, path, "input_ids", SLUICE_I32, 1, &ids, &data[0]));
  SLUICE_TRY(find_tensor(golden->file, path, "rows", SLUICE_I32, 1, &rows, &data[1]));
  SLUICE_TRY(find_tensor(golden->file, path, "prefill.logits", SLUICE_F32, 2, &prefill, &data[2]));
  SLUICE_TRY(find_tensor(golden->file, path, "decode.tokens", SLUICE_I32, 1, &tokens, &data[3]));
  SLUICE_TRY(find_tensor(golden->file, path, "decode.logits", SLUICE_F32, 2, &decode, &data[4]));
  golden->input_ids = data[0];
  golden->rows = data[1];
  golden->prefill_logits = data[2];
  golden->decode_tokens = data[3];
  golden->decode_logits = data[4];
  golden->prompt = (uint32_t)ids->shape[0];
  golden->row_count = (uint32_t)rows->shape[0];
  golden->vocabulary = (uint32_t)prefill->shape[1];
  golden->steps = (uint32_t)decode->shape[0];
  bool valid = golden->prompt >= 1 && golden->row_count >= 1 && golden->row_count <= golden->prompt &&
               prefill->shape[0] == rows->shape[0] && tokens->shape[0] == decode->shape[0] + 1 &&
               decode->shape[1] == prefill->shape[1];
  for (uint32_t i = 0; valid && i < golden->row_count; i++)
    valid = golden->rows[i] == (int32_t)(golden->prompt - golden->row_count + i);
  if (!valid)
    return sluice_error(SLUICE_INVALID,
                        "%s: the golden file's shapes do not fit together: rows must be the last positions of the "
                        "prompt, with logits for each, and decode.tokens one longer than decode.logits",
                        path);
  return NULL;
}

/* ---- Comparing ---- */

static void add_errors(error_sums *sums, const float *ours, const float *reference, size_t count) {
  for (size_t i = 0; i < count; i++) {
    double difference = fabs((double)ours[i] - (double)reference[i]);
    if (!(difference <= sums->largest)) sums->largest = isnan(difference) ? INFINITY : difference;
    sums->difference += difference * difference;
    sums->reference += (double)reference[i] * (double)reference[i];
  }
}

static int ascending(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return x < y ? -1 : x > y;
}

/* The value that a quarter of them do not exceed; sorts them. */
static double lower_quartile(double *values, size_t count) {
  if (count == 0) return 0;
  qsort(values, count, sizeof *values, ascending);
  return values[(count - 1) / 4];
}

static double relative_error(const error_sums *sums) {
  return sums->reference > 0 ? sqrt(sums->difference / sums->reference) : sqrt(sums->difference);
}

static bool contains(const int32_t *ids, size_t count, int32_t id) {
  for (size_t i = 0; i < count; i++)
    if (ids[i] == id) return true;
  return false;
}

/* Every id of `a` is in `b`; counts them. Negative ids are padding. */
static bool is_subset(const int32_t *a, size_t a_count, const int32_t *b, size_t b_count, size_t *out_ids) {
  *out_ids = 0;
  for (size_t i = 0; i < a_count; i++) {
    if (a[i] < 0) continue;
    ++*out_ids;
    if (!contains(b, b_count, a[i])) return false;
  }
  return true;
}

/* The same ids, in any order and equally many. */
static bool same_set(const int32_t *a, size_t a_count, const int32_t *b, size_t b_count) {
  size_t in_a, in_b;
  return is_subset(a, a_count, b, b_count, &in_a) && is_subset(b, b_count, a, a_count, &in_b) && in_a == in_b;
}

/* Selections of one layer, ours and a golden file's, in their own layouts. */
typedef struct selection {
  const int32_t *ours;   /* [S][heads][k] */
  const int32_t *golden; /* [heads][S][golden_k] */
  size_t heads, positions, k;
  size_t golden_k; /* at most k: of blocks, the file has no more than a short prompt has */
} selection;

static const int32_t *our_ids(const selection *s, size_t head, size_t position) {
  return s->ours + (position * s->heads + head) * s->k;
}

static const int32_t *golden_ids(const selection *s, size_t head, size_t position) {
  return s->golden + (head * s->positions + position) * s->golden_k;
}

static bool selection_agrees(const selection *s, size_t head, size_t position) {
  return same_set(our_ids(s, head, position), s->k, golden_ids(s, head, position), s->golden_k);
}

/* The ids of `a` that `b` lacks. */
static void list_others(sluice_text *text, const int32_t *a, size_t a_count, const int32_t *b, size_t b_count) {
  sluice_text_free(text);
  for (size_t i = 0; i < a_count; i++)
    if (a[i] >= 0 && !contains(b, b_count, a[i])) sluice_text_printf(text, "%s%d", text->length ? ", " : "", a[i]);
}

/* Keeps this selection, which differs, when it comes before the one in `first`. */
static void keep_first(different_selection *first, const selection *s, char kind, unsigned long layer, size_t position,
                       size_t head) {
  bool before = !first->kind || layer < first->layer || (layer == first->layer && kind < first->kind);
  if (!before && (layer != first->layer || kind != first->kind || position >= first->position)) return;
  first->kind = kind;
  first->layer = layer;
  first->position = position;
  first->head = head;
  const int32_t *ours = our_ids(s, head, position), *golden = golden_ids(s, head, position);
  list_others(&first->ours, ours, s->k, golden, s->golden_k);
  list_others(&first->golden, golden, s->golden_k, ours, s->k);
}

static bool ends_with(const char *text, const char *end) {
  size_t length = strlen(text), end_length = strlen(end);
  return length >= end_length && strcmp(text + length - end_length, end) == 0;
}

/* What kind of selection tensor `name` ("prefill.layer.3.blocks") is: 'b', 'e', or 0 for others. */
static char selection_kind(const char *name) {
  if (strncmp(name, "prefill.layer.", 14) != 0) return 0;
  if (ends_with(name, ".blocks")) return 'b';
  return ends_with(name, ".router.experts") ? 'e' : (char)0;
}

/* Both shapes of a list of selections, the golden file's and the bundle's. */
static sluice_status *wrong_shape(const char *path, const sluice_tensor_info *info, const prompt_value *value,
                                  size_t positions, bool blocks) {
  sluice_text found = {0}, expected = {0};
  for (unsigned i = 0; i < info->rank; i++)
    sluice_text_printf(&found, i ? ", %llu" : "%llu", (unsigned long long)info->shape[i]);
  if (blocks) sluice_text_printf(&expected, "%u, ", value->row_elements / value->dimension);
  sluice_text_printf(&expected, "%zu, %s%u", positions, blocks ? "up to " : "", value->dimension);
  sluice_status *status =
      found.failed || expected.failed
          ? sluice_out_of_memory()
          : sluice_error(SLUICE_INVALID,
                         "%s: \"%s\" is %s [%s], the bundle's model gives I32 [%s]: are they one model's?", path,
                         info->name, info->dtype_name, found.data, expected.data);
  sluice_text_free(&found);
  sluice_text_free(&expected);
  return status;
}

/* Our counterpart of golden tensor `info`. */
static sluice_status *match(const prompt_run *run, const sluice_safetensors *file, const char *path,
                            const sluice_tensor_info *info, selection *out) {
  const prompt_value *value = prompt_run_find(run, info->name + strlen("prefill."));
  bool blocks = selection_kind(info->name) == 'b';
  unsigned rank = blocks ? 3 : 2;
  if (!value || value->dtype != SLUICE_I32)
    return sluice_error(SLUICE_CHECK_FAILED, "%s has \"%s\", but the bundle does not make it readable", path,
                        info->name);
  bool fits = info->dtype == SLUICE_I32 && info->rank == rank;
  if (fits) {
    out->heads = blocks ? (size_t)info->shape[0] : 1;
    out->positions = (size_t)info->shape[rank - 2];
    out->k = value->dimension;
    out->golden_k = (size_t)info->shape[rank - 1];
    fits = out->positions == run->length && (blocks ? out->golden_k <= out->k : out->golden_k == out->k) &&
           out->heads * out->k == value->row_elements;
  }
  if (!fits) return wrong_shape(path, info, value, run->length, blocks);
  out->ours = value->data;
  out->golden = sluice_safetensors_data(file, info);
  return NULL;
}

/* A golden file that lacks selections of the model would agree without having been compared. */
static sluice_status *find_selections(const prompt_run *run, const sluice_safetensors *file, const char *path) {
  for (size_t i = 0; i < run->value_count; i++) {
    char name[128];
    const int length = snprintf(name, sizeof name, "prefill.%s", run->values[i].name);
    if (length < (int)sizeof name && selection_kind(name) && !sluice_safetensors_find(file, name))
      return sluice_error(SLUICE_NOT_FOUND, "%s: the golden file lacks the tensor \"%s\"", path, name);
  }
  return NULL;
}

/* Lists are compared as sets: an id that is there twice would differ from every list, and by no id. */
static sluice_status *check_distinct(const selection *s, const char *path, const char *name) {
  for (size_t head = 0; head < s->heads; head++)
    for (size_t position = 0; position < s->positions; position++) {
      const int32_t *ids = golden_ids(s, head, position);
      for (size_t i = 1; i < s->golden_k; i++)
        if (ids[i] >= 0 && contains(ids, i, ids[i]))
          return sluice_error(SLUICE_INVALID, "%s: \"%s\" names %d twice at position %zu, head %zu; expected once",
                              path, name, ids[i], position, head);
    }
  return NULL;
}

/* Clears `agrees[r]` for rows with a selection that differs from `file`'s; counts when `v` is not NULL. */
static sluice_status *compare_selections(const prompt_run *run, const sluice_safetensors *file, const char *path,
                                         bool *agrees, verification *v) {
  uint32_t first_row = run->length - run->rows;
  for (size_t t = 0; t < sluice_safetensors_count(file); t++) {
    const sluice_tensor_info *info = sluice_safetensors_tensor(file, t);
    char kind = selection_kind(info->name);
    if (!kind) continue;
    selection s;
    SLUICE_TRY(match(run, file, path, info, &s));
    SLUICE_TRY(check_distinct(&s, path, info->name));
    unsigned long layer = strtoul(info->name + strlen("prefill.layer."), NULL, 10);
    for (size_t position = 0; position < s.positions; position++)
      for (size_t head = 0; head < s.heads; head++) {
        bool same = selection_agrees(&s, head, position);
        if (!same && position >= first_row) agrees[position - first_row] = false;
        if (!v) continue;
        if (!same) keep_first(&v->first, &s, kind, layer, position, head);
        *(kind == 'b' ? &v->blocks : &v->experts) += 1;
        *(kind == 'b' ? &v->blocks_equal : &v->experts_equal) += same;
      }
  }
  return NULL;
}

/* The largest difference of router weights, matched by expert, where the experts agree. */
static sluice_status *compare_expert_weights(const prompt_run *run, const golden_file *golden, const char *path,
                                             verification *v) {
  for (size_t t = 0; t < sluice_safetensors_count(golden->file); t++) {
    const sluice_tensor_info *info = sluice_safetensors_tensor(golden->file, t);
    if (selection_kind(info->name) != 'e') continue;
    selection s;
    SLUICE_TRY(match(run, golden->file, path, info, &s));
    char name[128];
    int stem = (int)(strlen(info->name) - strlen("experts"));
    snprintf(name, sizeof name, "%.*sweights", stem, info->name);
    const sluice_tensor_info *weights = sluice_safetensors_find(golden->file, name);
    const prompt_value *ours = prompt_run_find(run, name + strlen("prefill."));
    if (!weights || weights->dtype != SLUICE_F32 || weights->bytes != info->bytes || !ours ||
        ours->dtype != SLUICE_F32 || ours->row_elements != s.k)
      return sluice_error(SLUICE_INVALID, "%s: \"%s\" is missing or does not fit the bundle's model", path, name);
    const float *golden_weights = sluice_safetensors_data(golden->file, weights), *our_weights = ours->data;
    for (size_t i = 0; i < s.positions * s.k; i++) {
      size_t row = i / s.k * s.k;
      for (size_t j = row; j < row + s.k; j++) {
        if (s.ours[i] != s.golden[j]) continue;
        double difference = fabs((double)our_weights[i] - (double)golden_weights[j]);
        if (!(difference <= v->expert_weight_error)) v->expert_weight_error = isnan(difference) ? INFINITY : difference;
      }
    }
  }
  return NULL;
}

/* ---- The bound in bfloat16 ---- */

/* "golden.bfloat16.safetensors" in the directory of `path`. */
static char *reference_path(const char *path) {
  const char *slash = strrchr(path, '/');
  int directory = slash ? (int)(slash - path) + 1 : 0;
  return sluice_format_string("%.*sgolden.bfloat16.safetensors", directory, path);
}

static bool is_same_file(const char *a, const char *b) {
  struct stat one, other;
  return stat(a, &one) == 0 && stat(b, &other) == 0 && one.st_dev == other.st_dev && one.st_ino == other.st_ino;
}

/* Whether the reference's own selections of row `row` agree with the golden file's. */
static sluice_status *reference_agrees(const golden_file *golden, const golden_file *reference, const char *path,
                                       uint32_t row, bool *out_agrees) {
  size_t position = golden->prompt - golden->row_count + row;
  *out_agrees = true;
  for (size_t t = 0; t < sluice_safetensors_count(golden->file); t++) {
    const sluice_tensor_info *info = sluice_safetensors_tensor(golden->file, t);
    char kind = selection_kind(info->name);
    if (!kind) continue;
    const sluice_tensor_info *other = sluice_safetensors_find(reference->file, info->name);
    bool fits = other && other->dtype == info->dtype && other->rank == info->rank &&
                memcmp(other->shape, info->shape, (info->rank - 1) * sizeof *info->shape) == 0;
    if (!fits)
      return sluice_error(SLUICE_INVALID, "%s: \"%s\" is missing or has another shape than in the golden file", path,
                          info->name);
    size_t heads = kind == 'b' ? (size_t)info->shape[0] : 1;
    size_t k = (size_t)info->shape[info->rank - 1], other_k = (size_t)other->shape[info->rank - 1];
    const int32_t *a = sluice_safetensors_data(golden->file, info);
    const int32_t *b = sluice_safetensors_data(reference->file, other);
    for (size_t head = 0; head < heads; head++) {
      size_t list = head * golden->prompt + position;
      if (!same_set(a + list * k, k, b + list * other_k, other_k)) *out_agrees = false;
    }
  }
  return NULL;
}

static double row_error(const float *logits, const float *golden, uint32_t vocabulary) {
  error_sums sums = {0};
  add_errors(&sums, logits, golden, vocabulary);
  return isfinite(sums.largest) ? relative_error(&sums) : INFINITY;
}

/* The errors of the rows whose selections agree in both runs. */
static sluice_status *compare_rows(const prompt_run *run, const golden_file *golden, const golden_file *reference,
                                   const char *path, verification *v) {
  double *ours = sluice_allocate_array(golden->row_count, sizeof *ours);
  double *theirs = sluice_allocate_array(golden->row_count, sizeof *theirs);
  sluice_status *status = ours && theirs ? NULL : sluice_out_of_memory();
  for (uint32_t r = 0; !status && r < golden->row_count; r++) {
    bool agrees = false;
    status = reference_agrees(golden, reference, path, r, &agrees);
    v->reference_rows += !status && agrees;
    if (status || !agrees || !v->row_agrees[r]) continue;
    size_t at = (size_t)r * golden->vocabulary;
    const float *exact = golden->prefill_logits + at;
    add_errors(&v->ours, run->logits + at, exact, golden->vocabulary);
    add_errors(&v->theirs, reference->prefill_logits + at, exact, golden->vocabulary);
    ours[v->common_rows] = row_error(run->logits + at, exact, golden->vocabulary);
    theirs[v->common_rows++] = row_error(reference->prefill_logits + at, exact, golden->vocabulary);
  }
  v->our_typical = ours ? lower_quartile(ours, v->common_rows) : 0;
  v->their_typical = theirs ? lower_quartile(theirs, v->common_rows) : 0;
  sluice_release(ours);
  sluice_release(theirs);
  return status;
}

static sluice_status *compare_reference(const prompt_run *run, const golden_file *golden, const char *path,
                                        verification *v) {
  golden_file reference = {0};
  sluice_status *status = read_golden(path, &reference);
  if (!status && (reference.prompt != golden->prompt || reference.row_count != golden->row_count ||
                  reference.vocabulary != golden->vocabulary ||
                  memcmp(reference.input_ids, golden->input_ids, golden->prompt * sizeof *golden->input_ids) != 0))
    status = sluice_error(SLUICE_INVALID, "%s holds another prompt than the golden file", path);
  if (!status) status = compare_rows(run, golden, &reference, path, v);
  sluice_safetensors_close(reference.file);
  if (!status) v->has_reference = true;
  return status;
}

/* ---- Running ---- */

static int32_t most_likely(const float *logits, uint32_t count) {
  uint32_t best = 0;
  for (uint32_t i = 1; i < count; i++)
    if (logits[i] > logits[best] || (isnan(logits[best]) && !isnan(logits[i]))) best = i;
  return (int32_t)best;
}

/* Feeds the golden tokens one by one. The sampled token and the largest logit must be the same thing. */
static sluice_status *decode(const sluice_model *model, sluice_session *session, const prompt_run *run,
                             const golden_file *golden, tool_trace *trace, verification *v) {
  v->tokens = golden->steps + 1;
  v->tokens_equal = run->next == golden->decode_tokens[0];
  for (uint32_t i = 0; i < golden->steps; i++) {
    sluice_chunk chunk = {.sequence = run->sequence, .tokens = &golden->decode_tokens[i], .count = 1, .logit_rows = 1};
    sluice_step_result result;
    SLUICE_TRY(tool_trace_step(trace, "decode", model, session, &chunk, 1, &result));
    const float *logits;
    SLUICE_TRY(sluice_step_logits(session, &logits));
    add_errors(&v->decode, logits, golden->decode_logits + (size_t)i * golden->vocabulary, golden->vocabulary);
    if (result.sampled[0] != most_likely(logits, golden->vocabulary))
      return sluice_error(SLUICE_CHECK_FAILED, "decode step %u: the greedy token %d is not the largest logit", i,
                          result.sampled[0]);
    v->tokens_equal += result.sampled[0] == golden->decode_tokens[i + 1];
  }
  return NULL;
}

/* A row whose own lists agree may still attend to earlier rows whose lists do not, and then has a large error that says
 * nothing: which near-ties flip is chance, here as in the reference. Few rows of a long prompt come before the first
 * flip, so all that agree are judged, in three ways that chance does not decide:
 *   - the rows that flips touch least show the rounding alone: the lower quartile of the rows' relative errors is at
 *     most 1.1 times the reference's, so a fault in the arithmetic of all rows shows;
 *   - a fault of a few rows is far larger than what a flip does to a row: all rows together are at most 3 times as far
 *     off as the reference's (healthy runs of 52 random models stay below 1.8 times each other);
 *   - a fault that flips lists: as many rows agree as in the reference, up to three standard deviations of the
 *     difference of two such counts. */
static void judge_reference(verification *v) {
  const double fewer = (double)v->reference_rows - (double)v->agreeing_rows;
  v->bound = BF16_TYPICAL_RATIO * v->their_typical;
  v->passed = v->common_rows > 0 && v->our_typical <= v->bound &&
              relative_error(&v->ours) <= BF16_TOGETHER_RATIO * relative_error(&v->theirs) &&
              fewer <= BF16_DEVIATIONS * sqrt((double)v->reference_rows + (double)v->agreeing_rows);
}

static void judge(const sluice_plan_header *header, verification *v) {
  bool same_selections = v->blocks == v->blocks_equal && v->experts == v->experts_equal;
  if (header->dtype == SLUICE_F32) {
    v->bounded = true;
    v->bound = header->hidden >= LARGE_HIDDEN ? 5e-4 : 1e-4;
    v->passed = same_selections && v->tokens == v->tokens_equal && v->prefill.largest <= v->bound &&
                v->decode.largest <= v->bound && v->expert_weight_error <= v->bound;
  } else {
    v->bounded = v->has_reference;
    v->passed = true;
    if (v->has_reference) judge_reference(v);
    v->passed = v->passed && isfinite(v->prefill.largest) && isfinite(v->decode.largest);
  }
}

static sluice_status *compare(const sluice_model *model, const prompt_run *run, const golden_file *golden,
                              const char *path, verification *v) {
  size_t vocabulary = golden->vocabulary;
  v->row_agrees = sluice_allocate_array(golden->row_count, sizeof *v->row_agrees);
  if (!v->row_agrees) return sluice_out_of_memory();
  memset(v->row_agrees, 1, golden->row_count * sizeof *v->row_agrees);
  add_errors(&v->prefill, run->logits, golden->prefill_logits, golden->row_count * vocabulary);
  SLUICE_TRY(find_selections(run, golden->file, path));
  SLUICE_TRY(compare_selections(run, golden->file, path, v->row_agrees, v));
  SLUICE_TRY(compare_expert_weights(run, golden, path, v));
  for (uint32_t r = 0; r < golden->row_count; r++) v->agreeing_rows += v->row_agrees[r];
  if (sluice_model_plan(model)->header->dtype == SLUICE_BF16) {
    char *reference = reference_path(path);
    if (!reference) return sluice_out_of_memory();
    sluice_status *status = NULL;
    if (is_same_file(reference, path))
      status = sluice_error(SLUICE_USAGE,
                            "%s says how far bfloat16 may be off, not what is exact: give --golden the float32 golden "
                            "file that lies beside it",
                            path);
    else if (access(reference, F_OK) == 0)
      status = compare_reference(run, golden, reference, v);
    sluice_release(reference);
    SLUICE_TRY(status);
  }
  return NULL;
}

static sluice_status *run_verification(sluice_model *model, const golden_file *golden, const char *path, uint32_t chunk,
                                       tool_trace *trace, verification *v) {
  const sluice_plan_header *header = sluice_model_plan(model)->header;
  if (golden->vocabulary != header->vocabulary)
    return sluice_error(SLUICE_INVALID, "%s is of a model with a vocabulary of %u, the bundle's has %u", path,
                        golden->vocabulary, header->vocabulary);
  sluice_session_options options = {.max_sequences = 1,
                                    .max_step_tokens = chunk < golden->prompt ? chunk : golden->prompt,
                                    .cache_tokens = (uint64_t)golden->prompt + golden->steps};
  sluice_session *session = NULL;
  SLUICE_TRY(sluice_session_create(model, &options, &session));
  int32_t sequence = 0;
  prompt_run run = {0};
  sluice_status *status = sluice_sequence_add(session, &sequence);
  if (!status)
    status = prompt_run_feed(model, session, sequence, golden->input_ids, golden->prompt, chunk, golden->row_count,
                             true, &(sluice_sampling){0}, trace, &run);
  if (!status) status = compare(model, &run, golden, path, v);
  if (!status) status = decode(model, session, &run, golden, trace, v);
  if (!status) judge(header, v);
  prompt_run_free(&run);
  sluice_session_close(session);
  return status;
}

/* ---- Reporting ---- */

static const char *list_text(const sluice_text *list) {
  return list->data ? list->data : "";
}

static void print_text(const sluice_model *model, const golden_file *golden, const verification *v) {
  const sluice_plan_header *header = sluice_model_plan(model)->header;
  printf("target            %s, %s\n", sluice_model_target(model),
         header->dtype == SLUICE_F32 ? "float32" : "bfloat16");
  printf("prefill logits    %u rows: largest error %.3g, relative L2 %.3g\n", golden->row_count, v->prefill.largest,
         relative_error(&v->prefill));
  printf("decode logits     %u rows: largest error %.3g, relative L2 %.3g\n", golden->steps, v->decode.largest,
         relative_error(&v->decode));
  printf("blocks            %llu of %llu selections equal\n", (unsigned long long)v->blocks_equal,
         (unsigned long long)v->blocks);
  printf("experts           %llu of %llu selections equal, largest weight error %.3g\n",
         (unsigned long long)v->experts_equal, (unsigned long long)v->experts, v->expert_weight_error);
  const different_selection *first = &v->first;
  if (first->kind) {
    printf("first difference  %s of layer %lu, position %zu", first->kind == 'b' ? "blocks" : "experts", first->layer,
           first->position);
    if (first->kind == 'b') printf(", head %zu", first->head);
    printf(": [%s] here, [%s] in the golden file\n", list_text(&first->ours), list_text(&first->golden));
  }
  printf("tokens            %u of %u equal\n", v->tokens_equal, v->tokens);
  if (header->dtype == SLUICE_F32) {
    printf("bound             every error at most %.3g, all selections and tokens equal: %s\n", v->bound,
           v->passed ? "holds" : "FAILED");
    return;
  }
  printf("rows              %u of %u with all selections equal to the golden file's\n", v->agreeing_rows,
         golden->row_count);
  if (!v->has_reference) {
    printf("bound             none: there is no golden.bfloat16.safetensors beside the golden file%s\n",
           v->passed ? "" : ", but FAILED: logits are not finite");
    return;
  }
  printf("reference         %u rows agree in golden.bfloat16, %u in both; of these, relative L2:\n", v->reference_rows,
         v->common_rows);
  printf("                  lower quartile %.4g here, %.4g there; together %.4g here, %.4g there\n", v->our_typical,
         v->their_typical, relative_error(&v->ours), relative_error(&v->theirs));
  printf(
      "bound             quartile at most %.1f times the reference's, together %.0f times, as many rows agree but for "
      "chance: %s\n",
      BF16_TYPICAL_RATIO, BF16_TOGETHER_RATIO,
      v->passed        ? "holds"
      : v->common_rows ? "FAILED"
                       : "FAILED, there are no such rows");
}

static void number(sluice_text *text, const char *key, double value) {
  sluice_text_printf(text, ", \"%s\": ", key);
  if (isfinite(value))
    sluice_text_json_double(text, value);
  else
    sluice_text_printf(text, "null");
}

static sluice_status *print_json(const sluice_model *model, const golden_file *golden, const verification *v) {
  sluice_text text = {0};
  sluice_text_printf(&text, "{\"target\": ");
  sluice_text_json_string(&text, sluice_model_target(model));
  bool f32 = sluice_model_plan(model)->header->dtype == SLUICE_F32;
  sluice_text_printf(&text, ", \"dtype\": \"%s\", \"rows\": %u, \"decode_rows\": %u", f32 ? "float32" : "bfloat16",
                     golden->row_count, golden->steps);
  number(&text, "prefill_max", v->prefill.largest);
  number(&text, "prefill_relative", relative_error(&v->prefill));
  number(&text, "decode_max", v->decode.largest);
  number(&text, "decode_relative", relative_error(&v->decode));
  sluice_text_printf(&text, ", \"blocks\": %llu, \"blocks_equal\": %llu, \"experts\": %llu, \"experts_equal\": %llu",
                     (unsigned long long)v->blocks, (unsigned long long)v->blocks_equal, (unsigned long long)v->experts,
                     (unsigned long long)v->experts_equal);
  const different_selection *first = &v->first;
  if (first->kind)
    sluice_text_printf(&text,
                       ", \"first_difference\": {\"kind\": \"%s\", \"layer\": %lu, \"position\": %zu, \"head\": %zu, "
                       "\"ours\": [%s], \"golden\": [%s]}",
                       first->kind == 'b' ? "blocks" : "experts", first->layer, first->position, first->head,
                       list_text(&first->ours), list_text(&first->golden));
  number(&text, "expert_weight_max", v->expert_weight_error);
  sluice_text_printf(&text, ", \"tokens\": %u, \"tokens_equal\": %u, \"agreeing_rows\": %u", v->tokens, v->tokens_equal,
                     v->agreeing_rows);
  if (v->has_reference) {
    sluice_text_printf(&text, ", \"common_rows\": %u, \"reference_rows\": %u", v->common_rows, v->reference_rows);
    number(&text, "typical", v->our_typical);
    number(&text, "reference_typical", v->their_typical);
    number(&text, "relative", relative_error(&v->ours));
    number(&text, "reference_relative", relative_error(&v->theirs));
  }
  if (v->bounded) number(&text, "bound", v->bound);
  sluice_text_printf(&text, ", \"passed\": %s}\n", v->passed ? "true" : "false");
  bool failed = text.failed;
  if (!failed) fputs(text.data, stdout);
  sluice_text_free(&text);
  return failed ? sluice_out_of_memory() : NULL;
}

static sluice_status *verify(const char *file, const tool_model_options *options, const char *path, uint32_t chunk,
                             bool json) {
  golden_file golden = {0};
  verification v = {0};
  sluice_model *model = NULL;
  sluice_status *status = read_golden(path, &golden);
  if (!status) status = tool_open_model(file, options, &model);
  if (!status) status = run_verification(model, &golden, path, chunk, options->trace, &v);
  if (!status && json) status = print_json(model, &golden, &v);
  if (!status && !json) print_text(model, &golden, &v);
  if (!status && !v.passed) status = sluice_error(SLUICE_CHECK_FAILED, "%s does not agree with %s", file, path);
  sluice_text_free(&v.first.ours);
  sluice_text_free(&v.first.golden);
  sluice_release(v.row_agrees);
  sluice_model_close(model);
  sluice_safetensors_close(golden.file);
  return status;
}

sluice_status *command_verify(int argc, char **argv) {
  tool_model_options model = {0};
  const char *golden = NULL, *trace = NULL;
  uint64_t chunk = 512;
  bool json = false;
  const tool_option options[] = {
      {"--weights", TOOL_INPUT, &model.weights, "DIR|synthetic:SEED",
       "the checkpoint that the golden file was made of"},
      {"--golden", TOOL_INPUT, &golden, "GOLDEN.safetensors", "the golden file, as a rule the float32 one"},
      {"--chunk", TOOL_COUNT, &chunk, "N", "feed the prompt in steps of N tokens (512)"},
      {"--device", TOOL_TEXT, &model.device, "D", "host, cuda:N, hip:N (host)"},
      {"--trust", TOOL_INPUT, &model.trust, "KEY", "run the bundle only if it is signed with this key"},
      {"--threads", TOOL_COUNT, &model.threads, "N", "threads on the host (0: one for each core)"},
      {"--trace", TOOL_OUTPUT, &trace, "FILE", "write a Chrome/Perfetto trace; it waits for each launch"},
      {"--json", TOOL_FLAG, &json, NULL, "print a JSON object"},
  };
  const tool_command command = {
      "sluice-run verify FILE.sluice --weights DIR|synthetic:SEED --golden GOLDEN.safetensors [options]",
      "Runs the golden file's prompt, then feeds its decode.tokens one by one, and compares logits, selected blocks\n"
      "and experts (as sets) and greedy tokens. Exits with 1 when the bound fails.\n"
      "\n"
      "A float32 bundle: every logit and router weight within 1e-4 (5e-4 from a hidden size of 4096 on), every\n"
      "selection and every token equal.\n"
      "A bfloat16 bundle: rounding flips near-tied selections, which changes logits visibly, also those of later "
      "rows,\n"
      "which attend to the changed ones. So the bounds are on the prompt's rows whose blocks and experts agree with "
      "the\n"
      "golden file in every layer, both here and in the golden.bfloat16.safetensors beside it: the lower quartile of\n"
      "the rows' relative L2 errors at most 1.1 times that file's, the error of these rows together at most 3 times,\n"
      "and no fewer rows that agree than there, but for chance. Decode rows carry no selections in golden files, so\n"
      "they and the tokens are printed without a bound, as is everything when there is no such file; what is not\n"
      "finite always fails.\n",
      options, sizeof options / sizeof options[0]};
  const char *file;
  bool help;
  SLUICE_TRY(tool_parse(&command, argc, argv, &file, &help));
  if (help) return NULL;
  if (!model.weights || !golden) return sluice_error(SLUICE_USAGE, "verify needs --weights and --golden; see --help");
  if (chunk < 1 || chunk > 1u << 24) return sluice_error(SLUICE_USAGE, "--chunk must lie in 1 .. %u", 1u << 24);
  SLUICE_TRY(tool_trace_open(trace, &model.trace));
  return tool_trace_close(model.trace, verify(file, &model, golden, (uint32_t)chunk, json));
}
