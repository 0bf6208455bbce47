/* The `kernel` dialect: what each operand of a launch must be, and which attributes it has with which domain. One table
 * row for each op; docs/ir.md describes the rows. */
#include "backends/common/legal.h"
#include "ir/ranges.h"
#include "ir/verify.h"

#include <stdio.h>
#include <string.h>

/* Operands are "NAME=ROLE", in order, separated by spaces. Roles, where D is "f32", "i32", or the name of the attribute
 * that holds the element type:
 *   value/D     in the arena, or an output
 *   maybe/D     the same, or kernel.none
 *   rows/D      a weight, row-major
 *   maybe_rows/D    the same, or kernel.none
 *   panels/D    a weight in panels; pairs of panels when `epilogue` is "swiglu"
 *   maybe_panels/D  the same, or kernel.none
 *   input/NAME  kernel.input of that name
 *   cache       the page pool of the launch's layer */
typedef struct kernel_op {
  const char *name; /* without "kernel." */
  const char *operands;
  const char *attributes;
} kernel_op;

#define LAUNCH "label:text layer:layer target:text cost:integers "
#define PAGE "page:positive page_bytes:positive_multiple transposed:keys|values "
#define ATTENTION_OF_TOKENS                                                                                            \
  "heads:positive kv_heads:positive head_dim:positive scale:positive_number " PAGE "value_offset:multiple dtype:dtype"
#define ATTENTION ATTENTION_OF_TOKENS " query_tile:positive"
#define PARTS " schedule:schedule parts:positive part_rows:positive"
#define PLACE "positions=input/positions sequence=input/sequence page_table=input/page_table cache=cache"
#define PAGED "tiles=input/tiles page_table=input/page_table cache=cache "
#define GEMM                                                                                                           \
  "x_dtype:dtype weight_dtype:dtype out_dtype:dtype tile_m:positive panel:positive slice:positive group:positive "     \
  "workgroups:count schedule:schedule lanes:positive stages:positive"

