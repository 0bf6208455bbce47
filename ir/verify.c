/* ir_verify: functions, attribute domains, and the order of cache reads and writes. The ops themselves are in
 * verify_model.c and verify_kernel.c. */
#include "ir/verify.h"
#include "backends/common/configuration.h"
#include "sluice/memory.h"
#include "sluice/plan.h"

#include <math.h>
#include <mlir-c/Diagnostics.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

bool verify_fail(verify_state *state, const char *format, ...) {
  char message[512];
  MlirStringRef name = ir_name(state->op);
  int used = snprintf(message, sizeof message, "'%.*s' op: ", (int)name.length, name.data);
  va_list arguments;
  va_start(arguments, format);
  if (used >= 0 && (size_t)used < sizeof message)
    vsnprintf(message + used, sizeof message - (size_t)used, format, arguments);
  va_end(arguments);
  mlirEmitError(mlirOperationGetLocation(state->op), message);
  return false;
}

/* ---- attributes ---- */

static bool text_is(const char *text, size_t length, const char *expected) {
  return strlen(expected) == length && memcmp(text, expected, length) == 0;
}

/* Whether `text` is one of the alternatives of `list`, which are separated by `|`. */
static bool one_of(MlirStringRef text, const char *list, size_t length) {
  while (length) {
    size_t part = 0;
    while (part < length && list[part] != '|') part++;
    if (part == text.length && memcmp(list, text.data, part) == 0) return true;
    if (part == length) break;
    list += part + 1;
    length -= part + 1;
  }
  return false;
}

typedef struct integer_kind {
  const char *name, *expected;
  int64_t least, most, multiple;
} integer_kind;
static const integer_kind integer_kinds[] = {
    {"positive", "a positive i64", 1, INT64_MAX, 1},
    {"count", "an i64 of at least 0", 0, INT64_MAX, 1},
    {"layer", "an i64 of at least -1", -1, INT64_MAX, 1},
    {"even", "a positive even i64", 1, INT64_MAX, 2},
    {"flag", "0 or 1 as i64", 0, 1, 1},
    {"multiple", "an i64 multiple of 64 of at least 0", 0, INT64_MAX, 64},
    {"positive_multiple", "a positive i64 multiple of 64", 1, INT64_MAX, 64},
};

/* The names of a table of plan.h, separated by `|`. */
#define OR(name, number, text) "|" text
#define NAMES(TABLE) &(TABLE(OR))[1]
/* Likewise of a table whose rows have no numbers. */
#define OR_TEXT(name, text) "|" text

typedef struct choice_kind {
  const char *name, *choices;
} choice_kind;
static const choice_kind choice_kinds[] = {
    {"dtype", "f32|bf16"},
    {"element", "f32|bf16|i32"},
    {"rows", "tokens|rows"},
    {"size", NAMES(SLUICE_SIZES)},
    {"input", NAMES(SLUICE_INPUTS)},
    {"output", NAMES(SLUICE_OUTPUTS)},
    {"layout", NAMES(SLUICE_LAYOUTS)},
    {"schedule", &(KERNEL_SCHEDULES(OR_TEXT))[1]},
};

static bool verify_integer(verify_state *state, const char *name, MlirAttribute value, const integer_kind *kind) {
  if (!mlirAttributeIsAInteger(value) ||
      !mlirTypeEqual(mlirAttributeGetType(value), mlirIntegerTypeGet(ir_mlir(state->context), 64)))
    return verify_fail(state, "attribute '%s' is no i64 integer, expected %s", name, kind->expected);
  int64_t found = mlirIntegerAttrGetValueInt(value);
  if (found < kind->least || found > kind->most || found % kind->multiple != 0)
    return verify_fail(state, "attribute '%s' is %lld, expected %s", name, (long long)found, kind->expected);
  return true;
}

