/* Code objects: HSA ELF files with MessagePack metadata, as LLVM and lld write them. */
#include "machine.h"
#include <elf.h>
#include <stdlib.h>

/* ---- MessagePack: maps, arrays, strings, integers and booleans, walked in place ---- */

typedef struct pack {
  const uint8_t *at, *end;
  bool bad;
} pack;

enum pack_kind { PACK_OTHER, PACK_INTEGER, PACK_STRING, PACK_ARRAY, PACK_MAP };
typedef struct pack_value {
  enum pack_kind kind;
  uint64_t integer; /* value, or number of elements or pairs, or bytes of a string */
  const char *string;
} pack_value;

static uint64_t big_endian(pack *p, unsigned bytes) {
  if ((size_t)(p->end - p->at) < bytes) {
    p->bad = true;
    return 0;
  }
  uint64_t value = 0;
  for (unsigned k = 0; k < bytes; k++) value = value << 8 | *p->at++;
  return value;
}

static pack_value pack_string(pack *p, uint64_t bytes) {
  pack_value v = {PACK_STRING, bytes, (const char *)p->at};
  if ((uint64_t)(p->end - p->at) < bytes) {
    p->bad = true;
    v.integer = 0;
  } else {
    p->at += bytes;
  }
  return v;
}

/* Takes one value; of an array or map only its head. */
static pack_value pack_next(pack *p) {
  uint8_t tag = (uint8_t)big_endian(p, 1);
  if (tag < 0x80) return (pack_value){PACK_INTEGER, tag, NULL};
  if (tag < 0x90) return (pack_value){PACK_MAP, tag & 15u, NULL};
  if (tag < 0xa0) return (pack_value){PACK_ARRAY, tag & 15u, NULL};
  if (tag < 0xc0) return pack_string(p, tag & 31u);
  switch (tag) {
  case 0xc2:
    return (pack_value){PACK_INTEGER, 0, NULL};
  case 0xc3:
    return (pack_value){PACK_INTEGER, 1, NULL};
  case 0xcc:
    return (pack_value){PACK_INTEGER, big_endian(p, 1), NULL};
  case 0xcd:
    return (pack_value){PACK_INTEGER, big_endian(p, 2), NULL};
  case 0xce:
    return (pack_value){PACK_INTEGER, big_endian(p, 4), NULL};
  case 0xcf:
    return (pack_value){PACK_INTEGER, big_endian(p, 8), NULL};
  case 0xd9:
    return pack_string(p, big_endian(p, 1));
  case 0xda:
    return pack_string(p, big_endian(p, 2));
  case 0xdb:
    return pack_string(p, big_endian(p, 4));
  case 0xdc:
    return (pack_value){PACK_ARRAY, big_endian(p, 2), NULL};
  case 0xdd:
    return (pack_value){PACK_ARRAY, big_endian(p, 4), NULL};
  case 0xde:
    return (pack_value){PACK_MAP, big_endian(p, 2), NULL};
  case 0xdf:
    return (pack_value){PACK_MAP, big_endian(p, 4), NULL};
  case 0xd0:
    big_endian(p, 1);
    break;
  case 0xd1:
    big_endian(p, 2);
    break;
  case 0xd2:
  case 0xca:
    big_endian(p, 4);
    break;
  case 0xd3:
  case 0xcb:
    big_endian(p, 8);
    break;
  default:
    p->bad = p->bad || (tag != 0xc0 && tag < 0xe0);
    break;
  }
  return (pack_value){PACK_OTHER, 0, NULL};
}

/* Steps over what an array or map still holds. */
static void pack_skip(pack *p, pack_value v, unsigned depth) {
  if (v.kind != PACK_ARRAY && v.kind != PACK_MAP) return;
  uint64_t left = v.kind == PACK_MAP ? 2 * v.integer : v.integer;
  if (depth > 16) p->bad = true;
  for (; left > 0 && !p->bad; left--) pack_skip(p, pack_next(p), depth + 1);
}

static bool string_is(pack_value v, const char *text) {
  return v.kind == PACK_STRING && v.integer == strlen(text) && memcmp(v.string, text, v.integer) == 0;
}

