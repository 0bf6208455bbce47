/* Checking launch plans: single wrong fields are refused by name; whatever random damage passes can be walked safely.
 */
#include "support/tiny_bundle.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static void refused(const void *data, size_t length, const char *part) {
  sluice_plan plan;
  sluice_status *status = sluice_plan_open(data, length, &plan);
  if (!status) fail_msg("accepted, expected \"%s\"", part);
  if (!strstr(sluice_status_message(status), part))
    fail_msg("\"%s\" lacks \"%s\"", sluice_status_message(status), part);
  sluice_status_free(status);
}

static void wrong_fields_are_refused(void **state) {
  (void)state;
  size_t length;
  void *good = tiny_plan(&length);
  sluice_plan plan;
  assert_null(sluice_plan_open(good, length, &plan));
  char *bytes = sluice_allocate(length);
  sluice_plan_header *h = (sluice_plan_header *)(void *)bytes;
#define AT(type, table, index) ((type *)(void *)(bytes + h->table.offset) + (index))
#define WRONG(change, part)                                                                                            \
  do {                                                                                                                 \
    memcpy(bytes, good, length);                                                                                       \
    change;                                                                                                            \
    refused(bytes, length, part);                                                                                      \
  } while (0)
  WRONG(h->version = 9, "version 9");
  WRONG(h->dtype = 3, "activation type");
  WRONG(h->weight_dtype = 0, "weight type");
  WRONG(h->ranks = 0, "number of ranks");
  WRONG(h->ranks = 65, "number of ranks");
  WRONG(h->vocabulary = 0, "vocabulary");
  WRONG(h->hidden = UINT32_MAX, "hidden");
  WRONG(h->page_tokens = 0, "page tokens");
  WRONG(h->query_tile = 0, "query tile");
  WRONG(h->max_context = UINT32_MAX, "longest context");
  WRONG(h->layers = 3, "cache table");
  WRONG(h->experts_per_token = 4, "expert counts");
  WRONG(h->strings.offset = UINT64_MAX - 7, "table of strings");
  WRONG(h->strings.count = 0, "start and end");
  WRONG(h->strings.count--, "start and end");
  WRONG(h->buffers.offset += 4, "table of buffers");
  WRONG(h->buffers.count = UINT64_MAX / 32 + 2, "table of buffers");
  WRONG(h->regions.count = 15, "one arena region");
  WRONG(h->regions.offset = 0, "table of regions");
  WRONG(h->launches.count += 1000, "table of launches");
  WRONG(AT(sluice_plan_region, regions, 1)->unit_bytes = 65, "region");
  WRONG(AT(sluice_plan_region, regions, 15)->unit_bytes = 64, "region");
  WRONG(AT(sluice_plan_buffer, buffers, 0)->unit_offset = 128, "outside its arena region");
  WRONG(AT(sluice_plan_buffer, buffers, 0)->unit_bytes = UINT64_MAX - 63, "outside its arena region");
  WRONG(AT(sluice_plan_buffer, buffers, 0)->size = 16, "unknown size");
  WRONG(AT(sluice_plan_buffer, buffers, 0)->width = 17, "do not fit");
  WRONG(AT(sluice_plan_buffer, buffers, 0)->dtype = 77, "do not fit");
  WRONG(AT(sluice_plan_buffer, buffers, 0)->name = 4000, "name");
  WRONG(AT(sluice_plan_source, sources, 0)->rows = 2, "shape");
  WRONG(AT(sluice_plan_source, sources, 0)->tensor_rows = 2, "shape");
  WRONG(AT(sluice_plan_source, sources, 5)->first_row = 3, "a slice lies outside");
  WRONG(AT(sluice_plan_source, sources, 5)->first_column = 10, "a slice lies outside");
  WRONG(AT(sluice_plan_source, sources, 5)->first_column = UINT32_MAX, "a slice lies outside");
  WRONG(AT(sluice_plan_source, sources, 5)->tensor_columns = UINT32_MAX, "shape");
  WRONG(AT(sluice_plan_source, sources, 0)->role = 4, "role");
  WRONG(AT(sluice_plan_source, sources, 0)->role = SLUICE_ROLE_SCALES, "no values");
  WRONG(AT(sluice_plan_source, sources, 0)->share = 0, "slices are out of range");
  WRONG(AT(sluice_plan_source, sources, 0)->row_step = UINT32_MAX, "slices are out of range");
  WRONG(AT(sluice_plan_source, sources, 0)->name = 0, "no name");
  WRONG(AT(sluice_plan_source, sources, 1)->columns = 6, "columns");
  WRONG(AT(sluice_plan_weight, weights, 0)->format = 3, "format");
  WRONG(AT(sluice_plan_source, sources, 1)->rows = 4, "add up");
  WRONG(AT(sluice_plan_weight, weights, 0)->first_source = UINT32_MAX, "sources");
  WRONG(AT(sluice_plan_weight, weights, 0)->source_count = 0, "sources");
  WRONG(AT(sluice_plan_weight, weights, 1)->panel = 0, "panel");
  WRONG(AT(sluice_plan_weight, weights, 1)->panel = 16, "bytes");
  WRONG(AT(sluice_plan_weight, weights, 1)->layout = 9, "layout");
  WRONG(AT(sluice_plan_weight, weights, 0)->group = 0, "extents");
  WRONG(AT(sluice_plan_weight, weights, 0)->group = 2, "row-major");
  WRONG(AT(sluice_plan_weight, weights, 1)->group = 0, "extents");
  WRONG(AT(sluice_plan_weight, weights, 1)->group = 1, "groups of columns");
  WRONG(AT(sluice_plan_weight, weights, 1)->group = 3, "groups of columns");
  WRONG(AT(sluice_plan_weight, weights, 1)->group = 16, "extents");
  WRONG(AT(sluice_plan_weight, weights, 2)->group = 3, "groups of columns");
  WRONG(AT(sluice_plan_weight, weights, 2)->group = 8, "groups of columns");
  WRONG(AT(sluice_plan_weight, weights, 3)->group = 2, "bytes"); /* 42 columns then, not 48 */
  WRONG(AT(sluice_plan_weight, weights, 2)->bytes -= 64, "total bytes");
  WRONG(AT(sluice_plan_weight, weights, 2)->batch = UINT32_MAX, "extents");
  WRONG(AT(sluice_plan_weight, weights, 0)->batch_bytes = 0, "bytes");
  WRONG(AT(sluice_plan_weight, weights, 0)->batch_bytes = 128, "bytes");
  WRONG(AT(sluice_plan_layer, cache, 0)->page_bytes = 63, "cache page");
  WRONG(AT(sluice_plan_kernel, kernels, 0)->argument_count = 65, "argument count");
  WRONG(AT(sluice_plan_kernel, kernels, 0)->name = 0, "strings");
  WRONG(AT(sluice_plan_kernel, kernels, 0)->cache_first = 2, "cache");
  WRONG(AT(sluice_plan_argument, arguments, 0)->index = 7, "does not exist");
  WRONG(AT(sluice_plan_argument, arguments, 4)->index = 2, "does not exist");
  WRONG(AT(sluice_plan_argument, arguments, 4)->memory = 6, "does not exist");
  WRONG(AT(sluice_plan_launch, launches, 0)->kernel = 6, "no kernel");
  WRONG(AT(sluice_plan_launch, launches, 4)->first_argument = 20, "arguments");
  WRONG(AT(sluice_plan_launch, launches, 0)->grid[1].divisor = 0, "grid");
  WRONG(AT(sluice_plan_launch, launches, 0)->grid[0].size = 16, "grid");
  WRONG(AT(sluice_plan_launch, launches, 0)->layer = 2, "layer");
  WRONG(AT(sluice_plan_range, ranges, 0)->size = SLUICE_SIZE_COUNT, "ranges of steps");
  WRONG(AT(sluice_plan_range, ranges, 0)->to = 0, "ranges of steps"); /* from 1 */
  WRONG(AT(sluice_plan_launch, launches, 3)->first_range = 4, "ranges of steps");
  WRONG(AT(sluice_plan_launch, launches, 3)->range_count = 3, "ranges of steps");
  WRONG((AT(sluice_plan_launch, launches, 3)->first_range = 0, AT(sluice_plan_launch, launches, 3)->range_count = 2),
        "out of order"); /* tokens, then one */
  WRONG(AT(sluice_plan_observable, observables, 0)->launch = 5, "observable");
  WRONG(AT(sluice_plan_observable, observables, 0)->buffer = 1, "observable");
  WRONG(AT(sluice_plan_observable, observables, 0)->dimension = 0, "observable");
  WRONG(AT(sluice_plan_join, joins, 0)->kernel = 6, "a join has no kernel");
  WRONG(AT(sluice_plan_join, joins, 0)->kernel = 3, "arguments are not those");
  WRONG(AT(sluice_plan_join, joins, 0)->first_launch = 6, "outside their table");
  WRONG(AT(sluice_plan_join, joins, 0)->launch_count = UINT32_MAX, "outside their table");
  WRONG(AT(sluice_plan_join, joins, 0)->launch_count = 1, "number of parts");
  WRONG(AT(sluice_plan_join, joins, 0)->launch_count = 3, "arguments are not those");
  WRONG((AT(sluice_plan_join, joins, 0)->launch_count = 3, AT(sluice_plan_range, ranges, 2)->from = 0),
        "only some steps"); /* the third launch starts with one token */
  WRONG(AT(sluice_plan_range, ranges, 2)->from = 3, "a join's ranges of steps");
  WRONG(AT(sluice_plan_join, joins, 0)->range_count = 2, "a join's ranges of steps");
  WRONG(AT(sluice_plan_join, joins, 0)->reserved = 1, "a join's ranges of steps");
#undef WRONG
#undef AT
  sluice_release(bytes);
  sluice_release(good);
}

