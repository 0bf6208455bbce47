/* NVIDIA targets: kernels as PTX through LLVM's NVPTX backend, and a cubin through ptxas where that is installed.
 *
 * A kernel takes one pointer for each operand, then a pointer to the step's sizes, all to global memory. A workgroup is
 * a thread block of e->lanes threads in x; e->x and e->y are its indices in the grid; workgroup memory is dynamic
 * shared memory.
 */
#ifndef BACKENDS_NVPTX_NVPTX_H
#define BACKENDS_NVPTX_NVPTX_H

#include "backends/common/backend.h"

enum { WARP = 32 };

extern const atoms nvptx_atoms;

/* exp2 of an f32 in one instruction, where atoms.exp2 has four: numbers below 2^-126 become 0. */
V exp2_flushed(emitter *e, V x);

/* atoms.c: a function of `count` parameters, the builder at the start of its body; a kernel of `count` arguments and
 * the sizes. */
void nvptx_open_function(emitter *e, const char *symbol, T *parameters, uint32_t count);
void nvptx_open_kernel(emitter *e, const char *symbol, uint32_t count);
void nvptx_close_function(emitter *e);
/* Attributes of the function at hand. */
void nvptx_enum_attribute(emitter *e, const char *name);
void nvptx_string_attribute(emitter *e, const char *name, const char *value);

/* join.c: what a part of a joined kernel does where a kernel of its own begins, waits and ends; and atoms.join. */
void nvptx_open_part(emitter *e, const char *symbol, uint32_t count);
void nvptx_wait_for_parts(emitter *e, uint32_t parts, bool looks_again);
void nvptx_count_workgroup(emitter *e);
void nvptx_join(emitter *e, const kernel_spec *spec);

/* backend.link: the PTX becomes code->assembly, and what ptxas makes of it code->data. Without ptxas data stays NULL.
 * A wgmma that ptxas serialises is an SLUICE_INTERNAL error that names the kernel. */
SLUICE_MUST_USE sluice_status *nvptx_assemble(const char *target, const kernel_spec *specs, size_t count,
                                              void *const *files, const size_t *lengths, size_t file_count,
                                              code_object *code);

/* Fills in registers and spill_bytes of `kernels` from what `ptxas -v` prints. */
void nvptx_read_report(const char *report, const kernel_spec *specs, size_t count, kernel_info *kernels);
/* The first line of a report that says wgmma was serialised or fenced anew (C75xx), or NULL. */
const char *nvptx_find_serialised(const char *report);

#endif
