/* Building code: constants, arithmetic, memory, variables and control flow, as LLVM IR through its C API. Nothing here
 * knows of workgroups or launches.
 *
 * Control flow is structured (`loop_*`, `if_*`); values that change in a loop live in `local` variables, which LLVM
 * promotes to registers. Integers are i64 unless said otherwise; element offsets, not bytes, go into pointers.
 */
#ifndef BACKENDS_COMMON_BUILD_H
#define BACKENDS_COMMON_BUILD_H

#include "backends/common/atoms.h"

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
/* exp(x) = exp2(x LOG2_E) */
#define LOG2_E 1.4426950408889634
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
void loop_end(emitter *e, loop *l);

typedef struct branch {
  LLVMBasicBlockRef otherwise, join;
} branch;
branch if_begin(emitter *e, V condition);
void if_else(emitter *e, branch *b);
void if_end(emitter *e, branch *b);

#endif