static void joins_are_found_by_launch_and_size(void **state) {
  (void)state;
  size_t length;
  char *bytes = tiny_plan(&length);
  sluice_plan plan;
  assert_null(sluice_plan_open(bytes, length, &plan));
  int32_t sizes[SLUICE_SIZE_COUNT] = {0};
  for (int32_t tokens = 0; tokens < 5; tokens++) {
    sizes[SLUICE_SIZE_TOKENS] = tokens;
    for (uint32_t launch = 0; launch < 5; launch++) {
      const sluice_plan_join *join = sluice_plan_find_join(&plan, launch, sizes);
      assert_ptr_equal(join, launch == 0 && (tokens == 1 || tokens == 2) ? plan.joins : NULL);
    }
  }
  sluice_release(bytes);
}

static void ranges_include_both_ends(void **state) {
  (void)state;
  static const sluice_plan_range ranges[] = {{SLUICE_SIZE_ONE, 0, 0},
                                             {SLUICE_SIZE_TOKENS, 7, 7},
                                             {SLUICE_SIZE_TOKENS, 0, UINT32_MAX},
                                             {SLUICE_SIZE_COUNT - 1, UINT32_MAX, UINT32_MAX}};
  size_t length;
  char *bytes = tiny_plan(&length);
  const sluice_plan_header *h = (const sluice_plan_header *)(void *)bytes;
  sluice_plan_range *range = (sluice_plan_range *)(void *)(bytes + h->ranges.offset) + TINY_LOGITS_RANGE;
  for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
    sluice_plan plan;
    *range = ranges[i];
    assert_null(sluice_plan_open(bytes, length, &plan));
  }
  sluice_release(bytes);
}

