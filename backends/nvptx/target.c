#include "backends/nvptx/nvptx.h"

#include <llvm-c/Target.h>
#include <stdio.h>
#include <string.h>

static bool canonicalise(const char *name, char canonical[32]) {
  static const char *const names[] = {"cuda:sm_90a", "h100", "h200"};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (strcmp(name, names[i]) == 0) {
      snprintf(canonical, 32, "%s", names[0]);
      return true;
    }
  return false;
}

enum { PROCESSORS = 132 };

static target_tiles tiles(const char *target) {
  (void)target;
  return (target_tiles){
      .gemm_tile_m = 16,
      .gemm_panel = 64,
      .expert_tile_m = 16,
      .query_tile = 16,
      .matrix_panel = 16,
      .ranges = {{8, 0, 0, 8, PROCESSORS}, {16, 0, 9, 16, PROCESSORS}, {64, 0, 17, UINT32_MAX, PROCESSORS}},
      .stream_tiles = 6,
      .expert_ranges = {{8, 16, 0, 8, 0}, {8, 16, 9, 16, 0}, {16, 32, 17, 64, 0}, {64, 0, 65, UINT32_MAX, PROCESSORS}},
      .split_selection = true,
      .split_router = true,
      .router_few = 8,
      .split_shared = 8,
      .route_tokens = 64,
      .join_tokens = 64,
      .matrix_head_dim = 128,
      .matrix_group = 16,
      .attention_parts = 132,
      .cluster_count = 6,
      .clusters = {{16, 6, 1}, {8, 8, 1}, {8, 16, 2}, {4, 32, 2}, {2, 64, 2}, {1, UINT32_MAX, 2}},
      .transposed_values = true};
}

static LLVMTargetMachineRef machine(const char *target, char **out_error) {
  (void)target;
  static const char triple[] = "nvptx64-nvidia-cuda";
  LLVMInitializeNVPTXTargetInfo();
  LLVMInitializeNVPTXTarget();
  LLVMInitializeNVPTXTargetMC();
  LLVMInitializeNVPTXAsmPrinter();
  LLVMTargetRef found;
  if (LLVMGetTargetFromTriple(triple, &found, out_error)) return NULL;
  /* PTX 8.3 is that of CUDA 12.3; drivers from 545 on translate it. */
  return LLVMCreateTargetMachine(found, triple, "sm_90a", "+ptx83", LLVMCodeGenLevelDefault, LLVMRelocDefault,
                                 LLVMCodeModelDefault);
}

static const atoms *atoms_of(const char *target) {
  (void)target;
  return &nvptx_atoms;
}

const backend nvptx_backend = {.canonicalise = canonicalise,
                               .known = "cuda:sm_90a (also h100, h200)",
                               .tiles = tiles,
                               .machine = machine,
                               .atoms = atoms_of,
                               .children = 1,
                               .file_type = LLVMAssemblyFile,
                               .linked_name = "kernels.cubin",
                               .link = nvptx_assemble};
