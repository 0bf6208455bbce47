#include "backends/nvptx/nvptx.h"
#include "backends/nvptx/own_kernels.h"

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

/* GH100, from the CUDA C++ Programming Guide, "Technical Specifications per Compute Capability", 9.0. */
static const target_facts sm_90a = {.wave = WARP,
                                    .lanes = 256,
                                    .most_lanes = 1024,
                                    .processors = PROCESSORS,
                                    .registers = 255,
                                    .vector = 8,
                                    .aligned_vectors = true,
                                    .workgroup_bytes = 227 << 10,
                                    .processor_bytes = 228 << 10,
                                    .line_bytes = 128,
                                    .overlaps = true,
                                    .grid = {INT32_MAX, UINT16_MAX},
                                    .matrix = {.rows = 8, .columns = 16, .depth = 32, .group = 8}};

static const target_facts *facts(const char *target) {
  (void)target;
  return &sm_90a;
}

static target_tiles tiles(const char *target) {
  (void)target;
  return (target_tiles){.gemm_tile_m = 16,
                        .gemm_panel = 64,
                        .expert_tile_m = 16,
                        .query_tile = 16,
                        .matrix_panel = 16,
                        .ranges = {{8, 96, 0, 8, PROCESSORS, false, 0, 0},
                                   {16, 96, 9, 16, PROCESSORS, false, 0, 0},
                                   {64, 96, 17, 64, PROCESSORS, false, 0, 0},
                                   {128, 96, 65, 256, PROCESSORS, false, 0, 0},
                                   {192, 256, 257, UINT32_MAX, PROCESSORS, false, 64, 512}},
                        .expert_ranges = {{8, 16, 0, 8, 0, true, 0, 0},
                                          {8, 16, 9, 16, 0, false, 0, 0},
                                          {16, 32, 17, 64, 0, false, 0, 0},
                                          {16, 64, 65, 256, PROCESSORS, true, 0, 0},
                                          {32, 96, 257, 768, PROCESSORS, true, 0, 0},
                                          {64, 96, 769, 1024, PROCESSORS, true, 0, 0},
                                          {192, 256, 1025, UINT32_MAX, PROCESSORS, true, 64, 256}},
                        .split_selection = true,
                        .cache_first_pages = 128,
                        .split_router = true,
                        .router_few = 8,
                        .rope_few = 256,
                        .route_tokens = 64,
                        .join_tokens = 64,
                        .matrix_head_dim = 128,
                        .matrix_head_step = 128,
                        .matrix_group = 16,
                        .attention_parts = 132,
                        .cluster_count = 6,
                        .clusters = {{16, 6, 1}, {8, 8, 1}, {8, 16, 2}, {4, 32, 2}, {2, 64, 2}, {1, UINT32_MAX, 2}},
                        .many_tokens = 256,
                        .many_page = 128,
                        .many_rows = 64,
                        .transposed_values = true};
}

/* The kernels in turns add up each product in one chain, with any tile: small steps have slices for all processors.
 * What does not suit them is made by `rows`. Attention in tiles goes through a row's pages one after the other, whoever
 * shares the tile; those in parts and in clusters divide them by how many tokens there are. */
static target_tiles invariant_tiles(const char *target) {
  target_tiles t = tiles(target);
  static const gemm_range ranges[] = {{16, 32, 1, 0, 0, false, 0, 0},
                                      {192, 256, 0, 192, PROCESSORS, false, 64, 512},
                                      {192, 128, 193, 512, PROCESSORS, false, 64, 512},
                                      {192, 256, 513, UINT32_MAX, PROCESSORS, false, 64, 512}};
  static const gemm_range expert_ranges[] = {{16, 32, 1, 0, 0, false, 0, 0},
                                             {192, 192, 0, 64, PROCESSORS, true, 64, 256},
                                             {192, 256, 65, UINT32_MAX, PROCESSORS, true, 64, 256}};
  memcpy(t.ranges, ranges, sizeof ranges);
  memcpy(t.expert_ranges, expert_ranges, sizeof expert_ranges);
  t.cache_first_pages = t.router_few = t.rope_few = 0;
  t.join_tokens = 0; /* what stays on its processor joins nothing */
  t.matrix_head_dim = 0;
  t.many_scores = true;
  return t;
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
  /* PTX 8.5 is that of CUDA 12.5; drivers from 555 on translate it. Older ones read strides of tensor maps otherwise.
   */
  return LLVMCreateTargetMachine(found, triple, "sm_90a", "+ptx85", LLVMCodeGenLevelDefault, LLVMRelocDefault,
                                 LLVMCodeModelDefault);
}

static const atoms *atoms_of(const char *target) {
  (void)target;
  return &nvptx_atoms;
}

const backend nvptx_backend = {.canonicalise = canonicalise,
                               .known = "cuda:sm_90a (also h100, h200)",
                               .facts = facts,
                               .tiles = tiles,
                               .invariant_tiles = invariant_tiles,
                               .schedules = nvptx_schedules,
                               .complete = nvptx_complete,
                               .machine = machine,
                               .atoms = atoms_of,
                               .children = 1,
                               .file_type = LLVMAssemblyFile,
                               .linked_name = "kernels.cubin",
                               .unlinked = "no ptxas was found, in PATH or /usr/local/cuda/bin; --emit=asm gives PTX",
                               .link = nvptx_assemble};