/* Of a launch that two sizes decide, against counting the steps. */
static void ranges_of_several_sizes_agree_or_not(void **state) {
  (void)state;
  enum { MOST = 6, ALL = (MOST + 1) * MOST / 2 };
  sluice_plan_range one[ALL];
  uint32_t count = 0;
  for (uint32_t from = 0; from < MOST; from++)
    for (uint32_t to = from; to < MOST; to++) one[count++] = (sluice_plan_range){0, from, to};
  uint64_t random = 1;
  unsigned agreeing = 0, apart = 0;
  for (int round = 0; round < 20000; round++) {
    sluice_plan_range lists[2][2];
    uint32_t counts[2] = {0};
    for (int l = 0; l < 2; l++)
      for (uint32_t size = 1; size <= 2; size++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        if (random >> 62 == 0) continue; /* this size does not count */
        lists[l][counts[l]] = one[(random >> 33) % count];
        lists[l][counts[l]++].size = size;
      }
    unsigned inner = 0, both = 0;
    for (int32_t a = 0; a < MOST; a++)
      for (int32_t b = 0; b < MOST; b++) {
        const int32_t sizes[SLUICE_SIZE_COUNT] = {1, a, b};
        bool in = sluice_ranges_hold(lists[0], counts[0], sizes);
        inner += in;
        both += in && sluice_ranges_hold(lists[1], counts[1], sizes);
      }
    bool holds, agree = sluice_ranges_agree(lists[0], counts[0], lists[1], counts[1], &holds);
    if (agree) assert_int_equal(both, holds ? inner : 0);
    if (!agree) assert_true(both > 0); /* and steps with larger sizes are in the first list alone */
    agreeing += agree && holds;
    apart += agree && !holds;
  }
  assert_true(agreeing > 500 && apart > 500);
}

