/* What the interpreter's files share: decoded instructions, waves, workgroups, and the machine around them.
 *
 *   code_object.c  ELF file and its notes -> module, kernels, code image
 *   decode.c       text of one instruction (LLVM's disassembler) -> struct instruction
 *   scalar.c  vector.c vector_ops.c  cross_lane.c  matrix.c  lds.c  memory.c   what instructions do
 *   scheduler.c    a launch: workgroups and waves, barriers, their order
 *   storage.c      their memory, kept from launch to launch
 *   checks.c       outstanding loads and stores, wait states
 *   races.c        who wrote and read each byte of LDS; who wrote each dword of global memory
 *   counts.c       bank conflicts, cache lines, profiles
 *
 * An instruction is decoded once. What it does is a function, `execute`; vector arithmetic goes through execute_vector,
 * which gathers whole rows of 64 lanes and calls `lanes` on them, a plain loop that the C compiler vectorises. */
#ifndef TESTS_AMDGCN_MACHINE_H
#define TESTS_AMDGCN_MACHINE_H

#include "gcn.h"
#include <string.h>

enum { LANES = 64, SCALARS = 128, VECTORS = 512, DIES = 8, MAX_WAVES = 16 };

/* Scalar registers with a role, by their number in operands. */
enum { REGISTER_FLAT_SCRATCH = 102, REGISTER_VCC = 106, REGISTER_TTMP = 108, REGISTER_M0 = 124, REGISTER_EXEC = 126 };

/* What registers, LDS and new memory hold: a NaN in float32, and in both halves in bfloat16 and float16. */
#define POISON 0xFFE5FFE5u

/* Flat addresses from here on are LDS, and scratch: bits 48 and 49, where no host pointer is. */
#define LDS_APERTURE (UINT64_C(1) << 48)
#define SCRATCH_APERTURE (UINT64_C(2) << 48)

typedef struct wave wave;
typedef struct instruction instruction;

typedef enum operand_kind { OPERAND_NONE, OPERAND_SCALAR, OPERAND_VECTOR, OPERAND_CONSTANT, OPERAND_OFF } operand_kind;

/* Vector registers are rows of one file: v0 is 0, a0 is 256. */
typedef struct operand {
  operand_kind kind;
  uint16_t index;    /* first register */
  uint8_t registers; /* how many */
  bool negate, absolute, sign_extend;
  bool literal, decimal; /* constants: hexadecimal, 32 bits of the code; a number with a point */
  int64_t integer;
  double number;
  /* Filled in by vector_resolve. */
  const void *row; /* a constant, modifiers applied, in 64 lanes */
  uint8_t type;    /* see vector_op */
  bool direct;     /* the register's own row will do */
} operand;

/* How one operation on rows is described: see vector_ops.c. */
/* d may be one of the sources: every lane is read before it is written. */
typedef void (*lanes_function)(void *d, const void *a, const void *b, const void *c);
typedef struct vector_op {
  const char *name;
  lanes_function lanes;
  /* Result, then sources, one letter each:
   *   f h b d   float32, float16, bfloat16, float64 (with neg and abs)
   *   u s w     32, 16 and 64 bits of integer      i j l  the same, signed
   *   p q       two float16, two 16-bit integers   P      two float32
   *   x         float32, or float16 where op_sel_hi says so
   *   m         a mask of lanes in scalar registers: as a source 0 or 1 in each lane
   * 16-bit sources come in the low half; j sign-extended, the others with zeros above. */
  const char *types;
  uint8_t flags;
} vector_op;
enum {
  OP_ACCUMULATE = 1, /* the result is the last source, too */
  OP_TRANSCENDENTAL = 2,
  OP_KEEP_HIGH = 4, /* a 16-bit result leaves the other half alone */
  OP_DOT = 8,
  OP_HALF_BY_SELECT = 16, /* a result of 16 bits goes where op_sel bit 2 or 3 says; fp8 conversions */
};
enum { ROW_BYTES = LANES * 8 };

typedef enum instruction_class {
  CLASS_SCALAR,
  CLASS_BRANCH,
  CLASS_WAIT,
  CLASS_NOP,
  CLASS_BARRIER,
  CLASS_SCALAR_MEMORY,
  CLASS_VECTOR,
  CLASS_MATRIX,
  CLASS_LDS,
  CLASS_MEMORY, /* global, flat, buffer, scratch */
  CLASS_OTHER,
} instruction_class;

