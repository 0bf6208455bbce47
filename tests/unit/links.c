/* The model of links against what was measured and published, and what a step of several ranks is said to cost against
 * the shapes of the model. */
#include "compiler/links.h"
#include "compiler/layouts.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static void must(sluice_status *status) {
  if (status) sluice_status_print(status);
  assert_null(status);
}

static void near(double found, double expected, double part) {
  if (!(fabs(found - expected) <= part * expected)) fail_msg("%g, expected %g", found, expected);
}

/* docs/cluster.md: NCCL's all_gather between two H200, and all-reduces of vLLM among eight MI355X that read all others'
 * values once. Two numbers for a machine do not fit better than by a third in the middle. */
static void published(void **state) {
  (void)state;
  static const struct {
    double kilobytes, microseconds;
  } h200[] = {{12, 11.6}, {24, 11.7}, {96, 12.1}, {384, 14.7}, {768, 18.9}, {3072, 36}, {12288, 74}, {98304, 419}},
    mi355x[] = {{24, 6.3}, {48, 6.7}};
  for (size_t i = 0; i < sizeof h200 / sizeof *h200; i++)
    near(links_seconds(&product_find("h200")->links, 2, h200[i].kilobytes * 1024), h200[i].microseconds * 1e-6, 0.34);
  for (size_t i = 0; i < sizeof mi355x / sizeof *mi355x; i++)
    near(links_seconds(&product_find("mi355x")->links, 8, mi355x[i].kilobytes * 1024), mi355x[i].microseconds * 1e-6,
         0.1);
}

static void shapes(void **state) {
  (void)state;
  const links mesh = {10, 50, true, ""}, one_port = {10, 50, false, ""};
  assert_true(links_seconds(&mesh, 1, 1e6) == 0);
  near(links_seconds(&mesh, 2, 1e6), 30e-6, 1e-9);
  near(links_seconds(&mesh, 8, 1e6), 30e-6, 1e-9);
  near(links_seconds(&one_port, 2, 1e6), 30e-6, 1e-9);
  near(links_seconds(&one_port, 8, 1e6), 150e-6, 1e-9);
  /* Eight more come through the network, at 50 GB/s for all of them. */
  near(links_seconds(&mesh, 16, 1e6), 10e-6 + 41e-6 + 160e-6, 1e-9);
  near(links_seconds(&one_port, 9, 1e6), 10e-6 + 41e-6 + 140e-6, 1e-9);
}

static void plan_of(const model_config *config, int64_t ranks, plan_image *image, sluice_plan *plan) {
  const compile_options options = layout_options(product_find("h200"), ranks);
  must(compile_plan(config, &options, NULL, image));
  must(sluice_plan_open(image->data, image->length, plan));
  assert_int_equal(plan->header->ranks, ranks);
}

/* Two sums a layer for each token, of parts in the type of activations, and float32 logits of each sequence's last. */
static double exchanges_of(const model_config *config, uint32_t ranks, const step_shape *shape, const links *known) {
  const double sum = links_seconds(known, ranks, (double)(shape->tokens * (uint64_t)config->hidden * 2));
  const double logits =
      links_seconds(known, ranks, (double)(shape->sequences * (uint64_t)config->vocabulary * 4) / ranks);
  return 2 * (double)config->layers * sum + logits;
}

static void step(void **state) {
  (void)state;
  model_config *config;
  must(model_config_read(TEST_DATA "/golden/nano", NULL, NULL, &config));
  const step_rates rates = {.bandwidth = 1e12, .links = product_find("mi300x")->links};
  const step_shape shape = step_shape_of(96, 3, 100);
  uint64_t weights = 0;
  double bytes = 0;
  for (uint32_t ranks = 1; ranks <= 4; ranks *= 2) {
    plan_image image;
    sluice_plan plan;
    plan_of(config, ranks, &image, &plan);
    const step_cost cost = step_cost_of_step(&plan, &shape, &rates);
    const step_memory memory = step_memory_of(&plan, 3, 100, 96);
    assert_int_equal(cost.exchanges, ranks == 1 ? 0 : 2 * config->layers + 1);
    if (ranks > 1)
      near(cost.links_seconds, exchanges_of(config, ranks, &shape, &rates.links), 1e-9);
    else
      assert_true(cost.links_seconds == 0);
    near(cost.memory_seconds, cost.bytes / rates.bandwidth, 1e-9);
    near(step_cost_seconds(&cost), cost.memory_seconds + cost.links_seconds, 1e-9);
    /* Half of what is split, all of the rest. */
    if (ranks > 1) assert_in_range(memory.weights, weights / 2 + 1, weights * 9 / 10);
    if (ranks > 1) assert_true(cost.bytes < bytes * 1.5);
    weights = memory.weights;
    bytes = cost.bytes;
    plan_image_free(&image);
  }
  model_config_free(config);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(published), cmocka_unit_test(shapes), cmocka_unit_test(step)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
