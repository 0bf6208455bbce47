#include "backends/amdgcn/amdgcn.h"

#include <llvm-c/Target.h>
#include <stdio.h>
#include <string.h>

/* Products by their names, and the processor in each. */
static const struct {
  const char *name, *processor;
} names[] = {{"hip:gfx942", "gfx942"},
             {"hip:gfx950", "gfx950"},
             {"mi300x", "gfx942"},
             {"mi325x", "gfx942"},
             {"mi355x", "gfx950"}};

static bool canonicalise(const char *name, char canonical[32]) {
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (strcmp(name, names[i].name) == 0) {
      snprintf(canonical, 32, "hip:%s", names[i].processor);
      return true;
    }
  return false;
}

static target_tiles tiles(const char *target) {
  (void)target;
  return (target_tiles){.gemm_tile_m = 16,
                        .gemm_panel = 64,
                        .expert_tile_m = 16,
                        .query_tile = 2,
                        .split_selection = true,
                        .split_router = true,
                        .matrix_panel = 16,
                        .ranges = {{16, 16, 0, 16, 0, false}, {32, 32, 17, UINT32_MAX, 0, false}},
                        .expert_ranges = {{16, 16, 0, 64, 0, false}, {32, 32, 65, UINT32_MAX, 0, false}},

                        .transposed_values = true};
}

static LLVMTargetMachineRef machine(const char *target, char **out_error) {
  static const char triple[] = "amdgcn-amd-amdhsa";
  LLVMInitializeAMDGPUTargetInfo();
  LLVMInitializeAMDGPUTarget();
  LLVMInitializeAMDGPUTargetMC();
  LLVMInitializeAMDGPUAsmPrinter();
  LLVMTargetRef found;
  if (LLVMGetTargetFromTriple(triple, &found, out_error)) return NULL;
  return LLVMCreateTargetMachine(found, triple, strchr(target, ':') + 1, "", LLVMCodeGenLevelDefault, LLVMRelocPIC,
                                 LLVMCodeModelDefault);
}

static const atoms *atoms_of(const char *target) {
  (void)target;
  return &amdgcn_atoms;
}

const backend amdgcn_backend = {.canonicalise = canonicalise,
                                .known = "hip:gfx942 (also mi300x, mi325x), hip:gfx950 (also mi355x)",
                                .tiles = tiles,
                                .machine = machine,
                                .atoms = atoms_of,
                                .children = 1,
                                .file_type = LLVMObjectFile,
                                .linked_name = "kernels.hsaco",
                                .link = amdgcn_link};
