/* Contexts: the dialects are loaded from their embedded IRDL text, diagnostics become statuses. */
#include "ir/ir.h"
#include "sluice/memory.h"

#include <mlir-c/Diagnostics.h>
#include <mlir-c/Dialect/Func.h>
#include <mlir-c/Dialect/IRDL.h>
#include <string.h>

static const char dialect_text[] = {
#include "dialects.inc"
};

struct ir_context {
  MlirContext mlir;
  MlirType batch, cache, buffer;
  /* The text parsed last, for the source line of an error. */
  char *text, *file;
  size_t text_length;
  /* The first error diagnostic. */
  bool has_error, out_of_memory;
  char *message, *error_file;
  unsigned line, column;
};

typedef struct string_sink {
  char *data; /* terminated */
  size_t length, capacity;
  bool failed;
} string_sink;

static void sink_append(MlirStringRef part, void *user) {
  string_sink *sink = user;
  if (sink->failed) return;
  if (part.length >= sink->capacity - sink->length || !sink->data) {
    size_t capacity = sink->capacity * 2 + part.length + 256;
    char *grown = sluice_reallocate_array(sink->data, capacity, 1);
    if (!grown) {
      sink->failed = true;
      return;
    }
    sink->data = grown;
    sink->capacity = capacity;
  }
  memcpy(sink->data + sink->length, part.data, part.length);
  sink->length += part.length;
  sink->data[sink->length] = 0;
}

static void forget_error(ir_context *context) {
  sluice_release(context->message);
  sluice_release(context->error_file);
  context->message = context->error_file = NULL;
  context->has_error = context->out_of_memory = false;
  context->line = context->column = 0;
}

/* The first place in a file that `location` names: fused and named locations are looked into. */
static MlirLocation file_location(MlirLocation location) {
  for (int depth = 0; depth < 8; depth++) {
    if (mlirLocationIsAName(location)) {
      location = mlirLocationNameGetChildLoc(location);
    } else if (mlirLocationIsACallSite(location)) {
      location = mlirLocationCallSiteGetCallee(location);
    } else if (mlirLocationIsAFused(location) && mlirLocationFusedGetNumLocations(location) == 1) {
      mlirLocationFusedGetLocations(location, &location);
    } else {
      break;
    }
  }
  return location;
}

static MlirLogicalResult collect(MlirDiagnostic diagnostic, void *user) {
  ir_context *context = user;
  if (mlirDiagnosticGetSeverity(diagnostic) != MlirDiagnosticError || context->has_error)
    return mlirLogicalResultSuccess();
  context->has_error = true;
  string_sink sink = {0};
  mlirDiagnosticPrint(diagnostic, sink_append, &sink);
  if (sink.failed) {
    sluice_release(sink.data);
    context->out_of_memory = true;
    return mlirLogicalResultSuccess();
  }
  for (size_t i = 0; i < sink.length; i++)
    if (sink.data[i] == '\n') sink.data[i] = ' ';
  context->message = sink.data;
  MlirLocation location = file_location(mlirDiagnosticGetLocation(diagnostic));
  if (!mlirLocationIsAFileLineColRange(location)) return mlirLogicalResultSuccess();
  MlirStringRef file = mlirIdentifierStr(mlirLocationFileLineColRangeGetFilename(location));
  int line = mlirLocationFileLineColRangeGetStartLine(location);
  int column = mlirLocationFileLineColRangeGetStartColumn(location);
  /* Text has no name of its own for MLIR. */
  bool unnamed = file.length == 0 || (file.length == 1 && file.data[0] == '-');
  if (unnamed && context->file)
    context->error_file = sluice_copy_string(context->file, strlen(context->file));
  else
    context->error_file = sluice_copy_string(file.data, file.length);
  if (!context->error_file) context->out_of_memory = true;
  context->line = line > 0 ? (unsigned)line : 0;
  context->column = column > 0 ? (unsigned)column : 0;
  return mlirLogicalResultSuccess();
}

