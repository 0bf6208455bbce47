#include "backends/host/host.h"

#include <llvm-c/Target.h>
#include <stdio.h>
#include <string.h>

/* Workgroup memory is ordinary memory, of each thread: at most what a plan may ask for (runtime/plan.c). */
#define FACTS(vector_elements, vector_registers)                                                                       \
  {                                                                                                                    \
    .wave = 1, .lanes = 1, .most_lanes = 1, .registers = (vector_registers), .vector = (vector_elements),              \
    .workgroup_bytes = 1 << 30, .processor_bytes = 1 << 30, .line_bytes = 64, .grid = {                                \
      INT32_MAX,                                                                                                       \
      INT32_MAX                                                                                                        \
    }                                                                                                                  \
  }

const host_level host_levels[HOST_LEVELS] = {
    {"x86-64", "x86-64", "", false, FACTS(4, 16)},
    {"x86-64-v2", "x86-64-v2", "", false, FACTS(4, 16)},
    {"x86-64-v3", "x86-64-v3", "", false, FACTS(8, 16)},
    {"x86-64-v4", "x86-64-v4", "", false, FACTS(16, 32)},
    {"x86-64-v4-bf16", "x86-64-v4", "+avx512bf16", true, FACTS(16, 32)},
};

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
  char spelled[32];
  if (strcmp(name, "cpu") == 0 || strncmp(name, "cpu:", 4) == 0) { /* as other programs call it */
    if (snprintf(spelled, sizeof spelled, "host%s", name + 3) >= (int)sizeof spelled) return false;
    name = spelled;
  }
  if (strcmp(name, "host") == 0) {
    snprintf(canonical, 32, "host:%s", host_level_native()->name);
    return true;
  }
  if (!host_level_find(name)) return false;
  snprintf(canonical, 32, "%s", name);
  return true;
}

static const target_facts *facts(const char *target) {
  return &host_level_find(target)->facts;
}

static target_tiles tiles(const char *target) {
  const target_facts *f = facts(target);
  return (target_tiles){
      .gemm_tile_m = 48, .gemm_panel = (f->registers == 16 ? 2 : 4) * f->vector, .expert_tile_m = 48, .query_tile = 16};
}

static const atoms *atoms_of(const char *target) {
  return host_atoms(host_level_find(target));
}

const backend host_backend = {.canonicalise = canonicalise,
                              .known = "host (the best level of this machine), host:x86-64, host:x86-64-v2, "
                                       "host:x86-64-v3, host:x86-64-v4, host:x86-64-v4-bf16",
                              .facts = facts,
                              .tiles = tiles,
                              .machine = machine,
                              .atoms = atoms_of,
                              .children = 4,
                              .file_type = LLVMObjectFile,
                              .linked_name = "kernels.so",
                              .link = host_link};