static const kernel_op launches[] = {
    {"embed", "tokens=input/tokens table=rows/weight_dtype out=value/dtype",
     LAUNCH "width:positive vocabulary:positive weight_dtype:dtype dtype:dtype"},
    {"rms_norm", "x=value/dtype w=rows/weight_dtype out=value/dtype",
     LAUNCH "size:rows width:positive eps:positive_number dtype:dtype weight_dtype:dtype"},
    {"head_norm", "x=value/dtype w=rows/weight_dtype out=value/dtype",
     LAUNCH "heads:positive head_dim:positive eps:positive_number dtype:dtype weight_dtype:dtype"},
    {"rope_table", "positions=input/positions out=value/f32", LAUNCH "theta:positive_number rotary_dim:even"},
    {"rope", "x=value/dtype table=value/f32 out=value/dtype",
     LAUNCH "heads:positive head_dim:positive rotary_dim:even dtype:dtype"},
    {"cache_append", "x=value/dtype " PLACE,
     LAUNCH "part:key|value|index_key heads:positive head_dim:positive " PAGE "part_offset:multiple dtype:dtype"},
    {"norm_rope_append",
     "projection=value/dtype table=value/f32 q_norm=rows/weight_dtype k_norm=rows/weight_dtype "
     "index_q_norm=maybe_rows/weight_dtype index_k_norm=maybe_rows/weight_dtype " PLACE " q=value/dtype iq=maybe/dtype",
     LAUNCH "heads:positive kv_heads:positive head_dim:positive index_heads:count index_dim:count rotary_dim:even "
            "eps:positive_number " PAGE
            "value_offset:multiple index_offset:multiple dtype:dtype weight_dtype:dtype many:count"},
    {"gemm", "x=value/x_dtype w=panels/weight_dtype residual=maybe/out_dtype out=value/out_dtype",
     LAUNCH "size:rows n:positive k:positive epilogue:none|add|swiglu alpha:number limit:number " GEMM},
    {"index_score", "iq=value/dtype " PAGED "scores=value/f32",
     LAUNCH "heads:positive dim:positive " PAGE "index_offset:multiple dtype:dtype"},
    {"block_score", "iq=value/dtype " PAGED "maxima=value/f32",
     LAUNCH "heads:positive dim:positive k:positive local:count " PAGE
            "index_offset:multiple dtype:dtype query_tile:positive cache_first:count many:count"},
    {"block_max", "scores=value/f32 positions=input/positions maxima=value/f32",
     LAUNCH "heads:positive block:positive"},
    {"topk_blocks", "maxima=value/f32 positions=input/positions blocks=value/i32",
     LAUNCH "heads:positive k:positive init:count local:count block:positive"},
    {"index_select", "iq=value/dtype " PAGED "blocks=value/i32",
     LAUNCH "heads:positive dim:positive k:positive init:count local:count " PAGE
            "index_offset:multiple dtype:dtype query_tile:positive max_pages:positive"},
    {"attention", "q=value/dtype " PAGED "out=value/dtype", LAUNCH ATTENTION},
    {"attention_part", "q=value/dtype " PLACE " out=value/dtype partials=value/f32", LAUNCH ATTENTION_OF_TOKENS PARTS},
    {"attention_merge", "partials=value/f32 out=value/dtype",
     LAUNCH "heads:positive kv_heads:positive head_dim:positive k:count dtype:dtype" PARTS},
    {"block_attention", "q=value/dtype blocks=value/i32 " PAGED "out=value/dtype", LAUNCH ATTENTION " k:positive"},
    {"topk_attention", "q=value/dtype maxima=value/f32 " PLACE " out=value/dtype blocks=value/i32",
     LAUNCH ATTENTION_OF_TOKENS
     " schedule:schedule cluster:positive per_processor:positive k:positive init:count local:count"},
    {"topk_attention_part",
     "q=value/dtype maxima=value/f32 " PLACE " out=value/dtype blocks=value/i32 partials=value/f32",
     LAUNCH ATTENTION_OF_TOKENS PARTS " k:positive init:count local:count"},
    {"select_attention", "q=value/dtype iq=value/dtype " PAGED "out=value/dtype blocks=value/i32",
     LAUNCH ATTENTION " index_dim:positive k:positive init:count local:count index_offset:multiple max_pages:positive"},
    {"router", "x=value/dtype gate=panels/f32 bias=rows/f32 experts=value/i32 weights=value/f32",
     LAUNCH "width:positive experts:positive k:positive dtype:dtype panel:positive"},
    {"router_logits", "x=value/dtype gate=rows/f32 logits=value/f32",
     LAUNCH "width:positive experts:positive many:count dtype:dtype"},
    {"topk_experts", "logits=value/f32 bias=rows/f32 experts=value/i32 weights=value/f32",
     LAUNCH "experts:positive k:positive"},
    {"sort_experts", "experts=value/i32 counts=value/i32 order=value/i32 expert_tiles=value/i32",
     LAUNCH "experts:positive k:positive shared:flag tile_m:positive"},
    {"route",
     "logits=value/f32 bias=rows/f32 counts=value/i32 order=value/i32 expert_tiles=value/i32 experts=value/i32 "
     "weights=value/f32",
     LAUNCH "experts:positive k:positive shared:flag tile_m:positive tokens:positive"},
    {"expert_gemm",
     "x=value/x_dtype w=panels/weight_dtype shared_w=maybe_panels/weight_dtype counts=value/i32 order=value/i32 "
     "expert_tiles=value/i32 out=value/out_dtype",
     LAUNCH "n:positive k:positive experts:positive top_k:positive shared:flag "
            "gather:token|slot overlap:none|first|second epilogue:none|swiglu alpha:number limit:number " GEMM
            " batch_bytes:positive_multiple"},
    {"combine", "y=value/f32 weights=value/f32 shared_y=maybe/f32 residual=maybe/dtype out=value/dtype",
     LAUNCH "width:positive k:positive shared:flag shared_rows:flag scale:number dtype:dtype"},
    {"swiglu", "gate=value/dtype up=value/dtype out=value/dtype",
     LAUNCH "size:rows width:positive alpha:number limit:number dtype:dtype slots:positive"},
    {"add", "a=value/dtype b=value/dtype out=value/dtype", LAUNCH "size:rows width:positive dtype:dtype"},
    {"add_ranks", "x=value/dtype parts=value/dtype out=value/dtype",
     LAUNCH "size:rows width:positive ranks:positive dtype:dtype"},
    {"join_ranks", "x=value/dtype parts=value/dtype out=value/dtype",
     LAUNCH "size:rows width:positive ranks:positive dtype:dtype"},
    {"slice", "x=value/dtype out=value/dtype",
     LAUNCH "size:rows x_width:positive width:positive offset:count dtype:dtype"},
    {"select_rows", "x=value/dtype logit_rows=input/logit_rows out=value/dtype", LAUNCH "width:positive dtype:dtype"},
    {"sample", "logits=value/f32 sampling=input/sampling sampled=value/i32", LAUNCH "vocabulary:positive"},
    {"logprobs", "logits=value/f32 sampling=input/sampling sampled=value/i32 logprobs=output/logprobs",
     LAUNCH "vocabulary:positive"},
};

