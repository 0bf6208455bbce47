/* Decoding: LLVM's disassembler turns an instruction into text, and this file turns the text into struct instruction.
 * The text names every field, so no encoding table of our own is needed, and what an assembler accepts is what is
 * executed. */
#include "machine.h"
#include <llvm-c/Disassembler.h>
#include <llvm-c/Target.h>
#include <stdio.h>
#include <stdlib.h>

sluice_status *disassembler_open(gcn_target target, void **out) {
  LLVMInitializeAMDGPUTargetInfo();
  LLVMInitializeAMDGPUTargetMC();
  LLVMInitializeAMDGPUDisassembler();
  const char *processor = target == GCN_GFX942 ? "gfx942" : "gfx950";
  *out = LLVMCreateDisasmCPUFeatures("amdgcn-amd-amdhsa", processor, "", NULL, 0, NULL, NULL);
  return *out ? NULL : sluice_error(SLUICE_UNSUPPORTED, "LLVM has no disassembler for %s", processor);
}

void disassembler_close(void *disassembler) {
  LLVMDisasmDispose(disassembler);
}

/* ---- Operands ---- */

typedef struct register_name {
  const char *name;
  uint16_t index;
  uint8_t registers;
} register_name;
static const register_name special_registers[] = {
    {"vcc", REGISTER_VCC, 2},
    {"vcc_lo", REGISTER_VCC, 1},
    {"vcc_hi", REGISTER_VCC + 1, 1},
    {"exec", REGISTER_EXEC, 2},
    {"exec_lo", REGISTER_EXEC, 1},
    {"exec_hi", REGISTER_EXEC + 1, 1},
    {"m0", REGISTER_M0, 1},
    {"flat_scratch", REGISTER_FLAT_SCRATCH, 2},
    {"flat_scratch_lo", REGISTER_FLAT_SCRATCH, 1},
    {"flat_scratch_hi", REGISTER_FLAT_SCRATCH + 1, 1},
    {"xnack_mask", 104, 2},
    {"xnack_mask_lo", 104, 1},
    {"xnack_mask_hi", 105, 1},
};
typedef struct constant_name {
  const char *name;
  int64_t value;
} constant_name;
static const constant_name constant_names[] = {
    {"src_shared_base", (int64_t)LDS_APERTURE},
    {"src_private_base", (int64_t)SCRATCH_APERTURE},
    {"src_shared_limit", (int64_t)(LDS_APERTURE + UINT32_MAX)},
    {"src_private_limit", (int64_t)(SCRATCH_APERTURE + UINT32_MAX)},
};

/* "v5", "v[4:7]", "s3", "a[0:1]", "ttmp4". */
static bool parse_register(const char *text, operand *o) {
  for (size_t k = 0; k < sizeof special_registers / sizeof *special_registers; k++) {
    if (strcmp(text, special_registers[k].name) != 0) continue;
    o->kind = OPERAND_SCALAR;
    o->index = special_registers[k].index;
    o->registers = special_registers[k].registers;
    return true;
  }
  unsigned base = 0;
  if (strncmp(text, "ttmp", 4) == 0) {
    base = REGISTER_TTMP;
    text += 4;
    o->kind = OPERAND_SCALAR;
  } else if (*text == 'v' || *text == 'a') {
    base = *text == 'a' ? 256 : 0;
    o->kind = OPERAND_VECTOR;
    text++;
  } else if (*text == 's') {
    o->kind = OPERAND_SCALAR;
    text++;
  } else {
    return false;
  }
  bool range = *text == '[';
  if (range) text++;
  if (*text < '0' || *text > '9') return false;
  char *end;
  unsigned long first = strtoul(text, &end, 10), last = first;
  if (range) {
    if (*end == ':') last = strtoul(end + 1, &end, 10);
    if (*end++ != ']') return false;
  }
  if (*end || last < first || first > 255 || last > 255) return false;
  o->index = (uint16_t)(base + first);
  o->registers = (uint8_t)(last - first + 1);
  return o->kind == OPERAND_VECTOR || o->index + o->registers <= SCALARS;
}

