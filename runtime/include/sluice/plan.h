/* The launch plan: what a target executes in one step, with which memory. It is a section of the bundle; the structures
 * below are its bytes (little-endian, natural alignment, no padding that is not a named field). docs/bundle-format.md
 * describes them for readers in other languages.
 *
 * A step takes a ragged batch: any mix of prefill chunks and decode tokens of several sequences. All its extents are
 * SIZES (enum sluice_size), known only when the step is prepared; everything else is constant.
 *
 * The compiler writes plans, `sluice_plan_open` checks every count, index, offset and string once, and from then on the
 * runtime reads them in place.
 */
#ifndef SLUICE_PLAN_H
#define SLUICE_PLAN_H

#include "sluice/dtype.h"
#include "sluice/status.h"

#include <stdbool.h>

#define SLUICE_PLAN_VERSION 8u

/* Every enumeration below is made from a table X(NAME, number, "name in the IR and in messages"): from it come the
 * constants, the functions sluice_..._name (NULL for an unknown number) and sluice_..._find (false for an unknown
 * name), and the checks of IR and plan. Numbers are part of the format. */
#define SLUICE_DECLARE_NAMES(what)                                                                                     \
  const char *sluice_##what##_name(uint32_t number);                                                                   \
  bool sluice_##what##_find(const char *name, size_t length, uint32_t *out_number)

/* Extents of a step. Kernels get them as `const int32_t sizes[SLUICE_SIZE_COUNT]`:
 *   one             1
 *   tokens          of the step, all sequences together
 *   rows            tokens whose logits are wanted
 *   sequences       in the step
 *   tiles           query tiles, see the input "tiles"
 *   page_stride     entries of one row of the page table
 *   context         longest context in the step, rounded up to whole pages, in tokens
 *   pages           the same in pages
 *   cache_pages     pages in the cache pool
 *   tokens_context  tokens x context (an arena region of unfused plans; saturates at INT32_MAX)
 *   tokens_pages    tokens x pages (likewise)
 *   longest         tokens of the longest query tile: 1 when every sequence decodes one token
 *   seen            entries of the list of seen tokens, rounded up
 *   logprobs        as rows when a row wants log-probabilities, otherwise 0 */
#define SLUICE_SIZES(X)                                                                                                \
  X(ONE, 0, "one")                                                                                                     \
  X(TOKENS, 1, "tokens")                                                                                               \
  X(ROWS, 2, "rows")                                                                                                   \
  X(SEQUENCES, 3, "sequences")                                                                                         \
  X(TILES, 4, "tiles")                                                                                                 \
  X(PAGE_STRIDE, 5, "page_stride")                                                                                     \
  X(CONTEXT, 6, "context")                                                                                             \
  X(PAGES, 7, "pages")                                                                                                 \
  X(CACHE_PAGES, 8, "cache_pages")                                                                                     \
  X(TOKENS_CONTEXT, 9, "tokens_context")                                                                               \
  X(TOKENS_PAGES, 10, "tokens_pages")                                                                                  \
  X(LONGEST, 11, "longest")                                                                                            \
  X(SEEN, 12, "seen")                                                                                                  \
  X(LOGPROBS, 13, "logprobs")
typedef enum sluice_size {
#define SLUICE_X(name, number, text) SLUICE_SIZE_##name = (number),
  SLUICE_SIZES(SLUICE_X)
#undef SLUICE_X
      SLUICE_SIZE_COUNT = 16, /* of the array; those without a name are 0 */
} sluice_size;
SLUICE_DECLARE_NAMES(size);

/* What the runtime prepares on the host for every step:
 *   tokens      i32[tokens]: token ids, the sequences one after another
 *   positions   i32[tokens]: position of the token in its sequence
 *   sequence    i32[tokens]: row of the page table
 *   page_table  i32[sequences][page_stride]: cache page of each 'page_tokens' tokens, -1 beyond the end
 *   tiles       i32[tiles][4]: first token, token count (1..query_tile), row of the page table, position of the first
 *               token. A tile never spans two sequences; tiles cover all tokens in order.
 *   logit_rows  i32[rows]: the tokens whose logits are wanted, ascending
 *   sampling    sluice_sampling_row[rows], then sluice_seen_token[seen] */
