/* Boxes of a matrix in global memory, brought by the copy engine to where matrix instructions of a warpgroup read them:
 * rows of 64 columns, "swizzled" as wgmma.h says. One lane asks for a box; nothing passes through registers or the path
 * of ordinary loads, which copies of 16 bytes (bulk.h) fill to a fourth of a kernel's time.
 *
 * The engine wants to know the matrix by a tensor map, 128 bytes of global memory in a form that NVIDIA does not
 * publish. Drivers make them on the host; the PTX instruction tensormap.replace makes them here, in the kernel, so that
 * bundles and the runtime know nothing of them:
 *
 *     zeros in workgroup memory, tensormap.replace for each field
 *     tensormap.cp_fenceproxy      to global memory, to the processor's own place
 *     fence.proxy.tensormap        the engine sees it
 *
 * Each processor has places of its own, and a kernel that uses them must take more than half of a processor's workgroup
 * memory: then no two workgroups that do are on a processor at the same time, of this launch or of another.
 */
#ifndef BACKENDS_NVPTX_TENSOR_MAP_H
#define BACKENDS_NVPTX_TENSOR_MAP_H

#include "backends/nvptx/bulk.h"

enum { TENSOR_MAP_BYTES = 128, BOX_COLUMNS = 64 };

/* `rows` (i64, at most 2^31) rows of `columns` bf16, a multiple of 64, from `base`, a multiple of 16 bytes, on, and
 * boxes of `box_rows` of them, at most 256. Rows from `rows` on are zero in a box. */
typedef struct tensor_shape {
  V base, rows;
  int64_t columns, box_rows;
} tensor_shape;

/* The map (i64) for tensor_box. By all lanes of the workgroup before their first barrier; the first warp makes it.
 * `scratch` are 128 bytes of workgroup memory, a multiple of 128, that are free until that barrier. A kernel has one
 * map. */
V tensor_map_make(emitter *e, const tensor_shape *shape, V scratch);

/* By a lane of the workgroup's first warp: the box from column `column` and row `row` (i32) on, to a multiple of 1024
 * of workgroup memory; its bytes, all of them whatever part is of the matrix, arrive at `barrier` (bulk_expect). */
void tensor_box(emitter *e, V map, V to, V column, V row, V barrier);

#endif