static const kernel_op memories[] = {
    {"arena", "", "name:text size:size offset:multiple bytes:positive_multiple dtype:element width:positive"},
    {"weight", "",
     "name:text sources:strings source_rows:integers rank:positive layout:layout dtype:dtype "
     "rows:positive columns:positive batch:positive panel:count group:positive"},
    {"input", "", "name:input"},
    {"output", "", "name:output"},
    {"cache", "", "layer:count page_bytes:positive_multiple has_index:flag"},
    {"none", "", ""},
    {"observe", "x=any", "name:text dimension:positive dtype:element"},
    {"join", "", "launches:positive waits:integers late:integers"},
};

static bool text_equals(MlirStringRef text, const char *expected) {
  return text.length == strlen(expected) && memcmp(text.data, expected, text.length) == 0;
}

static bool same_text(MlirStringRef a, MlirStringRef b) {
  return a.length == b.length && memcmp(a.data, b.data, a.length) == 0;
}

/* ---- operands ---- */

/* The element type that `dtype` of a role asks for. */
static MlirStringRef wanted_dtype(const verify_state *state, const char *dtype) {
  if (strcmp(dtype, "f32") == 0 || strcmp(dtype, "i32") == 0) return mlirStringRefCreateFromCString(dtype);
  return ir_get_string(state->op, dtype);
}

static bool verify_dtype(verify_state *state, const char *name, MlirStringRef found, const char *dtype) {
  MlirStringRef expected = wanted_dtype(state, dtype);
  if (same_text(found, expected)) return true;
  return verify_fail(state, "%s has elements of %.*s, expected %.*s", name, (int)found.length, found.data,
                     (int)expected.length, expected.data);
}

static bool verify_value(verify_state *state, const char *name, MlirOperation source, const char *dtype) {
  if (ir_is(source, "kernel.output"))
    return verify_dtype(
        state, name,
        mlirStringRefCreateFromCString(text_equals(ir_get_string(source, "name"), "logits") ? "f32" : "i32"), dtype);
  if (!ir_is(source, "kernel.arena")) return verify_fail(state, "%s is no kernel.arena or kernel.output", name);
  return verify_dtype(state, name, ir_get_string(source, "dtype"), dtype);
}

static bool verify_weight(verify_state *state, const char *name, MlirOperation source, const char *layout,
                          const char *dtype) {
  if (!ir_is(source, "kernel.weight")) return verify_fail(state, "%s is no kernel.weight", name);
  MlirStringRef found = ir_get_string(source, "layout");
  if (!text_equals(found, layout))
    return verify_fail(state, "%s is a weight with layout \"%.*s\", expected \"%s\"", name, (int)found.length,
                       found.data, layout);
  if (ir_has(state->op, "group") && ir_get_integer(source, "group") != ir_get_integer(state->op, "group"))
    return verify_fail(state, "%s has groups of %lld columns, expected %lld, the attribute 'group'", name,
                       (long long)ir_get_integer(source, "group"), (long long)ir_get_integer(state->op, "group"));
  if (strcmp(layout, "rows") != 0 && ir_get_integer(source, "panel") != ir_get_integer(state->op, "panel"))
    return verify_fail(state, "%s has panels of %lld rows, expected %lld, the attribute 'panel'", name,
                       (long long)ir_get_integer(source, "panel"), (long long)ir_get_integer(state->op, "panel"));
  return verify_dtype(state, name, ir_get_string(source, "dtype"), dtype);
}

static bool verify_input(verify_state *state, const char *name, MlirOperation source, const char *input) {
  if (ir_is(source, "kernel.input") && text_equals(ir_get_string(source, "name"), input)) return true;
  return verify_fail(state, "%s is not the kernel.input \"%s\"", name, input);
}

static bool verify_output(verify_state *state, const char *name, MlirOperation source, const char *output) {
  if (ir_is(source, "kernel.output") && text_equals(ir_get_string(source, "name"), output)) return true;
  return verify_fail(state, "%s is not the kernel.output \"%s\"", name, output);
}

static bool verify_cache(verify_state *state, const char *name, MlirOperation source) {
  if (!ir_is(source, "kernel.cache")) return verify_fail(state, "%s is no kernel.cache", name);
  int64_t layer = ir_get_integer(source, "layer"), bytes = ir_get_integer(source, "page_bytes");
  if (layer != ir_get_integer(state->op, "layer"))
    return verify_fail(state, "%s belongs to layer %lld, but the launch to layer %lld", name, (long long)layer,
                       (long long)ir_get_integer(state->op, "layer"));
  if (bytes != ir_get_integer(state->op, "page_bytes"))
    return verify_fail(state, "%s has pages of %lld bytes, expected %lld, the attribute 'page_bytes'", name,
                       (long long)bytes, (long long)ir_get_integer(state->op, "page_bytes"));
  return true;
}

