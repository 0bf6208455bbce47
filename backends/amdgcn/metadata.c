/* What a code object says of its kernels: symbols, and a MessagePack map in an ELF note (LLVM's AMDGPU usage guide,
 * "Code Object V3 and Above Metadata"). */
#include "backends/amdgcn/amdgcn.h"

#include <elf.h>
#include <string.h>

/* ---- MessagePack: just what LLVM writes. Every read is checked; a failure sets `at` to NULL. ---- */
typedef struct reader {
  const unsigned char *at, *end;
} reader;

typedef enum value_kind { VALUE_OTHER, VALUE_INTEGER, VALUE_STRING, VALUE_ARRAY, VALUE_MAP } value_kind;

typedef struct value {
  value_kind kind;
  uint64_t number;    /* of an integer; bytes of a string; elements of an array; pairs of a map */
  const char *string; /* not terminated */
} value;

static uint64_t read_number(reader *r, unsigned bytes) {
  uint64_t number = 0;
  if (!r->at || (size_t)(r->end - r->at) < bytes) {
    r->at = NULL;
    return 0;
  }
  while (bytes--) number = number << 8 | *r->at++;
  return number;
}

static value read_string(reader *r, uint64_t length) {
  value v = {.kind = VALUE_STRING, .number = length, .string = (const char *)r->at};
  if (!r->at || (uint64_t)(r->end - r->at) < length)
    r->at = NULL;
  else
    r->at += length;
  return v;
}

/* The next value; of an array or a map only its head. */
static value read_value(reader *r) {
  const unsigned tag = (unsigned)read_number(r, 1);
  if (!r->at) return (value){0};
  if (tag <= 0x7f) return (value){.kind = VALUE_INTEGER, .number = tag};
  if (tag <= 0x8f) return (value){.kind = VALUE_MAP, .number = tag & 15};
  if (tag <= 0x9f) return (value){.kind = VALUE_ARRAY, .number = tag & 15};
  if (tag <= 0xbf) return read_string(r, tag & 31);
  switch (tag) {
  case 0xc0: /* nil, false, true */
  case 0xc2:
  case 0xc3:
    return (value){.kind = VALUE_OTHER};
  case 0xcc:
  case 0xcd:
  case 0xce:
  case 0xcf:
    return (value){.kind = VALUE_INTEGER, .number = read_number(r, 1u << (tag - 0xcc))};
  case 0xd9:
  case 0xda:
  case 0xdb:
    return read_string(r, read_number(r, 1u << (tag - 0xd9)));
  case 0xdc:
  case 0xdd:
    return (value){.kind = VALUE_ARRAY, .number = read_number(r, tag == 0xdc ? 2 : 4)};
  case 0xde:
  case 0xdf:
    return (value){.kind = VALUE_MAP, .number = read_number(r, tag == 0xde ? 2 : 4)};
  default:
    r->at = NULL; /* signed and floating numbers do not occur */
    return (value){0};
  }
}

static bool is(const value *v, const char *text) {
  return v->kind == VALUE_STRING && v->number == strlen(text) && memcmp(v->string, text, v->number) == 0;
}

/* Passes over the elements of `head`, which was read last, and everything in them. */
static void skip(reader *r, const value *head) {
  uint64_t left = head->kind == VALUE_MAP ? 2 * head->number : head->kind == VALUE_ARRAY ? head->number : 0;
  while (left && r->at) {
    value v = read_value(r);
    left += v.kind == VALUE_MAP ? 2 * v.number : v.kind == VALUE_ARRAY ? v.number : 0;
    left--;
  }
}

/* ---- the kernels in it ---- */
typedef struct kernel_metadata {
  value name;
  uint64_t vgprs, spilled_vgprs, spilled_sgprs, scratch, lds;
} kernel_metadata;

static kernel_metadata read_kernel(reader *r, const value *map) {
  kernel_metadata kernel = {0};
  const struct {
    const char *key;
    uint64_t *number;
  } numbers[] = {{".vgpr_count", &kernel.vgprs},
                 {".vgpr_spill_count", &kernel.spilled_vgprs},
                 {".sgpr_spill_count", &kernel.spilled_sgprs},
                 {".private_segment_fixed_size", &kernel.scratch},
                 {".group_segment_fixed_size", &kernel.lds}};
  for (uint64_t i = 0; i < map->number && r->at; i++) {
    value key = read_value(r), v = read_value(r);
    if (is(&key, ".name")) kernel.name = v;
    for (size_t n = 0; n < sizeof numbers / sizeof *numbers; n++)
      if (is(&key, numbers[n].key) && v.kind == VALUE_INTEGER) *numbers[n].number = v.number;
    skip(r, &v);
  }
  return kernel;
}

