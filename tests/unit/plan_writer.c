/* kernel IR -> plan, on whole models, fused and unfused: the plan's tables against what the config and the kernel specs
 * say, and its memory against a machine that remembers which value every byte of the arena holds. */
#include "compiler/compile.h"
#include "sluice/memory.h"
#include "sluice/plan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* One that fuses all it can, and one that splits ops and has several kernels for one. */
static const char *const targets[] = {"host:x86-64-v3", "cuda:sm_90a"};
enum { TARGETS = sizeof targets / sizeof *targets };

static void must(sluice_status *status) {
  if (status) sluice_status_print(status);
  assert_null(status);
}

/* The optional passes that are left out of a plan. */
static const char *const all_fusions[] = {
    "fuse-projections", "fuse-epilogues", "fuse-norm-rope-append", "fuse-index-select", "fuse-select-attend",
    "fuse-router",      "fuse-experts",   "fold-shared-expert",    "fuse-route",        "join-launches"};
enum { FUSIONS = sizeof all_fusions / sizeof *all_fusions };

static model_config *read_config(const char *name) {
  char path[512];
  model_config *config;
  snprintf(path, sizeof path, TEST_DATA "/%s/config.json", name);
  must(model_config_read(path, NULL, NULL, &config));
  return config;
}

/* As if code generation had made one workgroup of each kernel. */
static void finish(plan_image *image) {
  kernel_info *infos = sluice_allocate_array(image->spec_count, sizeof *infos);
  const sluice_plan_extent one = {.size = SLUICE_SIZE_ONE, .divisor = 1, .factor = 1};
  for (size_t i = 0; i < image->spec_count; i++) infos[i] = (kernel_info){.lanes = 1, .grid = {one, one}};
  must(plan_finish(image, infos));
  sluice_release(infos);
}

static plan_image draft_plan_for(const char *target, const model_config *config, const char *const *disabled,
                                 size_t disabled_count) {
  ir_context *context;
  MlirModule module;
  plan_image image;
  must(ir_context_create(&context));
  must(model_build(context, config, SLUICE_BF16, 0, 0, &module));
  must(pass_run(
      context, module, NULL, 0,
      &(pass_options){.target = target, .disabled = disabled, .disabled_count = disabled_count, .verify_each = true}));
  must(plan_write(context, module, &image));
  mlirModuleDestroy(module);
  ir_context_destroy(context);
  return image;
}

static plan_image make_plan_for(const char *target, const model_config *config, const char *const *disabled,
                                size_t disabled_count) {
  plan_image image = draft_plan_for(target, config, disabled, disabled_count);
  finish(&image);
  return image;
}

static plan_image make_plan(const model_config *config, const char *const *disabled, size_t disabled_count) {
  return make_plan_for(targets[0], config, disabled, disabled_count);
}

static sluice_plan open_plan(const plan_image *image) {
  sluice_plan plan;
  must(sluice_plan_open(image->data, image->length, &plan));
  return plan;
}

/* Calls `body` with plans of several models: with all fusions, with none, and for small ones with each left out. */
static void for_plans(void (*body)(const model_config *config, const plan_image *image, const sluice_plan *plan)) {
  static const char *const models[] = {"golden/nano", "golden/blocks", "configs/MiniMax-M3"};
  for (size_t m = 0; m < sizeof models / sizeof *models; m++) {
    model_config *config = read_config(models[m]);
    for (size_t variant = config->layers > 8 ? FUSIONS : 0; variant < FUSIONS + 2; variant++) {
      size_t first = variant < FUSIONS ? variant : 0;
      size_t count = variant < FUSIONS ? 1 : variant == FUSIONS ? FUSIONS : 0;
      for (size_t t = 0; t < TARGETS; t++) {
        plan_image image = make_plan_for(targets[t], config, all_fusions + first, count);
        sluice_plan plan = open_plan(&image);
        body(config, &image, &plan);
        plan_image_free(&image);
      }
    }
    model_config_free(config);
  }
}