static bool verify_operand(verify_state *state, const char *name, const char *role, const char *detail,
                           MlirOperation source) {
  bool none = ir_is(source, "kernel.none");
  if (strcmp(role, "any") == 0 || strcmp(role, "value") == 0)
    return strcmp(role, "any") == 0 || verify_value(state, name, source, detail);
  if (strcmp(role, "maybe") == 0) return none || verify_value(state, name, source, detail);
  if (strcmp(role, "rows") == 0) return verify_weight(state, name, source, "rows", detail);
  if (strcmp(role, "maybe_rows") == 0) return none || verify_weight(state, name, source, "rows", detail);
  if (strcmp(role, "input") == 0) return verify_input(state, name, source, detail);
  if (strcmp(role, "output") == 0) return verify_output(state, name, source, detail);
  if (strcmp(role, "cache") == 0) return verify_cache(state, name, source);
  if (strcmp(role, "maybe_panels") == 0 && none) return true;
  bool pairs = text_equals(ir_get_string(state->op, "epilogue"), "swiglu");
  return verify_weight(state, name, source, pairs ? "panel_pairs" : "panels", detail);
}

static bool verify_operands(verify_state *state, const char *list) {
  intptr_t index = 0;
  for (const char *at = list; *at; index++) {
    char name[32], role[16], detail[24];
    int used = 0;
    detail[0] = 0;
    if (sscanf(at, "%31[^=]=%15[^/ ]%n/%23[^ ]", name, role, &used, detail) < 2) break;
    MlirValue operand = mlirOperationGetOperand(state->op, index);
    if (!verify_operand(state, name, role, detail, ir_definition(operand))) return false;
    at += strcspn(at, " ");
    while (*at == ' ') at++;
  }
  return true;
}

/* ---- what relates attributes and operands of single ops ---- */

static int64_t integer(const verify_state *state, const char *name) {
  return ir_get_integer(state->op, name);
}

static bool is_none(const verify_state *state, intptr_t index) {
  return ir_is(ir_definition(mlirOperationGetOperand(state->op, index)), "kernel.none");
}

static size_t element_bytes(MlirStringRef dtype) {
  return text_equals(dtype, "bf16") ? 2 : 4;
}

static bool verify_arena(verify_state *state) {
  int64_t needed, bytes = integer(state, "bytes"), end;
  if (__builtin_mul_overflow(integer(state, "width"), (int64_t)element_bytes(ir_get_string(state->op, "dtype")),
                             &needed) ||
      needed > bytes)
    return verify_fail(state, "'width' elements need more than the attribute 'bytes', %lld", (long long)bytes);
  if (__builtin_add_overflow(integer(state, "offset"), bytes, &end))
    return verify_fail(state, "'offset' plus 'bytes' overflows");
  return true;
}

static bool verify_memory_weight(verify_state *state) {
  MlirAttribute sources = mlirOperationGetAttributeByName(state->op, mlirStringRefCreateFromCString("sources"));
  MlirAttribute source_rows = mlirOperationGetAttributeByName(state->op, mlirStringRefCreateFromCString("source_rows"));
  intptr_t count = mlirArrayAttrGetNumElements(sources);
  if (mlirArrayAttrGetNumElements(source_rows) != count)
    return verify_fail(state, "it has %ld 'sources' but %ld 'source_rows'", (long)count,
                       (long)mlirArrayAttrGetNumElements(source_rows));
  int64_t rows = 0;
  for (intptr_t i = 0; i < count; i++) {
    int64_t one = mlirIntegerAttrGetValueInt(mlirArrayAttrGetElement(source_rows, i));
    if (one < 1 || __builtin_add_overflow(rows, one, &rows))
      return verify_fail(state, "element %ld of 'source_rows' is %lld, expected a positive number", (long)i,
                         (long long)one);
  }
  if (rows != integer(state, "rows"))
    return verify_fail(state, "'source_rows' add up to %lld, expected %lld, the attribute 'rows'", (long long)rows,
                       (long long)integer(state, "rows"));
  int64_t rank = integer(state, "rank");
  if (rank > 2 || (rank == 1 && rows != count))
    return verify_fail(state, "'rank' is %lld, expected 2, or 1 for vectors, which have one row each", (long long)rank);
  MlirStringRef layout = ir_get_string(state->op, "layout");
  bool panels = !text_equals(layout, "rows");
  if (panels != (integer(state, "panel") != 0))
    return verify_fail(state, "'panel' is %lld with layout \"%.*s\"", (long long)integer(state, "panel"),
                       (int)layout.length, layout.data);
  if (text_equals(layout, "panel_pairs") && rows % 2)
    return verify_fail(state, "it has %lld rows, expected an even number for pairs of panels", (long long)rows);
  return true;
}

/* launch.range, where it is given. */
static bool verify_range(verify_state *state) {
  step_ranges ranges;
  const char *wrong = ir_ranges(state->op, &ranges);
  return !wrong || verify_fail(state, "'launch.range': %s", wrong);
}