typedef void (*execute_function)(wave *w, const instruction *i);
/* 32-bit sources come zero-extended, of a 32-bit result the low half counts. `old` is what the result register holds.
 */
typedef uint64_t (*scalar_function)(uint64_t a, uint64_t b, uint64_t old, bool *scc);

enum { MAX_OPERANDS = 7 };
enum { REGISTER_WORDS = VECTORS / 64 };

/* Memory instructions: where, what size, and how it lands in registers. */
typedef enum address_space { SPACE_GLOBAL, SPACE_FLAT, SPACE_BUFFER, SPACE_SCRATCH, SPACE_LDS } address_space;
typedef struct memory_access {
  address_space space;
  uint8_t bytes;                         /* a lane */
  bool sign_extend, low_half, high_half; /* of what is narrower than a register; a half keeps the other */
  bool to_lds, offen, idxen;
  bool sc0, sc1, nt;
  int32_t offset;
  uint8_t offset0, offset1;                            /* ds_read2 and ds_write2, in elements */
  int8_t address, data, result, scalar, scalar_offset; /* operand numbers, -1: none */
  uint8_t operation;                                   /* atomics: see memory.c */
  bool store, atomic;
} memory_access;

typedef struct matrix_shape {
  uint8_t rows, depth, blocks; /* rows = columns */
  uint8_t type_a, type_b;      /* see matrix.c */
  uint8_t passes;              /* of four cycles */
  bool xdl;                    /* not float32 or float64 */
  bool scaled;
  uint8_t sparse_index; /* smfmac: which of the index sets */
} matrix_shape;

struct instruction {
  execute_function execute;
  instruction *next;   /* decoded successor, NULL until it is needed */
  instruction *target; /* of a branch, likewise */
  uint64_t offset;     /* in the image */
  uint32_t bytes;
  uint32_t words[3];
  instruction_class class;
  uint8_t operands;
  operand operand[MAX_OPERANDS];
  char mnemonic[48];
  char *text;

  const vector_op *op;
  uint8_t sources; /* of op */
  scalar_function scalar;
  uint32_t immediate; /* simm16 of SOPP and SOPK; truth table of bitop3; offset of ds_swizzle */
  uint8_t variant;    /* what one execute function shared by several mnemonics does */
  bool clamp;
  uint8_t output_scale; /* 0, or 1: x2, 2: x4, 3: /2 */
  /* op_sel and friends, by source; bit 3 of op_sel is the result */
  uint8_t op_sel, op_sel_hi, neg_lo, neg_hi;
  bool dpp, bound_ctrl, sdwa, sdwa_preserve;
  uint8_t row_mask, bank_mask;
  uint8_t dpp_lane[LANES];             /* where the lane's first source comes from; 255: from nowhere */
  uint8_t sdwa_result, sdwa_source[2]; /* 0..3 byte, 4..5 word, 6 all */
  uint8_t cbsz, abid, blgp;
  bool plain; /* execute_vector: no modifiers, the result is one whole row */
  memory_access memory;
  matrix_shape matrix;

  /* For checks: vector and scalar registers read and written. */
  uint64_t vector_reads[REGISTER_WORDS], vector_writes[REGISTER_WORDS];
  uint64_t scalar_reads[2], scalar_writes[2];
  bool partial_write; /* of the result's 32 bits */
  enum wait_rule {
    RULE_NONE,
    RULE_LANE_ACCESS, /* v_readlane, v_readfirstlane, v_writelane */
    RULE_PERMLANE,    /* v_permlane16_swap, v_permlane32_swap */
    RULE_DIVISION,    /* v_div_fmas */
    RULE_SET_REGISTER,
    RULE_GET_REGISTER,
  } rule;
};

/* ---- Modules ---- */

typedef struct hidden_argument {
  uint8_t kind; /* enum hidden_kind in code_object.c */
  uint32_t offset, bytes;
} hidden_argument;

