/* AMD targets: kernels as code objects for one processor each, through LLVM's AMDGPU backend and ld.lld.
 *
 * A kernel takes one pointer for each operand, then a pointer to the step's sizes, all to global memory. A workgroup
 * has e->lanes lanes in x, in waves of 64; e->x and e->y are its indices in the grid; workgroup memory is LDS, of a
 * size that the code object states.
 */
#ifndef BACKENDS_AMDGCN_AMDGCN_H
#define BACKENDS_AMDGCN_AMDGCN_H

#include "backends/common/backend.h"

enum { AMDGCN_WAVE = 64 };

extern const atoms amdgcn_atoms;
/* What these can do, and the lanes and stages they have by default; see backend. */
extern const family_schedule amdgcn_schedules[];
void amdgcn_complete(const char *target, const kernel_question *question, kernel_variant *variant);
void amdgcn_rows_complete(const kernel_question *question, kernel_variant *variant);
illegal_choice amdgcn_rows_relate(const char *target, const kernel_question *question, const int64_t choice[]);
void amdgcn_stream_complete(const char *target, const kernel_question *question, kernel_variant *variant);
illegal_choice amdgcn_stream_relate(const char *target, const kernel_question *question, const int64_t choice[]);
/* Bytes of a lane in one load straight to LDS: 16 on gfx950, 4 on gfx942. */
unsigned amdgcn_direct_bytes(const char *target);

extern const struct gemm_engine amdgcn_gemm;               /* few_rows.c */
extern const struct gemm_stream_engine amdgcn_gemm_stream; /* many_rows.c */

/* Kernels of the target's own, see own_kernel. */
bool amdgcn_attention(emitter *e, const kernel_spec *spec);       /* attention.c */
bool amdgcn_block_attention(emitter *e, const kernel_spec *spec); /* attention.c */
bool amdgcn_attention_part(emitter *e, const kernel_spec *spec);  /* split_attention.c */
bool amdgcn_topk_attention_part(emitter *e, const kernel_spec *spec);
bool amdgcn_attention_merge(emitter *e, const kernel_spec *spec); /* split_attention.c */
bool amdgcn_block_score(emitter *e, const kernel_spec *spec);     /* block_score.c */
bool amdgcn_topk_blocks(emitter *e, const kernel_spec *spec);     /* topk.c */

/* Whether the target is gfx950 (CDNA 4), not gfx942 (CDNA 3). */
bool amdgcn_is_gfx950(const emitter *e);
/* Over groups of `lanes` neighbouring lanes (2, 4, 8 or 16) of a wave; all of a group get the result. */
V amdgcn_reduce_row(emitter *e, V value, unsigned lanes, reduction operation);
/* Number of the wave in the workgroup, i64, the same for all its lanes and known to be: in a scalar register. */
V amdgcn_wave(emitter *e);
/* i32 number `index` at `pointer`, as i64: of what no launch of the step writes, at an address that all lanes agree on.
 * It goes through the scalar cache, whose loads do not queue behind those of keys. */
V amdgcn_load_input(emitter *e, V pointer, V index);

/* backend.link: the relocatable objects become one code object, and what its metadata says of each kernel goes into
 * code->kernels. */
SLUICE_MUST_USE sluice_status *amdgcn_link(const char *target, const kernel_spec *specs, size_t count,
                                           void *const *files, const size_t *lengths, size_t file_count,
                                           code_object *code);

/* Fills in registers, spill_bytes and code_bytes of `kernels` from the symbols and the metadata note of a code object
 * (LLVM's AMDGPU usage guide, "Code Object Metadata": a MessagePack map in an ELF note). Every kernel has to be in it.
 */
SLUICE_MUST_USE sluice_status *amdgcn_read_metadata(const void *object, size_t length, const kernel_spec *specs,
                                                    size_t count, kernel_info *kernels);

#endif