static bool verify_number(verify_state *state, const char *name, MlirAttribute value, bool positive) {
  if (!mlirAttributeIsAFloat(value) || !mlirTypeIsAF64(mlirAttributeGetType(value)))
    return verify_fail(state, "attribute '%s' is no f64 number", name);
  double found = mlirFloatAttrGetValueDouble(value);
  if (!isfinite(found) || (positive && found <= 0))
    return verify_fail(state, "attribute '%s' is %g, expected a %snumber", name, found,
                       positive ? "positive " : "finite ");
  return true;
}

static bool verify_array(verify_state *state, const char *name, MlirAttribute value, bool strings) {
  const char *expected = strings ? "strings" : "i64 integers";
  if (!mlirAttributeIsAArray(value) || mlirArrayAttrGetNumElements(value) == 0)
    return verify_fail(state, "attribute '%s' is no array, or empty, expected an array of %s", name, expected);
  for (intptr_t i = 0; i < mlirArrayAttrGetNumElements(value); i++) {
    MlirAttribute element = mlirArrayAttrGetElement(value, i);
    if (strings ? !mlirAttributeIsAString(element) : !mlirAttributeIsAInteger(element))
      return verify_fail(state, "element %ld of attribute '%s' has the wrong kind, expected an array of %s", (long)i,
                         name, expected);
  }
  return true;
}

static bool verify_text(verify_state *state, const char *name, MlirAttribute value, const char *choices,
                        size_t length) {
  MlirStringRef found = mlirAttributeIsAString(value) ? mlirStringAttrGetValue(value) : mlirStringRefCreate("", 0);
  if (!mlirAttributeIsAString(value) || found.length == 0)
    return verify_fail(state, "attribute '%s' is no string, or empty", name);
  if (choices && !one_of(found, choices, length))
    return verify_fail(state, "attribute '%s' is \"%.*s\", expected one of %.*s", name, (int)found.length, found.data,
                       (int)length, choices);
  return true;
}

static bool verify_attribute(verify_state *state, const char *name, MlirAttribute value, const char *kind,
                             size_t length) {
  for (size_t i = 0; i < sizeof integer_kinds / sizeof integer_kinds[0]; i++)
    if (text_is(kind, length, integer_kinds[i].name)) return verify_integer(state, name, value, &integer_kinds[i]);
  for (size_t i = 0; i < sizeof choice_kinds / sizeof choice_kinds[0]; i++)
    if (text_is(kind, length, choice_kinds[i].name))
      return verify_text(state, name, value, choice_kinds[i].choices, strlen(choice_kinds[i].choices));
  if (text_is(kind, length, "number")) return verify_number(state, name, value, false);
  if (text_is(kind, length, "positive_number")) return verify_number(state, name, value, true);
  if (text_is(kind, length, "strings")) return verify_array(state, name, value, true);
  if (text_is(kind, length, "integers")) return verify_array(state, name, value, false);
  if (text_is(kind, length, "text")) return verify_text(state, name, value, NULL, 0);
  return verify_text(state, name, value, kind, length);
}

bool verify_attributes(verify_state *state, const char *list) {
  intptr_t expected = 0;
  for (const char *at = list; *at;) {
    size_t name_length = strcspn(at, ":"), length = strcspn(at, " ");
    char name[32];
    snprintf(name, sizeof name, "%.*s", (int)name_length, at);
    MlirAttribute value = mlirOperationGetAttributeByName(state->op, mlirStringRefCreateFromCString(name));
    if (mlirAttributeIsNull(value)) return verify_fail(state, "attribute '%s' is missing", name);
    if (!verify_attribute(state, name, value, at + name_length + 1, length - name_length - 1)) return false;
    expected++;
    at += length;
    while (*at == ' ') at++;
  }
  intptr_t count = mlirOperationGetNumAttributes(state->op);
  for (intptr_t i = 0; i < count && count > expected; i++) {
    MlirStringRef name = mlirIdentifierStr(mlirOperationGetAttribute(state->op, i).name);
    if (memchr(name.data, '.', name.length)) continue; /* an annotation of a pass */
    bool known = false;
    for (const char *at = list; *at && !known;) {
      known = strcspn(at, ":") == name.length && memcmp(at, name.data, name.length) == 0;
      at += strcspn(at, " ");
      while (*at == ' ') at++;
    }
    if (!known) return verify_fail(state, "attribute '%.*s' is unknown", (int)name.length, name.data);
  }
  return true;
}

