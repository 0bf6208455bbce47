/* Where an ELF file ends, in a file that may have more behind it: sluice/program.h. */
#include "sluice/program.h"

#include <elf.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

/* Bytes in memory or, where `data` is NULL, in a file. */
typedef struct source {
  const char *data;
  int file;
  uint64_t length;
} source;

static bool read_at(const source *from, uint64_t offset, void *to, size_t bytes) {
  if (offset > from->length || bytes > from->length - offset) return false;
  if (!from->data) return pread(from->file, to, bytes, (off_t)offset) == (ssize_t)bytes;
  memcpy(to, from->data + offset, bytes);
  return true;
}

static void reach(uint64_t *end, uint64_t offset, uint64_t bytes) {
  const uint64_t to = bytes > UINT64_MAX - offset ? UINT64_MAX : offset + bytes;
  if (to > *end) *end = to;
}

static uint64_t length_of(const source *from) {
  Elf64_Ehdr header;
  if (!read_at(from, 0, &header, sizeof header) || memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 ||
      header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_ident[EI_DATA] != ELFDATA2LSB)
    return 0;
  uint64_t end = sizeof header;
  reach(&end, header.e_phoff, header.e_phnum * sizeof(Elf64_Phdr));
  reach(&end, header.e_shoff, header.e_shnum * sizeof(Elf64_Shdr));
  for (size_t i = 0; i < header.e_phnum; i++) {
    Elf64_Phdr segment;
    if (!read_at(from, header.e_phoff + i * sizeof segment, &segment, sizeof segment)) return UINT64_MAX;
    reach(&end, segment.p_offset, segment.p_filesz);
  }
  for (size_t i = 0; i < header.e_shnum; i++) {
    Elf64_Shdr section;
    if (!read_at(from, header.e_shoff + i * sizeof section, &section, sizeof section)) return UINT64_MAX;
    if (section.sh_type != SHT_NOBITS) reach(&end, section.sh_offset, section.sh_size);
  }
  return end;
}

uint64_t sluice_program_length(const void *data, size_t length) {
  return length_of(&(source){.data = data, .length = length});
}

uint64_t sluice_program_length_in_file(int file, uint64_t length) {
  return length_of(&(source){.file = file, .length = length});
}
