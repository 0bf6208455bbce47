#include "compiler/commands.h"
#include "compiler/compile.h"
#include "compiler/parallel.h"
#include "compiler/products.h"
#include "sluice/file.h"
#include "sluice/memory.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

typedef struct compile_arguments {
  option_list targets, print_after, disabled;
  const char *dtype, *weight_dtype, *emit, *save, *output, *parallel, *tuning;
  int64_t max_context;
  bool batch_invariant, print_diff, verify_each, time;
} compile_arguments;

#define AT(field) offsetof(compile_arguments, field)
static const option_description compile_command_options[] = {
    {"target", 0, OPTION_LIST, "T[,T...]", AT(targets),
     "what to compile for: host (this CPU, the default), host:x86-64-v3, h100, ...", 0, false},
    {"output", 'o', OPTION_OUTPUT, "FILE", AT(output),
     "file to write (MODEL.sluice or MODEL.o, text: standard output); - is standard output, but not for bundles", 0,
     false},
    {"dtype", 0, OPTION_TEXT, "float32|bfloat16", AT(dtype), "type of activations and cache (bfloat16)", 0, false},
    {"weight-dtype", 0, OPTION_TEXT, "float32|bfloat16", AT(weight_dtype),
     "type that weights are stored in (with --dtype bfloat16 the same, otherwise the checkpoint's)", 0, false},
    {"max-context", 0, OPTION_INTEGER, "N", AT(max_context), "longest sequence in tokens (the model's)", 1, false},
    {"parallel", 0, OPTION_TEXT, "tp=N", AT(parallel), "N devices share the model, each a part of the weights (one)", 0,
     false},
    {"batch-invariant", 0, OPTION_FLAG, NULL, AT(batch_invariant),
     "the same logits, bit by bit, whatever else is in a step and however prompts are cut; costs speed on GPUs", 0,
     false},
    {"emit", 0, OPTION_TEXT, "FORM", AT(emit),
     "bundle (the default); program: sluice-run with the bundle inside; object: the bundle for linking, MODEL.o and "
     "MODEL.h; or what comes before: model-ir, kernel-ir, llvm-ir, asm, obj (the kernels)",
     0, false},
    {"tuning", 0, OPTION_INPUT, "FILE", AT(tuning),
     "records of sluice-run tune: take the configurations that were fastest (the targets' defaults)", 0, false},
    {"disable-pass", 0, OPTION_LIST, "NAME[,NAME...]", AT(disabled), "leave out an optional pass", 0, false},
    {"print-ir-after", 0, OPTION_LIST, "NAME|all", AT(print_after), "print the IR after a pass, to stderr", 0, false},
    {"print-ir-diff", 0, OPTION_FLAG, NULL, AT(print_diff), "print what each pass changed, to stderr", 0, false},
    {"verify-each", 0, OPTION_FLAG, NULL, AT(verify_each), "verify the IR after each pass", 0, false},
    {"time-passes", 0, OPTION_FLAG, NULL, AT(time), "print the time of each pass, to stderr", 0, false},
    {"save-temps", 0, OPTION_TEXT, "DIR", AT(save), "keep IR, LLVM IR and assembly in DIR/TARGET", 0, false},
};

static const struct {
  const char *name;
  emit_form form;
} forms[] = {
    {"model-ir", EMIT_MODEL_IR}, {"kernel-ir", EMIT_KERNEL_IR}, {"llvm-ir", EMIT_LLVM_IR}, {"asm", EMIT_ASM},
    {"obj", EMIT_OBJ},           {"bundle", EMIT_BUNDLE},       {"program", EMIT_PROGRAM}, {"object", EMIT_OBJECT}};

static sluice_status *find_form(const char *name, emit_form *out_form) {
  size_t count = sizeof forms / sizeof forms[0];
  for (size_t i = 0; i < count; i++)
    if (strcmp(name, forms[i].name) == 0) {
      *out_form = forms[i].form;
      return NULL;
    }
  return sluice_error(
      SLUICE_USAGE, "--emit is '%s', expected bundle, program, object, model-ir, kernel-ir, llvm-ir, asm or obj", name);
}

/* Canonical names of the targets, without duplicates, in `storage`. */
static sluice_status *find_targets(const option_list *given, char (*storage)[32], const char **names,
                                   size_t *out_count) {
  size_t count = 0;
  for (size_t i = 0; i < given->count; i++) {
    SLUICE_TRY(target_canonicalise(given->items[i], storage[count]));
    size_t earlier = 0;
    while (earlier < count && strcmp(storage[earlier], storage[count]) != 0) earlier++;
    if (earlier < count) continue;
    names[count] = storage[count];
    count++;
  }
  *out_count = count;
  return NULL;
}

/* Those of the targets' names that are a machine's, without duplicates. */
static size_t find_products(const option_list *given, const char **products) {
  size_t count = 0;
  for (size_t i = 0; i < given->count; i++) {
    const product *p = product_find(given->items[i]);
    size_t earlier = 0;
    while (p && earlier < count && products[earlier] != p->name) earlier++;
    if (p && earlier == count) products[count++] = p->name;
  }
  return count;
}