/* ---- the cache: a value is read before the op that writes it, since the memory behind it is written in place ---- */

static bool writes_cache(MlirOperation op) {
  return ir_is(op, "model.cache_append") || ir_is(op, "model.norm_rope_append");
}

static bool verify_cache_value(verify_state *state, MlirValue cache) {
  MlirOperation writer = {NULL};
  for (MlirOpOperand use = mlirValueGetFirstUse(cache); !mlirOpOperandIsNull(use); use = mlirOpOperandGetNextUse(use)) {
    MlirOperation user = mlirOpOperandGetOwner(use);
    if (!writes_cache(user)) continue;
    if (!mlirOperationIsNull(writer)) {
      state->op = mlirOperationIsBeforeInBlock(writer, user) ? user : writer;
      return verify_fail(state, "the cache is written a second time as the same value, expected the cache that the "
                                "earlier write gives");
    }
    writer = user;
  }
  if (mlirOperationIsNull(writer)) return true;
  MlirOperation offender = {NULL};
  for (MlirOpOperand use = mlirValueGetFirstUse(cache); !mlirOpOperandIsNull(use); use = mlirOpOperandGetNextUse(use)) {
    MlirOperation user = mlirOpOperandGetOwner(use);
    if (!mlirOperationIsBeforeInBlock(writer, user)) continue;
    if (mlirOperationIsNull(offender) || mlirOperationIsBeforeInBlock(user, offender)) offender = user;
  }
  if (mlirOperationIsNull(offender)) return true;
  state->op = offender;
  return verify_fail(state, "the cache is read as a value that was overwritten before, expected the newest one");
}

/* ---- functions ---- */

static bool type_is_matrix(MlirType type, MlirType element, int64_t columns) {
  return mlirTypeEqual(type, ir_tensor(element, (int64_t[]){-1, columns}, 2));
}

/* @step: the signature of docs/ir.md, or that of a lowered function, which has neither arguments nor results. */
static bool verify_step(verify_state *state, MlirType type) {
  static const char integers[][20] = {"model.page", "model.vocabulary", "model.max_context"};
  for (size_t i = 0; i < sizeof integers / sizeof integers[0]; i++)
    if (ir_get_integer(state->op, integers[i]) < 1)
      return verify_fail(state, "@step has no positive integer attribute '%s'", integers[i]);
  if (mlirTypeIsNull(state->activation)) return verify_fail(state, "@step has no attribute 'model.dtype'");
  intptr_t inputs = mlirFunctionTypeGetNumInputs(type), results = mlirFunctionTypeGetNumResults(type);
  if (inputs == 0 && results == 0) return true;
  if (inputs != 2 || !mlirTypeEqual(mlirFunctionTypeGetInput(type, 0), ir_batch_type(state->context)) ||
      !mlirTypeEqual(mlirFunctionTypeGetInput(type, 1), ir_cache_type(state->context)))
    return verify_fail(state, "@step does not take (!model.batch, !model.cache)");
  MlirType sampled = ir_tensor(ir_i32(state->context), (int64_t[]){-1}, 1);
  if (results != 2 || !type_is_matrix(mlirFunctionTypeGetResult(type, 0), ir_f32(state->context), state->vocabulary) ||
      !mlirTypeEqual(mlirFunctionTypeGetResult(type, 1), sampled))
    return verify_fail(state, "@step does not return (tensor<?x%lldxf32>, tensor<?xi32>), the logits and the samples",
                       (long long)state->vocabulary);
  return true;
}