/* ---- memory ---- */

/* How many of a family's last arguments it writes. */
static uint32_t outputs_of(const char *family) {
  static const char *const two[] = {"norm_rope_append", "select_attention", "router",
                                    "topk_experts",     "attention_part",   "topk_attention"};
  if (strcmp(family, "cache_append") == 0) return 0;
  if (strcmp(family, "sort_experts") == 0 || strcmp(family, "topk_attention_part") == 0) return 3;
  if (strcmp(family, "route") == 0) return 5;
  for (size_t i = 0; i < sizeof two / sizeof *two; i++)
    if (strcmp(family, two[i]) == 0) return 2;
  return 1;
}

/* Kernels that read argument `index` element for element (or row for row) before they write there. */
static bool writes_over(const char *family, uint32_t index) {
  if (strcmp(family, "rms_norm") == 0) return index == 0;
  if (strcmp(family, "add") == 0 || strcmp(family, "swiglu") == 0) return index < 2;
  if (strcmp(family, "gemm") == 0) return index == 2;
  if (strcmp(family, "combine") == 0) return index == 3;
  return false;
}

/* For each region, the buffer whose value lies in each 64 bytes of a unit. */
typedef struct machine {
  uint32_t *holder[SLUICE_SIZE_COUNT];
} machine;

static bool holds(const machine *m, const sluice_plan_buffer *b, uint32_t index) {
  for (uint64_t i = b->unit_offset / 64; i < (b->unit_offset + b->unit_bytes) / 64; i++)
    if (m->holder[b->size][i] != index) return false;
  return true;
}

static bool overlap(const sluice_plan_buffer *a, const sluice_plan_buffer *b) {
  return a->size == b->size && a->unit_offset < b->unit_offset + b->unit_bytes &&
         b->unit_offset < a->unit_offset + a->unit_bytes;
}

static void run_launch(machine *m, const sluice_plan *plan, const sluice_plan_launch *launch) {
  const sluice_plan_kernel *kernel = &plan->kernels[launch->kernel];
  const sluice_plan_argument *arguments = &plan->arguments[launch->first_argument];
  const char *family = sluice_plan_string(plan, kernel->family);
  uint32_t inputs = kernel->argument_count - outputs_of(family);
  for (uint32_t i = 0; i < kernel->argument_count; i++) {
    if (arguments[i].memory != SLUICE_MEMORY_ARENA) continue;
    const sluice_plan_buffer *b = &plan->buffers[arguments[i].index];
    if (i < inputs && !holds(m, b, arguments[i].index))
      fail_msg("%s reads argument %u, %s, which is overwritten", sluice_plan_string(plan, kernel->name), i,
               sluice_plan_string(plan, b->name));
    for (uint32_t o = inputs > i ? inputs : i + 1; o < kernel->argument_count; o++) {
      if (arguments[o].memory != SLUICE_MEMORY_ARENA) continue;
      const sluice_plan_buffer *out = &plan->buffers[arguments[o].index];
      if (!overlap(b, out)) continue;
      bool same = b->unit_offset == out->unit_offset && b->unit_bytes == out->unit_bytes;
      if (i >= inputs || !same || !writes_over(family, i))
        fail_msg("%s writes argument %u over argument %u", sluice_plan_string(plan, kernel->name), o, i);
    }
  }
  for (uint32_t i = inputs; i < kernel->argument_count; i++) {
    if (arguments[i].memory != SLUICE_MEMORY_ARENA) continue;
    const sluice_plan_buffer *b = &plan->buffers[arguments[i].index];
    for (uint64_t u = b->unit_offset / 64; u < (b->unit_offset + b->unit_bytes) / 64; u++)
      m->holder[b->size][u] = arguments[i].index;
  }
}

