/* The interpreter's wait-state rules against LLVM's: what the compiler makes passes, and with any one wait state less
 * it does not. */
#include "amdgcn/assemble.h"
#include "amdgcn/machine.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static gcn_machine *machine;
static gcn_module *module;
static float *p, *q;

static gcn_fault_kind run(const gcn_kernel *kernel) {
  gcn_fault fault;
  void *arguments[2] = {p, q};
  gcn_launch_options options = {.workgroup = {64},
                                .kernarg = arguments,
                                .kernarg_bytes = gcn_kernel_describe(kernel)->explicit_bytes,
                                .fault = &fault};
  sluice_status *status = gcn_launch(kernel, &options);
  if (status && fault.kind != GCN_FAULT_HAZARD) fail_msg("%s", sluice_status_message(status));
  sluice_status_free(status);
  return fault.kind;
}

static bool is_memory(const instruction *i) {
  return i->class == CLASS_MEMORY || i->class == CLASS_SCALAR_MEMORY;
}

/* Runs the kernel with one wait state less at `nop`, which comes behind `before`. */
static gcn_fault_kind run_without(const gcn_kernel *kernel, instruction *before, instruction *nop) {
  uint32_t states = nop->immediate;
  if (states == 0)
    before->next = nop->next;
  else
    nop->immediate = states - 1;
  gcn_fault_kind found = run(kernel);
  before->next = nop;
  nop->immediate = states;
  return found;
}

static void test_every_wait_state(void **state) {
  (void)state;
  unsigned tried = 0;
  for (uint32_t k = 0; k < gcn_kernel_count(module); k++) {
    const gcn_kernel *kernel = gcn_kernel_at(module, k);
    assert_int_equal(run(kernel), GCN_FAULT_NONE);
    instruction *before = NULL;
    for (uint64_t at = kernel->entry; at < kernel->end;) {
      instruction *i = instruction_at(module, at);
      /* Between memory instructions s_nop ends a clause, which matters with xnack alone. */
      bool clause = before && i->next && is_memory(before) && is_memory(i->next);
      if (i->class == CLASS_NOP && before && i->next && !clause) {
        tried++;
        if (run_without(kernel, before, i) != GCN_FAULT_HAZARD) {
          fail_msg("%s: %s before %s has a wait state more than is checked", kernel->info.name, i->text, i->next->text);
        }
      }
      before = i;
      at += i->bytes;
    }
  }
  assert_true(tried >= 30);
}

static int open_machine(gcn_target target) {
  uint8_t *file = NULL;
  size_t bytes;
  void *memory;
  sluice_status *status = gcn_machine_create(target, &machine);
  if (!status) status = gcn_compile_opencl(target, TEST_DATA "/amdgcn/kernels/hazards.cl", "-O2", &file, &bytes);
  if (!status) status = gcn_module_load(machine, file, bytes, &module);
  free(file);
  if (!status) status = gcn_allocate(machine, 1 << 17, &memory);
  sluice_status_print(status);
  assert_null(status);
  p = memory;
  assert_null(gcn_allocate(machine, 1 << 17, &memory));
  q = memory;
  for (unsigned k = 0; k < 1 << 15; k++) p[k] = q[k] = 1;
  return 0;
}
static int open_gfx942(void **state) {
  (void)state;
  return open_machine(GCN_GFX942);
}
static int open_gfx950(void **state) {
  (void)state;
  return open_machine(GCN_GFX950);
}
static int close_machine(void **state) {
  (void)state;
  gcn_machine_free(machine);
  return 0;
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(test_every_wait_state)};
  int failed = cmocka_run_group_tests_name("gfx942", tests, open_gfx942, close_machine);
  return failed + cmocka_run_group_tests_name("gfx950", tests, open_gfx950, close_machine);
}