#define SLUICE_INPUTS(X)                                                                                               \
  X(TOKENS, 0, "tokens")                                                                                               \
  X(POSITIONS, 1, "positions")                                                                                         \
  X(SEQUENCE, 2, "sequence")                                                                                           \
  X(PAGE_TABLE, 3, "page_table")                                                                                       \
  X(TILES, 4, "tiles")                                                                                                 \
  X(LOGIT_ROWS, 5, "logit_rows")                                                                                       \
  X(SAMPLING, 6, "sampling")
typedef enum sluice_input {
#define SLUICE_X(name, number, text) SLUICE_INPUT_##name = (number),
  SLUICE_INPUTS(SLUICE_X)
#undef SLUICE_X
      SLUICE_INPUT_COUNT = 7,
} sluice_input;
SLUICE_DECLARE_NAMES(input);

/* How the token after a row is chosen. temperature <= 0 is greedy (largest logit, then lowest id; NaN lowest).
 * Otherwise: divide by temperature; keep the top_k largest (0: all; ties with the k-th stay); of these keep the
 * smallest set of most probable tokens whose probabilities reach top_p (>= 1: all; ties with the last stay); draw from
 * the rest with the uniform number of docs/sampling.md made from (seed, position). */
typedef struct sluice_sampling_row {
  float temperature;
  float top_p;
  int32_t top_k;
  int32_t position; /* position of the row's token */
  uint64_t seed;
  float min_p; /* tokens less probable than min_p times the most probable one are left out; 0: none */
  /* Penalties, for the logits of the entries [seen_first, seen_first + seen_count) of the step's list of seen tokens,
   * which lies behind the rows. */
  float repetition_penalty; /* logits above 0 are divided by it, others multiplied */
  float presence_penalty;   /* subtracted where count is not 0 */
  float frequency_penalty;  /* subtracted count times */
  uint32_t seen_first, seen_count;
  uint32_t logprobs;    /* likeliest tokens that are wanted, at most SLUICE_MOST_LOGPROBS; 0: no log-probabilities */
  uint32_t reserved[3]; /* 0 */
} sluice_sampling_row;

typedef struct sluice_seen_token {
  int32_t token; /* each at most once for a row */
  int32_t count; /* times that it was generated; 0: it stands in the prompt alone */
} sluice_seen_token;

#define SLUICE_MOST_LOGPROBS 20u

typedef struct sluice_logprob_entry {
  int32_t token;
  float logit;
} sluice_logprob_entry;

/* What log-probabilities are computed from: that of a logit is logit - largest - log(mass). */
typedef struct sluice_logprob_row {
  double mass;                                    /* the sum of exp(logit - largest) over the row, NaN left out */
  float largest;                                  /* logit, NaN left out */
  float chosen;                                   /* the logit of the sampled token */
  sluice_logprob_entry top[SLUICE_MOST_LOGPROBS]; /* the likeliest tokens, as many as wanted; of equal ones the lower id
                                                     first, NaN last */
} sluice_logprob_row;

/* What a step gives back:
 *   logits    f32[rows][vocabulary]
 *   sampled   i32[rows]: the token; -1 - token where a logit of the row is NaN
 *   logprobs  sluice_logprob_row[logprobs]; rows that want none are not written */
#define SLUICE_OUTPUTS(X)                                                                                              \
  X(LOGITS, 0, "logits")                                                                                               \
  X(SAMPLED, 1, "sampled")                                                                                             \
  X(LOGPROBS, 2, "logprobs")
typedef enum sluice_output {
#define SLUICE_X(name, number, text) SLUICE_OUTPUT_##name = (number),
  SLUICE_OUTPUTS(SLUICE_X)
#undef SLUICE_X
      SLUICE_OUTPUT_COUNT = 3,
} sluice_output;
SLUICE_DECLARE_NAMES(output);