/* In a step of these sizes every value is whole when it is read, and when it is looked at. */
static void check_step(const sluice_plan *plan, const int32_t sizes[SLUICE_SIZE_COUNT]) {
  machine m;
  for (size_t r = 0; r < SLUICE_SIZE_COUNT; r++) {
    uint64_t units = plan->regions[r].unit_bytes / 64;
    m.holder[r] = sluice_allocate_array(units + 1, sizeof *m.holder[r]);
    for (uint64_t u = 0; u < units; u++) m.holder[r][u] = UINT32_MAX;
  }
  uint64_t observed = 0;
  for (uint64_t l = 0; l < plan->header->launches.count; l++) {
    if (sluice_plan_runs(plan, &plan->launches[l], sizes)) run_launch(&m, plan, &plan->launches[l]);
    for (; observed < plan->header->observables.count && plan->observables[observed].launch == l; observed++) {
      uint32_t buffer = plan->observables[observed].buffer;
      assert_true(holds(&m, &plan->buffers[buffer], buffer));
    }
  }
  assert_int_equal(observed, plan->header->observables.count);
  assert_true(observed > 0);
  for (size_t r = 0; r < SLUICE_SIZE_COUNT; r++) sluice_release(m.holder[r]);
}

/* Steps at both ends of every range that a launch has: of several kernels for one op exactly one runs. */
static void check_memory(const model_config *config, const plan_image *image, const sluice_plan *plan) {
  (void)config;
  (void)image;
  for (uint64_t l = 0; l < plan->header->launches.count; l++) {
    const sluice_plan_launch *launch = &plan->launches[l];
    if (l && launch->range_count == launch[-1].range_count && launch->first_range == launch[-1].first_range) continue;
    for (int end = 0; end < 2; end++) {
      int32_t sizes[SLUICE_SIZE_COUNT];
      for (size_t i = 0; i < SLUICE_SIZE_COUNT; i++) sizes[i] = 1;
      for (uint32_t i = 0; i < launch->range_count; i++) {
        const sluice_plan_range *range = &plan->ranges[launch->first_range + i];
        uint32_t size = end ? range->to : range->from;
        sizes[range->size] = size > INT32_MAX ? INT32_MAX : size ? (int32_t)size : 1;
      }
      check_step(plan, sizes);
    }
  }
}

static void every_value_is_whole_when_read(void **state) {
  (void)state;
  for_plans(check_memory);
}

/* ---- tables ---- */

/* The attributes of a kernel as text are those of its spec. */
static void check_attributes(const char *text, const kernel_spec *spec) {
  sluice_json_document *document;
  must(sluice_json_parse(text, strlen(text), "attributes", &document));
  const sluice_json_value *root = sluice_json_root(document);
  assert_int_equal(root->length, spec->part_count ? 3 : spec->attribute_count); /* parts, waits, late */
  for (size_t i = 0; i < spec->attribute_count; i++) {
    const kernel_attribute *a = &spec->attributes[i];
    const sluice_json_value *value = sluice_json_get(root, a->name);
    assert_non_null(value);
    if (a->kind == KERNEL_INTEGER) assert_true(value->is_integer && value->integer == a->integer);
    if (a->kind == KERNEL_FLOAT) assert_memory_equal(&value->number, &a->number, sizeof a->number);
    if (a->kind == KERNEL_STRING) assert_string_equal(value->string, a->string);
  }
  static const char *const of_launches[] = {"label", "layer", "cost", "target"};
  for (size_t i = 0; i < 4; i++) assert_null(sluice_json_get(root, of_launches[i]));
  sluice_json_free(document);
}