/* Every name leads to its number and back; what has no name has none. */
static void names_and_numbers_agree(void **state) {
  (void)state;
  static const struct {
    const char *(*name)(uint32_t);
    bool (*find)(const char *, size_t, uint32_t *);
    uint32_t count;
  } tables[] = {{sluice_size_name, sluice_size_find, 14},
                {sluice_input_name, sluice_input_find, SLUICE_INPUT_COUNT},
                {sluice_output_name, sluice_output_find, SLUICE_OUTPUT_COUNT},
                {sluice_layout_name, sluice_layout_find, 3},
                {sluice_format_name, sluice_format_find, 2},
                {sluice_role_name, sluice_role_find, 3}};
  for (size_t t = 0; t < sizeof tables / sizeof *tables; t++) {
    uint32_t found = 0, number;
    for (uint32_t i = 0; i < 64; i++) {
      const char *name = tables[t].name(i);
      if (!name) continue;
      found++;
      assert_true(tables[t].find(name, strlen(name), &number));
      assert_int_equal(number, i);
      assert_false(tables[t].find(name, strlen(name) - 1, &number));
    }
    assert_int_equal(found, tables[t].count);
  }
}

static void truncations_are_refused(void **state) {
  (void)state;
  size_t length;
  char *good = tiny_plan(&length);
  for (size_t cut = 0; cut < length; cut++) {
    char *copy = sluice_allocate(cut ? cut : 1);
    memcpy(copy, good, cut);
    refused(copy, cut, "plan");
    sluice_release(copy);
  }
  sluice_release(good);
}

/* Touches everything that the runtime would. */
static uint64_t walk(const sluice_plan *plan) {
  const sluice_plan_header *h = plan->header;
  uint64_t sum = 0;
  for (uint64_t i = 0; i < h->weights.count; i++) {
    sum += strlen(sluice_plan_string(plan, plan->weights[i].name));
    for (uint32_t j = 0; j < plan->weights[i].source_count; j++)
      sum += strlen(sluice_plan_string(plan, plan->sources[plan->weights[i].first_source + j].name));
  }
  for (uint64_t i = 0; i < h->launches.count; i++) {
    const sluice_plan_launch *launch = &plan->launches[i];
    const sluice_plan_kernel *kernel = &plan->kernels[launch->kernel];
    sum += strlen(sluice_plan_string(plan, kernel->name)) + strlen(sluice_plan_string(plan, launch->label));
    for (uint32_t j = 0; j < kernel->argument_count; j++) {
      const sluice_plan_argument *argument = &plan->arguments[launch->first_argument + j];
      if (argument->memory == SLUICE_MEMORY_ARENA) sum += plan->regions[plan->buffers[argument->index].size].unit_bytes;
      if (argument->memory == SLUICE_MEMORY_WEIGHT) sum += plan->weights[argument->index].bytes;
      if (argument->memory == SLUICE_MEMORY_CACHE) sum += plan->cache[argument->index].page_bytes;
    }
  }
  for (uint64_t i = 0; i < h->observables.count; i++)
    sum +=
        strlen(sluice_plan_string(plan, plan->observables[i].name)) + plan->buffers[plan->observables[i].buffer].width;
  return sum;
}

static void random_damage_is_harmless(void **state) {
  (void)state;
  size_t length;
  char *good = tiny_plan(&length);
  char *bytes = sluice_allocate(length);
  uint64_t random = 88172645463325252u, sum = 0;
  unsigned accepted = 0, rejected = 0;
  static const uint32_t values[] = {0, 1, 7, 64, 255, 4096, 0x7fffffff, 0x80000000, 0xffffffff};
  for (int round = 0; round < 200000; round++) {
    memcpy(bytes, good, length);
    for (int change = round % 3; change >= 0; change--) {
      random ^= random << 13;
      random ^= random >> 7;
      random ^= random << 17;
      size_t at = (size_t)(random % (length / 4)) * 4;
      uint32_t value = random >> 63 ? values[(random >> 40) % 9] : (uint32_t)(random >> 32);
      memcpy(bytes + at, &value, 4);
    }
    sluice_plan plan;
    sluice_status *status = sluice_plan_open(bytes, length, &plan);
    if (status)
      rejected++;
    else {
      accepted++;
      sum += walk(&plan);
    }
    sluice_status_free(status);
  }
  assert_true(rejected > 50000 && accepted > 1000 && sum > 0);
  sluice_release(bytes);
  sluice_release(good);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(wrong_fields_are_refused), cmocka_unit_test(joins_are_found_by_launch_and_size),
      cmocka_unit_test(ranges_include_both_ends), cmocka_unit_test(ranges_of_several_sizes_agree_or_not),
      cmocka_unit_test(names_and_numbers_agree),  cmocka_unit_test(truncations_are_refused),
      cmocka_unit_test(random_damage_is_harmless)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