/* A kernel argument is a memory reference. */
typedef enum sluice_memory {
  SLUICE_MEMORY_NONE = 0,   /* absent optional argument: a NULL pointer */
  SLUICE_MEMORY_ARENA = 1,  /* index: into buffers */
  SLUICE_MEMORY_WEIGHT = 2, /* index: into weights */
  SLUICE_MEMORY_INPUT = 3,  /* index: sluice_input */
  SLUICE_MEMORY_OUTPUT = 4, /* index: sluice_output */
  SLUICE_MEMORY_CACHE = 5,  /* index: layer; the base of that layer's page pool */
} sluice_memory;

typedef struct sluice_plan_argument {
  uint32_t memory; /* sluice_memory */
  uint32_t index;
} sluice_plan_argument;

/* A value in the arena. The arena has one region per size; a buffer occupies `unit_bytes` * size bytes at
 * `unit_offset` * size of its region, and both are multiples of SLUICE_ARENA_ALIGNMENT. */
#define SLUICE_ARENA_ALIGNMENT 64u
typedef struct sluice_plan_buffer {
  uint32_t name; /* string */
  uint32_t size; /* sluice_size: the region */
  uint64_t unit_offset;
  uint64_t unit_bytes;
  uint32_t dtype; /* sluice_dtype of the elements */
  uint32_t width; /* elements of one unit (a row) */
} sluice_plan_buffer;

typedef struct sluice_plan_region { /* one for each sluice_size, in order */
  uint64_t unit_bytes;              /* bytes of the region for each unit of the size; 0: unused */
} sluice_plan_region;

/* How the matrices of a weight lie in device memory:
 *   rows         row-major [rows][columns], as it is
 *   panels       Panels of `panel` rows; in a panel, groups of `group` columns: element (r, c) of panel p lies at
 *                ((p * groups + c / group) * panel + r) * group + c % group, groups = ceil(columns / group); rows and
 *                columns beyond the matrix are zero. With pairs one SIMD register holds a column pair of its rows, with
 *                8 bf16 a lane's vector holds 8 columns of one row, and a matrix-vector product reads a panel from
 *                front to back.
 *   panel_pairs  two matrices of equal shape (gate, up: the first and second half of the rows): panel p of the first,
 *                panel p of the second, panel p + 1 of the first, ... */
#define SLUICE_LAYOUTS(X)                                                                                              \
  X(ROWS, 1, "rows")                                                                                                   \
  X(PANELS, 2, "panels")                                                                                               \
  X(PANEL_PAIRS, 3, "panel_pairs")
typedef enum sluice_layout {
#define SLUICE_X(name, number, text) SLUICE_LAYOUT_##name = (number),
  SLUICE_LAYOUTS(SLUICE_X)
#undef SLUICE_X
} sluice_layout;
SLUICE_DECLARE_NAMES(layout);

/* How the elements of a weight are stored on the device. Those that are elements of a plain type have its number
 * (sluice_dtype); formats of several sources (values and scales) have numbers from 32 on. */
#define SLUICE_FORMATS(X)                                                                                              \
  X(F32, 1, "f32")                                                                                                     \
  X(BF16, 2, "bf16")
typedef enum sluice_format {
#define SLUICE_X(name, number, text) SLUICE_FORMAT_##name = (number),
  SLUICE_FORMATS(SLUICE_X)
#undef SLUICE_X
} sluice_format;
SLUICE_DECLARE_NAMES(format);

/* What a checkpoint tensor is in a weight. Plain formats have values alone. */
#define SLUICE_ROLES(X)                                                                                                \
  X(VALUES, 1, "values")                                                                                               \
  X(SCALES, 2, "scales")                                                                                               \
  X(ZERO_POINTS, 3, "zero_points")
