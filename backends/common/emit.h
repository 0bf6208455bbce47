/* Emitting kernels as LLVM IR through the C API: the part that every kernel family uses and no target specialises.
 *
 * An emitter builds one module. A family calls `kernel_begin`, which gives it its arguments, the step's sizes and the
 * coordinates of the workgroup, emits the body of ONE workgroup, and calls `kernel_end`. How workgroups and lanes are
 * run is the target's business (`struct atoms`): on the host a workgroup is one lane, `kernel_begin` opens the loop
 * over workgroups, and barriers vanish; on a GPU the coordinates are block indices.
 *
 * Control flow is structured (`loop_*`, `if_*`); values that change in a loop live in `local` variables, which LLVM
 * promotes to registers. Integers are i64 unless said otherwise; element offsets, not bytes, go into pointers.
 *
 * LLVM cannot report most misuse: it crashes. Therefore this code runs in a forked child (backend_compile).
 */
#ifndef BACKENDS_COMMON_EMIT_H
#define BACKENDS_COMMON_EMIT_H

#include "backends/common/kernel.h"
#include "sluice/plan.h"

#include <llvm-c/Core.h>
#include <llvm-c/TargetMachine.h>

typedef LLVMValueRef V;
typedef LLVMTypeRef T;

typedef struct emitter emitter;

typedef enum reduction { REDUCE_ADD, REDUCE_MAX, REDUCE_MIN } reduction;

/* What a target provides; one table for each (backends/host/atoms.c, ...). */
typedef struct atoms {
  const char *name;
  unsigned lanes;  /* lanes of a workgroup unless a family asks for another number; 1 on the host */
  unsigned wave;   /* lanes that run in step: neighbours from a multiple of this on, a power of two; 1 on the host */
  unsigned vector; /* f32 elements of a lane's widest useful vector: 16, 8, 4 */
  unsigned vector_registers;
  bool aligned_vectors; /* vectors lie at multiples of their size, see emitter.vector */
  /* Opens the kernel function `spec->symbol` and, on the host, the loop over its workgroups; sets e->x and e->y, and
   * may lower e->vector. */
  void (*begin)(emitter *e, const kernel_spec *spec);
  void (*end)(emitter *e);
  V (*lane)(emitter *e);       /* i64, 0 .. lanes-1 */
  void (*barrier)(emitter *e); /* all lanes of the workgroup */
  /* Waits until what the launches before this one wrote is in memory. kernel_begin does it first of all, but for a
   * kernel_shape that says `early`. Every workgroup of a joined kernel's last part does it once. */
  void (*wait)(emitter *e);
  /* The same for all operands but the first, in a kernel behind a launch with kernel_shape.holds_next: for a launch of
   * its own there is nothing to do, a part of a joined kernel waits for other parts. The kernel calls wait, too, before
   * it reads the first operand. */
  void (*wait_early)(emitter *e);
  void (*let_go)(emitter *e); /* see kernel_shape.holds_next */
  /* Brings the line of memory at `pointer` closer, for a kernel that has yet to wait; NULL: nothing would be won. */
  void (*prefetch)(emitter *e, V pointer);
  V (*reduce)(emitter *e, V value, reduction operation); /* an f32, f64 or i64 over all lanes; every lane gets it */
  V (*reduce_wave)(emitter *e, V value, reduction operation); /* over the lanes of each wave, no barrier in it */
  /* The value (f32) of the lane whose number differs in bit `distance`, a power of two below `wave`; all lanes of the
   * wave together. NULL on the host. */
  V (*exchange)(emitter *e, V value, unsigned distance);
  V (*exp2)(emitter *e, V x);  /* f32 scalar or vector; at most 2 ulp; exp2(-inf) = 0 */
  V (*rsqrt)(emitter *e, V x); /* f32, at most 2 ulp */
  /* Emits the joined kernel `spec`, whose parts have become functions (e->joined); NULL: the target has none. */
  void (*join)(emitter *e, const kernel_spec *spec);
  /* accumulator (f32 vector) + the two products of each lane's pair of bf16 (i32 vectors, first of the pair in the low
   * half); NULL when the target has no such instruction. */
  V (*dot_bf16)(emitter *e, V accumulator, V a, V b);
  /* Own skeletons of hot kernels. Each looks at the kernel at hand and emits it whole, or returns false, and then the
   * family's common skeleton is taken. A family without an entry in this list has the common one on every target. */
  /* Products with matrix instructions (backends/common/gemm.h); NULL: the target has none. */
  const struct gemm_engine *gemm;
  const struct gemm_stream_engine *gemm_stream;
  const struct target_skeleton *skeletons; /* ends with a NULL family; NULL: none */
} atoms;

