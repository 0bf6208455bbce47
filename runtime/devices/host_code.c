#include "runtime/devices/host_code.h"

#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { MOST_SEGMENTS = 16, PAGE = 4096 };
#define MOST_MEMORY ((uint64_t)1 << 30)

static const char outside[] = "a table lies outside the object's memory";

typedef struct elf_object {
  const char *data;
  size_t length;
  Elf64_Phdr loads[MOST_SEGMENTS]; /* the PT_LOAD ones, ascending */
  unsigned load_count;
  Elf64_Phdr dynamic;
  uint64_t strings, string_bytes, symbols, hash; /* addresses from the dynamic section; 0: absent */
  uint64_t symbol_count;
} elf_object;

/* The first mistake is kept: the functions below return what is wrong, NULL when nothing is. */
#define TRY(expression)                                                                                                \
  do {                                                                                                                 \
    const char *wrong_ = (expression);                                                                                 \
    if (wrong_) return wrong_;                                                                                         \
  } while (0)

/* ---- Segments ---- */

static const char *check_header(const elf_object *o, Elf64_Ehdr *out_header) {
  if (o->length < sizeof *out_header) return "it is too short";
  memcpy(out_header, o->data, sizeof *out_header);
  const Elf64_Ehdr *h = out_header;
  static const unsigned char ident[EI_NIDENT] = {ELFMAG0,    ELFMAG1,     ELFMAG2,    ELFMAG3,
                                                 ELFCLASS64, ELFDATA2LSB, EV_CURRENT, ELFOSABI_NONE};
  if (memcmp(h->e_ident, ident, sizeof ident) != 0 || h->e_type != ET_DYN || h->e_machine != EM_X86_64 ||
      h->e_version != EV_CURRENT || h->e_flags != 0 || h->e_entry != 0)
    return "it is no shared object for x86-64";
  if (h->e_ehsize != sizeof *h || h->e_phentsize != sizeof(Elf64_Phdr) || h->e_phoff != sizeof *h || h->e_phnum == 0 ||
      h->e_phnum > MOST_SEGMENTS || sizeof *h + h->e_phnum * sizeof(Elf64_Phdr) > o->length)
    return "its program headers are not where they belong";
  return NULL;
}

static uint64_t page_up(uint64_t value) {
  return (value + PAGE - 1) / PAGE * PAGE;
}

/* Adds a PT_LOAD segment, which lies behind the ones before it and shares no page of memory with them. */
static const char *add_load(elf_object *o, const Elf64_Phdr *p) {
  if (p->p_offset > o->length || p->p_filesz > o->length - p->p_offset || p->p_filesz > p->p_memsz)
    return "a segment lies outside the file";
  if (p->p_memsz == 0 || p->p_memsz > MOST_MEMORY || p->p_vaddr > MOST_MEMORY || p->p_align != PAGE ||
      p->p_vaddr % PAGE != p->p_offset % PAGE)
    return "a segment's memory is out of range";
  bool writable = p->p_flags & PF_W;
  if ((p->p_flags & ~(uint32_t)(PF_R | PF_W | PF_X)) || !(p->p_flags & PF_R) || (writable && (p->p_flags & PF_X)))
    return "a segment has rights that code and data do not need";
  if (!writable && p->p_filesz != p->p_memsz)
    return "a segment that is not writable is longer than its part of the file";
  if (o->load_count) {
    const Elf64_Phdr *before = &o->loads[o->load_count - 1];
    if (p->p_vaddr / PAGE * PAGE < page_up(before->p_vaddr + before->p_memsz)) return "segments overlap";
  } else if (p->p_offset != 0 || p->p_vaddr != 0) {
    return "the first segment does not start with the file";
  }
  o->loads[o->load_count++] = *p;
  return NULL;
}

/* The load segment that holds the `bytes` bytes of memory from `address` on; NULL: none does. */
static const Elf64_Phdr *find_load(const elf_object *o, uint64_t address, uint64_t bytes) {
  for (unsigned i = 0; i < o->load_count; i++) {
    const Elf64_Phdr *p = &o->loads[i];
    if (address >= p->p_vaddr && address - p->p_vaddr <= p->p_memsz && bytes <= p->p_memsz - (address - p->p_vaddr))
      return p;
  }
  return NULL;
}

/* The same bytes in the file; NULL where they are not all in it, or are misaligned. */
static const char *find_bytes(const elf_object *o, uint64_t address, uint64_t bytes, uint64_t alignment) {
  const Elf64_Phdr *p = find_load(o, address, bytes);
  if (!p || address % alignment != 0) return NULL;
  uint64_t at = address - p->p_vaddr;
  return at <= p->p_filesz && bytes <= p->p_filesz - at ? o->data + p->p_offset + at : NULL;
}