/* The name of the file when none is given: text goes to standard output; a bundle or an object file is named after the
 * model and made in the current directory. The model's name is that of the directory that holds its config.json, or of
 * a configuration that is called otherwise. */
static char *default_output(const char *config_path, emit_form form) {
  if (!emit_is_bundle(form) && form != EMIT_OBJ) return sluice_copy_string("-", 1);
  const char *slash = strrchr(config_path, '/'), *name = slash ? slash + 1 : config_path, *end;
  char *directory = NULL, *real = NULL;
  if (strcmp(name, "config.json") == 0) {
    directory = slash ? sluice_copy_string(config_path, (size_t)(slash - config_path + 1)) : sluice_copy_string(".", 1);
    real = directory ? realpath(directory, NULL) : NULL;
    name = real ? strrchr(real, '/') + 1 : "";
    end = name + strlen(name);
  } else {
    size_t length = strlen(name);
    end = name + (length > 5 && strcmp(name + length - 5, ".json") == 0 ? length - 5 : length);
  }
  if (end == name) end = (name = "model") + 5;
  char *output = sluice_format_string("%.*s.%s", (int)(end - name), name, form == EMIT_BUNDLE ? "sluice" : "o");
  free(real);
  sluice_release(directory);
  return output;
}

/* The header of --emit=object lies beside the object file: not beside a device, a pipe or an open descriptor. */
static sluice_status *check_place_of_header(const char *output) {
  char *target;
  int descriptor;
  struct stat info;
  const size_t length = strlen(output);
  if (length > 2 && strcmp(output + length - 2, ".h") == 0)
    return sluice_error(SLUICE_USAGE,
                        "%s is the name of a header: --emit=object writes an object file there and a header beside it; "
                        "use %.*s.o",
                        output, (int)length - 2, output);
  SLUICE_TRY(sluice_file_follow(output, &target, &descriptor));
  sluice_release(target);
  if (descriptor < 0 && (stat(output, &info) || S_ISREG(info.st_mode) || S_ISDIR(info.st_mode))) return NULL;
  return sluice_error(SLUICE_USAGE,
                      "%s is no regular file: --emit=object writes a header beside the object; name a file with -o",
                      output);
}

/* Neither the output nor a file of --save-temps may be the configuration or a program that is read, nor may two be one.
 */
static sluice_status *check_files(const model_config *config, const compile_options *options) {
  static const char *const saved[] = {"model.mlir", "kernel.mlir",   "kernels.ll",   "kernels.s",
                                      "kernels.so", "kernels.cubin", "kernels.hsaco"};
  enum { SAVED = sizeof saved / sizeof *saved };
  size_t count = 2, most = 5 + SAVED * options->target_count;
  sluice_file_use *uses = sluice_allocate_array(most, sizeof *uses);
  char **paths = sluice_allocate_array(most, sizeof *paths);
  sluice_status *status = uses && paths ? NULL : sluice_out_of_memory();
  if (!status) {
    uses[0] = (sluice_file_use){.path = config->path};
    uses[1] = (sluice_file_use){options->output, "output", true};
  }
  static const char *const programs[] = {NULL, "sluice-run"}; /* this one, and what --emit=program copies */
  for (size_t i = 0; !status && i < sizeof programs / sizeof *programs; i++) {
    status = emit_program_path(programs[i], &paths[count]);
    if (status) break;
    uses[count] = (sluice_file_use){.path = paths[count]};
    count++;
  }
  if (!status && options->emit == EMIT_OBJECT) {
    status = check_place_of_header(options->output);
    paths[count] = emit_object_header_path(options->output);
    if (!status && !paths[count]) status = sluice_out_of_memory();
    uses[count] = (sluice_file_use){paths[count], "the header of --emit=object", true};
    count++;
  }
  for (size_t i = 0; !status && options->save_directory && i < SAVED * options->target_count; i++) {
    char *directory = compile_save_directory(options->save_directory, options->targets[i / SAVED]);
    paths[count] = directory ? sluice_format_string("%s/%s", directory, saved[i % SAVED]) : NULL;
    sluice_release(directory);
    if (!paths[count]) status = sluice_out_of_memory();
    uses[count] = (sluice_file_use){paths[count], "save-temps", true};
    count++;
  }
  if (!status) status = sluice_file_uses_check(uses, count);
  for (size_t i = 0; paths && i < most; i++) sluice_release(paths[i]);
  sluice_release(paths);
  sluice_release(uses);
  return status;
}

