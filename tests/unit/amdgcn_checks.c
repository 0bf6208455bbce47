/* What the interpreter must catch: for each check a kernel that violates it and its corrected twin. */
#include "amdgcn/assemble.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#pragma GCC diagnostic ignored "-Wmissing-field-initializers" /* of most twins all else is 0 */

typedef struct twin {
  const char *name;
  gcn_fault_kind fault;
  const char *bad, *good;
  uint32_t groups, lanes, lds_bytes; /* 0: one group, one wave, none */
} twin;

/* s[6:7]: 64 KB of memory, zeros. v0: the lane, v1: 4 times that. Nothing is outstanding, no hazard near. */
#define START                                                                                                          \
  "s_load_dwordx2 s[6:7], s[0:1], 0x0\nv_lshlrev_b32 v1, 2, v0\ns_mov_b32 s8, 0\ns_waitcnt lgkmcnt(0)\ns_nop 4\n"
#define END "s_endpgm\n"
/* A matrix instruction on registers that were written long before. */
#define ZEROS                                                                                                          \
  "v_mov_b32 v4, 0\nv_mov_b32 v5, 0\nv_mov_b32 v6, 0\nv_mov_b32 v7, 0\nv_mov_b32 v8, 0\nv_mov_b32 v9, 0\nv_mov_b32 "   \
  "v10, 0\n"                                                                                                           \
  "v_mov_b32 v11, 0\ns_nop 7\n"
#define MATRIX "v_mfma_f32_16x16x16_bf16 v[8:11], v[4:5], v[6:7], v[8:11]\n"
#define LONG "s_nop 15\n"

static gcn_machine *machine;

static gcn_module *assemble(const gcn_assembly *kernels, uint32_t count) {
  uint8_t *file;
  size_t bytes;
  gcn_module *module;
  sluice_status *status = gcn_assemble(gcn_machine_target(machine), kernels, count, &file, &bytes);
  if (!status) status = gcn_module_load(machine, file, bytes, &module);
  sluice_status_print(status);
  assert_null(status);
  free(file);
  return module;
}

static gcn_fault_kind run_kernel(const gcn_kernel *kernel, const twin *t, uint64_t seed, bool unchecked) {
  void *memory;
  gcn_fault fault = {GCN_FAULT_NONE};
  assert_null(gcn_allocate(machine, 65536, &memory));
  memset(memory, 0, 65536);
  gcn_launch_options options = {.grid = {t->groups},
                                .workgroup = {t->lanes ? t->lanes : 64},
                                .kernarg = &memory,
                                .kernarg_bytes = 8,
                                .seed = seed,
                                .unchecked = unchecked,
                                .fault = &fault,
                                .instruction_limit = 100000};
  sluice_status *status = gcn_launch(kernel, &options);
  assert_null(gcn_release(machine, memory));
  assert_true((status != NULL) == (fault.kind != GCN_FAULT_NONE));
  if (status && !strstr(sluice_status_message(status), gcn_fault_name(fault.kind)))
    fail_msg("%s", sluice_status_message(status));
  sluice_status_free(status);
  return fault.kind;
}

enum { MAX_TWINS = 32, BODY_BYTES = 4096 };