/* ---- Hidden arguments (code object version 5) ---- */

enum hidden_kind {
  HIDDEN_BLOCK_COUNT_X,
  HIDDEN_BLOCK_COUNT_Y,
  HIDDEN_BLOCK_COUNT_Z,
  HIDDEN_GROUP_SIZE_X,
  HIDDEN_GROUP_SIZE_Y,
  HIDDEN_GROUP_SIZE_Z,
  HIDDEN_GRID_DIMS,
  HIDDEN_DYNAMIC_LDS_SIZE,
  HIDDEN_PRIVATE_BASE,
  HIDDEN_SHARED_BASE,
  HIDDEN_ZERO,
};
static const char *const hidden_names[] = {
    "hidden_block_count_x", "hidden_block_count_y", "hidden_block_count_z", "hidden_group_size_x",
    "hidden_group_size_y",  "hidden_group_size_z",  "hidden_grid_dims",     "hidden_dynamic_lds_size",
    "hidden_private_base",  "hidden_shared_base",
};

static uint8_t hidden_kind_of(pack_value name) {
  for (uint8_t k = 0; k < HIDDEN_ZERO; k++) {
    if (string_is(name, hidden_names[k])) return k;
  }
  return HIDDEN_ZERO; /* remainders of whole workgroups, offsets, host calls: all zero here */
}

void hidden_arguments_fill(const launch *l) {
  for (uint32_t k = 0; k < l->kernel->hidden_count; k++) {
    const hidden_argument *h = &l->kernel->hidden[k];
    uint64_t value = 0;
    switch (h->kind) {
    case HIDDEN_BLOCK_COUNT_X:
      value = l->grid[0];
      break;
    case HIDDEN_BLOCK_COUNT_Y:
      value = l->grid[1];
      break;
    case HIDDEN_BLOCK_COUNT_Z:
      value = l->grid[2];
      break;
    case HIDDEN_GROUP_SIZE_X:
      value = l->block[0];
      break;
    case HIDDEN_GROUP_SIZE_Y:
      value = l->block[1];
      break;
    case HIDDEN_GROUP_SIZE_Z:
      value = l->block[2];
      break;
    case HIDDEN_GRID_DIMS:
      value = l->grid[2] * l->block[2] > 1 ? 3 : l->grid[1] * l->block[1] > 1 ? 2 : 1;
      break;
    case HIDDEN_DYNAMIC_LDS_SIZE:
      value = l->options->dynamic_lds;
      break;
    case HIDDEN_PRIVATE_BASE:
      value = SCRATCH_APERTURE >> 32;
      break;
    case HIDDEN_SHARED_BASE:
      value = LDS_APERTURE >> 32;
      break;
    default:
      break;
    }
    memcpy(l->kernarg + h->offset, &value, h->bytes < sizeof value ? h->bytes : sizeof value);
  }
}

/* ---- Metadata of kernels ---- */

typedef struct loader {
  gcn_module *module;
  const uint8_t *file;
  size_t bytes;
  size_t strings_used;
} loader;

static const char *keep_string(loader *l, pack_value v) {
  char *copy = l->module->strings + l->strings_used;
  memcpy(copy, v.string, v.integer);
  copy[v.integer] = 0;
  l->strings_used += v.integer + 1;
  return copy;
}

typedef struct argument_text {
  pack_value name, kind, space;
  uint32_t offset, bytes;
} argument_text;

static argument_text read_argument(pack *p) {
  argument_text a = {0};
  pack_value map = pack_next(p);
  if (map.kind != PACK_MAP) p->bad = true;
  for (uint64_t k = 0; k < map.integer && !p->bad; k++) {
    pack_value key = pack_next(p), value = pack_next(p);
    if (string_is(key, ".name"))
      a.name = value;
    else if (string_is(key, ".value_kind"))
      a.kind = value;
    else if (string_is(key, ".address_space"))
      a.space = value;
    else if (string_is(key, ".offset"))
      a.offset = (uint32_t)value.integer;
    else if (string_is(key, ".size"))
      a.bytes = (uint32_t)value.integer;
    pack_skip(p, value, 0);
  }
  return a;
}