static void check_kernels(const model_config *config, const plan_image *image, const sluice_plan *plan) {
  (void)config;
  uint64_t count = plan->header->kernels.count;
  assert_int_equal(count, image->spec_count);
  uint32_t next = 0;
  for (uint64_t l = 0; l < plan->header->launches.count; l++) { /* numbered in order of first use */
    assert_true(plan->launches[l].kernel <= next);
    next += plan->launches[l].kernel == next;
  }
  for (uint64_t j = 0; j < plan->header->joins.count; j++) { /* then those of joins */
    assert_true(plan->joins[j].kernel <= next);
    next += plan->joins[j].kernel == next;
  }
  assert_int_equal(next, count - 1); /* and, last, the one that no launch uses */
  assert_string_equal(sluice_plan_string(plan, plan->kernels[next].family), "synthesize");
  assert_int_equal(plan->kernels[next].argument_count, 2);
  for (uint64_t i = 0; i < count; i++) {
    const sluice_plan_kernel *k = &plan->kernels[i];
    const kernel_spec *spec = &image->specs[i];
    char symbol[96];
    snprintf(symbol, sizeof symbol, "%s_%d", spec->family, (int)i);
    assert_string_equal(spec->symbol, symbol);
    assert_string_equal(sluice_plan_string(plan, k->name), symbol);
    assert_string_equal(sluice_plan_string(plan, k->family), spec->family);
    assert_int_equal(k->argument_count, spec->argument_count);
    check_attributes(sluice_plan_string(plan, k->attributes), spec);
    for (uint64_t j = 0; j < i; j++) /* equal texts have equal offsets */
      assert_false(k->family == plan->kernels[j].family && k->attributes == plan->kernels[j].attributes);
  }
}

static void kernels_are_shared_and_described(void **state) {
  (void)state;
  for_plans(check_kernels);
}

/* A join's kernel is made of the kernels of those launches that its steps run. */
static void check_joins(const model_config *config, const plan_image *image, const sluice_plan *plan) {
  (void)config;
  for (uint64_t j = 0; j < plan->header->joins.count; j++) {
    const sluice_plan_join *join = &plan->joins[j];
    const kernel_spec *spec = &image->specs[join->kernel];
    assert_string_equal(spec->family, "join");
    for (uint32_t end = 0; end < 2; end++) {
      int32_t sizes[SLUICE_SIZE_COUNT] = {1};
      for (uint32_t i = 0; i < join->range_count; i++) {
        const sluice_plan_range *range = &plan->ranges[join->first_range + i];
        sizes[range->size] = (int32_t)(end ? range->to : range->from);
      }
      assert_ptr_equal(sluice_plan_find_join(plan, join->first_launch, sizes), join);
      uint32_t parts = 0, arguments = 1, done = 0;
      for (uint32_t l = join->first_launch; l < join->first_launch + join->launch_count; l++) {
        if (!sluice_plan_runs(plan, &plan->launches[l], sizes)) continue;
        assert_true(parts < spec->part_count);
        assert_int_equal(spec->parts[parts].kernel, plan->launches[l].kernel);
        assert_true(spec->parts[parts].waits < 1u << parts);
        assert_int_equal(spec->parts[parts].late & ~spec->parts[parts].waits, 0);
        assert_int_equal(plan->launches[l].layer, plan->launches[join->first_launch].layer);
        done |= spec->parts[parts].waits;
        arguments += plan->kernels[plan->launches[l].kernel].argument_count;
        parts++;
      }
      assert_int_equal(parts, spec->part_count);
      assert_int_equal(arguments, spec->argument_count);
      assert_int_equal(done, (1u << (parts - 1)) - 1); /* each is waited for */
    }
  }
}

static void joins_are_of_launches_that_run(void **state) {
  (void)state;
  for_plans(check_joins);
  model_config *config = read_config("golden/nano");
  plan_image with = make_plan_for(targets[1], config, NULL, 0);
  plan_image without = make_plan_for(targets[1], config, (const char *const[]){"join-launches"}, 1);
  sluice_plan joined = open_plan(&with), plain = open_plan(&without);
  assert_true(joined.header->joins.count > 0);
  assert_int_equal(plain.header->joins.count, 0);
  assert_int_equal(joined.header->launches.count, plain.header->launches.count);
  plan_image_free(&with);
  plan_image_free(&without);
  model_config_free(config);
}

