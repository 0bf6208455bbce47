#include "backends/host/host.h"

#include <llvm-c/Target.h>
#include <stdio.h>
#include <string.h>

const host_level host_levels[HOST_LEVELS] = {{"x86-64", "x86-64", "", 4, 16, false},
                                             {"x86-64-v2", "x86-64-v2", "", 4, 16, false},
                                             {"x86-64-v3", "x86-64-v3", "", 8, 16, false},
                                             {"x86-64-v4", "x86-64-v4", "", 16, 32, false},
                                             {"x86-64-v4-bf16", "x86-64-v4", "+avx512bf16", 16, 32, true}};

const host_level *host_level_find(const char *target) {
  if (strncmp(target, "host:", 5) != 0) return NULL;
  for (size_t i = 0; i < sizeof host_levels / sizeof *host_levels; i++)
    if (strcmp(target + 5, host_levels[i].name) == 0) return &host_levels[i];
  return NULL;
}

const host_level *host_level_native(void) {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("x86-64-v4"))
    return __builtin_cpu_supports("avx512bf16") ? &host_levels[4] : &host_levels[3];
  if (__builtin_cpu_supports("x86-64-v3")) return &host_levels[2];
  if (__builtin_cpu_supports("x86-64-v2")) return &host_levels[1];
#endif
  return &host_levels[0];
}

static LLVMTargetMachineRef machine(const char *name, char **out_error) {
  const host_level *level = host_level_find(name);
  static const char triple[] = "x86_64-unknown-linux-gnu";
  LLVMInitializeX86TargetInfo();
  LLVMInitializeX86Target();
  LLVMInitializeX86TargetMC();
  LLVMInitializeX86AsmPrinter();
  LLVMTargetRef target;
  if (LLVMGetTargetFromTriple(triple, &target, out_error)) return NULL;
  return LLVMCreateTargetMachine(target, triple, level->cpu, level->features, LLVMCodeGenLevelDefault, LLVMRelocPIC,
                                 LLVMCodeModelDefault);
}

static bool canonicalise(const char *name, char canonical[32]) {
  if (strcmp(name, "host") == 0) {
    snprintf(canonical, 32, "host:%s", host_level_native()->name);
    return true;
  }
  if (!host_level_find(name)) return false;
  snprintf(canonical, 32, "%s", name);
  return true;
}

static target_tiles tiles(const char *target) {
  const host_level *level = host_level_find(target);
  return (target_tiles){.gemm_tile_m = 48,
                        .gemm_panel = (level->registers == 16 ? 2 : 4) * level->vector,
                        .expert_tile_m = 48,
                        .query_tile = 16};
}

static const atoms *atoms_of(const char *target) {
  return host_atoms(host_level_find(target));
}

const backend host_backend = {.canonicalise = canonicalise,
                              .known = "host (the best level of this machine), host:x86-64, host:x86-64-v2, "
                                       "host:x86-64-v3, host:x86-64-v4, host:x86-64-v4-bf16",
                              .tiles = tiles,
                              .machine = machine,
                              .atoms = atoms_of,
                              .children = 4,
                              .file_type = LLVMObjectFile,
                              .linked_name = "kernels.so",
                              .link = host_link};