static sluice_status *load_dialects(ir_context *context) {
  mlirDialectHandleLoadDialect(mlirGetDialectHandle__irdl__(), context->mlir);
  mlirDialectHandleLoadDialect(mlirGetDialectHandle__func__(), context->mlir);
  MlirModule module = mlirModuleCreateParse(context->mlir, mlirStringRefCreate(dialect_text, sizeof dialect_text - 1));
  if (mlirModuleIsNull(module)) return ir_take_error(context, SLUICE_INTERNAL, "the dialects cannot be parsed");
  bool loaded = mlirLogicalResultIsSuccess(mlirLoadIRDLDialects(module));
  mlirModuleDestroy(module);
  if (!loaded) return ir_take_error(context, SLUICE_INTERNAL, "the dialects cannot be loaded");
  context->batch = mlirTypeParseGet(context->mlir, mlirStringRefCreateFromCString("!model.batch"));
  context->cache = mlirTypeParseGet(context->mlir, mlirStringRefCreateFromCString("!model.cache"));
  context->buffer = mlirTypeParseGet(context->mlir, mlirStringRefCreateFromCString("!kernel.buffer"));
  if (mlirTypeIsNull(context->batch) || mlirTypeIsNull(context->cache) || mlirTypeIsNull(context->buffer))
    return ir_take_error(context, SLUICE_INTERNAL, "the dialects lack a type");
  return NULL;
}

sluice_status *ir_context_create(ir_context **out_context) {
  ir_context *context = sluice_allocate(sizeof *context);
  if (!context) return sluice_out_of_memory();
  context->mlir = mlirContextCreate();
  mlirContextEnableMultithreading(context->mlir, false);
  mlirContextAttachDiagnosticHandler(context->mlir, collect, context, NULL);
  sluice_status *status = load_dialects(context);
  if (status) {
    ir_context_destroy(context);
    return status;
  }
  *out_context = context;
  return NULL;
}

void ir_context_destroy(ir_context *context) {
  if (!context) return;
  mlirContextDestroy(context->mlir);
  forget_error(context);
  sluice_release(context->text);
  sluice_release(context->file);
  sluice_release(context);
}

MlirContext ir_mlir(const ir_context *context) {
  return context->mlir;
}
MlirType ir_batch_type(ir_context *context) {
  return context->batch;
}
MlirType ir_cache_type(ir_context *context) {
  return context->cache;
}
MlirType ir_buffer_type(ir_context *context) {
  return context->buffer;
}

/* Line `line` of the text, when `file` is the one parsed last. */
static const char *source_line(const ir_context *context, const char *file, unsigned line, size_t *length) {
  if (!context->text || !file || !line || strcmp(file, context->file) != 0) return NULL;
  const char *at = context->text, *end = context->text + context->text_length;
  for (unsigned i = 1; i < line; i++) {
    const char *newline = memchr(at, '\n', (size_t)(end - at));
    if (!newline) return NULL;
    at = newline + 1;
  }
  const char *newline = memchr(at, '\n', (size_t)(end - at));
  *length = (size_t)((newline ? newline : end) - at);
  return at;
}

sluice_status *ir_take_error(ir_context *context, sluice_code code, const char *fallback) {
  sluice_status *status;
  if (!context->has_error) {
    status = sluice_error(code, "%s", fallback);
  } else if (context->out_of_memory) {
    status = sluice_out_of_memory();
  } else if (!context->error_file) {
    status = sluice_error(code, "%s", context->message);
  } else {
    size_t length = 0;
    const char *line = source_line(context, context->error_file, context->line, &length);
    status = sluice_error_at(code, context->error_file, context->line, context->column, line, length, "%s",
                             context->message);
  }
  forget_error(context);
  return status;
}

bool ir_has_error(const ir_context *context) {
  return context->has_error;
}

void ir_note_out_of_memory(ir_context *context) {
  context->has_error = context->out_of_memory = true;
}

sluice_status *ir_parse(ir_context *context, const char *text, size_t length, const char *file,
                        MlirModule *out_module) {
  char *text_copy = sluice_copy_string(text, length);
  char *file_copy = sluice_copy_string(file, strlen(file));
  if (!text_copy || !file_copy) {
    sluice_release(text_copy);
    sluice_release(file_copy);
    return sluice_out_of_memory();
  }
  sluice_release(context->text);
  sluice_release(context->file);
  context->text = text_copy;
  context->file = file_copy;
  context->text_length = length;
  forget_error(context);
  /* Parsing also verifies what IRDL knows. The text must be terminated for MLIR: the copy is. */
  MlirModule module = mlirModuleCreateParse(context->mlir, mlirStringRefCreate(context->text, length));
  if (mlirModuleIsNull(module)) return ir_take_error(context, SLUICE_INVALID, "the text is no IR");
  sluice_status *status = ir_verify(context, module);
  if (status) {
    mlirModuleDestroy(module);
    return status;
  }
  *out_module = module;
  return NULL;
}

char *ir_print(MlirModule module) {
  string_sink sink = {0};
  mlirOperationPrint(mlirModuleGetOperation(module), sink_append, &sink);
  sink_append(mlirStringRefCreate("\n", 1), &sink);
  if (sink.failed) {
    sluice_release(sink.data);
    return NULL;
  }
  return sink.data;
}