/* Kernels 2 k and 2 k + 1 of one code object are twin k's. */
static void check_twins(const twin *twins, size_t count) {
  static char bodies[2 * MAX_TWINS][BODY_BYTES];
  gcn_assembly kernels[2 * MAX_TWINS];
  assert_true(count <= MAX_TWINS);
  for (size_t k = 0; k < 2 * count; k++) {
    const twin *t = &twins[k / 2];
    snprintf(bodies[k], BODY_BYTES, "%s%s%s", START, k % 2 ? t->good : t->bad, END);
    kernels[k] = (gcn_assembly){.body = bodies[k], .kernarg_bytes = 8, .lds_bytes = t->lds_bytes, .scratch_bytes = 16};
  }
  gcn_module *module = assemble(kernels, (uint32_t)(2 * count));
  for (uint32_t k = 0; k < count; k++) {
    const twin *t = &twins[k];
    uint64_t seeds = t->lanes > 64 || t->groups > 1 ? 5 : 1; /* one wave has one schedule */
    for (uint64_t seed = 0; seed < seeds; seed++) {
      gcn_fault_kind found = run_kernel(gcn_kernel_at(module, 2 * k), t, seed, false);
      if (found != t->fault) {
        fail_msg("%s, seed %u: found \"%s\", expected \"%s\"", t->name, (unsigned)seed, gcn_fault_name(found),
                 gcn_fault_name(t->fault));
      }
      found = run_kernel(gcn_kernel_at(module, 2 * k + 1), t, seed, false);
      if (found != GCN_FAULT_NONE)
        fail_msg("%s, seed %u: the good twin: %s", t->name, (unsigned)seed, gcn_fault_name(found));
    }
  }
  gcn_module_unload(module);
}
#define CHECK(twins) check_twins(twins, sizeof(twins) / sizeof *(twins))

static void test_bounds(void **state) {
  (void)state;
  static const twin twins[] = {
      {"a load past the end", GCN_FAULT_GLOBAL_BOUNDS, "v_add_u32 v1, 0xff04, v1\nglobal_load_dword v2, v1, s[6:7]\n",
       "v_add_u32 v1, 0xff00, v1\nglobal_load_dword v2, v1, s[6:7]\n"},
      {"a store before the start", GCN_FAULT_GLOBAL_BOUNDS, "global_store_dword v1, v0, s[6:7] offset:-4\n",
       "global_store_dword v1, v0, s[6:7] offset:4\n"},
      {"LDS past the end", GCN_FAULT_LDS_BOUNDS, "ds_write_b32 v1, v0 offset:4\n", "ds_write_b32 v1, v0\n",
       .lds_bytes = 256},
      {"scratch past the end", GCN_FAULT_SCRATCH_BOUNDS, "scratch_store_dword off, v0, s8 offset:16\n",
       "scratch_store_dword off, v0, s8 offset:12\n"},
      {"a jump away", GCN_FAULT_PC, "s_mov_b64 s[10:11], 64\ns_setpc_b64 s[10:11]\n",
       "s_getpc_b64 s[10:11]\ns_add_u32 s10, s10, 12\ns_addc_u32 s11, s11, 0\ns_setpc_b64 s[10:11]\n"},
      {"a trap", GCN_FAULT_TRAP, "s_trap 2\n", ""},
      {"no instruction", GCN_FAULT_UNKNOWN_INSTRUCTION, ".long 0xffffffff\n", ""},
      {"an endless loop", GCN_FAULT_LIMIT, "1:\ns_branch 1b\n", "s_branch 1f\n1:\n"},
      {"an endless wait", GCN_FAULT_LIMIT, "1:\ns_sleep 1\ns_branch 1b\n", "s_sleep 1\n"},
  };
  CHECK(twins);
}