struct gcn_kernel {
  gcn_module *module;
  gcn_kernel_info info;
  gcn_argument *arguments;
  hidden_argument *hidden;
  uint32_t hidden_count;
  uint64_t entry, end; /* in the image */
  uint32_t resource1, resource2, resource3;
  uint16_t properties, preload;
};

struct gcn_module {
  gcn_machine *machine;
  gcn_module *next_module;
  uint8_t *image;
  size_t image_bytes;
  instruction **code; /* by address / 4 */
  void *disassembler;
  gcn_kernel *kernels;
  uint32_t kernel_count;
  char *strings; /* what names point into */
};

/* ---- Memory ---- */

/* Who stored a dword of global memory last in this launch. */
typedef struct store_stamp {
  uint32_t wave; /* its serial number; of a wave of this launch, or long ago */
  uint32_t time : 30;
  uint32_t through : 1; /* to memory: sc1 */
  uint32_t atomic : 1;
} store_stamp;

typedef struct allocation {
  uint64_t address, bytes;
  void *owned;         /* free() this */
  store_stamp *stamps; /* a dword each; NULL until a checked launch stores here */
} allocation;

/* What waves and workgroups need memory for, kept from launch to launch (storage.c). */
typedef struct wave_storage {
  struct wave_storage *next;
  uint32_t (*vector)[64]; /* VECTORS rows */
  struct outstanding *queue;
  struct hazard_state *hazards;
  uint64_t clock; /* never goes back, so that old entries of `hazards` are long ago */
} wave_storage;
typedef struct group_storage {
  struct group_storage *next;
  uint8_t *lds;
  uint32_t *lds_writers, *lds_readers;
  uint32_t epoch; /* never goes back */
} group_storage;

struct gcn_machine {
  gcn_target target;
  allocation *allocations; /* ascending */
  size_t allocation_count, allocation_room;
  gcn_module *modules;
  uint32_t waves;            /* serial numbers given so far */
  wave_storage *spare_waves; /* for the next launch */
  group_storage *spare_groups;
};

/* ---- Launch ---- */

typedef enum wave_state { WAVE_RUNNING, WAVE_AT_BARRIER, WAVE_ENDED, WAVE_YIELDED, WAVE_FAULTED } wave_state;

/* A memory operation that has been issued and not been waited for. */
typedef enum outstanding_kind {
  OUTSTANDING_VECTOR_MEMORY,
  OUTSTANDING_LDS,
  OUTSTANDING_SCALAR,
  OUTSTANDING_FLAT
} outstanding_kind;
typedef struct outstanding {
  outstanding_kind kind;
  const instruction *instruction;
  bool counted_vector, counted_lds; /* by vmcnt, by lgkmcnt, and not waited for yet */
  uint32_t store_time;              /* of a store to global memory, 0: none */
  bool writes_lds, reads_lds;
  uint8_t lds_bytes; /* a lane */
  uint64_t lds_lanes;
  uint32_t lds_address[LANES]; /* valid for lds_lanes */
} outstanding;
enum { MAX_OUTSTANDING = 80 };

typedef struct workgroup workgroup;
typedef struct launch launch;

struct wave {
  uint32_t scalar[SCALARS];
  uint32_t (*vector)[LANES]; /* VECTORS rows */
  bool scc;
  wave_state state;
  uint32_t mode;      /* the MODE register */
  uint8_t index_mode; /* s_set_gpr_idx_on: which register numbers M0 is added to; 0: off */
  const instruction *current, *following;
  uint64_t jump; /* where to go, as an image offset, when following is NULL */
  workgroup *group;
  launch *launch;
  uint8_t *scratch; /* scratch_bytes for each lane, one lane behind the other */
  uint32_t number;  /* in the workgroup */
  uint32_t serial;  /* on the machine, from 1 */
  uint64_t initial_exec;
  allocation *last_allocation;

  /* checks.c */
  uint64_t clock;     /* wait states issued */
  outstanding *queue; /* oldest first */
  uint32_t queue_length;
  uint32_t direct_loads;            /* to LDS, in the queue */
  uint64_t loading[REGISTER_WORDS]; /* registers that an operation of the queue will write */
  uint64_t loading_scalars[2];
  uint32_t invalidated; /* time of the last buffer_inv */
  struct hazard_state *hazards;
  wave_storage *storage;
};