static const char *check_other_segment(const elf_object *o, const Elf64_Phdr *p) {
  const Elf64_Phdr *load = find_load(o, p->p_vaddr, p->p_memsz);
  switch (p->p_type) {
  case PT_PHDR:
    return p->p_vaddr == sizeof(Elf64_Ehdr) && load ? NULL : "the segment of the program headers is misplaced";
  case PT_GNU_RELRO:
    return load && (load->p_flags & PF_W) ? NULL : "what is made read-only is no writable memory";
  case PT_GNU_STACK:
    return p->p_flags & PF_X || p->p_memsz ? "it wants a stack of its own kind" : NULL;
  case PT_DYNAMIC:
    if (o->dynamic.p_memsz) return "it has two dynamic sections";
    return load && (load->p_flags & PF_W) ? NULL : "its dynamic section is no writable memory";
  default:
    return "it has a segment of a kind that code has no use for";
  }
}

static const char *check_segments(elf_object *o, const Elf64_Ehdr *header) {
  Elf64_Phdr p;
  for (unsigned i = 0; i < header->e_phnum; i++) {
    memcpy(&p, o->data + header->e_phoff + i * sizeof p, sizeof p);
    if (p.p_type == PT_LOAD) TRY(add_load(o, &p));
  }
  if (!find_bytes(o, 0, header->e_phoff + header->e_phnum * sizeof p, 1)) return outside;
  for (unsigned i = 0; i < header->e_phnum; i++) {
    memcpy(&p, o->data + header->e_phoff + i * sizeof p, sizeof p);
    if (p.p_type == PT_LOAD) continue;
    TRY(check_other_segment(o, &p));
    if (p.p_type == PT_DYNAMIC) o->dynamic = p;
  }
  return o->dynamic.p_memsz ? NULL : "it has no dynamic section";
}

/* ---- The dynamic section ---- */

static const char *check_tag(elf_object *o, const Elf64_Dyn *tag) {
  uint64_t *place = NULL;
  switch (tag->d_tag) {
  case DT_SONAME:
    return NULL; /* checked when the strings are known */
  case DT_SYMENT:
    return tag->d_un.d_val == sizeof(Elf64_Sym) ? NULL : "its symbols have an unknown size";
  case DT_SYMTAB:
    place = &o->symbols;
    break;
  case DT_STRTAB:
    place = &o->strings;
    break;
  case DT_STRSZ:
    place = &o->string_bytes;
    break;
  case DT_GNU_HASH:
    place = &o->hash;
    break;
  case DT_NEEDED:
    return "it asks for another library (DT_NEEDED)";
  case DT_INIT:
  case DT_INIT_ARRAY:
  case DT_INIT_ARRAYSZ:
  case DT_PREINIT_ARRAY:
  case DT_PREINIT_ARRAYSZ:
  case DT_FINI:
  case DT_FINI_ARRAY:
  case DT_FINI_ARRAYSZ:
    return "it has functions that run when it is loaded or unloaded";
  case DT_TEXTREL:
    return "its code is changed when it is loaded (DT_TEXTREL)";
  default:
    return "its dynamic section has an entry that code has no use for";
  }
  if (*place || tag->d_un.d_val == 0) return "its dynamic section has an entry twice or an empty one";
  *place = tag->d_un.d_val;
  return NULL;
}

static const char *check_dynamic(elf_object *o) {
  const char *entries = find_bytes(o, o->dynamic.p_vaddr, o->dynamic.p_memsz, 8);
  if (!entries) return outside;
  uint64_t count = o->dynamic.p_memsz / sizeof(Elf64_Dyn), name = UINT64_MAX;
  bool ended = false;
  for (uint64_t i = 0; i < count && !ended; i++) {
    Elf64_Dyn tag;
    memcpy(&tag, entries + i * sizeof tag, sizeof tag);
    ended = tag.d_tag == DT_NULL;
    if (ended) break;
    if (tag.d_tag == DT_SONAME) name = tag.d_un.d_val;
    TRY(check_tag(o, &tag));
  }
  if (!ended) return "its dynamic section has no end";
  if (!o->symbols || !o->strings || !o->string_bytes || !o->hash) return "it has no table of symbols";
  const char *strings = find_bytes(o, o->strings, o->string_bytes, 1);
  if (!strings) return outside;
  if (strings[o->string_bytes - 1]) return "its strings have no end";
  return name == UINT64_MAX || name < o->string_bytes ? NULL : "its name lies outside its strings";
}

/* ---- Symbols ---- */