static sluice_status *read_arguments(loader *l, pack *p, pack_value array, gcn_kernel *kernel) {
  kernel->arguments = calloc(array.integer + 1, sizeof *kernel->arguments);
  kernel->hidden = calloc(array.integer + 1, sizeof *kernel->hidden);
  if (!kernel->arguments || !kernel->hidden) return sluice_out_of_memory();
  for (uint64_t k = 0; k < array.integer && !p->bad; k++) {
    argument_text a = read_argument(p);
    if (p->bad) break;
    if (a.kind.kind == PACK_STRING && a.kind.integer > 7 && memcmp(a.kind.string, "hidden_", 7) == 0) {
      kernel->hidden[kernel->hidden_count++] = (hidden_argument){hidden_kind_of(a.kind), a.offset, a.bytes};
      continue;
    }
    kernel->arguments[kernel->info.arguments++] =
        (gcn_argument){a.name.kind == PACK_STRING ? keep_string(l, a.name) : "", a.offset, a.bytes,
                       string_is(a.kind, "global_buffer")};
    if (a.offset + a.bytes > kernel->info.explicit_bytes) kernel->info.explicit_bytes = a.offset + a.bytes;
  }
  return NULL;
}

static sluice_status *read_kernel(loader *l, pack *p, gcn_kernel *kernel) {
  struct {
    const char *key;
    uint32_t *value;
  } numbers[] = {
      {".kernarg_segment_size", &kernel->info.kernarg_bytes},
      {".group_segment_fixed_size", &kernel->info.lds_bytes},
      {".private_segment_fixed_size", &kernel->info.scratch_bytes},
      {".sgpr_count", &kernel->info.sgprs},
      {".vgpr_count", &kernel->info.vgprs},
      {".agpr_count", &kernel->info.agprs},
      {".sgpr_spill_count", &kernel->info.sgpr_spills},
      {".vgpr_spill_count", &kernel->info.vgpr_spills},
      {".wavefront_size", &kernel->info.wavefront_lanes},
      {".max_flat_workgroup_size", &kernel->info.max_workgroup_lanes},
  };
  pack_value map = pack_next(p);
  if (map.kind != PACK_MAP) p->bad = true;
  for (uint64_t k = 0; k < map.integer && !p->bad; k++) {
    pack_value key = pack_next(p), value = pack_next(p);
    if (p->bad) break;
    if (string_is(key, ".args") && value.kind == PACK_ARRAY && !kernel->arguments) {
      SLUICE_TRY(read_arguments(l, p, value, kernel));
      continue;
    }
    if (string_is(key, ".name") && value.kind == PACK_STRING) kernel->info.name = keep_string(l, value);
    for (size_t n = 0; n < sizeof numbers / sizeof *numbers; n++) {
      if (string_is(key, numbers[n].key) && value.kind == PACK_INTEGER) *numbers[n].value = (uint32_t)value.integer;
    }
    pack_skip(p, value, 0);
  }
  return NULL;
}

static sluice_status *check_target(const loader *l, pack_value target) {
  static const char *const names[] = {"gfx942", "gfx950"};
  const char *want = names[l->module->machine->target];
  int length = target.integer < 200 ? (int)target.integer : 200;
  char text[201];
  memcpy(text, target.string, (size_t)length);
  text[length] = 0;
  if (!strstr(text, want))
    return sluice_error(SLUICE_UNSUPPORTED, "the code object is for %s; this machine is %s", text, want);
  return NULL;
}

