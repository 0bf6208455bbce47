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

/* "AMD Instinct MI300" and "... CDNA 4" ISA documents and product pages: CDNA 3 has 304 compute units (MI300X, MI325X)
 * with 64 KB of LDS each, CDNA 4 has 256 (MI355X) with 160 KB. Rows of x are columns of an MFMA, of which a tile may
 * use some alone. */
#define FACTS(units, lds)                                                                                              \
  {.wave = AMDGCN_WAVE,                                                                                                \
   .lanes = 256,                                                                                                       \
   .most_lanes = 1024,                                                                                                 \
   .processors = (units),                                                                                              \
   .dies = 8,                                                                                                          \
   .registers = 512,                                                                                                   \
   .vector = 8,                                                                                                        \
   .aligned_vectors = true,                                                                                            \
   .workgroup_bytes = (lds),                                                                                           \
   .processor_bytes = (lds),                                                                                           \
   .line_bytes = 128,                                                                                                  \
   .grid = {INT32_MAX, UINT16_MAX},                                                                                    \
   .matrix = {.rows = 8, .columns = 16, .depth = 32, .group = 8}}

static const target_facts *facts(const char *target) {
  static const target_facts gfx942 = FACTS(304, 64 << 10), gfx950 = FACTS(256, 160 << 10);
  return strcmp(target, "hip:gfx950") == 0 ? &gfx950 : &gfx942;
}

/* Products of many rows (many_rows.c) come where there are workgroups for most processors: before, those of few rows,
 * which have more of them, are done earlier. Attention of more than 64 tokens has workgroups for all processors without
 * sharing keys, and tiles of prompts read them once for four tokens. */
static target_tiles tiles(const char *target) {
  return (target_tiles){.gemm_tile_m = 16,
                        .gemm_panel = 64,
                        .expert_tile_m = 16,
                        .query_tile = 4,
                        .split_selection = true,
                        .split_router = true,
                        .rope_few = 256,
                        .route_tokens = 64,
                        .matrix_panel = 16,
                        .ranges = {{16, 16, 0, 16, 0, false, 0, 0},
                                   {32, 32, 17, 512, 0, false, 0, 0},
                                   {128, 256, 513, 4096, 1, false, 0, 0},
                                   {256, 256, 4097, UINT32_MAX, 1, false, 0, 0}},
                        .expert_ranges = {{16, 16, 0, 64, 0, false, 0, 0},
                                          {32, 32, 65, 2048, 0, false, 0, 0},
                                          {128, 256, 2049, UINT32_MAX, facts(target)->processors, true, 0, 0}},
                        .matrix_head_dim = 128,
                        .matrix_head_step = 32,
                        .matrix_group = 16,
                        .matrix_page = 32,
                        .attention_parts = facts(target)->processors,
                        .many_tokens = 64,
                        .transposed_values = true};
}

/* `rows` for all sizes and the way of many tokens for scores add up alike with any tile. Attention has tiles of one
 * token: which wave has a page follows from its place among those that any token of the tile wants. */
static target_tiles invariant_tiles(const char *target) {
  target_tiles t = tiles(target);
  static const gemm_range ranges[] = {{16, 16, 0, 16, 0, false, 0, 0}, {32, 32, 17, UINT32_MAX, 0, false, 0, 0}};
  static const gemm_range expert_ranges[] = {{16, 16, 0, 64, 0, false, 0, 0}, {32, 32, 65, UINT32_MAX, 0, false, 0, 0}};
  memcpy(t.ranges, ranges, sizeof ranges);
  memcpy(t.expert_ranges, expert_ranges, sizeof expert_ranges);
  t.query_tile = 1;
  t.rope_few = t.matrix_head_dim = 0;
  t.many_scores = true;
  return t;
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
                                .facts = facts,
                                .tiles = tiles,
                                .invariant_tiles = invariant_tiles,
                                .schedules = amdgcn_schedules,
                                .complete = amdgcn_complete,
                                .machine = machine,
                                .atoms = atoms_of,
                                .children = 1,
                                .file_type = LLVMObjectFile,
                                .linked_name = "kernels.hsaco",
                                .link = amdgcn_link};
