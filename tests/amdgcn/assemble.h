/* Code objects for tests, made by LLVM 22's tools when the test runs. */
#ifndef TESTS_AMDGCN_ASSEMBLE_H
#define TESTS_AMDGCN_ASSEMBLE_H

#include "gcn.h"

/* OpenCL C through clang, at a level such as "-O2", and ld.lld. `out` is malloc'ed. */
SLUICE_MUST_USE sluice_status *gcn_compile_opencl(gcn_target target, const char *file, const char *level, uint8_t **out,
                                                  size_t *bytes);

/* Assembly text: the body of one kernel with `kernarg_bytes` of arguments at s[0:1], workgroup ids in s2, s3, s4, lanes
 * in v0, up to v127, a127 and s95, and this much LDS and scratch. */
typedef struct gcn_assembly {
  const char *body; /* ends with s_endpgm; labels have numbers: "1:" and "s_branch 1b" */
  uint32_t kernarg_bytes, lds_bytes, scratch_bytes;
} gcn_assembly;

/* One code object with all of them, in this order. */
SLUICE_MUST_USE sluice_status *gcn_assemble(gcn_target target, const gcn_assembly *kernels, uint32_t count,
                                            uint8_t **out, size_t *bytes);

#endif