static sluice_status *read_metadata(loader *l, const uint8_t *note, size_t bytes) {
  pack p = {note, note + bytes, false};
  pack_value root = pack_next(&p);
  if (root.kind != PACK_MAP) p.bad = true;
  for (uint64_t k = 0; k < root.integer && !p.bad; k++) {
    pack_value key = pack_next(&p), value = pack_next(&p);
    if (p.bad) break;
    if (string_is(key, "amdhsa.target") && value.kind == PACK_STRING) SLUICE_TRY(check_target(l, value));
    if (!string_is(key, "amdhsa.kernels") || value.kind != PACK_ARRAY || l->module->kernels) {
      pack_skip(&p, value, 0);
      continue;
    }
    if (value.integer > bytes) break;
    l->module->kernels = calloc(value.integer + 1, sizeof *l->module->kernels);
    if (!l->module->kernels) return sluice_out_of_memory();
    while (l->module->kernel_count < value.integer && !p.bad) {
      gcn_kernel *kernel = &l->module->kernels[l->module->kernel_count++];
      kernel->module = l->module;
      SLUICE_TRY(read_kernel(l, &p, kernel));
    }
  }
  if (p.bad || !l->module->kernels) return sluice_error(SLUICE_INVALID, "the code object's metadata is damaged");
  return NULL;
}

/* ---- ELF ---- */

static bool inside(const loader *l, uint64_t offset, uint64_t bytes) {
  return offset <= l->bytes && bytes <= l->bytes - offset;
}

static sluice_status *damaged(const char *what) {
  return sluice_error(SLUICE_INVALID, "not a code object that can be loaded: %s", what);
}

/* Notes are 4-aligned: name bytes, description bytes, type, name, description. */
static sluice_status *read_notes(loader *l, const Elf64_Phdr *segment) {
  uint64_t at = segment->p_offset, end = at + segment->p_filesz;
  while (end - at >= 12) {
    uint32_t head[3];
    memcpy(head, l->file + at, sizeof head);
    uint64_t description = at + 12 + ((head[0] + UINT64_C(3)) & ~UINT64_C(3));
    if (description > end || head[1] > end - description) break;
    if (head[2] == 32 && head[0] == 7 && memcmp(l->file + at + 12, "AMDGPU", 7) == 0) {
      return read_metadata(l, l->file + description, head[1]);
    }
    at = description + ((head[1] + UINT64_C(3)) & ~UINT64_C(3));
    if (at > end) break;
  }
  return NULL;
}

static sluice_status *load_segments(loader *l, const Elf64_Ehdr *header) {
  gcn_module *m = l->module;
  const Elf64_Phdr *segments = (const void *)(l->file + header->e_phoff);
  uint64_t most = l->bytes + (1 << 20); /* a linker leaves less than this between segments */
  for (unsigned k = 0; k < header->e_phnum; k++) {
    if (segments[k].p_type != PT_LOAD && segments[k].p_type != PT_NOTE) continue;
    if (!inside(l, segments[k].p_offset, segments[k].p_filesz) || segments[k].p_filesz > segments[k].p_memsz ||
        segments[k].p_memsz > most || segments[k].p_vaddr > most) {
      return damaged("a segment reaches past the end of the file");
    }
    uint64_t end = segments[k].p_vaddr + segments[k].p_memsz;
    if (segments[k].p_type == PT_LOAD && end > m->image_bytes) m->image_bytes = end;
  }
  m->image_bytes = (m->image_bytes + 4095) & ~(size_t)4095;
  if (m->image_bytes == 0) return damaged("nothing to load");
  m->image = aligned_alloc(4096, m->image_bytes);
  m->code = calloc(m->image_bytes / 4, sizeof *m->code);
  if (!m->image || !m->code) return sluice_out_of_memory();
  memset(m->image, 0, m->image_bytes);
  for (unsigned k = 0; k < header->e_phnum; k++) {
    if (segments[k].p_type != PT_LOAD) continue;
    memcpy(m->image + segments[k].p_vaddr, l->file + segments[k].p_offset, segments[k].p_filesz);
  }
  for (unsigned k = 0; k < header->e_phnum && !m->kernels; k++) {
    if (segments[k].p_type == PT_NOTE) SLUICE_TRY(read_notes(l, &segments[k]));
  }
  return m->kernels ? NULL : damaged("it has no AMDGPU metadata note");
}