static void test_waits(void **state) {
  (void)state;
  static const twin twins[] = {
      {"a load's result", GCN_FAULT_OUTSTANDING_READ, "global_load_dword v2, v1, s[6:7]\nv_add_u32 v3, 1, v2\n",
       "global_load_dword v2, v1, s[6:7]\ns_waitcnt vmcnt(0)\nv_add_u32 v3, 1, v2\n"},
      {"one load too few", GCN_FAULT_OUTSTANDING_READ,
       "global_load_dword v2, v1, s[6:7]\nglobal_load_dword v3, v1, s[6:7]\ns_waitcnt vmcnt(1)\nv_add_u32 v3, 1, v3\n",
       "global_load_dword v2, v1, s[6:7]\nglobal_load_dword v3, v1, s[6:7]\ns_waitcnt vmcnt(1)\nv_add_u32 v4, 1, v2\n"},
      {"a register of a wide load", GCN_FAULT_OUTSTANDING_READ,
       "global_load_dwordx4 v[4:7], v1, s[6:7]\nv_mov_b32 v2, v7\n",
       "global_load_dwordx4 v[4:7], v1, s[6:7]\nv_mov_b32 v2, v8\n"},
      {"over a load's result", GCN_FAULT_OUTSTANDING_WRITE, "global_load_dword v2, v1, s[6:7]\nv_mov_b32 v2, 0\n",
       "global_load_dword v2, v1, s[6:7]\ns_waitcnt vmcnt(0)\nv_mov_b32 v2, 0\n"},
      {"the wrong counter", GCN_FAULT_OUTSTANDING_READ, "ds_read_b32 v2, v1\ns_waitcnt vmcnt(0)\nv_mov_b32 v3, v2\n",
       "ds_read_b32 v2, v1\ns_waitcnt lgkmcnt(0)\nv_mov_b32 v3, v2\n", .lds_bytes = 256},
      {"LDS in order", GCN_FAULT_OUTSTANDING_READ,
       "ds_read_b32 v2, v1\nds_read_b32 v3, v1\ns_waitcnt lgkmcnt(1)\nv_mov_b32 v4, v3\n",
       "ds_read_b32 v2, v1\nds_read_b32 v3, v1\ns_waitcnt lgkmcnt(1)\nv_mov_b32 v4, v2\n", .lds_bytes = 256},
      {"scalar loads in any order", GCN_FAULT_OUTSTANDING_READ,
       "s_load_dword s10, s[6:7], 0x0\ns_load_dword s11, s[6:7], 0x4\ns_waitcnt lgkmcnt(1)\ns_add_u32 s12, s10, 1\n",
       "s_load_dword s10, s[6:7], 0x0\ns_load_dword s11, s[6:7], 0x4\ns_waitcnt lgkmcnt(0)\ns_add_u32 s12, s10, 1\n"},
      {"a bpermute", GCN_FAULT_OUTSTANDING_READ, "ds_bpermute_b32 v2, v1, v0\nv_mov_b32 v3, v2\n",
       "ds_bpermute_b32 v2, v1, v0\ns_waitcnt lgkmcnt(0)\nv_mov_b32 v3, v2\n"},
      {"an atomic's result", GCN_FAULT_OUTSTANDING_READ, "global_atomic_add v2, v1, v0, s[6:7] sc0\nv_mov_b32 v3, v2\n",
       "global_atomic_add v2, v1, v0, s[6:7] sc0\ns_waitcnt vmcnt(0)\nv_mov_b32 v3, v2\n"},
      {"a flat load needs both counters", GCN_FAULT_OUTSTANDING_READ,
       "v_mov_b32 v2, s6\nv_mov_b32 v3, s7\nflat_load_dword v4, v[2:3]\ns_waitcnt vmcnt(0)\nv_mov_b32 v5, v4\n",
       "v_mov_b32 v2, s6\nv_mov_b32 v3, s7\nflat_load_dword v4, v[2:3]\ns_waitcnt vmcnt(0) lgkmcnt(0)\nv_mov_b32 v5, "
       "v4\n"},
      {"LDS read before a direct load is there", GCN_FAULT_OUTSTANDING_READ,
       "s_mov_b32 m0, 0\ns_nop 0\nglobal_load_lds_dword v1, s[6:7]\nds_read_b32 v2, v1\n",
       "s_mov_b32 m0, 0\ns_nop 0\nglobal_load_lds_dword v1, s[6:7]\ns_waitcnt vmcnt(0)\nds_read_b32 v2, v1\n",
       .lds_bytes = 256},
  };
  CHECK(twins);
}

