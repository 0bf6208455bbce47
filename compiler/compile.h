/* From a model description to a bundle. */
#ifndef COMPILER_COMPILE_H
#define COMPILER_COMPILE_H

#include "backends/common/kernel.h"
#include "compiler/model_config.h"
#include "compiler/tuning.h"
#include "passes/passes.h"

/* The type that weights are stored in on the device: `asked` (BF16 or F32), or for 0 bfloat16 beside bfloat16
 * activations and the checkpoint's own beside float32 ones, float32 also for float16. */
sluice_dtype model_stored_dtype(const model_config *config, sluice_dtype dtype, sluice_dtype asked);

/* config -> `model` IR (compiler/model_builder.c): the function @step of docs/ir.md, unfused, verified. `weight_dtype`
 * as `asked` above; `max_context` 0: the model's. */
SLUICE_MUST_USE sluice_status *model_build(ir_context *context, const model_config *config, sluice_dtype dtype,
                                           sluice_dtype weight_dtype, int64_t max_context, MlirModule *out_module);

/* `kernel` IR -> the kernels that it wants (plan_write), and, once code generation has said what they are, the plan
 * section (plan_finish); compiler/plan_writer.c. Both deterministic. */
typedef struct plan_image {
  void *data; /* the plan section, NULL before plan_finish */
  size_t length;
  kernel_spec *specs; /* in the plan's kernel order; owned with all their strings */
  size_t spec_count;
  struct plan_writer *writer; /* what the section is made of; nothing of MLIR's */
} plan_image;
SLUICE_MUST_USE sluice_status *plan_write(ir_context *context, MlirModule module, plan_image *out_plan);
/* `kernels`: one for each spec. */
SLUICE_MUST_USE sluice_status *plan_finish(plan_image *plan, const kernel_info *kernels);
void plan_image_free(plan_image *plan);

typedef enum emit_form {
  EMIT_MODEL_IR,
  EMIT_KERNEL_IR,
  EMIT_LLVM_IR,
  EMIT_ASM,
  EMIT_OBJ,
  EMIT_BUNDLE,
  EMIT_PROGRAM,
  EMIT_OBJECT
} emit_form;
/* A whole bundle, in whatever file: of any number of targets. */
bool emit_is_bundle(emit_form form);

typedef struct compile_options {
  const char *const *targets; /* canonical */
  size_t target_count;
  const char *const *products; /* names of machines that were asked for (compiler/products.h), for the manifest */
  size_t product_count;
  sluice_dtype dtype;        /* of activations */
  sluice_dtype weight_dtype; /* of stored weights; 0: see model_stored_dtype */
  int64_t max_context;       /* 0: the model's */
  emit_form emit;
  const char *output;          /* "-": standard output (not for bundles) */
  const char *save_directory;  /* NULL: none */
  const sluice_tuning *tuning; /* records of what is fast; NULL: the targets' defaults */
  sluice_text *notes;          /* gets what the records did not say, a line each; NULL with no records */
  pass_options passes;
} compile_options;

/* Where the intermediate files of a target are kept: DIRECTORY/TARGET; NULL when memory is short. */
char *compile_save_directory(const char *directory, const char *target);

/* The whole way. Nothing is left behind at `output` on failure. */
SLUICE_MUST_USE sluice_status *compile_model(const model_config *config, const compile_options *options);

/* The plan of the first target as if there were code, in a fraction of the time: for what a step costs. Sizes of
 * kernels and grids of launches are missing in it, so nothing can run it. `remarks` as in pass_options. */
SLUICE_MUST_USE sluice_status *compile_plan(const model_config *config, const compile_options *options,
                                            pass_remarks *remarks, plan_image *out_plan);

/* Making a bundle (compiler/bundle_writer.c): sections in the given order, digests. */
typedef struct bundle_part {
  uint32_t kind;      /* sluice_section_kind */
  const char *target; /* "" for all targets */
  const void *data;
  size_t length;
} bundle_part;
typedef struct bundle_image { /* all bytes of a bundle; free with bundle_image_free */
  void *data;
  size_t length;
} bundle_image;
SLUICE_MUST_USE sluice_status *bundle_make(const bundle_part *parts, size_t count, bundle_image *out_image);
/* The same for sections of a bundle, whose code has the digest of its plan already. */
SLUICE_MUST_USE sluice_status *bundle_make_sections(const bundle_part *parts, size_t count, bundle_image *out_image);
void bundle_image_free(bundle_image *image);

/* For the tuner: a bundle of one target with configuration `chosen`, with the launches of `families` (ends with NULL)
 * and no others, so that what is not timed need not be compiled. `section` is its tuning section. A step of it computes
 * nothing of use. */
SLUICE_MUST_USE sluice_status *compile_kernels(const model_config *config, const compile_options *options,
                                               const configuration *chosen, const char *const *families,
                                               const sluice_text *section, bundle_image *out_bundle);

/* The passes alone, after which `chosen` knows what they ask. */
SLUICE_MUST_USE sluice_status *compile_ask(const model_config *config, const compile_options *options,
                                           const configuration *chosen);

/* The manifest, docs/bundle-format.md (compiler/manifest.c): what was compiled, how, and which fusions happened. Holds
 * no time, path or host name. `remarks` are those of the first target's passes; NULL: none. Appends to `out`. */
SLUICE_MUST_USE sluice_status *manifest_write(const model_config *config, const compile_options *options,
                                              const pass_remarks *remarks, sluice_text *out);

/* An executable file: a program and, from the next multiple of SLUICE_BUNDLE_PAGE on, its bundle. */
SLUICE_MUST_USE sluice_status *program_write(const char *path, const void *program, size_t length,
                                             const bundle_image *bundle);

/* --emit=program (compiler/emit_program.c): sluice-run, which lies beside this program, with the bundle inside. */
SLUICE_MUST_USE sluice_status *emit_program(const char *path, const bundle_image *bundle);
/* The path of `name` in the directory of the program that runs, or (NULL) of that program; free with sluice_release. */
SLUICE_MUST_USE sluice_status *emit_program_path(const char *name, char **out_path);
/* --emit=object (compiler/emit_object.c): an object file with the bundle as a constant, and beside it a header that
 * declares it. Both names come from `path`: "m3.o" has "m3_bundle" and m3.h. */
SLUICE_MUST_USE sluice_status *emit_object(const char *path, const bundle_image *bundle);
/* The header's file; NULL when memory is short. */
char *emit_object_header_path(const char *path);

/* A file that appears under `path` only when complete; "-" is standard output. */
SLUICE_MUST_USE sluice_status *file_write_atomic(const char *path, const void *data, size_t length);

#endif