struct workgroup {
  launch *launch;
  uint32_t id[3];
  uint32_t index;
  uint32_t die;
  uint8_t *lds;
  uint32_t lds_bytes;
  wave *waves;
  uint32_t wave_count, ended;
  uint32_t epoch;                      /* LDS races: barriers passed */
  uint32_t *lds_writers, *lds_readers; /* a byte each; see races.c */
  bool live;
  group_storage *storage;
};

struct launch {
  gcn_machine *machine;
  gcn_module *module;
  const gcn_kernel *kernel;
  const gcn_launch_options *options;
  bool checked;
  uint32_t grid[3], block[3];
  uint32_t lanes, waves; /* of a workgroup */
  uint32_t lds_bytes, scratch_bytes;
  uint8_t *kernarg;
  uint8_t *packet; /* the dispatch packet */
  gcn_counts counts;
  gcn_profile_entry *profile; /* by (offset - entry) / 4 */
  uint64_t random;
  uint32_t first_serial;          /* of its waves */
  uint32_t vectors, accumulators; /* registers of a wave */
  uint32_t time;                  /* stores so far */
  uint32_t *completed_stores;     /* by wave serial - first_serial: its stores up to this time have been waited for */
  uint32_t written_back[DIES];    /* stores up to this time have left the die's L2 */
  sluice_status *error;
};

/* ---- Registers ---- */

static inline uint64_t scalar_pair(const wave *w, unsigned index) {
  uint64_t value;
  memcpy(&value, &w->scalar[index], sizeof value);
  return value;
}
static inline void set_scalar_pair(wave *w, unsigned index, uint64_t value) {
  memcpy(&w->scalar[index], &value, sizeof value);
}
static inline uint64_t exec_mask(const wave *w) {
  return scalar_pair(w, REGISTER_EXEC);
}
static inline float as_float(uint32_t bits) {
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}
static inline uint32_t float_bits(float value) {
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}
static inline double as_double(uint64_t bits) {
  double value;
  memcpy(&value, &bits, sizeof value);
  return value;
}
static inline uint64_t double_bits(double value) {
  uint64_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}
static inline bool mnemonic_starts(const instruction *i, const char *prefix) {
  return strncmp(i->mnemonic, prefix, strlen(prefix)) == 0;
}

/* The bits of a constant operand as an instruction with that type of source sees them (letters of vector_op). */
uint64_t constant_bits(const operand *o, char type);
/* Makes `integer` hold them, which is what the functions below read. */
void settle_constant(operand *o, char type);

static inline uint32_t read_scalar(const wave *w, const operand *o) {
  return o->kind == OPERAND_SCALAR ? w->scalar[o->index] : (uint32_t)o->integer;
}
static inline uint64_t read_scalar64(const wave *w, const operand *o) {
  return o->kind == OPERAND_SCALAR ? scalar_pair(w, o->index) : (uint64_t)o->integer;
}
/* 32 bits of any operand in one lane. */
static inline uint32_t read_lane(const wave *w, const operand *o, unsigned lane) {
  return o->kind == OPERAND_VECTOR ? w->vector[o->index][lane] : read_scalar(w, o);
}

/* ---- code_object.c ---- */

void hidden_arguments_fill(const launch *l);

/* ---- decode.c ---- */

SLUICE_MUST_USE sluice_status *disassembler_open(gcn_target target, void **out);
void disassembler_close(void *disassembler);
/* The instruction at an offset of the image; NULL when the offset is outside it or memory is short. Instructions that
 * are unknown have an `execute` that faults. */
instruction *instruction_at(gcn_module *module, uint64_t offset);
void instructions_free(gcn_module *module);

/* Each knows the mnemonics of its file: fills in execute, class and what they need; false: not one of its. */
bool scalar_resolve(instruction *i, gcn_target target);
bool vector_resolve(instruction *i, gcn_target target);
bool cross_lane_resolve(instruction *i, gcn_target target);
bool matrix_resolve(instruction *i, gcn_target target);
bool lds_resolve(instruction *i, gcn_target target);
bool memory_resolve(instruction *i, gcn_target target);

