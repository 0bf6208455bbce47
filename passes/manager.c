/* Running passes: each under MLIR's pass manager, so that MLIR verifies what it leaves behind, with printing, timing
 * and our own verifier around it. */
#include "backends/common/configuration.h"
#include "passes/passes.h"
#include "passes/rewrite.h"
#include "sluice/memory.h"

#include <mlir-c/Diagnostics.h>
#include <mlir-c/Pass.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

void pass_remarks_free(pass_remarks *remarks) {
  for (size_t i = 0; i < remarks->count; i++) sluice_release(remarks->items[i].reason);
  sluice_release(remarks->items);
  *remarks = (pass_remarks){0};
}

void pass_remark_add(pass_state *state, MlirOperation where, bool applied, const char *format, ...) {
  if (!state->remarks || state->status) return;
  pass_remarks *remarks = state->remarks;
  if (remarks->count == remarks->capacity) {
    size_t capacity = remarks->capacity ? remarks->capacity * 2 : 64;
    pass_remark *grown = sluice_reallocate_array(remarks->items, capacity, sizeof *grown);
    if (!grown) {
      state->status = sluice_out_of_memory();
      return;
    }
    remarks->items = grown;
    remarks->capacity = capacity;
  }
  char text[256];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  char *reason = sluice_copy_string(text, strlen(text));
  if (!reason) {
    state->status = sluice_out_of_memory();
    return;
  }
  remarks->items[remarks->count++] =
      (pass_remark){.pass = state->pass, .layer = rewrite_layer(where), .applied = applied, .reason = reason};
}

bool pass_fail(pass_state *state, MlirOperation where, const char *format, ...) {
  char text[512];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  if (!state->status) {
    mlirEmitError(mlirOperationGetLocation(where), text);
    state->status = ir_take_error(state->context, SLUICE_INVALID, text);
  }
  return false;
}

/* ---- one pass under MLIR's pass manager ---- */

typedef struct running_pass {
  const pass_description *description;
  pass_state *state;
  MlirModule module;
} running_pass;

static void nothing(void *user) {
  (void)user;
}

static void *same(void *user) {
  return user;
}

static void run_callback(MlirOperation op, MlirExternalPass pass, void *user) {
  running_pass *running = user;
  (void)op;
  if (!running->description->run(running->state, running->module) || running->state->status)
    mlirExternalPassSignalFailure(pass);
}

static sluice_status *run_one(ir_context *context, MlirModule module, const pass_description *description,
                              pass_state *state) {
  running_pass running = {.description = description, .state = state, .module = module};
  state->pass = description->name;
  MlirTypeIDAllocator types = mlirTypeIDAllocatorCreate();
  MlirStringRef name = mlirStringRefCreateFromCString(description->name);
  MlirExternalPassCallbacks callbacks = {.construct = nothing, .destruct = nothing, .clone = same, .run = run_callback};
  MlirPass pass = mlirCreateExternalPass(
      mlirTypeIDAllocatorAllocateTypeID(types), name, name, mlirStringRefCreateFromCString(description->summary),
      mlirStringRefCreateFromCString("builtin.module"), 0, NULL, callbacks, &running);
  MlirPassManager manager = mlirPassManagerCreate(ir_mlir(context));
  mlirPassManagerAddOwnedPass(manager, pass);
  bool done = mlirLogicalResultIsSuccess(mlirPassManagerRunOnOp(manager, mlirModuleGetOperation(module)));
  mlirPassManagerDestroy(manager);
  mlirTypeIDAllocatorDestroy(types);
  if (state->status) {
    sluice_status *status = state->status;
    state->status = NULL;
    return status;
  }
  if (done) return NULL;
  char fallback[96];
  snprintf(fallback, sizeof fallback, "pass %s failed", description->name);
  return ir_take_error(context, SLUICE_INTERNAL, fallback);
}

/* ---- printing what changed ---- */

typedef struct text_lines {
  const char **start;
  size_t *length;
  uint64_t *hash; /* of the text without value numbers, which change with every op that comes or goes */
  size_t count;
} text_lines;

static void lines_free(text_lines *lines) {
  sluice_release(lines->start);
  sluice_release(lines->length);
  sluice_release(lines->hash);
}

static bool lines_split(const char *text, text_lines *lines) {
  size_t count = 0;
  for (const char *c = text; *c; c++) count += *c == '\n';
  *lines = (text_lines){.start = sluice_allocate_array(count + 1, sizeof *lines->start),
                        .length = sluice_allocate_array(count + 1, sizeof *lines->length),
                        .hash = sluice_allocate_array(count + 1, sizeof *lines->hash)};
  if (!lines->start || !lines->length || !lines->hash) return false;
  while (*text) {
    const char *end = strchrnul(text, '\n');
    uint64_t hash = 0xcbf29ce484222325u;
    for (const char *c = text; c < end; c++) {
      hash = (hash ^ (unsigned char)*c) * 0x100000001b3u;
      if (*c == '%')
        while (c + 1 < end && c[1] >= '0' && c[1] <= '9') c++;
    }
    lines->start[lines->count] = text;
    lines->length[lines->count] = (size_t)(end - text);
    lines->hash[lines->count++] = hash;
    text = *end ? end + 1 : end;
  }
  return true;
}

static void print_line(char mark, const text_lines *lines, size_t i) {
  fprintf(stderr, "%c%.*s\n", mark, (int)lines->length[i], lines->start[i]);
}

