#include "compiler/compile.h"

#include "compiler/products.h"
#include "sluice/bundle.h"
#include "sluice/memory.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

/* What one target adds to the bundle. */
typedef struct target_result {
  plan_image plan;
  code_object code;
  sluice_text tuning; /* the section; empty: none */
} target_result;

/* How a target is compiled. */
typedef struct target_way {
  const char *target;
  const configuration *configuration;
  const char *const *families; /* of the launches that are kept; NULL: all */
  pass_remarks *remarks;       /* NULL: not wanted */
} target_way;

static sluice_status *make_directory(const char *path) {
  if (mkdir(path, 0777) == 0 || errno == EEXIST) return NULL;
  return sluice_error(SLUICE_IO, "cannot create directory %s: %s", path, strerror(errno));
}

static sluice_status *write_module(MlirModule module, const char *path) {
  char *text = ir_print(module);
  if (!text) return sluice_out_of_memory();
  sluice_status *status = file_write_atomic(path, text, strlen(text));
  sluice_release(text);
  return status;
}

/* To DIRECTORY/NAME; nothing without a directory. */
static sluice_status *save_module(MlirModule module, const char *directory, const char *name) {
  if (!directory) return NULL;
  char *path = sluice_format_string("%s/%s", directory, name);
  if (!path) return sluice_out_of_memory();
  sluice_status *status = write_module(module, path);
  sluice_release(path);
  return status;
}

/* Takes out all launches but those of the families. */
static void keep_families(MlirModule module, const char *const *families) {
  bool kept = false;
  MlirOperation op = mlirBlockGetFirstOperation(ir_body(ir_function(module, "step"))), next;
  for (; !mlirOperationIsNull(op); op = next) {
    next = mlirOperationGetNextInBlock(op);
    const MlirStringRef name = ir_name(op);
    if (ir_is_launch(op)) {
      kept = false;
      for (const char *const *f = families; *f && !kept; f++)
        kept = name.length == strlen("kernel.") + strlen(*f) && memcmp(name.data + 7, *f, strlen(*f)) == 0;
    }
    if (!kept && (ir_is_launch(op) || ir_is(op, "kernel.observe"))) mlirOperationDestroy(op);
  }
}

/* config -> model IR -> passes -> kernel IR -> plan. With EMIT_MODEL_IR and EMIT_KERNEL_IR the text is written instead
 * and `out_plan` stays empty. `save` is the target's directory for intermediate files, or NULL. */
static sluice_status *plan_with(ir_context *context, const model_config *config, const compile_options *options,
                                const target_way *way, const char *save, plan_image *out_plan) {
  MlirModule module;
  SLUICE_TRY(model_build(context, config, options->dtype, options->weight_dtype, options->max_context, &module));
  sluice_status *status = save_module(module, save, "model.mlir");
  if (!status && options->emit == EMIT_MODEL_IR) {
    status = write_module(module, options->output);
  } else if (!status) {
    pass_options passes = options->passes;
    passes.target = way->target;
    passes.configuration = way->configuration;
    passes.remarks = way->remarks;
    status = pass_run(context, module, NULL, 0, &passes);
    if (!status && way->families) keep_families(module, way->families);
    if (!status) status = save_module(module, save, "kernel.mlir");
    if (!status)
      status = options->emit == EMIT_KERNEL_IR ? write_module(module, options->output)
                                               : plan_write(context, module, out_plan);
  }
  mlirModuleDestroy(module);
  return status;
}

static code_form form_of(emit_form emit) {
  switch (emit) {
  case EMIT_LLVM_IR:
    return CODE_LLVM_IR;
  case EMIT_ASM:
    return CODE_ASSEMBLY;
  case EMIT_OBJ:
    return CODE_OBJECT;
  case EMIT_MODEL_IR:
  case EMIT_KERNEL_IR:
  case EMIT_BUNDLE:
  case EMIT_PROGRAM:
  case EMIT_OBJECT:
    break;
  }
  return CODE_LINKED;
}

bool emit_is_bundle(emit_form form) {
  return form == EMIT_BUNDLE || form == EMIT_PROGRAM || form == EMIT_OBJECT;
}

/* Target names have colons, which do not belong in file names. */
char *compile_save_directory(const char *directory, const char *target) {
  char *path = sluice_format_string("%s/%s", directory, target);
  if (!path) return NULL;
  for (char *c = path + strlen(directory); *c; c++)
    if (*c == ':') *c = '-';
  return path;
}

