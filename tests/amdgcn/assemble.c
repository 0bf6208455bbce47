#include "assemble.h"
#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static const char *processor(gcn_target target) {
  return target == GCN_GFX942 ? "gfx942" : "gfx950";
}

static sluice_status *run(char *const arguments[]) {
  pid_t child;
  int state;
  if (posix_spawn(&child, arguments[0], NULL, NULL, arguments, environ) != 0) {
    return sluice_error(SLUICE_NOT_FOUND, "%s does not start: install clang-22, llvm-22 and lld-22", arguments[0]);
  }
  while (waitpid(child, &state, 0) < 0 && errno == EINTR) continue;
  return WIFEXITED(state) && WEXITSTATUS(state) == 0 ? NULL : sluice_error(SLUICE_INVALID, "%s failed", arguments[0]);
}

static sluice_status *read_file(const char *name, uint8_t **out, size_t *bytes) {
  FILE *file = fopen(name, "rb");
  if (!file) return sluice_error(SLUICE_IO, "%s does not open", name);
  fseek(file, 0, SEEK_END);
  long size = ftell(file);
  rewind(file);
  *out = size > 0 ? malloc((size_t)size) : NULL;
  *bytes = *out ? fread(*out, 1, (size_t)size, file) : 0;
  fclose(file);
  return *out && *bytes == (size_t)size ? NULL : sluice_error(SLUICE_IO, "%s does not read", name);
}

/* A folder for one code object, with the names of the files in it. */
typedef struct workplace {
  char folder[32], source[48], object[48], result[48];
} workplace;

static sluice_status *open_workplace(workplace *w) {
  strcpy(w->folder, "/tmp/gcn-XXXXXX");
  if (!mkdtemp(w->folder)) return sluice_error(SLUICE_IO, "no temporary folder");
  snprintf(w->source, sizeof w->source, "%s/source.s", w->folder);
  snprintf(w->object, sizeof w->object, "%s/object.o", w->folder);
  snprintf(w->result, sizeof w->result, "%s/result.hsaco", w->folder);
  return NULL;
}

static void close_workplace(const workplace *w) {
  unlink(w->source);
  unlink(w->object);
  unlink(w->result);
  rmdir(w->folder);
}

static sluice_status *link_object(const workplace *w, uint8_t **out, size_t *bytes) {
  char *const arguments[] = {
      SLUICE_LLVM_PREFIX "/bin/ld.lld", "-shared", "--no-undefined", "-o", (char *)(uintptr_t)w->result,
      (char *)(uintptr_t)w->object,     NULL};
  SLUICE_TRY(run(arguments));
  return read_file(w->result, out, bytes);
}

sluice_status *gcn_compile_opencl(gcn_target target, const char *file, const char *level, uint8_t **out,
                                  size_t *bytes) {
  workplace w;
  char cpu[32];
  *out = NULL;
  SLUICE_TRY(open_workplace(&w));
  snprintf(cpu, sizeof cpu, "-mcpu=%s", processor(target));
  char *const arguments[] = {SLUICE_LLVM_PREFIX "/bin/clang",
                             "-x",
                             "cl",
                             "-cl-std=CL2.0",
                             "-target",
                             "amdgcn-amd-amdhsa",
                             cpu,
                             "-nogpulib",
                             "-w",
                             (char *)(uintptr_t)level,
                             "-c",
                             (char *)(uintptr_t)file,
                             "-o",
                             w.object,
                             NULL};
  sluice_status *status = run(arguments);
  if (!status) status = link_object(&w, out, bytes);
  close_workplace(&w);
  return status;
}

static void write_kernel(FILE *to, uint32_t number, const gcn_assembly *a) {
  fprintf(to,
          ".text\n.globl kernel%u\n.p2align 8\n.type kernel%u,@function\nkernel%u:\n%s\n.Lend%u:\n.size kernel%u, "
          ".Lend%u-kernel%u\n",
          number, number, number, a->body, number, number, number, number);
  fprintf(to, ".rodata\n.p2align 6\n.amdhsa_kernel kernel%u\n.amdhsa_user_sgpr_kernarg_segment_ptr 1\n", number);
  fprintf(to, ".amdhsa_system_sgpr_workgroup_id_x 1\n.amdhsa_system_sgpr_workgroup_id_y "
              "1\n.amdhsa_system_sgpr_workgroup_id_z 1\n"
              ".amdhsa_system_vgpr_workitem_id 2\n.amdhsa_float_denorm_mode_32 3\n.amdhsa_next_free_vgpr 256\n"
              ".amdhsa_next_free_sgpr 96\n.amdhsa_accum_offset 128\n");
  fprintf(to,
          ".amdhsa_group_segment_fixed_size %u\n.amdhsa_private_segment_fixed_size %u\n.amdhsa_kernarg_size "
          "%u\n.end_amdhsa_kernel\n",
          a->lds_bytes, a->scratch_bytes, a->kernarg_bytes);
}

static void write_metadata(FILE *to, uint32_t number, const gcn_assembly *a) {
  fprintf(to,
          "  - .name: kernel%u\n    .symbol: kernel%u.kd\n    .kernarg_segment_size: %u\n    "
          ".group_segment_fixed_size: %u\n",
          number, number, a->kernarg_bytes, a->lds_bytes);
  fprintf(to,
          "    .private_segment_fixed_size: %u\n    .kernarg_segment_align: 8\n    .wavefront_size: 64\n    "
          ".sgpr_count: 102\n",
          a->scratch_bytes);
  fprintf(to, "    .vgpr_count: 256\n    .agpr_count: 128\n    .max_flat_workgroup_size: 1024\n");
}

static sluice_status *write_source(const char *file, const char *cpu, const gcn_assembly *kernels, uint32_t count) {
  FILE *to = fopen(file, "w");
  if (!to) return sluice_error(SLUICE_IO, "%s does not open", file);
  fprintf(to, ".amdgcn_target \"amdgcn-amd-amdhsa--%s\"\n", cpu);
  for (uint32_t k = 0; k < count; k++) write_kernel(to, k, &kernels[k]);
  fprintf(to, ".amdgpu_metadata\n---\namdhsa.version: [1, 2]\namdhsa.target: amdgcn-amd-amdhsa--%s\namdhsa.kernels:\n",
          cpu);
  for (uint32_t k = 0; k < count; k++) write_metadata(to, k, &kernels[k]);
  fprintf(to, "...\n.end_amdgpu_metadata\n");
  return fclose(to) == 0 ? NULL : sluice_error(SLUICE_IO, "%s does not write", file);
}

sluice_status *gcn_assemble(gcn_target target, const gcn_assembly *kernels, uint32_t count, uint8_t **out,
                            size_t *bytes) {
  workplace w;
  char cpu[32];
  *out = NULL;
  SLUICE_TRY(open_workplace(&w));
  snprintf(cpu, sizeof cpu, "-mcpu=%s", processor(target));
  char *const arguments[] = {SLUICE_LLVM_PREFIX "/bin/llvm-mc",
                             "-triple=amdgcn-amd-amdhsa",
                             cpu,
                             "--amdhsa-code-object-version=5",
                             "-filetype=obj",
                             "-o",
                             w.object,
                             w.source,
                             NULL};
  sluice_status *status = write_source(w.source, processor(target), kernels, count);
  if (!status) status = run(arguments);
  if (!status) status = link_object(&w, out, bytes);
  close_workplace(&w);
  return status;
}