typedef enum sluice_role {
#define SLUICE_X(name, number, text) SLUICE_ROLE_##name = (number),
  SLUICE_ROLES(SLUICE_X)
#undef SLUICE_X
} sluice_role;
SLUICE_DECLARE_NAMES(role);

/* `batch` matrices [rows][columns], each made of its sources' slices, stacked along the rows in order. */
typedef struct sluice_plan_weight {
  uint32_t name;          /* string, for messages and inspect */
  uint32_t layout;        /* sluice_layout */
  uint32_t format;        /* sluice_format */
  uint32_t batch;         /* experts; 1 for an ordinary weight */
  uint32_t rows, columns; /* of one matrix after stacking */
  uint32_t panel;         /* rows of a panel, 0 for SLUICE_LAYOUT_ROWS */
  uint32_t first_source, source_count;
  uint32_t group;       /* columns of a group, 1 for SLUICE_LAYOUT_ROWS; group * element size is 4, 8 or 16 bytes */
  uint64_t batch_bytes; /* sluice_packed_size.batch_bytes of one matrix */
  uint64_t bytes;       /* batch * batch_bytes */
} sluice_plan_weight;

/* A part of a tensor of the checkpoint: rows [first_row, first_row + rows) and columns [first_column, first_column +
 * columns) of the matrix [tensor_rows][tensor_columns], row-major (a vector has one row). The whole of it, as a rule; a
 * rank of a model that several devices share takes its part of the rows or of the columns. In a weight with batch > 1,
 * "{expert}" in the name stands for 0 .. batch-1. */
typedef struct sluice_plan_source {
  uint32_t name; /* string */
  uint32_t role; /* sluice_role */
  uint32_t rank; /* 1 (a vector: tensor_rows is 1) or 2 */
  uint32_t tensor_rows, tensor_columns;
  uint32_t first_row, rows, first_column, columns;
  /* Of a model that several ranks share: rank r's slice begins (r / share) * row_step rows and (r / share) *
   * column_step columns further on. share: neighbours that have the same slice; at least 1. */
  uint32_t row_step, column_step, share;
} sluice_plan_source;

/* Where rank `rank`'s slice begins. */
static inline uint32_t sluice_source_row(const sluice_plan_source *source, uint32_t rank) {
  return source->first_row + rank / source->share * source->row_step;
}
static inline uint32_t sluice_source_column(const sluice_plan_source *source, uint32_t rank) {
  return source->first_column + rank / source->share * source->column_step;
}

/* The size of a weight's matrix as it is packed: computed here alone, for compiler, plan check and loader. A unit is a
 * row, a panel, or a panel of both matrices of a pair. */
typedef struct sluice_packed_size {
  uint32_t halves;       /* matrices of a pair: 2 for SLUICE_LAYOUT_PANEL_PAIRS, else 1 */
  uint32_t half_rows;    /* rows of each */
  uint32_t unit_rows;    /* rows of a unit in each half */
  uint32_t group_bytes;  /* of a group of columns in one row */
  uint64_t units;        /* of a matrix (or pair) */
  uint64_t unit_bytes;   /* of both halves */
  uint64_t matrix_bytes; /* all units */
  uint64_t batch_bytes;  /* rounded up to 64: from one matrix of the batch to the next */
} sluice_packed_size;
/* From the weight's layout, format, rows, columns, panel and group. NULL, or what is wrong with them, in words. */
const char *sluice_packed_size_of(const sluice_plan_weight *weight, sluice_packed_size *out_size);
/* Bytes of an element of a plain format; 0 for another one. */
size_t sluice_format_size(uint32_t format);

typedef struct sluice_plan_layer { /* the cache of one layer */
  uint64_t page_bytes;             /* of one page, a multiple of 64 */
  uint32_t has_index;              /* 1: the page also holds index keys */
  uint32_t reserved;               /* 0 */
} sluice_plan_layer;