static sluice_status *compile_target(const model_config *config, const compile_options *options, const target_way *way,
                                     target_result *result) {
  const char *target = way->target;
  char *save = NULL;
  if (options->save_directory) {
    SLUICE_TRY(make_directory(options->save_directory));
    save = compile_save_directory(options->save_directory, target);
    if (!save) return sluice_out_of_memory();
    sluice_status *made = make_directory(save);
    if (made) {
      sluice_release(save);
      return made;
    }
  }
  ir_context *context = NULL;
  sluice_status *status = ir_context_create(&context);
  if (!status) status = plan_with(context, config, options, way, save, &result->plan);
  /* before code generation, whose children would carry it along */
  if (context) ir_context_destroy(context);
  if (!status && options->emit != EMIT_MODEL_IR && options->emit != EMIT_KERNEL_IR) {
    backend_options backend = {.form = form_of(options->emit), .save_directory = save};
    status = backend_compile(target, result->plan.specs, result->plan.spec_count, &backend, &result->code);
    if (!status) {
      if (result->code.kernel_count == result->plan.spec_count)
        status = plan_finish(&result->plan, result->code.kernels);
      else
        status = sluice_error(SLUICE_INTERNAL, "the backend of %s compiled %zu kernels of %zu", target,
                              result->code.kernel_count, result->plan.spec_count);
    }
  }
  sluice_release(save);
  return status;
}

sluice_status *compile_plan(const model_config *config, const compile_options *options, pass_remarks *remarks,
                            plan_image *out_plan) {
  *out_plan = (plan_image){0};
  ir_context *context = NULL;
  SLUICE_TRY(ir_context_create(&context));
  const target_way way = {.target = options->targets[0], .remarks = remarks};
  sluice_status *status = plan_with(context, config, options, &way, NULL, out_plan);
  ir_context_destroy(context);
  kernel_info *kernels = status ? NULL : sluice_allocate_array(out_plan->spec_count, sizeof *kernels);
  if (!status && !kernels) status = sluice_out_of_memory();
  for (size_t i = 0; kernels && i < out_plan->spec_count; i++)
    for (size_t d = 0; d < 2; d++)
      kernels[i].grid[d] = (sluice_plan_extent){.size = SLUICE_SIZE_ONE, .divisor = 1, .factor = 1};
  if (!status) status = plan_finish(out_plan, kernels);
  sluice_release(kernels);
  if (status) plan_image_free(out_plan);
  return status;
}

static sluice_status *write_bundle(const compile_options *options, const bundle_image *bundle) {
  if (options->emit == EMIT_PROGRAM) return emit_program(options->output, bundle);
  if (options->emit == EMIT_OBJECT) return emit_object(options->output, bundle);
  return file_write_atomic(options->output, bundle->data, bundle->length);
}

enum { TARGET_PARTS = 4 }; /* plan, code, assembly, tuning */

static sluice_status *make_bundle(const model_config *config, const compile_options *options,
                                  const target_result *results, const pass_remarks *remarks, bundle_image *out_bundle) {
  bundle_part *parts = sluice_allocate_array(1 + TARGET_PARTS * options->target_count, sizeof *parts);
  if (!parts) return sluice_out_of_memory();
  sluice_text manifest = {0};
  sluice_status *status = manifest_write(config, options, remarks, &manifest);
  if (!status && manifest.failed) status = sluice_out_of_memory();
  if (!status) {
    size_t count = 0;
    parts[count++] = (bundle_part){SLUICE_SECTION_MANIFEST, "", manifest.data, manifest.length};
    for (size_t i = 0; i < options->target_count; i++) {
      const char *target = options->targets[i];
      parts[count++] = (bundle_part){SLUICE_SECTION_PLAN, target, results[i].plan.data, results[i].plan.length};
      const code_object *code = &results[i].code;
      if (code->data) parts[count++] = (bundle_part){SLUICE_SECTION_CODE, target, code->data, code->length};
      if (code->assembly)
        parts[count++] = (bundle_part){SLUICE_SECTION_ASSEMBLY, target, code->assembly, code->assembly_length};
      const sluice_text *tuning = &results[i].tuning;
      if (tuning->length) parts[count++] = (bundle_part){SLUICE_SECTION_TUNING, target, tuning->data, tuning->length};
    }
    status = bundle_make(parts, count, out_bundle);
  }
  sluice_text_free(&manifest);
  sluice_release(parts);
  return status;
}