/* `emit` emits the kernel at hand, or calls `decline` before it has emitted anything. */
typedef struct target_skeleton {
  const char *family;
  bool (*emit)(emitter *e, const kernel_spec *spec);
} target_skeleton;

/* How many workgroups a kernel has, and how many lanes each. */
typedef struct kernel_shape {
  sluice_plan_extent x, y; /* all zero: one */
  unsigned lanes;          /* lanes that the family can use, a power of two; 0: the target's usual number */
  /* The kernel calls atoms.wait itself. Before that it may read what no launch of the step writes: weights, the step's
   * inputs and sizes, pages of the cache that earlier steps filled, and what a launch with `holds_next` waited for; it
   * must write nothing. */
  bool early;
  /* Workgroups that a multiprocessor has to hold at once, at the expense of registers: of a joined kernel the fewest
   * that a part asks for. 0: registers come first, but for what other parts ask for. */
  unsigned resident;
  bool cache_first; /* see sluice_plan_kernel */
  /* The launch behind this one may start when every workgroup has called atoms.let_go, not at once. A kernel that calls
   * it behind its wait lets no launch start, neither the next one nor those behind it, before all launches before its
   * own are done. */
  bool holds_next;
} kernel_shape;

/* A part of a joined kernel becomes a function, which is inlined. Its workgroups wait for those of other parts, and
 * count themselves when they are done. */
typedef struct joined_part {
  V function;
  sluice_plan_extent grid[2];
  unsigned lanes;
  uint32_t waits, late, argument_count; /* waits, late: see kernel_part */
} joined_part;

typedef struct joined_kernel {
  joined_part parts[SLUICE_JOIN_PARTS];
  unsigned count, at; /* at: the part at hand */
  V counters;         /* of the part at hand: i32[count], workgroups of each part that are done */
  V counted_before;   /* local of the last part: its workgroups that had counted themselves before this one */
} joined_kernel;

struct emitter {
  LLVMContextRef context;
  LLVMModuleRef module;
  LLVMBuilderRef builder;
  LLVMTargetMachineRef machine;
  const atoms *atoms;
  T i1, i8, i16, i32, i64, f32, f64, pointer, nothing;
  /* the kernel at hand */
  const kernel_spec *spec;
  joined_kernel *joined; /* that it is a part of, or NULL */
  V function;
  LLVMBasicBlockRef entry;           /* allocas go to its start */
  V argument[KERNEL_MOST_ARGUMENTS]; /* pointers, as in docs/ir.md */
  V x, y;                            /* workgroup coordinates, i64 */
  V sizes;                           /* i32[SLUICE_SIZE_COUNT] */
  V workgroup;                       /* workgroup memory, see workgroup_take */
  uint32_t workgroup_bytes;          /* taken so far */
  bool cache_first, holds_next;      /* of the shape */
  V reduce_memory;                   /* of atoms.reduce, NULL until used */
  sluice_plan_extent grid[2];
  unsigned resident;
  unsigned lanes;  /* of the workgroup */
  unsigned vector; /* f32 elements of a vector in this kernel. Every row and every part of one that the kernel reads in
                      vectors starts at a multiple of this many elements where atoms.aligned_vectors is set. */
  V first, last, index; /* host: the range of workgroups and the loop variable */
  LLVMBasicBlockRef loop_head, loop_exit;
  sluice_status *status; /* first error; families check attributes through it */
  char declined[192];    /* why the target's own kernel did not take this one; "" */
};