static void test_lds_races(void **state) {
  (void)state;
  /* v2: the place of the lane as far from the other end. */
#define OTHER "v_sub_u32 v2, 0x1fc, v1\n"
  static const twin twins[] = {
      {"no barrier", GCN_FAULT_LDS_RACE, OTHER "ds_write_b32 v1, v0\ns_waitcnt lgkmcnt(0)\nds_read_b32 v3, v2\n",
       OTHER "ds_write_b32 v1, v0\ns_waitcnt lgkmcnt(0)\ns_barrier\nds_read_b32 v3, v2\n", .lanes = 128,
       .lds_bytes = 512},
      {"no wait before the barrier", GCN_FAULT_LDS_RACE, OTHER "ds_write_b32 v1, v0\ns_barrier\nds_read_b32 v3, v2\n",
       OTHER "ds_write_b32 v1, v0\ns_waitcnt lgkmcnt(0)\ns_barrier\nds_read_b32 v3, v2\n", .lanes = 128,
       .lds_bytes = 512},
      {"overwritten while others read", GCN_FAULT_LDS_RACE,
       OTHER "ds_write_b32 v1, v0\ns_waitcnt lgkmcnt(0)\ns_barrier\nds_read_b32 v3, v2\ns_waitcnt "
             "lgkmcnt(0)\nds_write_b32 v1, v3\n",
       OTHER
       "ds_write_b32 v1, v0\ns_waitcnt lgkmcnt(0)\ns_barrier\nds_read_b32 v3, v2\ns_waitcnt lgkmcnt(0)\ns_barrier\n"
       "ds_write_b32 v1, v3\n",
       .lanes = 128, .lds_bytes = 512},
      {"two writers", GCN_FAULT_LDS_RACE, "v_mov_b32 v2, 0\nds_write_b32 v2, v0\n",
       "v_mov_b32 v2, 0\nds_add_u32 v2, v0\n", .lanes = 128, .lds_bytes = 512},
      {"halves of one dword", GCN_FAULT_LDS_RACE,
       "v_lshrrev_b32 v2, 1, v0\nds_write_b8 v2, v0\nv_add_u32 v2, 31, v2\nds_write_b8 v2, v0\n",
       "ds_write_b8 v0, v0\n", .lanes = 128, .lds_bytes = 512},
      {"an atomic and a read", GCN_FAULT_LDS_RACE,
       "v_mov_b32 v2, 0\nds_add_u32 v2, v0\ns_waitcnt lgkmcnt(0)\nds_read_b32 v3, v2\n",
       "v_mov_b32 v2, 0\nds_add_u32 v2, v0\ns_waitcnt lgkmcnt(0)\ns_barrier\nds_read_b32 v3, v2\n", .lanes = 128,
       .lds_bytes = 512},
      {"a direct load not waited for at the barrier", GCN_FAULT_LDS_RACE,
       "v_readfirstlane_b32 s9, v1\ns_mov_b32 m0, s9\ns_nop 0\nglobal_load_lds_dword v1, s[6:7]\ns_barrier\n" OTHER
       "ds_read_b32 v3, v2\n",
       "v_readfirstlane_b32 s9, v1\ns_mov_b32 m0, s9\ns_nop 0\nglobal_load_lds_dword v1, s[6:7]\ns_waitcnt "
       "vmcnt(0)\ns_barrier\n" OTHER "ds_read_b32 v3, v2\n",
       .lanes = 128, .lds_bytes = 512},
  };
  CHECK(twins);
}

static void test_barriers(void **state) {
  (void)state;
#define WAVE_ONE "v_readfirstlane_b32 s9, v0\ns_cmp_eq_u32 s9, 64\n"
  static const twin twins[] = {
      {"lanes switched off", GCN_FAULT_DIVERGENT_BARRIER, "s_mov_b64 exec, 1\ns_barrier\n",
       "s_mov_b64 exec, 1\ns_mov_b64 exec, -1\ns_barrier\n", .lanes = 128},
      {"a wave that left", GCN_FAULT_DIVERGENT_BARRIER, WAVE_ONE "s_cbranch_scc1 2f\ns_barrier\n2:\n",
       WAVE_ONE "s_cbranch_scc1 3f\ns_barrier\ns_branch 4f\n3:\ns_barrier\n4:\n", .lanes = 128},
  };
  CHECK(twins);
}