typedef struct sluice_plan_kernel {
  uint32_t name;            /* string: symbol in the code object */
  uint32_t family;          /* string: the kernel family */
  uint32_t attributes;      /* string: the configuration, JSON object */
  uint32_t workgroup_bytes; /* workgroup memory (LDS; on the host: scratch of the thread) */
  uint32_t argument_count;
  uint32_t lanes;     /* lanes of a workgroup, 1 on the host */
  uint32_t registers; /* per lane, 0 when unknown or on the host */
  uint32_t spill_bytes;
  uint32_t code_bytes;
  uint32_t cache_first; /* 1: where one memory serves as both, first-level cache is worth more than workgroup memory */
} sluice_plan_kernel;

/* One grid dimension is ceil(sizes[size] / divisor) * factor, and not more than `most`. */
typedef struct sluice_plan_extent {
  uint32_t size; /* sluice_size */
  uint32_t divisor;
  uint32_t factor;
  uint32_t most; /* 0: any number */
} sluice_plan_extent;

/* What a launch costs: bytes = fixed_bytes + rows * row_bytes + keys * key_bytes + limited_keys * limited_key_bytes,
 * the same for flops. `rows` is ROWS when one of its buffers is of ROWS, otherwise TOKENS; `keys` is the sum over the
 * tokens of the keys each sees, `limited_keys` the sum of min(keys it sees, key_limit): block-sparse attention reads no
 * more. These count a key once for every token that sees it; a lower bound of traffic counts it once for every
 * sequence. `expert_bytes` are read for each distinct expert that a step routes to. */
typedef struct sluice_plan_cost {
  uint64_t fixed_bytes, row_bytes, key_bytes, limited_key_bytes;
  uint64_t fixed_flops, row_flops, key_flops, limited_key_flops;
  uint64_t expert_bytes;
  uint64_t key_limit; /* 0: the launch has no limited keys */
} sluice_plan_cost;

/* Of a step: `from` <= sizes[size] <= `to`. */
typedef struct sluice_plan_range {
  uint32_t size; /* sluice_size */
  uint32_t from, to;
} sluice_plan_range;

/* An op with several configurations (kernels, tiles) has a launch for each, one after another, with the same arguments.
 * A launch is left out of steps in which one of its ranges does not hold: each configuration takes the steps that it is
 * made for, by as many sizes as it takes to tell. */
typedef struct sluice_plan_launch {
  uint32_t kernel;
  uint32_t first_argument;           /* argument_count of the kernel follow */
  uint32_t layer;                    /* layer index, or UINT32_MAX */
  uint32_t label;                    /* string: the model op(s) this came from, e.g. "select_attention" */
  sluice_plan_extent grid[2];        /* workgroup w is x = w % grid[0], y = w / grid[0] */
  uint32_t first_range, range_count; /* each of another size, in order of sizes; none: every step */
  /* 1: before the kernel runs, what each rank has of argument 0, as many rows as the step has of the buffer's size,
   * comes to argument 1, one rank's behind the other's. Both are buffers; the second is as wide as all ranks'. */
  uint32_t collective;
  uint32_t reserved; /* 0 */
  sluice_plan_cost cost;
} sluice_plan_launch;

/* Launches that run as one in steps that nobody observes: those of [first_launch, first_launch + launch_count) that the
 * step runs at all, the kernel's parts. The workgroups of the launch are those of the parts, one part after the other,
 * in one dimension; the kernel's arguments are theirs, one part after the other, then the session's counters:
 * SLUICE_COUNTER_BYTES of device memory that are zero before every launch and that the kernel leaves so. */
#define SLUICE_COUNTER_BYTES 1024u
enum { SLUICE_JOIN_PARTS = 8, SLUICE_JOIN_ARGUMENTS = 63 }; /* at most, of a joined launch */
typedef struct sluice_plan_join {
  uint32_t kernel;
  uint32_t first_launch, launch_count;
  uint32_t first_range, range_count; /* as in sluice_plan_launch: other steps run the launches themselves */
  uint32_t reserved;                 /* 0 */
} sluice_plan_join;