static bool parse_constant(const char *text, operand *o) {
  o->kind = OPERAND_CONSTANT;
  for (size_t k = 0; k < sizeof constant_names / sizeof *constant_names; k++) {
    if (strcmp(text, constant_names[k].name) == 0) {
      o->integer = constant_names[k].value;
      return true;
    }
  }
  char *end;
  if (strchr(text, '.') && strncmp(text, "0x", 2) != 0) {
    o->decimal = true;
    o->number = strtod(text, &end);
    return *end == 0;
  }
  o->literal = strncmp(text, "0x", 2) == 0;
  o->integer = o->literal ? (int64_t)strtoull(text, &end, 16) : strtoll(text, &end, 0);
  return *end == 0 && end != text;
}

static bool parse_operand(char *text, operand *o) {
  size_t length = strlen(text);
  if (strncmp(text, "lit(", 4) == 0 &&
      text[length - 1] == ')') { /* a literal that could have been an inline constant */
    text[--length] = 0;
    text += 4;
    length -= 4;
  }
  if (strncmp(text, "sext(", 5) == 0 && text[length - 1] == ')') {
    o->sign_extend = true;
    text[--length] = 0;
    text += 5;
    length -= 5;
  }
  if (text[0] == '-' && (text[1] < '0' || text[1] > '9')) {
    o->negate = true;
    text++;
    length--;
  }
  if (text[0] == '|' && length > 1) {
    o->absolute = true;
    text[length - 1] = 0;
    text++;
  }
  if (strcmp(text, "off") == 0) {
    o->kind = OPERAND_OFF;
    return true;
  }
  return parse_register(text, o) || parse_constant(text, o);
}

/* ---- Modifiers ---- */

static uint8_t parse_bits(const char *text) {
  uint8_t bits = 0;
  unsigned bit = 0;
  for (; *text && *text != ']' && bit < 8; text++) {
    if (*text == '0' || *text == '1') bits |= (uint8_t)((*text - '0') << bit++);
  }
  return bits;
}

static uint8_t parse_selection(const char *text) {
  static const char *const names[] = {"BYTE_0", "BYTE_1", "BYTE_2", "BYTE_3", "WORD_0", "WORD_1", "DWORD"};
  for (uint8_t k = 0; k < 7; k++) {
    if (strcmp(text, names[k]) == 0) return k;
  }
  return 6;
}

/* Where each lane's value comes from. */
static bool parse_dpp(const char *text, uint8_t lane[LANES]) {
  int n[4];
  int shift = 0;
  for (int l = 0; l < LANES; l++) {
    int row = l & ~15, place = l & 15, from = -1;
    if (sscanf(text, "quad_perm:[%d,%d,%d,%d]", &n[0], &n[1], &n[2], &n[3]) == 4)
      from = (l & ~3) | n[l & 3];
    else if (sscanf(text, "row_shl:%d", &shift) == 1)
      from = place + shift < 16 ? l + shift : -1;
    else if (sscanf(text, "row_shr:%d", &shift) == 1)
      from = place - shift >= 0 ? l - shift : -1;
    else if (sscanf(text, "row_ror:%d", &shift) == 1)
      from = row | ((place - shift) & 15);
    else if (sscanf(text, "row_newbcast:%d", &shift) == 1)
      from = row | (shift & 15);
    else if (strncmp(text, "wave_shl:", 9) == 0)
      from = l + 1 < LANES ? l + 1 : -1;
    else if (strncmp(text, "wave_rol:", 9) == 0)
      from = (l + 1) & 63;
    else if (strncmp(text, "wave_shr:", 9) == 0)
      from = l - 1;
    else if (strncmp(text, "wave_ror:", 9) == 0)
      from = (l - 1) & 63;
    else if (strcmp(text, "row_mirror") == 0)
      from = row | (15 - place);
    else if (strcmp(text, "row_half_mirror") == 0)
      from = (l & ~7) | (7 - (l & 7));
    else if (strcmp(text, "row_bcast:15") == 0)
      from = row - 1;
    else if (strcmp(text, "row_bcast:31") == 0)
      from = l >= 32 ? 31 : -1;
    else
      return false;
    lane[l] = from < 0 ? 255 : (uint8_t)from;
  }
  return true;
}