/* The kernel descriptor: 64 bytes at the symbol NAME.kd. */
static sluice_status *read_descriptor(gcn_kernel *kernel, uint64_t address) {
  const gcn_module *m = kernel->module;
  if (address > m->image_bytes - 64) return damaged("a kernel descriptor lies outside the image");
  const uint8_t *d = m->image + address;
  int64_t entry;
  memcpy(&entry, d + 16, sizeof entry);
  memcpy(&kernel->resource3, d + 44, 4);
  memcpy(&kernel->resource1, d + 48, 4);
  memcpy(&kernel->resource2, d + 52, 4);
  memcpy(&kernel->properties, d + 56, 2);
  memcpy(&kernel->preload, d + 58, 2);
  kernel->entry = address + (uint64_t)entry;
  kernel->end = kernel->entry;
  if (kernel->entry % 4 != 0 || kernel->entry >= m->image_bytes)
    return damaged("a kernel's code lies outside the image");
  return NULL;
}

static sluice_status *read_symbols(loader *l, const Elf64_Shdr *table, const Elf64_Shdr *names) {
  if (!inside(l, table->sh_offset, table->sh_size) || !inside(l, names->sh_offset, names->sh_size) ||
      names->sh_size == 0 || l->file[names->sh_offset + names->sh_size - 1] != 0) {
    return damaged("its symbol table reaches past the end of the file");
  }
  const char *text = (const char *)l->file + names->sh_offset;
  for (uint32_t n = 0; n < l->module->kernel_count; n++) {
    gcn_kernel *kernel = &l->module->kernels[n];
    size_t length = kernel->info.name ? strlen(kernel->info.name) : 0;
    uint64_t code_bytes = 0;
    for (uint64_t k = 0; k < table->sh_size / sizeof(Elf64_Sym); k++) {
      Elf64_Sym symbol;
      memcpy(&symbol, l->file + table->sh_offset + k * sizeof symbol, sizeof symbol);
      if (symbol.st_name >= names->sh_size || length == 0) continue;
      const char *name = text + symbol.st_name;
      if (strncmp(name, kernel->info.name, length) != 0) continue;
      if (strcmp(name + length, ".kd") == 0) SLUICE_TRY(read_descriptor(kernel, symbol.st_value));
      if (name[length] == 0) code_bytes = symbol.st_size;
    }
    if (kernel->entry == 0) return damaged("a kernel has no descriptor");
    kernel->end = kernel->entry + code_bytes;
    if (kernel->end > l->module->image_bytes) return damaged("a kernel's code lies outside the image");
  }
  return NULL;
}

static sluice_status *check_kernels(const gcn_module *m) {
  for (uint32_t k = 0; k < m->kernel_count; k++) {
    const gcn_kernel *kernel = &m->kernels[k];
    if (kernel->info.wavefront_lanes != LANES) {
      return sluice_error(SLUICE_UNSUPPORTED, "kernel %s is built for waves of %u lanes; 64 is what this GPU has",
                          kernel->info.name, kernel->info.wavefront_lanes);
    }
    for (uint32_t h = 0; h < kernel->hidden_count; h++) {
      if (kernel->hidden[h].offset + (uint64_t)kernel->hidden[h].bytes > kernel->info.kernarg_bytes) {
        return damaged("a hidden argument lies outside the kernel's arguments");
      }
    }
  }
  return NULL;
}

static sluice_status *load(loader *l) {
  Elf64_Ehdr header;
  if (l->bytes < sizeof header || memcmp(l->file, ELFMAG, SELFMAG) != 0) return damaged("no ELF header");
  memcpy(&header, l->file, sizeof header);
  if (header.e_machine != 224 || header.e_ident[EI_CLASS] != ELFCLASS64) return damaged("not for AMD GPUs");
  if (header.e_ident[EI_ABIVERSION] != 3 && header.e_ident[EI_ABIVERSION] != 4) {
    return sluice_error(SLUICE_UNSUPPORTED, "code object version %u; 5 and 6 are supported",
                        header.e_ident[EI_ABIVERSION] + 2u);
  }
  if (header.e_phentsize != sizeof(Elf64_Phdr) || header.e_phoff % 8 != 0 ||
      !inside(l, header.e_phoff, (uint64_t)header.e_phnum * sizeof(Elf64_Phdr)) || header.e_shoff % 8 != 0 ||
      header.e_shentsize != sizeof(Elf64_Shdr) ||
      !inside(l, header.e_shoff, (uint64_t)header.e_shnum * sizeof(Elf64_Shdr))) {
    return damaged("its tables reach past the end of the file");
  }
  SLUICE_TRY(load_segments(l, &header));
  const Elf64_Shdr *sections = (const void *)(l->file + header.e_shoff);
  for (unsigned k = 0; k < header.e_shnum; k++) {
    if (sections[k].sh_type != SHT_DYNSYM || sections[k].sh_link >= header.e_shnum) continue;
    SLUICE_TRY(read_symbols(l, &sections[k], &sections[sections[k].sh_link]));
    return check_kernels(l->module);
  }
  return damaged("it has no symbols; link it with ld.lld -shared");
}