static bool verify_launch(verify_state *state) {
  if (!verify_range(state)) return false;
  if (state->query_tile && integer(state, "query_tile") > state->query_tile)
    return verify_fail(state, "'query_tile' is %lld, but the step's query tiles have %lld tokens, model.query_tile",
                       (long long)integer(state, "query_tile"), (long long)state->query_tile);
  MlirAttribute cost = mlirOperationGetAttributeByName(state->op, mlirStringRefCreateFromCString("cost"));
  if (mlirArrayAttrGetNumElements(cost) != 10)
    return verify_fail(state, "'cost' has %ld elements, expected 10", (long)mlirArrayAttrGetNumElements(cost));
  for (intptr_t i = 0; i < 10; i++)
    if (mlirIntegerAttrGetValueInt(mlirArrayAttrGetElement(cost, i)) < 0)
      return verify_fail(state, "element %ld of 'cost' is negative", (long)i);
  if (integer(state, "kv_heads") && integer(state, "heads") % integer(state, "kv_heads"))
    return verify_fail(state, "'heads' is %lld, expected a multiple of 'kv_heads', %lld",
                       (long long)integer(state, "heads"), (long long)integer(state, "kv_heads"));
  static const char offsets[][16] = {"part_offset", "value_offset", "index_offset"};
  for (size_t i = 0; i < sizeof offsets / sizeof offsets[0]; i++)
    if (ir_has(state->op, offsets[i]) && integer(state, offsets[i]) >= integer(state, "page_bytes"))
      return verify_fail(state, "'%s' is %lld, beyond the page of %lld bytes", offsets[i],
                         (long long)integer(state, offsets[i]), (long long)integer(state, "page_bytes"));
  return true;
}

/* Whether some step runs both. */
static bool share_steps(MlirOperation a, MlirOperation b) {
  step_ranges x, y;
  (void)ir_ranges(a, &x); /* what is wrong with them their own check says */
  (void)ir_ranges(b, &y);
  for (uint32_t i = 0; i < x.count; i++)
    for (uint32_t k = 0; k < y.count; k++) {
      const sluice_plan_range *p = &x.items[i], *q = &y.items[k];
      if (p->size == q->size && (p->to < q->from || q->to < p->from)) return false;
    }
  return true;
}

static bool same_steps(MlirOperation a, MlirOperation b) {
  MlirStringRef name = mlirStringRefCreateFromCString("launch.range");
  return mlirAttributeEqual(mlirOperationGetAttributeByName(a, name), mlirOperationGetAttributeByName(b, name));
}

/* Of the launches that run in steps of an expert_gemm that is the second, and know what was sorted for it, the last one
 * before it is the first, of the same steps: no sort is between the two. */
static bool verify_overlap(verify_state *state) {
  enum { COUNTS = 3, OUT = 6 };
  if (!ir_overlaps(state->op, "second")) return true;
  bool behind_first = false;
  MlirOperation op = mlirBlockGetFirstOperation(mlirOperationGetBlock(state->op));
  for (; !mlirOperationEqual(op, state->op); op = mlirOperationGetNextInBlock(op)) {
    bool knows = false;
    for (intptr_t i = 0; i < mlirOperationGetNumOperands(op); i++)
      for (intptr_t sorted = COUNTS; sorted < OUT; sorted++)
        knows = knows || mlirValueEqual(mlirOperationGetOperand(op, i), mlirOperationGetOperand(state->op, sorted));
    if (knows && share_steps(op, state->op)) behind_first = ir_overlaps(op, "first") && same_steps(op, state->op);
  }
  return behind_first ||
         verify_fail(state, "'overlap' is \"second\", but no first product of the same sort is before it");
}

/* The shared expert's weight of expert_gemm is like one expert's, `w`. */
static bool verify_shared_weight(verify_state *state, MlirOperation w) {
  if ((integer(state, "shared") == 0) != is_none(state, 2))
    return verify_fail(state, "shared_w is %s, but 'shared' is %lld", is_none(state, 2) ? "absent" : "given",
                       (long long)integer(state, "shared"));
  if (ir_get_integer(w, "batch") != integer(state, "experts"))
    return verify_fail(state, "w has %lld matrices, expected %lld, the attribute 'experts'",
                       (long long)ir_get_integer(w, "batch"), (long long)integer(state, "experts"));
  if (is_none(state, 2)) return true;
  MlirOperation shared = ir_definition(mlirOperationGetOperand(state->op, 2));
  static const char same[][8] = {"rows", "columns"};
  for (size_t i = 0; i < sizeof same / sizeof same[0]; i++)
    if (ir_get_integer(shared, same[i]) != ir_get_integer(w, same[i]))
      return verify_fail(state, "shared_w has %lld %s, expected %lld, those of w",
                         (long long)ir_get_integer(shared, same[i]), same[i], (long long)ir_get_integer(w, same[i]));
  if (ir_get_integer(shared, "batch") == 1) return true;
  return verify_fail(state, "shared_w has %lld matrices, expected one", (long long)ir_get_integer(shared, "batch"));
}