/* offset:swizzle(...): the 16 bits that the text stands for. */
static bool parse_swizzle(const char *text, uint32_t *bits) {
  unsigned a, b, c, d;
  if (sscanf(text, "swizzle(QUAD_PERM,%u,%u,%u,%u)", &a, &b, &c, &d) == 4)
    *bits = 0x8000 | a | b << 2 | c << 4 | d << 6;
  else if (sscanf(text, "swizzle(SWAP,%u)", &a) == 1)
    *bits = 31 | a << 10;
  else if (sscanf(text, "swizzle(REVERSE,%u)", &a) == 1)
    *bits = 31 | (a - 1) << 10;
  else if (sscanf(text, "swizzle(BROADCAST,%u,%u)", &a, &b) == 2)
    *bits = ((32 - a) & 31) | b << 5;
  else if (strncmp(text, "swizzle(BITMASK_PERM,\"", 22) == 0 && strlen(text) >= 27) {
    uint32_t and_bits = 0, or_bits = 0, xor_bits = 0;
    for (unsigned k = 0; k < 5; k++) {
      uint32_t bit = 1u << (4 - k);
      char digit = text[22 + k];
      if (digit == '1') or_bits |= bit;
      if (digit == 'p' || digit == 'i') and_bits |= bit;
      if (digit == 'i') xor_bits |= bit;
    }
    *bits = and_bits | or_bits << 5 | xor_bits << 10;
  } else {
    return false;
  }
  return true;
}

static bool parse_flag(instruction *i, const char *text) {
  struct {
    const char *name;
    bool *flag;
  } flags[] = {
      {"offen", &i->memory.offen}, {"idxen", &i->memory.idxen}, {"lds", &i->memory.to_lds}, {"sc0", &i->memory.sc0},
      {"sc1", &i->memory.sc1},     {"nt", &i->memory.nt},       {"clamp", &i->clamp},
  };
  for (size_t k = 0; k < sizeof flags / sizeof *flags; k++) {
    if (strcmp(text, flags[k].name) != 0) continue;
    *flags[k].flag = true;
    return true;
  }
  return false;
}

/* What follows the operands; false: an operand, or unknown. */
static bool parse_modifier(instruction *i, const char *text) {
  const char *value = strchr(text, ':');
  if (parse_flag(i, text)) return true;
  if (parse_dpp(text, i->dpp_lane)) return i->dpp = true;
  if (!value) return false;
  size_t name = (size_t)(value++ - text);
  long number = strtol(value, NULL, 0);
  struct {
    const char *name;
    uint8_t *field;
    uint8_t value;
  } fields[] = {
      {"op_sel", &i->op_sel, parse_bits(value)},
      {"op_sel_hi", &i->op_sel_hi, parse_bits(value)},
      {"neg_lo", &i->neg_lo, parse_bits(value)},
      {"neg_hi", &i->neg_hi, parse_bits(value)},
      {"row_mask", &i->row_mask, (uint8_t)number},
      {"bank_mask", &i->bank_mask, (uint8_t)number},
      {"cbsz", &i->cbsz, (uint8_t)number},
      {"abid", &i->abid, (uint8_t)number},
      {"blgp", &i->blgp, (uint8_t)number},
      {"offset0", &i->memory.offset0, (uint8_t)number},
      {"offset1", &i->memory.offset1, (uint8_t)number},
      {"dst_sel", &i->sdwa_result, parse_selection(value)},
      {"src0_sel", &i->sdwa_source[0], parse_selection(value)},
      {"src1_sel", &i->sdwa_source[1], parse_selection(value)},
      {"mul", &i->output_scale, (uint8_t)(number == 2 ? 1 : 2)},
      {"div", &i->output_scale, 3},
  };
  for (size_t k = 0; k < sizeof fields / sizeof *fields; k++) {
    if (strlen(fields[k].name) != name || strncmp(fields[k].name, text, name) != 0) continue;
    *fields[k].field = fields[k].value;
    return true;
  }
  if (strncmp(text, "offset:", 7) == 0) {
    if (strncmp(value, "swizzle", 7) == 0) return parse_swizzle(value, &i->immediate);
    i->memory.offset = (int32_t)number;
    i->immediate = (uint32_t)number;
    return true;
  }
  if (strncmp(text, "bitop3:", 7) == 0) {
    i->immediate = (uint32_t)number;
    return true;
  }
  if (strncmp(text, "bound_ctrl:", 11) == 0) return i->bound_ctrl = true;
  if (strncmp(text, "dst_unused:", 11) == 0) {
    i->sdwa_preserve = strcmp(value, "UNUSED_PRESERVE") == 0;
    i->sdwa = true;
    return strcmp(value, "UNUSED_SEXT") != 0;
  }
  return false;
}