static void note_kernel(const kernel_metadata *kernel, const kernel_spec *specs, size_t count, kernel_info *kernels,
                        size_t *found) {
  for (size_t i = 0; i < count; i++)
    if (is(&kernel->name, specs[i].symbol)) {
      kernels[i].registers = (uint32_t)kernel->vgprs;
      /* Scratch is where registers go that do not fit, arrays of a kernel's own included. */
      uint64_t spilled = 4 * (kernel->spilled_vgprs + kernel->spilled_sgprs);
      kernels[i].spill_bytes = (uint32_t)(kernel->scratch > spilled ? kernel->scratch : spilled);
      ++*found;
    }
}

static size_t read_note(reader r, const kernel_spec *specs, size_t count, kernel_info *kernels) {
  size_t found = 0;
  value root = read_value(&r);
  for (uint64_t i = 0; root.kind == VALUE_MAP && i < root.number && r.at; i++) {
    value key = read_value(&r), v = read_value(&r);
    if (!is(&key, "amdhsa.kernels") || v.kind != VALUE_ARRAY) {
      skip(&r, &v);
      continue;
    }
    for (uint64_t k = 0; k < v.number && r.at; k++) {
      value map = read_value(&r);
      if (map.kind != VALUE_MAP) return 0;
      kernel_metadata kernel = read_kernel(&r, &map);
      if (r.at) note_kernel(&kernel, specs, count, kernels, &found);
    }
  }
  return r.at ? found : 0;
}

/* ---- ELF; the object is this program's own linker's, but a file all the same ---- */
static bool inside(size_t length, uint64_t offset, uint64_t bytes) {
  return offset <= length && bytes <= length - offset;
}

static size_t read_notes(const char *section, uint64_t length, const kernel_spec *specs, size_t count,
                         kernel_info *kernels) {
  enum { METADATA = 32 }; /* NT_AMDGPU_METADATA */
  for (uint64_t at = 0; inside(length, at, sizeof(Elf64_Nhdr));) {
    Elf64_Nhdr header;
    memcpy(&header, section + at, sizeof header);
    const uint64_t name = at + sizeof header, text = name + ((uint64_t)header.n_namesz + 3) / 4 * 4;
    if (!inside(length, text, header.n_descsz)) return 0;
    if (header.n_type == METADATA && header.n_namesz == 7 && memcmp(section + name, "AMDGPU", 7) == 0) {
      const unsigned char *start = (const unsigned char *)section + text;
      return read_note((reader){start, start + header.n_descsz}, specs, count, kernels);
    }
    at = text + ((uint64_t)header.n_descsz + 3) / 4 * 4;
  }
  return 0;
}

static void read_sizes(const char *object, size_t length, const Elf64_Shdr *symbols, const Elf64_Shdr *strings,
                       const kernel_spec *specs, size_t count, kernel_info *kernels) {
  if (!inside(length, symbols->sh_offset, symbols->sh_size) || !inside(length, strings->sh_offset, strings->sh_size))
    return;
  for (uint64_t at = 0; at + sizeof(Elf64_Sym) <= symbols->sh_size; at += sizeof(Elf64_Sym)) {
    Elf64_Sym symbol;
    memcpy(&symbol, object + symbols->sh_offset + at, sizeof symbol);
    if (symbol.st_name >= strings->sh_size || ELF64_ST_TYPE(symbol.st_info) != STT_FUNC) continue;
    const char *name = object + strings->sh_offset + symbol.st_name;
    const size_t room = strings->sh_size - symbol.st_name;
    for (size_t i = 0; i < count; i++)
      if (strnlen(name, room) < room && strcmp(name, specs[i].symbol) == 0) kernels[i].code_bytes = symbol.st_size;
  }
}

sluice_status *amdgcn_read_metadata(const void *data, size_t length, const kernel_spec *specs, size_t count,
                                    kernel_info *kernels) {
  const char *object = data;
  Elf64_Ehdr header;
  size_t found = 0;
  if (length >= sizeof header) {
    memcpy(&header, object, sizeof header);
    const bool elf = memcmp(header.e_ident, ELFMAG, SELFMAG) == 0 && header.e_shentsize == sizeof(Elf64_Shdr) &&
                     inside(length, header.e_shoff, (uint64_t)header.e_shnum * sizeof(Elf64_Shdr));
    for (unsigned i = 0; elf && i < header.e_shnum; i++) {
      Elf64_Shdr section, linked;
      memcpy(&section, object + header.e_shoff + i * sizeof section, sizeof section);
      if (section.sh_type == SHT_NOTE && inside(length, section.sh_offset, section.sh_size))
        found += read_notes(object + section.sh_offset, section.sh_size, specs, count, kernels);
      if (section.sh_type != SHT_DYNSYM || section.sh_link >= header.e_shnum) continue;
      memcpy(&linked, object + header.e_shoff + section.sh_link * sizeof linked, sizeof linked);
      read_sizes(object, length, &section, &linked, specs, count, kernels);
    }
  }
  if (found == count) return NULL;
  return sluice_error(SLUICE_INTERNAL, "the code object's metadata describes %zu of %zu kernels", found, count);
}