/* What a product reads of its weight is the weight, packed. */
static void check_costs(const model_config *config, const plan_image *image, const sluice_plan *plan) {
  (void)config;
  (void)image;
  for (uint64_t l = 0; l < plan->header->launches.count; l++) {
    const sluice_plan_launch *launch = &plan->launches[l];
    const sluice_plan_kernel *kernel = &plan->kernels[launch->kernel];
    const char *family = sluice_plan_string(plan, kernel->family);
    bool experts = strcmp(family, "expert_gemm") == 0;
    assert_int_equal(launch->cost.key_limit != 0,
                     strcmp(family, "block_attention") == 0 || strcmp(family, "select_attention") == 0 ||
                         strcmp(family, "topk_attention") == 0 || strcmp(family, "topk_attention_part") == 0);
    if (!experts && strcmp(family, "gemm") != 0) continue;
    const sluice_plan_argument *w = &plan->arguments[launch->first_argument + 1];
    assert_int_equal(w->memory, SLUICE_MEMORY_WEIGHT);
    const sluice_plan_weight *weight = &plan->weights[w->index];
    assert_int_equal(experts ? launch->cost.expert_bytes : launch->cost.fixed_bytes, weight->batch_bytes);
    uint64_t k = experts ? plan->header->experts_per_token : 1;
    const sluice_plan_argument *shared = &plan->arguments[launch->first_argument + 2];
    if (experts && shared->memory != SLUICE_MEMORY_NONE) { /* the shared expert, once for each token */
      assert_int_equal(shared->memory, SLUICE_MEMORY_WEIGHT);
      assert_int_equal(plan->weights[shared->index].batch, 1);
      assert_int_equal(plan->weights[shared->index].batch_bytes, weight->batch_bytes);
      k++;
    }
    if (experts)
      assert_int_equal(launch->cost.fixed_bytes, shared->memory == SLUICE_MEMORY_NONE ? 0 : weight->batch_bytes);
    assert_int_equal(launch->cost.row_flops, 2 * k * weight->rows * weight->columns);
  }
}

static void products_cost_what_their_weights_are(void **state) {
  (void)state;
  for_plans(check_costs);
}

/* The tensor that `name` asks for with its first number after "experts." made "{expert}"; empty when it has none. */
static void stacked_name(const char *name, char out[256]) {
  const char *at = strstr(name, ".experts.");
  out[0] = 0;
  if (!at) return;
  at += strlen(".experts.");
  size_t digits = strspn(at, "0123456789");
  snprintf(out, 256, "%.*s{expert}%s", (int)(at - name), name, at + digits);
}

/* The plan wants every tensor of the text model, in its shape, and nothing else. */
static void check_sources(const model_config *config, const plan_image *image, const sluice_plan *plan) {
  (void)image;
  config_tensor *tensors;
  size_t count;
  uint64_t wanted = 0;
  must(model_config_tensors(config, &tensors, &count));
  bool *used = sluice_allocate_array(plan->header->sources.count, sizeof *used);
  uint64_t at = 0;
  for (size_t t = 0; t < count; t++) {
    char stacked[256];
    stacked_name(tensors[t].name, stacked);
    const char *name = *stacked ? stacked : tensors[t].name;
    const sluice_plan_source *found = NULL;
    for (uint64_t i = 0; i < plan->header->sources.count && !found; i++, at = (at + 1) % plan->header->sources.count)
      if (strcmp(sluice_plan_string(plan, plan->sources[at].name), name) == 0) {
        found = &plan->sources[at];
        used[at] = true;
        break;
      }
    if (!found) fail_msg("nothing wants %s", tensors[t].name);
    assert_int_equal(found->rank, tensors[t].rank);
    assert_int_equal(found->rows, tensors[t].rank == 1 ? 1 : tensors[t].shape[0]);
    assert_int_equal(found->columns, tensors[t].shape[tensors[t].rank - 1]);
  }
  for (uint64_t w = 0; w < plan->header->weights.count; w++)
    wanted += (uint64_t)plan->weights[w].source_count * plan->weights[w].batch;
  for (uint64_t i = 0; i < plan->header->sources.count; i++) assert_true(used[i]);
  assert_int_equal(wanted, count);
  sluice_release(used);
  config_tensors_free(tensors, count);
}