/* ---- One instruction ---- */

/* The next piece of the text: ends at a comma or blank outside brackets, or at the end. */
static char *next_piece(char **at) {
  char *p = *at;
  while (*p == ' ' || *p == ',' || *p == '\t') p++;
  if (!*p) return NULL;
  char *start = p;
  int depth = 0;
  bool bars = false;
  for (; *p && (depth > 0 || bars || (*p != ',' && *p != ' ' && *p != '\t')); p++) {
    if (*p == '[' || *p == '(') depth++;
    if (*p == ']' || *p == ')') depth--;
    if (*p == '|') bars = !bars;
  }
  if (*p) *p++ = 0;
  *at = p;
  return start;
}

/* Takes encodings off a mnemonic: what they mean is in the modifiers. */
static void strip_encoding(instruction *i) {
  static const char *const endings[] = {"_e32", "_e64", "_dpp", "_sdwa"};
  for (size_t k = 0; k < 4; k++) {
    size_t length = strlen(i->mnemonic), ending = strlen(endings[k]);
    if (length <= ending || strcmp(i->mnemonic + length - ending, endings[k]) != 0) continue;
    i->mnemonic[length - ending] = 0;
    i->sdwa = k == 3;
    i->dpp = k == 2;
  }
}

static bool parse_text(instruction *i) {
  char text[256];
  snprintf(text, sizeof text, "%s", i->text);
  char *at = text, *piece = next_piece(&at);
  if (!piece || strlen(piece) >= sizeof i->mnemonic) return false;
  strcpy(i->mnemonic, piece);
  strip_encoding(i);
  i->row_mask = i->bank_mask = 15;
  i->sdwa_result = i->sdwa_source[0] = i->sdwa_source[1] = 6;
  bool packed = strncmp(i->mnemonic, "v_pk_", 5) == 0 || strncmp(i->mnemonic, "v_dot", 5) == 0 ||
                strncmp(i->mnemonic, "v_mfma_scale_", 13) == 0;
  i->op_sel_hi = packed ? 7 : 0;
  /* Their operands are fields of the code, not registers: the immediate says it all. */
  if (i->words[0] >> 23 == 0x17f ||
      (i->words[0] >> 28 == 0xb && (i->words[0] >> 23) != 0x17d && (i->words[0] >> 23) != 0x17e)) {
    i->immediate = i->words[0] & 0xffff;
  }
  bool named_fields = strncmp(i->mnemonic, "s_waitcnt", 9) == 0 || strncmp(i->mnemonic, "s_sendmsg", 9) == 0 ||
                      strncmp(i->mnemonic, "s_set_gpr_idx_mode", 18) == 0;
  while (!named_fields && (piece = next_piece(&at)) != NULL) {
    if (strncmp(piece, "hwreg(", 6) == 0 || strncmp(piece, "gpr_idx(", 8) == 0 || parse_modifier(i, piece)) continue;
    if (i->operands == MAX_OPERANDS || !parse_operand(piece, &i->operand[i->operands])) return false;
    i->operands++;
  }
  return true;
}