sluice_status *gcn_code_object_target(const void *data, size_t bytes, gcn_target *out) {
  Elf64_Ehdr header;
  if (bytes < sizeof header || memcmp(data, ELFMAG, SELFMAG) != 0) return damaged("no ELF header");
  memcpy(&header, data, sizeof header);
  if (header.e_machine != 224 || header.e_ident[EI_CLASS] != ELFCLASS64) return damaged("not for AMD GPUs");
  unsigned processor = header.e_flags & 255;
  *out = processor == 0x4f ? GCN_GFX950 : GCN_GFX942;
  if (processor == 0x4c || processor == 0x4f) return NULL;
  return sluice_error(SLUICE_UNSUPPORTED, "processor %#x is neither gfx942 nor gfx950", processor);
}

sluice_status *gcn_module_load(gcn_machine *machine, const void *data, size_t bytes, gcn_module **out) {
  *out = NULL;
  gcn_module *m = calloc(1, sizeof *m);
  /* The headers are read in place, so the copy has their alignment; a kept string is never longer than in the file. */
  uint8_t *copy = aligned_alloc(64, (bytes + 127) & ~(size_t)63);
  if (m) m->strings = malloc(2 * bytes + 1);
  sluice_status *status = NULL;
  if (!m || !copy || !m->strings) status = sluice_out_of_memory();
  if (!status) {
    memcpy(copy, data, bytes);
    m->machine = machine;
    loader l = {m, copy, bytes, 0};
    status = load(&l);
  }
  if (!status) status = disassembler_open(machine->target, &m->disassembler);
  if (!status) status = gcn_register(machine, m->image, m->image_bytes);
  free(copy);
  if (status) {
    if (m) m->machine = NULL;
    gcn_module_unload(m);
    return status;
  }
  m->next_module = machine->modules;
  machine->modules = m;
  *out = m;
  return NULL;
}

void gcn_module_unload(gcn_module *m) {
  if (!m) return;
  if (m->machine) {
    sluice_status_free(gcn_unregister(m->machine, m->image));
    for (gcn_module **at = &m->machine->modules; *at; at = &(*at)->next_module) {
      if (*at != m) continue;
      *at = m->next_module;
      break;
    }
  }
  if (m->code) instructions_free(m);
  if (m->disassembler) disassembler_close(m->disassembler);
  for (uint32_t k = 0; k < m->kernel_count; k++) {
    free(m->kernels[k].arguments);
    free(m->kernels[k].hidden);
  }
  free(m->kernels);
  free(m->code);
  free(m->image);
  free(m->strings);
  free(m);
}

uint32_t gcn_kernel_count(const gcn_module *module) {
  return module->kernel_count;
}

const gcn_kernel *gcn_kernel_at(const gcn_module *module, uint32_t index) {
  return index < module->kernel_count ? &module->kernels[index] : NULL;
}

const gcn_kernel *gcn_kernel_find(const gcn_module *module, const char *name) {
  for (uint32_t k = 0; k < module->kernel_count; k++) {
    if (strcmp(module->kernels[k].info.name, name) == 0) return &module->kernels[k];
  }
  return NULL;
}

const gcn_kernel_info *gcn_kernel_describe(const gcn_kernel *kernel) {
  return &kernel->info;
}

const gcn_argument *gcn_kernel_argument(const gcn_kernel *kernel, uint32_t index) {
  return index < kernel->info.arguments ? &kernel->arguments[index] : NULL;
}