/* A value that `--dump-layers` and `verify` look at, readable right after launch `launch` ran. The name is that of the
 * golden files without "prefill.": "layer.3.out" (f32 or bf16 [TOKENS][hidden]), "layer.3.blocks" (i32 [TOKENS][index
 * heads][k], ascending, -1 tail), "layer.3.router.experts" (i32 [TOKENS][k], ascending), "layer.3.router.weights" (f32
 * [TOKENS][k]). */
typedef struct sluice_plan_observable {
  uint32_t name;   /* string */
  uint32_t launch; /* index: it is valid once this launch has run and until the next one starts */
  uint32_t buffer;
  uint32_t dimension; /* elements of the last dimension: hidden or k */
} sluice_plan_observable;

/* The section starts with this header; every table is `count` elements at `offset` bytes from the start of the section,
 * 8-byte aligned. Strings are offsets into the string table, each terminated by NUL; offset 0 is the empty string. */
typedef struct sluice_plan_table {
  uint64_t offset;
  uint64_t count;
} sluice_plan_table;

#define SLUICE_PLAN_RANKS 64u /* at most */
typedef struct sluice_plan_header {
  uint32_t version; /* SLUICE_PLAN_VERSION */
  uint32_t dtype;   /* of activations: SLUICE_F32 or SLUICE_BF16 */
  uint32_t hidden, vocabulary;
  uint32_t layers;
  uint32_t page_tokens;                /* tokens of a cache page = of a sparse block */
  uint32_t query_tile;                 /* most tokens of a query tile */
  uint32_t max_context;                /* longest sequence */
  uint32_t experts, experts_per_token; /* largest of any layer, 0 without MoE */
  uint32_t weight_dtype;               /* checkpoint dtype that the plan keeps: SLUICE_BF16 or SLUICE_F32 */
  uint32_t ranks;                      /* that share the model, each with a part of the weights; at least 1 */
  sluice_plan_table strings;           /* count: bytes */
  sluice_plan_table buffers;           /* sluice_plan_buffer */
  sluice_plan_table regions;           /* sluice_plan_region, SLUICE_SIZE_COUNT of them */
  sluice_plan_table weights;           /* sluice_plan_weight */
  sluice_plan_table sources;           /* sluice_plan_source */
  sluice_plan_table cache;             /* sluice_plan_layer, one for each layer */
  sluice_plan_table kernels;           /* sluice_plan_kernel */
  sluice_plan_table launches;          /* sluice_plan_launch, in order of execution */
  sluice_plan_table arguments;         /* sluice_plan_argument */
  sluice_plan_table observables;       /* sluice_plan_observable, in order of launch */
  sluice_plan_table joins;             /* sluice_plan_join, in order of first_launch */
  sluice_plan_table ranges;            /* sluice_plan_range */
} sluice_plan_header;

/* A checked plan: pointers into the section's bytes. */
typedef struct sluice_plan {
  const sluice_plan_header *header;
  const char *strings;
  const sluice_plan_buffer *buffers;
  const sluice_plan_region *regions;
  const sluice_plan_weight *weights;
  const sluice_plan_source *sources;
  const sluice_plan_layer *cache;
  const sluice_plan_kernel *kernels;
  const sluice_plan_launch *launches;
  const sluice_plan_argument *arguments;
  const sluice_plan_observable *observables;
  const sluice_plan_join *joins;
  const sluice_plan_range *ranges;
} sluice_plan;

/* Checks all of `length` bytes at `data` (8-byte aligned, must outlive the plan). After success no index, offset,
 * string or size in the plan can lead outside its table, no buffer outside its region, and no product of sizes
 * overflows. */
SLUICE_MUST_USE sluice_status *sluice_plan_open(const void *data, size_t length, sluice_plan *out_plan);

/* The grid dimension `extent` in a step in which its size is `size`. */
static inline uint64_t sluice_plan_grid(const sluice_plan_extent *extent, uint64_t size) {
  uint64_t all = (size + extent->divisor - 1) / extent->divisor * extent->factor;
  return extent->most && all > extent->most ? extent->most : all;
}