static void execute_unknown(wave *w, const instruction *i) {
  if (i->text[0])
    wave_fault(w, GCN_FAULT_UNKNOWN_INSTRUCTION, -1, "the interpreter does not know this instruction");
  else
    wave_fault(w, GCN_FAULT_UNKNOWN_INSTRUCTION, -1, "%08x is no instruction of this GPU", i->words[0]);
}

static instruction *decode(gcn_module *m, uint64_t offset) {
  instruction *i = calloc(1, sizeof *i);
  if (!i) return NULL;
  char text[256] = "";
  uint64_t left = m->image_bytes - offset;
  size_t bytes = LLVMDisasmInstruction(m->disassembler, m->image + offset, left, offset, text, sizeof text);
  const char *start = text + strspn(text, "\t ");
  i->text = malloc(strlen(start) + 1);
  if (!i->text) {
    free(i);
    return NULL;
  }
  strcpy(i->text, bytes ? start : "");
  i->offset = offset;
  i->bytes = bytes ? (uint32_t)bytes : 4;
  memcpy(i->words, m->image + offset, left < sizeof i->words ? left : sizeof i->words);
  i->class = CLASS_OTHER;
  gcn_target target = m->machine->target;
  bool known = bytes && parse_text(i) &&
               (matrix_resolve(i, target) || cross_lane_resolve(i, target) || vector_resolve(i, target) ||
                scalar_resolve(i, target) || lds_resolve(i, target) || memory_resolve(i, target));
  if (!known) {
    i->execute = execute_unknown;
    i->class = CLASS_OTHER;
  }
  return i;
}

instruction *instruction_at(gcn_module *m, uint64_t offset) {
  if (offset % 4 != 0 || offset >= m->image_bytes) return NULL;
  if (!m->code[offset / 4]) m->code[offset / 4] = decode(m, offset);
  return m->code[offset / 4];
}

static void instruction_free(instruction *i) {
  if (!i) return;
  for (unsigned k = 0; k < MAX_OPERANDS; k++) free((void *)(uintptr_t)i->operand[k].row);
  free(i->text);
  free(i);
}

void instructions_free(gcn_module *m) {
  for (size_t k = 0; k < m->image_bytes / 4; k++) instruction_free(m->code[k]);
}

/* ---- What operands mean ---- */

uint64_t constant_bits(const operand *o, char type) {
  static const double inverse_two_pi = 0.15915494309189532;
  if (!o->decimal) {
    uint64_t value = (uint64_t)o->integer;
    if (type == 'd') return o->literal ? value << 32 : value;
    if (type == 'l' && o->literal) return (uint64_t)(int64_t)(int32_t)value;
    if (type == 'w' || type == 'l' || type == 'm') return value;
    return (uint32_t)value;
  }
  bool special = o->number > 0.1591 && o->number < 0.1592;
  switch (type) {
  case 'd':
  case 'w':
  case 'l':
  case 'm':
    return double_bits(special ? inverse_two_pi : o->number);
  case 'h':
  case 's':
  case 'j': {
    _Float16 half = (_Float16)o->number;
    uint16_t bits;
    memcpy(&bits, &half, sizeof bits);
    return special ? 0x3118 : bits;
  }
  case 'b':
    return float_bits((float)o->number) >> 16;
  default:
    return special ? 0x3e22f983 : float_bits((float)o->number);
  }
}

void settle_constant(operand *o, char type) {
  if (o->kind != OPERAND_CONSTANT) return;
  o->integer = (int64_t)constant_bits(o, type);
  o->decimal = o->literal = false;
}

static void mark(const operand *o, uint64_t *vectors, uint64_t *scalars) {
  if (o->kind != OPERAND_VECTOR && o->kind != OPERAND_SCALAR) return;
  uint64_t *bits = o->kind == OPERAND_VECTOR ? vectors : scalars;
  for (unsigned k = o->index; k < o->index + (unsigned)o->registers; k++) bits[k / 64] |= UINT64_C(1) << (k % 64);
}

void mark_reads(instruction *i, const operand *o) {
  mark(o, i->vector_reads, i->scalar_reads);
}

void mark_writes(instruction *i, const operand *o) {
  mark(o, i->vector_writes, i->scalar_writes);
}