/* Says why a target's own kernel does not take the one at hand: what was found, what was expected. False. */
__attribute__((format(printf, 2, 3))) bool decline(emitter *e, const char *format, ...);

/* A family: emits one kernel. Returns with e->status set when the attributes make no sense. */
typedef void kernel_family(emitter *e, const kernel_spec *spec);

/* The registry, one line a family (backends/common/families.c). NULL for an unknown name. */
kernel_family *kernel_family_find(const char *name);

/* ---- attributes of the kernel at hand ---- */
int64_t attribute(emitter *e, const char *name);
double attribute_float(emitter *e, const char *name);
bool attribute_is(emitter *e, const char *name, const char *value);
sluice_dtype attribute_dtype(emitter *e, const char *name);
/* The sluice_size that a `size` attribute names. */
sluice_size attribute_size(emitter *e, const char *name);

/* Opens the kernel: e->x and e->y are the workgroup's place in the grid of `shape`, which becomes the launch's grid. */
void kernel_begin(emitter *e, const kernel_spec *spec, kernel_shape shape);
/* A workgroup for each unit of `size`; one for each row and, in y, each of `count`. */
kernel_shape each(sluice_size size);
kernel_shape each_of(sluice_size size, int64_t count);
void kernel_end(emitter *e);
/* Prefetches `bytes` at `pointer`, all lanes of the workgroup together; what all workgroups share, the first one of the
 * launch alone. */
void prefetch(emitter *e, V pointer, int64_t bytes);
void prefetch_shared(emitter *e, V pointer, int64_t bytes);

/* `bytes` of workgroup memory (64-byte aligned, undefined contents), shared by the lanes of a workgroup. */
V workgroup_take(emitter *e, uint64_t bytes);
/* part[at] + part[at + stride] + ..., `count` f32 of workgroup memory, added in this order: what several waves have of
 * a sum. */
V add_parts(emitter *e, V part, V at, int64_t stride, unsigned count);
/* sizes[size] as i64. */
V size_of(emitter *e, sluice_size size);
/* Workgroups of one dimension of a grid. */
V extent_of(emitter *e, const sluice_plan_extent *extent);

/* ---- constants and types ---- */
V int64(emitter *e, int64_t value);
V int32(emitter *e, int32_t value);
V float32(emitter *e, double value);                        /* rounded to float32 */
T vector_type(T element, unsigned width);                   /* width 1: the element itself */
V splat(emitter *e, V scalar, unsigned width);              /* width 1: the scalar */
V vector_of(emitter *e, const V *elements, unsigned count); /* scalars of one type */
unsigned width_of(V value);                                 /* 1 for scalars */