/* The hash table (GNU's): 4 words (buckets, first hashed symbol, words of the filter, its shift), the filter, the first
 * symbol of each bucket (0: none), and a word for each hashed symbol, odd for the last one of a bucket. It alone says
 * how many symbols there are. */
static const char *check_hash(elf_object *o) {
  uint32_t words[4], bucket, chain;
  const char *table = find_bytes(o, o->hash, sizeof words, 8);
  if (!table) return outside;
  memcpy(words, table, sizeof words);
  uint64_t buckets = words[0], first = words[1], filter = words[2];
  if (buckets == 0 || filter == 0 || (filter & (filter - 1)) || words[3] > 31)
    return "its table of symbols is malformed";
  uint64_t fixed = sizeof words + 8 * filter, chains = fixed + 4 * buckets;
  table = find_bytes(o, o->hash, chains, 8);
  if (!table) return outside;
  uint64_t last = 0;
  for (uint64_t i = 0; i < buckets; i++) {
    memcpy(&bucket, table + fixed + 4 * i, sizeof bucket);
    if (bucket && bucket < first) return "its table of symbols is malformed";
    if (bucket > last) last = bucket;
  }
  o->symbol_count = first;
  if (!last) return NULL;
  do { /* to the end of the last bucket, where all others have ended too */
    const char *word = find_bytes(o, o->hash + chains + 4 * (last - first), sizeof chain, 1);
    if (!word) return outside;
    memcpy(&chain, word, sizeof chain);
    last++;
  } while (!(chain & 1));
  o->symbol_count = last;
  return NULL;
}

static const char *check_symbols(const elf_object *o) {
  if (o->symbol_count > o->length / sizeof(Elf64_Sym)) return outside;
  const char *table = find_bytes(o, o->symbols, o->symbol_count * sizeof(Elf64_Sym), 8);
  if (!table) return outside;
  for (uint64_t i = 1; i < o->symbol_count; i++) {
    Elf64_Sym symbol;
    memcpy(&symbol, table + i * sizeof symbol, sizeof symbol);
    if (symbol.st_name >= o->string_bytes) return "a symbol's name lies outside its strings";
    if (symbol.st_info != ELF64_ST_INFO(STB_GLOBAL, STT_FUNC) || symbol.st_shndx == SHN_UNDEF ||
        symbol.st_shndx >= SHN_LORESERVE)
      return "it has a symbol that is no function of its own";
    const Elf64_Phdr *load = find_load(o, symbol.st_value, symbol.st_size);
    if (!load || !(load->p_flags & PF_X) || symbol.st_value - load->p_vaddr >= load->p_memsz)
      return "a function lies outside its code";
  }
  return NULL;
}

static const char *find_fault(elf_object *o) {
  Elf64_Ehdr header;
  TRY(check_header(o, &header));
  TRY(check_segments(o, &header));
  TRY(check_dynamic(o));
  TRY(check_hash(o));
  return check_symbols(o);
}

sluice_status *sluice_host_code_check(const void *data, size_t length) {
  elf_object object = {.data = data, .length = length};
  const char *fault = find_fault(&object);
  if (!fault) return NULL;
  return sluice_error(SLUICE_INVALID, "the bundle's host code is not what the compiler makes: %s; compile it again",
                      fault);
}

/* ---- Loading ---- */

static sluice_status *write_all(int file, const char *data, size_t length) {
  while (length) {
    ssize_t written = write(file, data, length);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return sluice_error(SLUICE_IO, "cannot copy the code to memory: %s", strerror(errno));
    data += written;
    length -= (size_t)written;
  }
  return NULL;
}

/* dlopen wants a file: an anonymous one in memory. It stays open as long as the library, which the loader knows by its
 * name, and that is the number of the open file: another library with the same number would be taken for this one. */
sluice_status *sluice_host_code_open(const void *data, size_t length, sluice_host_code *out_code) {
  *out_code = (sluice_host_code){0};
  SLUICE_TRY(sluice_host_code_check(data, length));
  int file = memfd_create("sluice-code", MFD_CLOEXEC);
  if (file < 0) return sluice_error(SLUICE_IO, "cannot create a file in memory for the code: %s", strerror(errno));
  void *handle = NULL;
  sluice_status *status = write_all(file, data, length);
  if (!status) {
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%d", file);
    handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
      const char *why = dlerror();
      status = sluice_error(SLUICE_DEVICE, "cannot load the bundle's code: %s", why ? why : "unknown reason");
    }
  }
  if (status)
    close(file);
  else
    *out_code = (sluice_host_code){.handle = handle, .file = file};
  return status;
}

void sluice_host_code_close(sluice_host_code *code) {
  if (!code->handle) return;
  dlclose(code->handle);
  close(code->file);
  *code = (sluice_host_code){0};
}