/* The choices of the launch are legal ones of its target (backends/common/legal.h). `question` has the family and the
 * shape. Choices that the op has no attribute for are 0. */
static bool verify_choices(verify_state *state, kernel_question *question) {
  MlirStringRef name = ir_get_string(state->op, "target");
  char target[32];
  snprintf(target, sizeof target, "%.*s", (int)name.length, name.data);
  const kernel_choice *choices;
  const size_t count = family_choices(question->family, &choices);
  kernel_variant variant = {.from = question->from, .to = question->to};
  for (size_t i = 0; i < count; i++) {
    const char *attribute = choice_name(choices[i]);
    if (!ir_has(state->op, attribute)) continue;
    MlirStringRef text = choices[i] == CHOOSE_SCHEDULE ? ir_get_string(state->op, attribute) : (MlirStringRef){0};
    variant.choice[choices[i]] =
        text.length ? (int64_t)schedule_find(text.data, text.length) : integer(state, attribute);
  }
  sluice_status *status = legal_check(target, question, &variant);
  if (!status) return true;
  verify_fail(state, "%s", sluice_status_message(status));
  sluice_status_free(status);
  return false;
}

static bool verify_tile(verify_state *state, bool pairs) {
  kernel_question question = {.family = ir_is(state->op, "kernel.gemm") ? "gemm" : "expert_gemm",
                              .n = integer(state, "n"),
                              .k = integer(state, "k"),
                              .pairs = pairs,
                              .matrix = text_equals(ir_get_string(state->op, "x_dtype"), "bf16")};
  return verify_choices(state, &question);
}

static bool verify_gemm(verify_state *state) {
  MlirOperation w = ir_definition(mlirOperationGetOperand(state->op, 1));
  bool pairs = text_equals(ir_get_string(state->op, "epilogue"), "swiglu");
  int64_t n = integer(state, "n"), rows = ir_get_integer(w, "rows");
  if (ir_get_integer(w, "columns") != integer(state, "k"))
    return verify_fail(state, "w has %lld columns, expected %lld, the attribute 'k'",
                       (long long)ir_get_integer(w, "columns"), (long long)integer(state, "k"));
  if (pairs ? rows % 2 || rows / 2 != n : rows != n)
    return verify_fail(state, "w has %lld rows, expected %s%lld", (long long)rows, pairs ? "twice " : "", (long long)n);
  if (!verify_tile(state, pairs)) return false;
  if (ir_is(state->op, "kernel.expert_gemm")) return verify_shared_weight(state, w) && verify_overlap(state);
  bool add = text_equals(ir_get_string(state->op, "epilogue"), "add");
  if (add != !is_none(state, 2))
    return verify_fail(state, "residual is %s, but the epilogue %s it", add ? "absent" : "given",
                       add ? "needs" : "does not use");
  return true;
}

static bool verify_index_branch(verify_state *state) {
  bool index = integer(state, "index_heads") != 0;
  if (index != (integer(state, "index_dim") != 0) || index == is_none(state, 4) || index == is_none(state, 5) ||
      index == is_none(state, 11))
    return verify_fail(state, "of 'index_heads', 'index_dim', index_q_norm, index_k_norm and iq some are there and "
                              "others are not");
  int64_t rotary = integer(state, "rotary_dim"), dim = integer(state, "head_dim");
  if (index && integer(state, "index_dim") < dim) dim = integer(state, "index_dim");
  if (rotary > dim)
    return verify_fail(state, "'rotary_dim' is %lld, but a head has %lld dimensions", (long long)rotary,
                       (long long)dim);
  return true;
}

/* The partial results of attention whose keys are shared: f32 [parts][part_rows][head_dim + 2]. */
static bool verify_partials(verify_state *state) {
  const bool merge = ir_is(state->op, "kernel.attention_merge"); /* all others have them last */
  const intptr_t place = merge ? 0 : mlirOperationGetNumOperands(state->op) - 1;
  MlirOperation partials = ir_definition(mlirOperationGetOperand(state->op, place));
  int64_t needed = 4, head_dim = integer(state, "head_dim");
  if (!verify_choices(state, &(kernel_question){.family = "attention_part"})) return false;
  if (integer(state, "heads") > integer(state, "kv_heads") * integer(state, "part_rows"))
    return verify_fail(state, "a kv head has %lld query heads, expected at most %lld, the attribute 'part_rows'",
                       (long long)(integer(state, "heads") / integer(state, "kv_heads")),
                       (long long)integer(state, "part_rows"));
  const bool fits = !__builtin_add_overflow(head_dim, 2, &head_dim) &&
                    !__builtin_mul_overflow(needed, integer(state, "parts"), &needed) &&
                    !__builtin_mul_overflow(needed, integer(state, "part_rows"), &needed) &&
                    !__builtin_mul_overflow(needed, head_dim, &needed) && needed <= ir_get_integer(partials, "bytes");
  if (fits && text_equals(ir_get_string(partials, "size"), "one")) return true;
  return verify_fail(state,
                     "partials has %lld bytes for each of size \"%.*s\", expected \"one\" and room for %lld parts",
                     (long long)ir_get_integer(partials, "bytes"), (int)ir_get_string(partials, "size").length,
                     ir_get_string(partials, "size").data, (long long)integer(state, "parts"));
}