/* One line on standard error; nothing when the output is no file. */
static void tell(const compile_options *options) {
  struct stat info;
  if (strcmp(options->output, "-") == 0 || stat(options->output, &info) || !S_ISREG(info.st_mode)) return;
  char *header = options->emit == EMIT_OBJECT ? emit_object_header_path(options->output) : NULL;
  fprintf(stderr, "wrote %s, %s,", options->output, sluice_describe_bytes((uint64_t)info.st_size).text);
  if (header) fprintf(stderr, " and %s,", header);
  fprintf(stderr, " for");
  sluice_release(header);
  for (size_t i = 0; i < options->target_count; i++) fprintf(stderr, "%s %s", i ? "," : "", options->targets[i]);
  fputc('\n', stderr);
}

/* With a configuration that has been read. */
static sluice_status *compile_config(const model_config *config, compile_options *options) {
  char *output = options->output ? NULL : default_output(config->path, options->emit);
  if (!options->output && !output) return sluice_out_of_memory();
  if (output) options->output = output;
  sluice_status *status = check_files(config, options);
  if (!status) status = compile_model(config, options);
  if (!status && options->notes) command_print_notes(options->notes);
  if (!status) tell(options);
  sluice_release(output);
  options->output = NULL;
  return status;
}

static sluice_status *compile_with(compile_arguments *arguments, const char *config_path) {
  if (!arguments->targets.count) SLUICE_TRY(option_list_add(&arguments->targets, "host"));
  compile_options options = {
      .max_context = arguments->max_context,
      .emit = EMIT_BUNDLE,
      .output = arguments->output,
      .save_directory = arguments->save,
      .passes = {.disabled = (const char *const *)arguments->disabled.items,
                 .disabled_count = arguments->disabled.count,
                 .print_after = (const char *const *)arguments->print_after.items,
                 .print_after_count = arguments->print_after.count,
                 .batch_invariant = arguments->batch_invariant,
                 .print_diff = arguments->print_diff,
                 .verify_each = arguments->verify_each,
                 .time = arguments->time},
  };
  SLUICE_TRY(parallel_parse(arguments->parallel, &options.passes.ranks));
  if (arguments->tuning && arguments->batch_invariant)
    return sluice_error(SLUICE_USAGE,
                        "--tuning has kernels for single sizes of steps, which add up otherwise: not with "
                        "--batch-invariant");
  if (arguments->emit) SLUICE_TRY(find_form(arguments->emit, &options.emit));
  SLUICE_TRY(command_find_dtype("dtype", arguments->dtype, SLUICE_BF16, &options.dtype));
  SLUICE_TRY(command_find_dtype("weight-dtype", arguments->weight_dtype, 0, &options.weight_dtype));
  if (emit_is_bundle(options.emit) && options.output && strcmp(options.output, "-") == 0)
    return sluice_error(SLUICE_USAGE, "a bundle cannot go to standard output: give -o a file");
  if (options.emit == EMIT_PROGRAM && !options.output)
    return sluice_error(SLUICE_USAGE, "--emit=program needs -o FILE, the name of the program");
  char (*storage)[32] = sluice_allocate_array(arguments->targets.count, sizeof *storage);
  const char **names = sluice_allocate_array(arguments->targets.count, sizeof *names);
  const char **products = sluice_allocate_array(arguments->targets.count, sizeof *products);
  model_config *config = NULL;
  sluice_status *status = sluice_out_of_memory();
  if (storage && names && products) status = find_targets(&arguments->targets, storage, names, &options.target_count);
  options.targets = names;
  options.products = products;
  if (products) options.product_count = find_products(&arguments->targets, products);
  if (!status && !emit_is_bundle(options.emit) && options.target_count > 1)
    status =
        sluice_error(SLUICE_USAGE, "--emit=%s takes one target, %zu are given", arguments->emit, options.target_count);
  sluice_tuning records = {0};
  sluice_text notes = {0};
  if (!status && arguments->tuning) {
    options.tuning = &records;
    options.notes = &notes;
    status = sluice_tuning_read(arguments->tuning, &records);
  }
  if (!status) status = model_config_read(config_path, command_warning, NULL, &config);
  if (!status) status = compile_config(config, &options);
  model_config_free(config);
  sluice_tuning_free(&records);
  sluice_text_free(&notes);
  sluice_release(products);
  sluice_release(names);
  sluice_release(storage);
  return status;
}

static sluice_status *run(const command_description *self, int argc, char **argv) {
  compile_arguments arguments = {0};
  const char *config_path;
  bool help;
  sluice_status *status = options_parse(self, argc, argv, &arguments, &config_path, &help);
  if (!status && help)
    options_print_help(self, stdout);
  else if (!status)
    status = compile_with(&arguments, config_path);
  option_list_free(&arguments.targets);
  option_list_free(&arguments.print_after);
  option_list_free(&arguments.disabled);
  return status;
}

const command_description command_compile = {
    .name = "compile",
    .operand = "MODEL_DIR|CONFIG",
    .summary = "Compiles a model description to a bundle for one or more targets.",
    .options = compile_command_options,
    .option_count = sizeof compile_command_options / sizeof compile_command_options[0],
    .notes = command_print_passes,
    .run = run,
};
