#include "passes/variants.h"

#include <string.h>

/* Choices that all variants of an op share, and the attributes that have them. */
static const struct {
  kernel_choice choice;
  const char *attribute;
} common[] = {{CHOOSE_PANEL, "tile.panel"},
              {CHOOSE_GROUP, "tile.group"},
              {CHOOSE_SPLIT, "tile.split"},
              {CHOOSE_QUERY_TILE, "tile.query"}};
enum { COMMON = sizeof common / sizeof *common };

static const char *common_attribute(kernel_choice choice) {
  for (size_t i = 0; i < COMMON; i++)
    if (common[i].choice == choice) return common[i].attribute;
  return NULL;
}

static bool failed(pass_state *state, MlirOperation op, sluice_status *status) {
  if (!status) return false;
  if (sluice_status_code(status) == SLUICE_OUT_OF_MEMORY) { /* not the op's fault */
    if (state->status)
      sluice_status_free(status);
    else
      state->status = status;
    return true;
  }
  pass_fail(state, op, "%s", sluice_status_message(status));
  sluice_status_free(status);
  return true;
}

bool variants_find(pass_state *state, MlirOperation op, const kernel_question *question, kernel_variants *out) {
  return !failed(state, op, configuration_find(state->configuration, question, out));
}

static void set(MlirOperation op, const char *name, MlirAttribute value) {
  mlirOperationSetAttributeByName(op, mlirStringRefCreateFromCString(name), value);
}

/* A choice as an attribute: schedules by their names. */
MlirAttribute variant_attribute(pass_state *state, kernel_choice choice, int64_t value) {
  if (choice == CHOOSE_SCHEDULE) return ir_string(state->context, schedule_name((kernel_schedule)value));
  return ir_integer(state->context, value);
}

static MlirNamedAttribute named(pass_state *state, const char *name, MlirAttribute value) {
  MlirContext mlir = ir_mlir(state->context);
  return mlirNamedAttributeGet(mlirIdentifierGet(mlir, mlirStringRefCreateFromCString(name)), value);
}

void variants_write(pass_state *state, MlirOperation op, const char *name, const char *family,
                    const kernel_variants *variants) {
  const kernel_choice *choices;
  const size_t count = family_choices(family, &choices);
  MlirAttribute items[MOST_VARIANTS];
  for (size_t v = 0; v < variants->count; v++) {
    const kernel_variant *variant = &variants->item[v];
    MlirNamedAttribute entries[CHOICE_COUNT + 2];
    intptr_t n = 0;
    entries[n++] = named(state, "from", ir_integer(state->context, variant->from));
    entries[n++] = named(state, "to", ir_integer(state->context, variant->to));
    for (size_t i = 0; i < count; i++) {
      const char *shared = common_attribute(choices[i]);
      if (shared)
        set(op, shared, ir_integer(state->context, variant->choice[choices[i]]));
      else
        entries[n++] =
            named(state, choice_name(choices[i]), variant_attribute(state, choices[i], variant->choice[choices[i]]));
    }
    items[v] = mlirDictionaryAttrGet(ir_mlir(state->context), n, entries);
  }
  set(op, name, mlirArrayAttrGet(ir_mlir(state->context), (intptr_t)variants->count, items));
}

static bool entry(MlirAttribute dictionary, const char *name, int64_t *out) {
  MlirAttribute value = mlirDictionaryAttrGetElementByName(dictionary, mlirStringRefCreateFromCString(name));
  if (!mlirAttributeIsNull(value) && mlirAttributeIsAString(value)) {
    MlirStringRef text = mlirStringAttrGetValue(value);
    *out = schedule_find(text.data, text.length);
    return *out < SCHEDULE_COUNT;
  }
  if (mlirAttributeIsNull(value) || !mlirAttributeIsAInteger(value)) return false;
  *out = mlirIntegerAttrGetValueInt(value);
  return true;
}

static bool read_variant(pass_state *state, MlirOperation op, const char *name, const char *family,
                         MlirAttribute dictionary, kernel_variant *out) {
  const kernel_choice *choices;
  const size_t count = family_choices(family, &choices);
  int64_t from = -1, to = -1;
  if (!mlirAttributeIsADictionary(dictionary) || !entry(dictionary, "from", &from) || !entry(dictionary, "to", &to) ||
      from < 0 || from > UINT32_MAX || to < 0 || to > UINT32_MAX)
    return pass_fail(state, op, "%s is not a list of {from, to, ...} with sizes of 32 bits", name);
  *out = (kernel_variant){.from = (uint32_t)from, .to = (uint32_t)to};
  for (size_t i = 0; i < count; i++) {
    const char *shared = common_attribute(choices[i]);
    if (shared)
      out->choice[choices[i]] = ir_get_integer(op, shared);
    else if (!entry(dictionary, choice_name(choices[i]), &out->choice[choices[i]]))
      return pass_fail(state, op, "%s lacks '%s'", name, choice_name(choices[i]));
  }
  return true;
}

bool variants_read(pass_state *state, MlirOperation op, const char *name, const char *family, kernel_variants *out) {
  *out = (kernel_variants){.count = 0};
  MlirAttribute list = mlirOperationGetAttributeByName(op, mlirStringRefCreateFromCString(name));
  if (mlirAttributeIsNull(list) || !mlirAttributeIsAArray(list))
    return pass_fail(state, op, "no attribute %s: run choose-tiles first", name);
  const intptr_t count = mlirArrayAttrGetNumElements(list);
  if (count > MOST_VARIANTS)
    return pass_fail(state, op, "%s has %d variants, expected at most %d", name, (int)count, MOST_VARIANTS);
  for (intptr_t i = 0; i < count; i++)
    if (!read_variant(state, op, name, family, mlirArrayAttrGetElement(list, i), &out->item[out->count++]))
      return false;
  return !failed(state, op, configuration_check(state->configuration, &(kernel_question){.family = family}, out));
}

int64_t variants_partial_rows(const kernel_variants *variants) {
  int64_t rows = 0;
  for (size_t i = 0; i < variants->count; i++) {
    const int64_t *choice = variants->item[i].choice, found = choice[CHOOSE_PARTS] * choice[CHOOSE_PART_ROWS];
    if (found > rows) rows = found;
  }
  return rows;
}