/* The shared expert's part of a sum is a slot or rows of its own. */
static bool verify_combine(verify_state *state) {
  if (is_none(state, 2) != (integer(state, "shared_rows") == 0))
    return verify_fail(state, "shared_y is %s, but 'shared_rows' is %lld", is_none(state, 2) ? "absent" : "given",
                       (long long)integer(state, "shared_rows"));
  if (integer(state, "shared") == 0 || integer(state, "shared_rows") == 0) return true;
  return verify_fail(state, "the shared expert is a slot of y and has rows of its own");
}

/* A route has room for the choices of 'tokens' tokens. */
static bool verify_route(verify_state *state) {
  step_ranges ranges;
  (void)ir_ranges(state->op, &ranges); /* which verify_range found right */
  for (uint32_t i = 0; i < ranges.count; i++)
    if (ranges.items[i].size == SLUICE_SIZE_TOKENS && (int64_t)ranges.items[i].to <= integer(state, "tokens"))
      return true;
  return verify_fail(state, "it takes %lld tokens, but its launch.range does not end there",
                     (long long)integer(state, "tokens"));
}

static bool verify_relations(verify_state *state) {
  if (ir_is(state->op, "kernel.route") && !verify_route(state)) return false;
  if (ir_is(state->op, "kernel.combine") && !verify_combine(state)) return false;
  if (ir_is(state->op, "kernel.gemm") || ir_is(state->op, "kernel.expert_gemm")) return verify_gemm(state);
  if (ir_has(state->op, "parts")) return verify_partials(state);
  if (ir_is(state->op, "kernel.norm_rope_append")) return verify_index_branch(state);
  if (ir_is(state->op, "kernel.rope") && integer(state, "rotary_dim") > integer(state, "head_dim"))
    return verify_fail(state, "'rotary_dim' is %lld, but a head has %lld dimensions",
                       (long long)integer(state, "rotary_dim"), (long long)integer(state, "head_dim"));
  if (ir_has(state->op, "experts") && integer(state, "k") > integer(state, "experts"))
    return verify_fail(state, "'k' is %lld, but there are %lld experts", (long long)integer(state, "k"),
                       (long long)integer(state, "experts"));
  if (ir_is(state->op, "kernel.slice") &&
      integer(state, "offset") > integer(state, "x_width") - integer(state, "width"))
    return verify_fail(state, "%lld columns from %lld on are asked for, but x has %lld",
                       (long long)integer(state, "width"), (long long)integer(state, "offset"),
                       (long long)integer(state, "x_width"));
  return true;
}

static const kernel_op *find(const kernel_op *table, size_t count, MlirStringRef name) {
  const size_t prefix = strlen("kernel.");
  for (size_t i = 0; i < count; i++)
    if (strlen(table[i].name) == name.length - prefix &&
        memcmp(table[i].name, name.data + prefix, name.length - prefix) == 0)
      return &table[i];
  return NULL;
}

/* ---- joins ---- */

/* The parts that part `last` waits for, and what these wait for. */
static uint32_t all_waits(const int64_t *waits, int64_t last) {
  uint32_t all = (uint32_t)waits[last];
  for (int64_t i = last; i-- > 0;)
    if (all >> i & 1) all |= (uint32_t)waits[i];
  return all;
}

static bool read_part_bits(verify_state *state, const char *name, intptr_t parts, int64_t bits[SLUICE_JOIN_PARTS]) {
  MlirAttribute list = mlirOperationGetAttributeByName(state->op, mlirStringRefCreateFromCString(name));
  if (mlirArrayAttrGetNumElements(list) != parts)
    return verify_fail(state, "'%s' has %ld elements, expected %ld, one for each part", name,
                       (long)mlirArrayAttrGetNumElements(list), (long)parts);
  for (intptr_t i = 0; i < parts; i++) bits[i] = mlirIntegerAttrGetValueInt(mlirArrayAttrGetElement(list, i));
  return true;
}