static bool verify_signature(verify_state *state) {
  MlirAttribute attribute = mlirOperationGetAttributeByName(state->op, mlirStringRefCreateFromCString("function_type"));
  if (mlirAttributeIsNull(attribute) || !mlirAttributeIsAType(attribute))
    return verify_fail(state, "it has no function type");
  if (ir_has(state->op, "model.dtype")) {
    MlirStringRef dtype = ir_get_string(state->op, "model.dtype");
    if (text_is(dtype.data, dtype.length, "float32"))
      state->activation = ir_f32(state->context);
    else if (text_is(dtype.data, dtype.length, "bfloat16"))
      state->activation = ir_bf16(state->context);
    else
      return verify_fail(state, "attribute 'model.dtype' is \"%.*s\", expected one of float32|bfloat16",
                         (int)dtype.length, dtype.data);
  }
  static const char integers[][28] = {"model.page", "model.vocabulary", "model.max_context", "model.query_tile"};
  for (size_t i = 0; i < sizeof integers / sizeof integers[0]; i++)
    if (ir_has(state->op, integers[i]) && ir_get_integer(state->op, integers[i]) < 1)
      return verify_fail(state, "attribute '%s' is no positive integer", integers[i]);
  state->page = ir_get_integer(state->op, "model.page");
  state->vocabulary = ir_get_integer(state->op, "model.vocabulary");
  state->query_tile = ir_get_integer(state->op, "model.query_tile");
  MlirStringRef name = ir_get_string(state->op, "sym_name");
  return !text_is(name.data, name.length, "step") || verify_step(state, mlirTypeAttrGetValue(attribute));
}

static bool starts_with(MlirStringRef text, const char *prefix) {
  return text.length >= strlen(prefix) && memcmp(text.data, prefix, strlen(prefix)) == 0;
}

static bool verify_body(verify_state *state, MlirBlock block) {
  for (intptr_t i = 0; i < mlirBlockGetNumArguments(block); i++) {
    MlirValue argument = mlirBlockGetArgument(block, i);
    if (mlirTypeEqual(mlirValueGetType(argument), ir_cache_type(state->context)) &&
        !verify_cache_value(state, argument))
      return false;
  }
  for (MlirOperation op = mlirBlockGetFirstOperation(block); !mlirOperationIsNull(op);
       op = mlirOperationGetNextInBlock(op)) {
    state->op = op;
    MlirStringRef name = ir_name(op);
    if (starts_with(name, "model.")) {
      if (!verify_model_op(state)) return false;
      for (intptr_t i = 0; i < mlirOperationGetNumResults(op); i++) {
        MlirValue result = mlirOperationGetResult(op, i);
        if (mlirTypeEqual(mlirValueGetType(result), ir_cache_type(state->context)) &&
            !verify_cache_value(state, result))
          return false;
      }
    } else if (starts_with(name, "kernel.")) {
      if (!verify_kernel_op(state)) return false;
    } else if (!starts_with(name, "func.return")) {
      return verify_fail(state, "only ops of the dialects model and kernel and func.return may stand in a function");
    }
  }
  return true;
}

static bool verify_function(verify_state *state, MlirOperation function) {
  state->op = function;
  state->layer_count = 0;
  state->activation = (MlirType){NULL};
  if (!ir_is(function, "func.func")) return verify_fail(state, "only functions may stand in the module");
  if (!verify_signature(state)) return false;
  MlirBlock block = ir_body(function);
  if (mlirBlockIsNull(block)) return true; /* a declaration */
  if (!mlirBlockIsNull(mlirBlockGetNextInRegion(block)))
    return verify_fail(state, "it has more than one block, expected straight-line code");
  return verify_body(state, block);
}

sluice_status *ir_verify(ir_context *context, MlirModule module) {
  MlirOperation operation = mlirModuleGetOperation(module);
  verify_state state = {.context = context};
  bool ok = mlirOperationVerify(operation);
  MlirOperation function = mlirBlockGetFirstOperation(mlirModuleGetBody(module));
  for (; ok && !mlirOperationIsNull(function); function = mlirOperationGetNextInBlock(function))
    ok = verify_function(&state, function);
  sluice_release(state.layers);
  if (state.out_of_memory) ir_note_out_of_memory(context);
  if (ok && !ir_has_error(context)) return NULL;
  return ir_take_error(context, SLUICE_INVALID, "the IR is not valid");
}
