/* sluice compile --emit=object: a bundle as a constant in an object file, and the header that declares it. */
#include "backends/common/short_memory.h"
#include "compiler/compile.h"
#include "sluice/bundle.h"
#include "sluice/file.h"
#include "sluice/json.h"
#include "sluice/memory.h"
#include "sluice/runtime.h"

#include <ctype.h>
#include <llvm-c/Core.h>
#include <llvm-c/Target.h>
#include <llvm-c/TargetMachine.h>
#include <string.h>

/* The file's name without directory and ".o". */
static const char *stem_of(const char *path, size_t *out_length) {
  const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
  const size_t length = strlen(name);
  *out_length = length > 2 && strcmp(name + length - 2, ".o") == 0 ? length - 2 : length;
  return name;
}

/* That as a C name, with "_bundle" behind it. */
static char *symbol_of(const char *path) {
  size_t length;
  const char *stem = stem_of(path, &length);
  char *symbol = sluice_format_string("%s%.*s_bundle", isdigit((unsigned char)*stem) ? "_" : "", (int)length, stem);
  for (char *c = symbol; c && *c; c++)
    if (*c >= 0x7f || !isalnum((unsigned char)*c)) *c = '_';
  return symbol;
}

char *emit_object_header_path(const char *path) {
  size_t length;
  const char *stem = stem_of(path, &length);
  return sluice_format_string("%.*s.h", (int)((size_t)(stem - path) + length), path);
}

static sluice_status *make_constant(const char *symbol, const bundle_image *bundle, LLVMContextRef context,
                                    LLVMTargetMachineRef machine, LLVMMemoryBufferRef *out_object) {
  LLVMModuleRef module = LLVMModuleCreateWithNameInContext(symbol, context);
  LLVMTargetDataRef layout = LLVMCreateTargetDataLayout(machine);
  char *triple = LLVMGetTargetMachineTriple(machine), *error = NULL;
  LLVMSetTarget(module, triple);
  LLVMSetModuleDataLayout(module, layout);
  LLVMValueRef bytes = LLVMConstStringInContext2(context, bundle->data, bundle->length, true);
  LLVMValueRef constant = LLVMAddGlobal(module, LLVMTypeOf(bytes), symbol);
  LLVMSetInitializer(constant, bytes);
  LLVMSetGlobalConstant(constant, true);
  LLVMSetAlignment(constant, SLUICE_BUNDLE_PAGE);
  sluice_status *status = NULL;
  if (LLVMTargetMachineEmitToMemoryBuffer(machine, module, LLVMObjectFile, &error, out_object)) {
    status = sluice_error(SLUICE_INTERNAL, "LLVM makes no object file: %s", error);
    LLVMDisposeMessage(error);
  }
  LLVMDisposeMessage(triple);
  LLVMDisposeTargetData(layout);
  LLVMDisposeModule(module);
  return status;
}

static sluice_status *make_object(const char *symbol, const bundle_image *bundle, LLVMMemoryBufferRef *out_object) {
  static const char triple[] = "x86_64-unknown-linux-gnu";
  LLVMTargetRef target;
  char *error = NULL;
  short_memory_react(short_memory_exit);
  LLVMInitializeX86TargetInfo();
  LLVMInitializeX86Target();
  LLVMInitializeX86TargetMC();
  LLVMInitializeX86AsmPrinter();
  if (LLVMGetTargetFromTriple(triple, &target, &error)) {
    sluice_status *status = sluice_error(SLUICE_INTERNAL, "LLVM lacks the target: %s", error);
    LLVMDisposeMessage(error);
    return status;
  }
  LLVMTargetMachineRef machine = LLVMCreateTargetMachine(target, triple, "x86-64", "", LLVMCodeGenLevelDefault,
                                                         LLVMRelocPIC, LLVMCodeModelDefault);
  LLVMContextRef context = LLVMContextCreate();
  sluice_status *status = make_constant(symbol, bundle, context, machine, out_object);
  LLVMContextDispose(context);
  LLVMDisposeTargetMachine(machine);
  return status;
}

static void write_header(const char *symbol, size_t length, sluice_text *text) {
  sluice_text_printf(
      text,
      "/* A bundle made by sluice %s, in the object file beside this header. To run it, link that file and\n"
      " * libsluice_runtime, and call\n"
      " *\n"
      " *   sluice_model_open_memory(%s, sizeof %s, \"%s\", &options, &model);\n"
      " */\n",
      sluice_version(), symbol, symbol, symbol);
  sluice_text_printf(text,
                     "#ifndef %s_H\n"
                     "#define %s_H\n"
                     "\n"
                     "#ifdef __cplusplus\n"
                     "extern \"C\"\n"
                     "#else\n"
                     "extern\n"
                     "#endif\n"
                     "const unsigned char %s[%zu];\n"
                     "\n"
                     "#endif\n",
                     symbol, symbol, symbol, length);
}

sluice_status *emit_object(const char *path, const bundle_image *bundle) {
  char *symbol = symbol_of(path), *header_path = emit_object_header_path(path);
  sluice_text header = {0};
  LLVMMemoryBufferRef object = NULL;
  sluice_pending_file file = {.file = -1};
  sluice_status *status = symbol && header_path ? make_object(symbol, bundle, &object) : sluice_out_of_memory();
  if (!status) {
    write_header(symbol, bundle->length, &header);
    if (header.failed) status = sluice_out_of_memory();
  }
  if (!status) status = sluice_pending_open(&file, path);
  if (!status) {
    status = sluice_pending_write(&file, LLVMGetBufferStart(object), LLVMGetBufferSize(object));
    if (!status) status = sluice_pending_settle(&file);
    if (!status) status = file_write_atomic(header_path, header.data, header.length);
    status = sluice_pending_close(&file, status);
  }
  if (object) LLVMDisposeMemoryBuffer(object);
  sluice_text_free(&header);
  sluice_release(header_path);
  sluice_release(symbol);
  return status;
}
