/* What is read from ptxas's report: registers, spills, and matrix instructions that it serialised. */
#include "backends/nvptx/nvptx.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static const char report[] = "ptxas info    : 0 bytes gmem\n"
                             "ptxas info    : Compiling entry function 'gemm_1' for 'sm_90a'\n"
                             "ptxas info    : Function properties for gemm_1\n"
                             "    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n"
                             "ptxas info    : Used 98 registers, used 1 barriers\n"
                             "ptxas info    : Compile time = 20.118 ms\n"
                             "ptxas info    : Compiling entry function 'gemm_10' for 'sm_90a'\n"
                             "ptxas info    : Function properties for gemm_10\n"
                             "    24 bytes stack frame, 16 bytes spill stores, 12 bytes spill loads\n"
                             "ptxas info    : Used 255 registers, used 1 barriers, 24 bytes cumulative stack size\n"
                             "ptxas info    : Compiling entry function 'not_ours' for 'sm_90a'\n"
                             "    8 bytes stack frame, 4 bytes spill stores, 4 bytes spill loads\n"
                             "ptxas info    : Used 12 registers\n";

static void registers_and_spills_of_each_kernel(void **state) {
  (void)state;
  const kernel_spec specs[] = {{.symbol = "gemm_10"}, {.symbol = "gemm_1"}, {.symbol = "gemm"}};
  kernel_info kernels[3] = {{0}};
  nvptx_read_report(report, specs, 3, kernels);
  assert_int_equal(kernels[0].registers, 255);
  assert_int_equal(kernels[0].spill_bytes, 28);
  assert_int_equal(kernels[1].registers, 98);
  assert_int_equal(kernels[1].spill_bytes, 0);
  assert_int_equal(kernels[2].registers, 0);
  nvptx_read_report("", specs, 3, kernels);
  nvptx_read_report("Compiling entry function '", specs, 3, kernels);
  nvptx_read_report("bytes spill stores, \nUsed ", specs, 3, kernels);
  assert_int_equal(kernels[0].registers, 255);
}

static void serialised_wgmma_is_found(void **state) {
  (void)state;
  assert_null(nvptx_find_serialised(report));
  assert_null(nvptx_find_serialised("a C75 without digits, and C7x11"));
  const char *line = nvptx_find_serialised(
      "ptxas info    : 0 bytes gmem\nptxas info    : (C7511) Potential Performance Loss: wgmma.mma_async instructions "
      "are serialized due to ... in function 'gemm_1'\nmore\n");
  assert_non_null(line);
  assert_memory_equal(line, "ptxas info    : (C7511)", 23);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(registers_and_spills_of_each_kernel),
                                     cmocka_unit_test(serialised_wgmma_is_found)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
