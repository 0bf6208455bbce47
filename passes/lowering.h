/* What the files of lower-to-kernels share: the op at hand, its buffers, and the kernel op being made. */
#ifndef PASSES_LOWERING_H
#define PASSES_LOWERING_H

#include "passes/passes.h"
#include "passes/variants.h"
#include "sluice/plan.h"

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

typedef struct lowered_value {
  MlirValue value;  /* of the model function */
  MlirValue buffer; /* of the kernel function */
  bool rows;        /* one row for each logit row, not for each token */
} lowered_value;

typedef struct lowering {
  pass_state *state;
  ir_context *context;
  ir_builder builder; /* appends to the kernel function */
  MlirOperation function, op;
  bool rows;     /* of the results of the op at hand */
  int64_t layer; /* of the op at hand, -1: none */
  lowered_value *values;
  size_t value_count, value_capacity;
  MlirValue input[SLUICE_INPUT_COUNT], none; /* kernel.input by sluice_input, kernel.none; null until used */
  bool transposed_values;                    /* in pages, see choice_name */
  /* of the model */
  int64_t page, max_context;
  bool f32; /* activations */
  /* cache pages of each layer, from the ops that write them */
  struct cache_layout {
    int64_t kv_heads, head_dim, index_dim, value_offset, index_offset, page_bytes;
  } *layers;
  int64_t layer_count;
} lowering;

/* What a launch costs, in the order of sluice_plan_cost. */
typedef struct launch_cost {
  int64_t fixed_bytes, row_bytes, key_bytes, limited_key_bytes;
  int64_t fixed_flops, row_flops, key_flops, limited_key_flops;
  int64_t expert_bytes, key_limit;
} launch_cost;

/* Attributes of the kernel op at hand. One too many fails the pass. */
enum { MOST_ATTRIBUTES = 40 };
typedef struct attribute_list {
  ir_attribute items[MOST_ATTRIBUTES];
  size_t count;
} attribute_list;
void attribute_add(lowering *l, attribute_list *list, const char *name, MlirAttribute value);
void attribute_integer(lowering *l, attribute_list *list, const char *name, int64_t value);
void attribute_number(lowering *l, attribute_list *list, const char *name, double value);
void attribute_text(lowering *l, attribute_list *list, const char *name, const char *value);
/* "f32" or "bf16" of the element type of a tensor. */
const char *element_name(MlirValue value);
int64_t element_size(MlirValue value);
/* Type of activations. */
const char *activation_name(const lowering *l);

/* Emits "kernel.FAMILY"(buffers) with the attributes in `list`, label, layer, target and cost. */
void launch(lowering *l, const char *family, const MlirValue *buffers, size_t buffer_count, attribute_list *list,
            const launch_cost *cost);

MlirValue operand(const lowering *l, intptr_t index);  /* of the op at hand */
MlirValue operand_buffer(lowering *l, intptr_t index); /* its buffer */
MlirValue result_buffer(lowering *l, intptr_t index);  /* made from arena.*, or an output */
MlirValue scratch_buffer(lowering *l, intptr_t index, const char *name, const char *dtype, int64_t width);
MlirValue input_buffer(lowering *l, const char *name); /* one of kernel.input's */
MlirValue cache_buffer(lowering *l);                   /* of the op's layer */
MlirValue none_buffer(lowering *l);
/* "tokens" or "rows": the extent of the rows of result 0. */
const char *row_size(const lowering *l);
const struct cache_layout *cache_layout(const lowering *l); /* of the op's layer */

/* Weight operands as kernel.weight. Vectors and tables in rows; matrices in panels of `panel` rows; two matrices in
 * pairs. */
MlirValue weight_rows(lowering *l, MlirValue weight);
MlirValue weight_panels(lowering *l, MlirValue weight, int64_t panel);
MlirValue weight_pairs(lowering *l, MlirValue first, MlirValue second, int64_t panel);
/* Bytes of one matrix of such a weight (for one expert), as it is packed. */
int64_t weight_batch_bytes(const lowering *l, MlirValue weight, bool pairs, int64_t panel);
/* Columns of a panel that lie together, in the weights of the op at hand. */
int64_t weight_group(const lowering *l);

/* The choices of `family` in a variant. */
void choice_attributes(lowering *l, attribute_list *list, const char *family, const kernel_variant *variant);
/* Those of one kernel of a product, and its range of `size`. */
void gemm_attributes(lowering *l, attribute_list *list, const kernel_variant *variant, sluice_size size);
/* A launch of kernel.gemm. */
typedef struct gemm_launch {
  MlirValue x, weights, residual, out; /* residual: kernel.none unless the epilogue is "add" */
  MlirValue matrix;                    /* weight value, the first of two with "swiglu" */
  const char *epilogue, *size;         /* size: "tokens" or "rows" */
  const char *x_dtype, *out_dtype;
} gemm_launch;
void launch_gemm(lowering *l, const gemm_launch *g, const kernel_variant *variant);
/* The launch runs in steps with from <= `size` <= to only; of all of the ranges. */
void launch_ranges(lowering *l, attribute_list *list, const sluice_plan_range *ranges, size_t count);
void launch_range(lowering *l, attribute_list *list, sluice_size size, uint32_t from, uint32_t to);

/* lower_attention.c: false when the op is none of its. */
bool lower_attention_op(lowering *l);
/* lower_experts.c */
bool lower_experts_op(lowering *l);

#endif