static bool verify_waits(verify_state *state, intptr_t parts, uint32_t seconds) {
  int64_t waits[SLUICE_JOIN_PARTS] = {0}, late[SLUICE_JOIN_PARTS] = {0};
  if (parts < 2 || parts > SLUICE_JOIN_PARTS)
    return verify_fail(state, "it has %ld parts, expected 2 to %d", (long)parts, SLUICE_JOIN_PARTS);
  if (!read_part_bits(state, "waits", parts, waits) || !read_part_bits(state, "late", parts, late)) return false;
  for (intptr_t i = 0; i < parts; i++) {
    if (waits[i] < 0 || waits[i] >= (int64_t)1 << i)
      return verify_fail(state, "part %ld waits for %lld, expected bits of parts before it", (long)i,
                         (long long)waits[i]);
    if (late[i] && !(seconds >> i & 1))
      return verify_fail(state, "part %ld waits late, but it is no second product", (long)i);
    if (late[i] & ~waits[i])
      return verify_fail(state, "part %ld waits late for %lld, expected some of the parts that it waits for, %lld",
                         (long)i, (long long)late[i], (long long)waits[i]);
  }
  if (all_waits(waits, parts - 1) == (1u << (parts - 1)) - 1) return true;
  return verify_fail(state, "its last part does not wait for all others");
}

/* The launches behind a join that its steps run, its parts. */
static bool verify_join(verify_state *state) {
  if (!verify_range(state)) return false;
  if (!ir_has(state->op, "launch.range")) return verify_fail(state, "it has no 'launch.range'");
  step_ranges own, other;
  (void)ir_ranges(state->op, &own);
  intptr_t parts = 0, arguments = 1, firsts = 0;
  uint32_t seconds = 0; /* of two products that overlap: bits of parts */
  bool ends_overlap = false;
  int64_t left = ir_get_integer(state->op, "launches");
  for (MlirOperation op = mlirOperationGetNextInBlock(state->op); left > 0; op = mlirOperationGetNextInBlock(op)) {
    if (mlirOperationIsNull(op) || ir_is(op, "func.return"))
      return verify_fail(state, "'launches' is %lld, but %lld of them are missing",
                         (long long)ir_get_integer(state->op, "launches"), (long long)left);
    if (!ir_is_launch(op)) continue;
    left--;
    (void)ir_ranges(op, &other);
    bool runs;
    if (!sluice_ranges_agree(own.items, own.count, other.items, other.count, &runs))
      return verify_fail(state, "only some of its steps run the %.*s behind it", (int)ir_name(op).length,
                         ir_name(op).data);
    if (!runs) continue;
    if (ir_has(op, "cluster"))
      return verify_fail(state, "a %.*s cannot be a part: its workgroups are clusters", (int)ir_name(op).length,
                         ir_name(op).data);
    parts++;
    arguments += mlirOperationGetNumOperands(op);
    ends_overlap = ir_overlaps(op, "second");
    if (ends_overlap) seconds |= 1u << (parts - 1);
    firsts += ir_overlaps(op, "first") - ends_overlap;
  }
  if (firsts) /* the first holds back the launch behind it: as a part it cannot */
    return verify_fail(state, "it has only one of two products that overlap");
  if (ends_overlap) /* of which workgroups that have nothing to do end without waiting */
    return verify_fail(state, "its last part is the second of two products that overlap");
  if (arguments > SLUICE_JOIN_ARGUMENTS)
    return verify_fail(state, "its parts and the counters are %ld arguments, expected at most %d", (long)arguments,
                       SLUICE_JOIN_ARGUMENTS);
  return verify_waits(state, parts, seconds);
}

bool verify_kernel_op(verify_state *state) {
  MlirStringRef name = ir_name(state->op);
  const kernel_op *launch = find(launches, sizeof launches / sizeof launches[0], name);
  const kernel_op *op = launch ? launch : find(memories, sizeof memories / sizeof memories[0], name);
  if (!op) return verify_fail(state, "the verifier does not know it");
  if (!verify_attributes(state, op->attributes)) return false;
  if (launch) return verify_launch(state) && verify_operands(state, op->operands) && verify_relations(state);
  if (ir_is(state->op, "kernel.arena")) return verify_arena(state);
  if (ir_is(state->op, "kernel.weight")) return verify_memory_weight(state);
  if (ir_is(state->op, "kernel.join")) return verify_join(state);
  if (ir_is(state->op, "kernel.observe") &&
      !ir_is(ir_definition(mlirOperationGetOperand(state->op, 0)), "kernel.arena") &&
      !ir_is(ir_definition(mlirOperationGetOperand(state->op, 0)), "kernel.output"))
    return verify_fail(state, "its operand is no kernel.arena or kernel.output");
  return true;
}
