/* What a target provides for the kernels that all targets share. One table for each (backends/host/atoms.c, ...). What
 * stands under "abilities" a target may lack: its pointer is NULL then, and kernels do without.
 *
 * For those who write a target. Kernels use atoms through e->atoms, and what concerns other launches through launch.h.
 */
#ifndef BACKENDS_COMMON_ATOMS_H
#define BACKENDS_COMMON_ATOMS_H

#include "backends/common/emitter.h"

typedef enum reduction { REDUCE_ADD, REDUCE_MAX, REDUCE_MIN } reduction;

/* An ability: a launch may begin before the launches before it have ended, and does its first work beside them. What
 * each entry means to a kernel stands at the functions of the same names in launch.h. */
typedef struct launch_overlap {
  void (*await_previous)(emitter *e);
  void (*await_all_but_first)(emitter *e);
  void (*release_next)(emitter *e);
  V (*load_ended)(emitter *e, T type, V pointer);
} launch_overlap;

/* A kernel of the target's own for a family. `emit` emits the kernel at hand, or calls `decline` (launch.h) before it
 * has emitted anything: then the common kernel is taken, where there is one. */
typedef struct own_kernel {
  const char *family;
  bool (*emit)(emitter *e, const kernel_spec *spec);
} own_kernel;

typedef struct atoms {
  const char *name;
  /* Opens the kernel function `spec->symbol` and, on the host, the loop over its workgroups; sets e->x, e->y, e->sizes,
   * e->argument and e->workgroup. */
  void (*begin)(emitter *e, const kernel_spec *spec);
  void (*end)(emitter *e);
  V (*lane)(emitter *e);                                 /* i64, 0 .. lanes-1 */
  void (*barrier)(emitter *e);                           /* all lanes of the workgroup */
  V (*reduce)(emitter *e, V value, reduction operation); /* an f32, f64 or i64 over all lanes; every lane gets it */
  V (*reduce_wave)(emitter *e, V value, reduction operation); /* over the lanes of each wave, no barrier in it */
  V (*exp2)(emitter *e, V x);                                 /* f32 scalar or vector; at most 2 ulp; exp2(-inf) = 0 */
  V (*rsqrt)(emitter *e, V x);                                /* f32, at most 2 ulp */

  /* ---- abilities ---- */
  /* The value (f32) of the lane whose number differs in bit `distance`, a power of two below facts->wave; all lanes of
   * the wave together. */
  V (*exchange)(emitter *e, V value, unsigned distance);
  const launch_overlap *overlap;
  /* Brings the line of memory at `pointer` closer. */
  void (*prefetch)(emitter *e, V pointer);
  /* Emits the joined kernel `spec`, whose parts have become functions (e->joined). */
  void (*join)(emitter *e, const kernel_spec *spec);
  /* accumulator (f32 vector) + the two products of each lane's pair of bf16 (i32 vectors, first of the pair in the low
   * half). */
  V (*dot_bf16)(emitter *e, V accumulator, V a, V b);
  /* Products with matrix instructions of the shape facts->matrix (gemm.h). */
  const struct gemm_engine *gemm;
  const struct gemm_stream_engine *gemm_stream;
  const own_kernel *own_kernels; /* ends with a NULL family */
} atoms;

#endif