static void the_whole_checkpoint_is_wanted(void **state) {
  (void)state;
  for_plans(check_sources);
}

/* ---- the section ---- */

static void equal_input_gives_equal_bytes(void **state) {
  (void)state;
  model_config *config = read_config("golden/nano");
  plan_image a = make_plan(config, NULL, 0), b = make_plan(config, NULL, 0);
  assert_int_equal(a.length, b.length);
  assert_memory_equal(a.data, b.data, a.length);
  plan_image_free(&b);
  /* More layers of the same kinds: more launches, the same kernels. */
  sluice_plan plan = open_plan(&a);
  config->layers = 2;
  plan_image smaller = make_plan(config, NULL, 0);
  sluice_plan small = open_plan(&smaller);
  assert_int_equal(small.header->layers, 2);
  assert_true(small.header->launches.count < plan.header->launches.count);
  assert_int_equal(small.header->kernels.count, plan.header->kernels.count);
  for (uint64_t i = 0; i < plan.header->kernels.count; i++)
    assert_string_equal(sluice_plan_string(&small, small.kernels[i].attributes),
                        sluice_plan_string(&plan, plan.kernels[i].attributes));
  config->layers = 4;
  plan_image_free(&smaller);
  plan_image_free(&a);
  model_config_free(config);
}

static void code_generation_fills_in_kernels(void **state) {
  (void)state;
  model_config *config = read_config("golden/nano");
  plan_image image = draft_plan_for(targets[0], config, NULL, 0);
  kernel_info *infos = sluice_allocate_array(image.spec_count, sizeof *infos);
  for (size_t i = 0; i < image.spec_count; i++)
    infos[i] = (kernel_info){.workgroup_bytes = 64 * (uint32_t)(i + 1),
                             .lanes = 1,
                             .registers = (uint32_t)i,
                             .spill_bytes = 2,
                             .code_bytes = 1000 + i,
                             .grid = {{.size = SLUICE_SIZE_TOKENS, .divisor = (uint32_t)i + 1, .factor = 3},
                                      {.size = SLUICE_SIZE_ONE, .divisor = 1, .factor = (uint32_t)i + 7}}};
  assert_null(image.data);
  must(plan_finish(&image, infos));
  sluice_plan plan = open_plan(&image);
  for (size_t i = 0; i < image.spec_count; i++) {
    assert_int_equal(plan.kernels[i].workgroup_bytes, 64 * (i + 1));
    assert_int_equal(plan.kernels[i].registers, i);
    assert_int_equal(plan.kernels[i].spill_bytes, 2);
    assert_int_equal(plan.kernels[i].code_bytes, 1000 + i);
  }
  for (uint64_t l = 0; l < plan.header->launches.count; l++)
    assert_memory_equal(plan.launches[l].grid, infos[plan.launches[l].kernel].grid, sizeof plan.launches[l].grid);
  sluice_release(infos);
  plan_image_free(&image);
  model_config_free(config);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(every_value_is_whole_when_read),       cmocka_unit_test(kernels_are_shared_and_described),
      cmocka_unit_test(products_cost_what_their_weights_are), cmocka_unit_test(the_whole_checkpoint_is_wanted),
      cmocka_unit_test(equal_input_gives_equal_bytes),        cmocka_unit_test(code_generation_fills_in_kernels),
      cmocka_unit_test(joins_are_of_launches_that_run),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