static void test_matrix(void **state) {
  (void)state;
  static const twin twins[] = {
      {"EXEC", GCN_FAULT_MASKED_MFMA, ZEROS "s_mov_b64 exec, 1\n" MATRIX,
       ZEROS "s_mov_b64 exec, 1\ns_mov_b64 exec, -1\n" MATRIX},
      {"arithmetic, then matrix", GCN_FAULT_HAZARD, ZEROS "v_mov_b32 v4, 0\ns_nop 0\n" MATRIX,
       ZEROS "v_mov_b32 v4, 0\ns_nop 1\n" MATRIX},
      {"the result read", GCN_FAULT_HAZARD, ZEROS MATRIX "s_nop 5\nv_mov_b32 v2, v9\n",
       ZEROS MATRIX "s_nop 7\nv_mov_b32 v2, v9\n"},
      {"the result stored", GCN_FAULT_HAZARD, ZEROS MATRIX "s_nop 5\nglobal_store_dword v1, v9, s[6:7]\n",
       ZEROS MATRIX "s_nop 7\nglobal_store_dword v1, v9, s[6:7]\n"},
      {"the result overwritten", GCN_FAULT_HAZARD, ZEROS MATRIX "s_nop 5\nv_mov_b32 v9, 0\n",
       ZEROS MATRIX "s_nop 7\nv_mov_b32 v9, 0\n"},
      {"the result as a factor", GCN_FAULT_HAZARD,
       ZEROS MATRIX "s_nop 5\nv_mfma_f32_16x16x16_bf16 v[12:15], v[8:9], v[6:7], 0\n",
       ZEROS MATRIX "s_nop 7\nv_mfma_f32_16x16x16_bf16 v[12:15], v[8:9], v[6:7], 0\n"},
      {"accumulators that overlap", GCN_FAULT_HAZARD,
       ZEROS "v_mov_b32 v12, 0\nv_mov_b32 v13, 0\n" LONG MATRIX
             "v_mfma_f32_16x16x16_bf16 v[10:13], v[4:5], v[6:7], v[10:13]\n",
       ZEROS MATRIX MATRIX},
      {"the accumulator overwritten", GCN_FAULT_HAZARD,
       ZEROS "v_mfma_f32_16x16x16_bf16 v[12:15], v[4:5], v[6:7], v[8:11]\nv_mov_b32 v9, 0\n",
       ZEROS "v_mfma_f32_16x16x16_bf16 v[12:15], v[4:5], v[6:7], v[8:11]\ns_nop 2\nv_mov_b32 v9, 0\n"},
  };
  CHECK(twins);
}