static inline const char *sluice_plan_string(const sluice_plan *plan, uint32_t offset) {
  return plan->strings + offset;
}

/* Whether all `count` ranges hold. */
bool sluice_ranges_hold(const sluice_plan_range *ranges, uint32_t count, const int32_t sizes[SLUICE_SIZE_COUNT]);

/* Whether every step in which the ranges `inner` hold has those of `outer`, or none has: *holds says which. Each list
 * has a size at most once. */
bool sluice_ranges_agree(const sluice_plan_range *inner, uint32_t inner_count, const sluice_plan_range *outer,
                         uint32_t outer_count, bool *holds);

/* Whether a step of these sizes runs the launch. */
static inline bool sluice_plan_runs(const sluice_plan *plan, const sluice_plan_launch *launch,
                                    const int32_t sizes[SLUICE_SIZE_COUNT]) {
  return sluice_ranges_hold(plan->ranges + launch->first_range, launch->range_count, sizes);
}

/* The join that stands for launch `launch` and some behind it in a step of these sizes; NULL when it runs by itself. */
const sluice_plan_join *sluice_plan_find_join(const sluice_plan *plan, uint32_t launch,
                                              const int32_t sizes[SLUICE_SIZE_COUNT]);

/* Launches of a step of these sizes; `joined`: when it runs as a graph, which joins some. */
uint32_t sluice_plan_count_launches(const sluice_plan *plan, const int32_t sizes[SLUICE_SIZE_COUNT], bool joined);

/* Synthetic weights (docs/synthetic.md) are made on the device, in place and packed, by a kernel that every plan of the
 * compiler has and none of its launches uses: the one of the family "synthesize". Its arguments are an array of these
 * pieces and the weights' memory; sizes[SLUICE_SIZE_TOKENS] is the number of pieces, and so is grid[0] of its launch.
 *
 * A piece is a part of one tensor in one weight: panels of `groups` groups of columns of `row_units` units. A unit is
 * `unit` elements that lie together, aligned to their size: unit / group rows of `group` columns. Unit u is number
 * u % row_units in group t % groups of panel t / groups, t = u / row_units. A row-major matrix is one row of groups of
 * `unit` columns. */
typedef struct sluice_synthetic_piece {
  uint64_t to;           /* first unit: bytes from the start of the weights */
  uint64_t base;         /* of the tensor: what docs/synthetic.md calls so */
  uint64_t first;        /* index in the tensor of the first unit's first element */
  uint64_t panel_bytes;  /* from a panel to the next */
  uint32_t group_bytes;  /* from a group of columns to the next */
  uint32_t units;        /* of the piece */
  uint32_t row_units;    /* of a group of columns */
  uint32_t groups;       /* of a panel */
  uint32_t panel;        /* rows from a panel to the next */
  uint32_t row_elements; /* of the tensor, from a row to the next */
  uint32_t rows;         /* from the first unit's first row on; those beyond are zero */
  uint32_t columns;      /* from the first unit's first column on; those beyond are zero */
  uint32_t unit;         /* 1, 2, 4, or 8 */
  uint32_t group;        /* columns of a unit: 1, 2, 4, or 8, at most `unit` */
  uint32_t dtype;        /* sluice_dtype: F32 (units of at most 4) or BF16 */
  float factor;          /* of the tensor: its scale / 37837.227 */
} sluice_synthetic_piece;

/* The host calling convention of every kernel: runs workgroups [first, last) with `arguments` (one pointer each, in the
 * order of the kernel's operands in docs/ir.md), `sizes`, and `workgroup` (workgroup_bytes bytes, 64-byte aligned,
 * contents undefined). Different workgroups may run on different threads at once. */
typedef void sluice_host_kernel(void *const *arguments, const int32_t *sizes, int64_t first, int64_t last,
                                void *workgroup);

#endif
