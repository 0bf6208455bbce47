/* The host target: x86-64 at one of its four levels, or the fourth with AVX-512 BF16. A workgroup is one lane; kernels
 * are plain vector code that loops over a range of workgroups (sluice_host_kernel in sluice/plan.h).
 */
#ifndef BACKENDS_HOST_HOST_H
#define BACKENDS_HOST_HOST_H

#include "backends/common/backend.h"

enum { HOST_LEVELS = 5 };

/* Levels, best last: "x86-64", "x86-64-v2", "x86-64-v3", "x86-64-v4", "x86-64-v4-bf16". */
typedef struct host_level {
  const char *name;
  const char *cpu;      /* for LLVM */
  const char *features; /* beyond the cpu's */
  bool dot_bf16;        /* has vdpbf16ps */
  target_facts facts;
} host_level;

/* The level named after "host:" in a canonical target; NULL for anything else. */
const host_level *host_level_find(const char *target);
/* The best level of this machine. */
const host_level *host_level_native(void);
extern const host_level host_levels[HOST_LEVELS];

/* The atoms of a level. */
const atoms *host_atoms(const host_level *level);

/* backend.link: a shared object by ld.lld, and the sizes of its kernels; temporary files are removed in any case. */
SLUICE_MUST_USE sluice_status *host_link(const char *target, const kernel_spec *specs, size_t count,
                                         void *const *objects, const size_t *lengths, size_t object_count,
                                         code_object *code);

/* Fills in code_bytes of `kernels` from an object that ld.lld made. */
void host_symbol_sizes(const void *object, size_t length, const kernel_spec *specs, size_t count, kernel_info *kernels);

#endif