/* Lines that left and lines that came, by the longest common subsequence. */
static bool print_changes(const text_lines *a, const text_lines *b) {
  size_t first = 0, a_end = a->count, b_end = b->count;
  while (first < a_end && first < b_end && a->hash[first] == b->hash[first]) first++;
  while (a_end > first && b_end > first && a->hash[a_end - 1] == b->hash[b_end - 1]) a_end--, b_end--;
  size_t rows = a_end - first + 1, columns = b_end - first + 1;
  uint32_t *common = sluice_allocate_array(rows, columns * sizeof *common);
  if (!common) return false;
  for (size_t i = rows - 1; i-- > 0;)
    for (size_t j = columns - 1; j-- > 0;) {
      uint32_t down = common[(i + 1) * columns + j], right = common[i * columns + j + 1];
      common[i * columns + j] = a->hash[first + i] == b->hash[first + j] ? common[(i + 1) * columns + j + 1] + 1
                                : down > right                           ? down
                                                                         : right;
    }
  for (size_t i = 0, j = 0; i + 1 < rows || j + 1 < columns;) {
    bool both = i + 1 < rows && j + 1 < columns;
    if (both && a->hash[first + i] == b->hash[first + j]) {
      i++, j++;
    } else if (j + 1 == columns || (both && common[(i + 1) * columns + j] >= common[i * columns + j + 1])) {
      print_line('-', a, first + i++);
    } else {
      print_line('+', b, first + j++);
    }
  }
  sluice_release(common);
  return true;
}

static bool print_diff(const char *before, const char *after) {
  text_lines a = {0}, b = {0};
  bool done = lines_split(before, &a) && lines_split(after, &b) && print_changes(&a, &b);
  lines_free(&a);
  lines_free(&b);
  return done;
}

/* ---- pipelines ---- */

static bool is_named(const char *const *names, size_t count, const char *name, bool all) {
  for (size_t i = 0; i < count; i++)
    if (strcmp(names[i], name) == 0 || (all && strcmp(names[i], "all") == 0)) return true;
  return false;
}

/* An error for a name that is no pass, or that may not be switched off. */
static sluice_status *unknown(const char *name, bool optional_only) {
  sluice_text list = {0};
  for (const pass_description *p = pass_table; p->name; p++)
    if (!optional_only || p->optional) sluice_text_printf(&list, "%s%s", list.length ? ", " : "", p->name);
  sluice_status *status = list.failed ? sluice_out_of_memory()
                                      : sluice_error(SLUICE_INVALID,
                                                     optional_only ? "pass '%s' cannot be switched off; these can: %s"
                                                                   : "there is no pass '%s'; there are: %s",
                                                     name, list.data);
  sluice_text_free(&list);
  return status;
}

static sluice_status *check_names(const char *const *names, size_t count, const pass_options *options) {
  for (size_t i = 0; i < count; i++)
    if (!pass_find(names[i])) return unknown(names[i], false);
  for (size_t i = 0; i < options->print_after_count; i++)
    if (strcmp(options->print_after[i], "all") && !pass_find(options->print_after[i]))
      return unknown(options->print_after[i], false);
  for (size_t i = 0; i < options->disabled_count; i++) {
    const pass_description *p = pass_find(options->disabled[i]);
    if (!p) return unknown(options->disabled[i], false);
    if (!p->optional) return unknown(options->disabled[i], true);
  }
  return NULL;
}

static double seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Runs one pass with what the options ask for around it. */
static sluice_status *run_with_options(ir_context *context, MlirModule module, const pass_description *pass,
                                       pass_state *state, const pass_options *options) {
  bool print = is_named(options->print_after, options->print_after_count, pass->name, true);
  char *before = NULL, *after = NULL;
  if (options->print_diff && !(before = ir_print(module))) return sluice_out_of_memory();
  double start = seconds();
  sluice_status *status = run_one(context, module, pass, state);
  if (!status && options->time) fprintf(stderr, "%10.3f ms  %s\n", (seconds() - start) * 1e3, pass->name);
  if (!status && options->verify_each) status = sluice_annotate(ir_verify(context, module), "after %s", pass->name);
  if (!status && (print || options->print_diff) && !(after = ir_print(module))) status = sluice_out_of_memory();
  if (!status && print) fprintf(stderr, "// after %s\n%s\n", pass->name, after);
  if (!status && options->print_diff) {
    fprintf(stderr, "// %s\n", pass->name);
    if (!print_diff(before, after)) status = sluice_out_of_memory();
  }
  sluice_release(before);
  sluice_release(after);
  return status;
}

sluice_status *pass_run(ir_context *context, MlirModule module, const char *const *names, size_t name_count,
                        const pass_options *options) {
  SLUICE_TRY(check_names(names, name_count, options));
  const char *target = options->target ? options->target : "host:x86-64-v3";
  configuration *defaults = NULL;
  if (!options->configuration) SLUICE_TRY(configuration_open(target, &defaults));
  if (defaults && options->batch_invariant) configuration_make_invariant(defaults);
  pass_state state = {.context = context,
                      .target = target,
                      .configuration = defaults ? defaults : options->configuration,
                      .ranks = options->ranks,
                      .remarks = options->remarks};
  sluice_status *status = NULL;
  if (names) {
    for (size_t i = 0; i < name_count && !status; i++)
      status = run_with_options(context, module, pass_find(names[i]), &state, options);
  } else {
    for (const pass_description *p = pass_table; p->name && !status; p++)
      if (!is_named(options->disabled, options->disabled_count, p->name, false))
        status = run_with_options(context, module, p, &state, options);
  }
  configuration_close(defaults);
  /* Whatever the passes did, what goes on from here is right. */
  return status ? status : ir_verify(context, module);
}