static void free_result(target_result *result) {
  plan_image_free(&result->plan);
  code_object_free(&result->code);
  sluice_text_free(&result->tuning);
}

/* The name of a machine that runs `target`, of those that were asked for; NULL: none was. */
static const char *product_of(const compile_options *options, const char *target) {
  for (size_t i = 0; i < options->product_count; i++) {
    const product *p = product_find(options->products[i]);
    if (p && strcmp(p->target, target) == 0) return p->name;
  }
  return NULL;
}

/* With what the tuning records say. */
static sluice_status *compile_tuned(const model_config *config, const compile_options *options, const char *target,
                                    pass_remarks *remarks, target_result *result) {
  configuration *chosen;
  tuning_use use = {.records = options->tuning, .notes = options->notes};
  SLUICE_TRY(configuration_open(target, &chosen));
  sluice_status *status = NULL;
  if (options->tuning) status = tuning_choose_gpu(options->tuning, target, product_of(options, target), &use);
  if (!status && options->tuning) status = tuning_apply(&use, target, chosen);
  if (options->passes.batch_invariant) configuration_make_invariant(chosen);
  if (!status)
    status = compile_target(config, options,
                            &(target_way){.target = target, .configuration = chosen, .remarks = remarks}, result);
  if (!status && options->tuning) status = tuning_note_misses(&use, target, chosen);
  if (!status && options->tuning) status = tuning_write_section(&use, target, chosen, &result->tuning);
  configuration_close(chosen);
  return status;
}

sluice_status *compile_model(const model_config *config, const compile_options *options) {
  if (options->target_count == 0) return sluice_error(SLUICE_INVALID, "no target to compile for");
  if (!emit_is_bundle(options->emit) && options->target_count > 1)
    return sluice_error(SLUICE_INVALID, "%zu targets, but only a bundle can hold more than one", options->target_count);
  const size_t parts = options->tuning ? TARGET_PARTS : TARGET_PARTS - 1;
  if (1 + parts * options->target_count > SLUICE_BUNDLE_MAX_SECTIONS)
    return sluice_error(SLUICE_INVALID, "%zu targets, expected at most %zu", options->target_count,
                        (SLUICE_BUNDLE_MAX_SECTIONS - 1) / parts);
  target_result *results = sluice_allocate_array(options->target_count, sizeof *results);
  if (!results) return sluice_out_of_memory();
  pass_remarks remarks = {0};
  bundle_image bundle = {0};
  sluice_status *status = NULL;
  for (size_t i = 0; i < options->target_count && !status; i++)
    status = compile_tuned(config, options, options->targets[i], i == 0 ? &remarks : NULL, &results[i]);
  if (!status && emit_is_bundle(options->emit)) {
    status = make_bundle(config, options, results, &remarks, &bundle);
    if (!status) status = write_bundle(options, &bundle);
  } else if (!status && options->emit != EMIT_MODEL_IR && options->emit != EMIT_KERNEL_IR) {
    status = file_write_atomic(options->output, results[0].code.data, results[0].code.length);
  }
  bundle_image_free(&bundle);
  for (size_t i = 0; i < options->target_count; i++) free_result(&results[i]);
  pass_remarks_free(&remarks);
  sluice_release(results);
  return status;
}

sluice_status *compile_kernels(const model_config *config, const compile_options *options, const configuration *chosen,
                               const char *const *families, const sluice_text *section, bundle_image *out_bundle) {
  compile_options one = *options;
  one.target_count = 1;
  target_result result = {0};
  pass_remarks remarks = {0};
  sluice_text_append(&result.tuning, section->data, section->length);
  const target_way way = {options->targets[0], chosen, families, &remarks};
  sluice_status *status = result.tuning.failed ? sluice_out_of_memory() : NULL;
  if (!status) status = compile_target(config, &one, &way, &result);
  if (!status) status = make_bundle(config, &one, &result, &remarks, out_bundle);
  pass_remarks_free(&remarks);
  free_result(&result);
  return status;
}

sluice_status *compile_ask(const model_config *config, const compile_options *options, const configuration *chosen) {
  ir_context *context;
  SLUICE_TRY(ir_context_create(&context));
  plan_image plan = {0};
  const target_way way = {.target = options->targets[0], .configuration = chosen};
  sluice_status *status = plan_with(context, config, options, &way, NULL, &plan);
  ir_context_destroy(context);
  plan_image_free(&plan);
  return status;
}