/* Size and extension by a mnemonic's end ("dwordx4", "u16_d16_hi"); false: none that exists. */
bool access_by_name(const char *name, memory_access *access);

/* Registers that an operand reads or writes, for the checks. */
void mark_reads(instruction *i, const operand *o);
void mark_writes(instruction *i, const operand *o);

/* For kernels' vector instructions of every kind. */
const vector_op *vector_op_find(const char *name);
void execute_vector(wave *w, const instruction *i);

/* ---- scheduler.c ---- */

/* Ends the launch with a fault of the wave's current instruction. `lane` -1: the whole wave. */
void wave_fault(wave *w, gcn_fault_kind kind, int lane, const char *format, ...) SLUICE_PRINTF(4, 5);
/* Sets the host's rounding and denormal handling to the wave's MODE. */
void apply_mode(const wave *w);
/* Whether it can: the host rounds all formats alike, and float16 and float64 keep denormals. */
bool mode_is_known(uint32_t mode);

/* ---- memory.c ---- */

/* The host bytes of a device address, NULL (after wave_fault) when they are not all in one allocation. */
void *global_bytes(wave *w, uint64_t address, uint32_t bytes, int lane);
allocation *allocation_find(const gcn_machine *machine, uint64_t address, uint64_t bytes);
uint8_t *lds_bytes(wave *w, uint32_t address, uint32_t bytes, int lane);
uint32_t atomic32(uint8_t operation, uint32_t old, uint32_t value, uint32_t compare);
uint64_t atomic64(uint8_t operation, uint64_t old, uint64_t value, uint64_t compare);
/* The operation of an atomic's name without width ("add", "pk_add_bf16"); false: none that exists. */
bool atomic_by_name(const char *name, uint8_t *operation);
/* Puts loaded bytes into the registers of one lane, and takes stored ones from there. */
void land(wave *w, const operand *o, const memory_access *access, unsigned lane, const void *bytes);
void take(const wave *w, const operand *o, const memory_access *access, unsigned lane, void *bytes);

/* ---- storage.c ---- */

/* Memory for a wave or a workgroup of the launch, what it held before still in it. */
sluice_status *wave_storage_take(launch *l, wave *w);
void wave_storage_give(wave *w);
sluice_status *group_storage_take(launch *l, workgroup *g);
void group_storage_give(workgroup *g);
void storage_free(gcn_machine *m);

/* ---- checks.c ---- */

sluice_status *checks_create(wave_storage *storage);
void checks_reset(wave *w);
/* Before an instruction of a checked launch; false: it faulted. */
bool check_instruction(wave *w, const instruction *i);
/* After it: remembers what later instructions must wait for. */
void note_instruction(wave *w, const instruction *i);
/* A memory operation was issued; returns its entry for whoever fills in the rest, NULL in unchecked launches. */
outstanding *note_outstanding(wave *w, const instruction *i, outstanding_kind kind);
void wait_for(wave *w, unsigned vector_memory, unsigned lds_and_scalar);

/* ---- races.c ---- */

/* A wave reads or writes LDS bytes; false: it faulted. `atomic`: atomics do not race with each other. */
bool lds_read_check(wave *w, uint32_t address, uint32_t bytes, bool atomic, int lane);
bool lds_write_check(wave *w, uint32_t address, uint32_t bytes, bool atomic, int lane);
/* At a barrier: what is outstanding counts as done by the wave in the interval that begins. */
void lds_carry_over(wave *w);
void global_store_note(wave *w, allocation *a, uint64_t address, uint32_t bytes, store_stamp stamp);
/* `poll`: one lane that looks at a flag, which may be on its way. */
bool global_load_check(wave *w, const allocation *a, uint64_t address, uint32_t bytes, bool bypass, bool poll,
                       int lane);
bool global_atomic_check(wave *w, const allocation *a, uint64_t address, uint32_t bytes, int lane);

/* ---- counts.c ---- */

/* LDS cycles of one access of all lanes of `lanes`, at these addresses. */
void count_lds(wave *w, const instruction *i, const uint32_t address[LANES], uint64_t lanes, unsigned bytes,
               bool store);
void count_global(wave *w, const instruction *i, const uint64_t address[LANES], uint64_t lanes, unsigned bytes);

#endif