static void test_hazards(void **state) {
  (void)state;
  static const twin twins[] = {
      {"v_cmp, then v_cndmask", GCN_FAULT_HAZARD, "v_cmp_lt_u32 vcc, v0, v1\ns_nop 0\nv_cndmask_b32 v2, v0, v1, vcc\n",
       "v_cmp_lt_u32 vcc, v0, v1\ns_nop 1\nv_cndmask_b32 v2, v0, v1, vcc\n"},
      {"a lane as an address", GCN_FAULT_HAZARD,
       "v_readfirstlane_b32 s9, v0\ns_nop 3\nscratch_load_dword v2, off, s9\n",
       "v_readfirstlane_b32 s9, v0\ns_nop 4\nscratch_load_dword v2, off, s9\n"},
      {"exp, then add", GCN_FAULT_HAZARD, "v_exp_f32 v2, v1\nv_add_f32 v3, 1.0, v2\n",
       "v_exp_f32 v2, v1\ns_nop 0\nv_add_f32 v3, 1.0, v2\n"},
      {"a part of a register", GCN_FAULT_HAZARD,
       "v_mov_b32 v2, 0\nv_add_u16_sdwa v2, v0, v1 dst_sel:WORD_1 dst_unused:UNUSED_PRESERVE src0_sel:DWORD "
       "src1_sel:DWORD\nv_mov_b32 v3, v2\n",
       "v_mov_b32 v2, 0\nv_add_u16_sdwa v2, v0, v1 dst_sel:WORD_1 dst_unused:UNUSED_PRESERVE src0_sel:DWORD "
       "src1_sel:DWORD\ns_nop 0\n"
       "v_mov_b32 v3, v2\n"},
      {"a register through DPP", GCN_FAULT_HAZARD,
       "v_mov_b32 v2, v0\ns_nop 0\nv_mov_b32_dpp v3, v2 row_shr:1 row_mask:0xf bank_mask:0xf\n",
       "v_mov_b32 v2, v0\ns_nop 1\nv_mov_b32_dpp v3, v2 row_shr:1 row_mask:0xf bank_mask:0xf\n"},
      {"v_cmpx, then DPP", GCN_FAULT_HAZARD,
       "v_cmpx_ge_u32 exec, v1, v0\ns_nop 3\nv_mov_b32_dpp v3, v1 row_shr:1 row_mask:0xf bank_mask:0xf\n",
       "v_cmpx_ge_u32 exec, v1, v0\ns_nop 4\nv_mov_b32_dpp v3, v1 row_shr:1 row_mask:0xf bank_mask:0xf\n"},
      {"a lane just written", GCN_FAULT_HAZARD, "v_mov_b32 v2, v0\nv_readlane_b32 s9, v2, 3\n",
       "v_mov_b32 v2, v0\ns_nop 0\nv_readlane_b32 s9, v2, 3\n"},
      {"a lane chosen by a lane", GCN_FAULT_HAZARD, "v_readfirstlane_b32 s9, v0\ns_nop 2\nv_readlane_b32 s10, v1, s9\n",
       "v_readfirstlane_b32 s9, v0\ns_nop 3\nv_readlane_b32 s10, v1, s9\n"},
      {"v_div_fmas", GCN_FAULT_HAZARD, "v_cmp_lt_u32 vcc, v0, v1\ns_nop 2\nv_div_fmas_f32 v2, v0, v1, v1\n",
       "v_cmp_lt_u32 vcc, v0, v1\ns_nop 3\nv_div_fmas_f32 v2, v0, v1, v1\n"},
      {"M0, then a load to LDS", GCN_FAULT_HAZARD, "s_mov_b32 m0, 0\nglobal_load_lds_dword v1, s[6:7]\n",
       "s_mov_b32 m0, 0\ns_nop 0\nglobal_load_lds_dword v1, s[6:7]\n", .lds_bytes = 256},
      {"a wide store's data", GCN_FAULT_HAZARD, ZEROS "global_store_dwordx4 v0, v[4:7], s[6:7]\nv_mov_b32 v7, 1\n",
       ZEROS "global_store_dwordx4 v0, v[4:7], s[6:7]\ns_nop 1\nv_mov_b32 v7, 1\n"},
      {"s_setreg, then s_getreg", GCN_FAULT_HAZARD,
       "s_setreg_imm32_b32 hwreg(HW_REG_MODE), 0xf0\ns_getreg_b32 s9, hwreg(HW_REG_MODE)\n",
       "s_setreg_imm32_b32 hwreg(HW_REG_MODE), 0xf0\ns_nop 1\ns_getreg_b32 s9, hwreg(HW_REG_MODE)\n"},
      {"a dot product's result", GCN_FAULT_HAZARD,
       "v_mov_b32 v2, 0\nv_dot2c_i32_i16 v2, v0, v1\ns_nop 1\nv_mov_b32 v3, v2\n",
       "v_mov_b32 v2, 0\nv_dot2c_i32_i16 v2, v0, v1\ns_nop 2\nv_mov_b32 v3, v2\n"},
  };
  CHECK(twins);
}