/* ---- arithmetic; scalars and vectors alike, a scalar beside a vector is broadcast ---- */
V add(emitter *e, V a, V b); /* integers */
V sub(emitter *e, V a, V b);
V mul(emitter *e, V a, V b);
V udiv(emitter *e, V a, V b); /* unsigned */
V urem(emitter *e, V a, V b);
V and_(emitter *e, V a, V b);
V or_(emitter *e, V a, V b);
V shl(emitter *e, V a, V b);
V lshr(emitter *e, V a, V b);
V imin(emitter *e, V a, V b); /* signed */
V imax(emitter *e, V a, V b);
V ceil_div(emitter *e, V a, int64_t b);
V fadd_(emitter *e, V a, V b);
V fsub_(emitter *e, V a, V b);
V fmul_(emitter *e, V a, V b);
V fdiv_(emitter *e, V a, V b);
V fma_(emitter *e, V a, V b, V c); /* a * b + c, fused where the target can */
V fmax_(emitter *e, V a, V b);     /* NaN loses */
V fmin_(emitter *e, V a, V b);
V icmp(emitter *e, LLVMIntPredicate predicate, V a, V b);
V fcmp(emitter *e, LLVMRealPredicate predicate, V a, V b);
V select_(emitter *e, V condition, V a, V b);
V to_i64(emitter *e, V i32_value); /* sign-extended */
V to_i32(emitter *e, V i64_value);
V to_f32(emitter *e, V integer); /* signed integer to float32, nearest */
V bitcast(emitter *e, V value, T type);
/* sigmoid(x) = 1 / (1 + exp2(-x log2 e)), f32 */
V sigmoid(emitter *e, V x);
/* m3.md 2.10, f32: g = min(gate, limit), u = clamp(up, -limit, limit); (u + 1) * g * sigmoid(alpha * g). NaN stays. */
V swiglu(emitter *e, V gate, V up, double alpha, double limit);
/* Over the elements of one vector: REDUCE_ADD adds in a fixed tree order. */
V vector_reduce(emitter *e, V vector, reduction operation);
V intrinsic(emitter *e, const char *name, T *overloads, unsigned overload_count, V *arguments, unsigned count);
V population(emitter *e, V word); /* how many bits of an i32 are 1 */

/* ---- memory ---- */
V element(emitter *e, T type, V pointer, V index); /* &((type *)pointer)[index] */
V element_of(emitter *e, sluice_dtype dtype, V pointer, V index);
V byte_offset(emitter *e, V pointer, V bytes);
V load(emitter *e, T type, V pointer);
void store(emitter *e, V value, V pointer);
/* `width` consecutive elements of `dtype` (F32 or BF16) at &pointer[index] as an f32 vector (scalar for width 1). */
V load_f32(emitter *e, sluice_dtype dtype, V pointer, V index, unsigned width);
/* The reverse, rounding once to nearest even for BF16 (NaN stays NaN). */
void store_f32(emitter *e, sluice_dtype dtype, V value, V pointer, V index);
V load_i32(emitter *e, V pointer, V index); /* as i64, sign-extended */
void store_i32(emitter *e, V i64_value, V pointer, V index);

/* ---- local variables ---- */
V local(emitter *e, T type);                /* a stack slot in the entry block */
V local_set(emitter *e, T type, V initial); /* local, then store */
V get(emitter *e, T type, V slot);
void set(emitter *e, V slot, V value);

/* ---- control flow ---- */
typedef struct loop {
  V index; /* i64 */
  V step, limit;
  LLVMBasicBlockRef head, exit;
} loop;
loop loop_begin(emitter *e, V from, V to, V step); /* for (index = from; index < to; index += step) */
loop lane_loop(emitter *e, V from, V to);          /* every index of [from, to) in one of the lanes */
void loop_end(emitter *e, loop *l);

typedef struct branch {
  LLVMBasicBlockRef otherwise, join;
} branch;
branch if_begin(emitter *e, V condition);
void if_else(emitter *e, branch *b);
void if_end(emitter *e, branch *b);

/* Elementwise work on a row of `width` elements, spread over lanes and vectors: calls `body` with an offset (i64) and a
 * vector width; first full vectors, then single elements. */
typedef void row_body(emitter *e, V offset, unsigned vector, void *user);
void row_loop(emitter *e, int64_t width, row_body *body, void *user);

/* Where a lane's vectors of e->vector elements of a row are, in the order of row_loop, when they are few enough to stay
 * in registers. Beyond the row an offset is that of its last vector. */
enum { MOST_ROW_PLACES = 4 };
typedef struct row_places {
  int64_t count;
  V offset[MOST_ROW_PLACES]; /* i64 */
  V inside[MOST_ROW_PLACES]; /* i1: of the row */
} row_places;
/* False when they are more, or the row is not made of whole vectors. */
bool find_row_places(emitter *e, int64_t width, row_places *out);

#endif