/* Workgroup 0 stores 7 at 256 and then raises the flag at 0; workgroup 1, on the next die, waits for the flag and
 * loads. */
#define HAND_OVER(store, release, acquire, load)                                                                       \
  "v_mov_b32 v2, 0\nv_mov_b32 v3, 7\ns_cmp_eq_u32 s2, 0\ns_mov_b64 exec, 1\ns_cbranch_scc0 5f\n" store release         \
  "global_store_dword v2, v3, s[6:7] sc1\ns_endpgm\n5:\ns_sleep 1\nglobal_load_dword v4, v2, s[6:7] sc1\n"             \
  "s_waitcnt vmcnt(0)\nv_readfirstlane_b32 s9, v4\ns_cmp_eq_u32 s9, 0\ns_cbranch_scc1 5b\n" acquire load               \
  "s_waitcnt vmcnt(0)\n"
#define STORE "global_store_dword v2, v3, s[6:7] offset:256\n"
#define STORE_THROUGH "global_store_dword v2, v3, s[6:7] offset:256 sc1\n"
#define LOAD "global_load_dword v5, v2, s[6:7] offset:256\n"
#define LOAD_THROUGH "global_load_dword v5, v2, s[6:7] offset:256 sc1\n"
#define WAIT "s_waitcnt vmcnt(0)\n"
#define WRITE_BACK "buffer_wbl2 sc1\ns_waitcnt vmcnt(0)\n"
#define INVALIDATE "buffer_inv sc1\n"

static void test_dies(void **state) {
  (void)state;
  static const twin twins[] = {
      {"nothing written back", GCN_FAULT_GLOBAL_RACE, HAND_OVER(STORE, WAIT, INVALIDATE, LOAD),
       HAND_OVER(STORE, WRITE_BACK, INVALIDATE, LOAD), .groups = 2},
      {"nothing invalidated", GCN_FAULT_GLOBAL_RACE, HAND_OVER(STORE, WRITE_BACK, "", LOAD),
       HAND_OVER(STORE, WRITE_BACK, "", LOAD_THROUGH), .groups = 2},
      {"not waited for", GCN_FAULT_GLOBAL_RACE, HAND_OVER(STORE_THROUGH, "", INVALIDATE, LOAD),
       HAND_OVER(STORE_THROUGH, WAIT, INVALIDATE, LOAD), .groups = 2},
      {"a plain load behind a stored-through one", GCN_FAULT_GLOBAL_RACE, HAND_OVER(STORE_THROUGH, WAIT, "", LOAD),
       HAND_OVER(STORE_THROUGH, WAIT, "", LOAD_THROUGH), .groups = 2},
  };
  CHECK(twins);
}

/* Without checks these kernels run to their end. */
static void test_unchecked(void **state) {
  (void)state;
  static const twin t = {.lanes = 128, .lds_bytes = 512};
  gcn_assembly kernel = {.body =
                             START "global_load_dword v2, v1, s[6:7]\nv_add_u32 v3, 1, v2\nds_write_b32 v1, v0\n" END,
                         .kernarg_bytes = 8,
                         .lds_bytes = 512};
  assert_int_equal(run_kernel(gcn_kernel_at(assemble(&kernel, 1), 0), &t, 0, true), GCN_FAULT_NONE);
}

static int open_machine(gcn_target target) {
  assert_null(gcn_machine_create(target, &machine));
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
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_bounds),   cmocka_unit_test(test_waits),     cmocka_unit_test(test_lds_races),
      cmocka_unit_test(test_barriers), cmocka_unit_test(test_matrix),    cmocka_unit_test(test_hazards),
      cmocka_unit_test(test_dies),     cmocka_unit_test(test_unchecked),
  };
  int failed = cmocka_run_group_tests_name("gfx942", tests, open_gfx942, close_machine);
  return failed + cmocka_run_group_tests_name("gfx950", tests, open_gfx950, close_machine);
}
