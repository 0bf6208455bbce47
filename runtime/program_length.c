/* Where an ELF file ends, in a file that may have more behind it: sluice/program.h. */
#include "sluice/program.h"

#include <elf.h>
#include <stdint.h>
#include <string.h>

static void reach(uint64_t *end, uint64_t offset, uint64_t bytes) {
  const uint64_t to = bytes > UINT64_MAX - offset ? UINT64_MAX : offset + bytes;
  if (to > *end) *end = to;
}

size_t sluice_program_length(const void *data, size_t length) {
  Elf64_Ehdr header;
  if (length < sizeof header) return 0;
  memcpy(&header, data, sizeof header);
  if (memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 || header.e_ident[EI_CLASS] != ELFCLASS64 ||
      header.e_ident[EI_DATA] != ELFDATA2LSB)
    return 0;
  uint64_t end = sizeof header;
  reach(&end, header.e_phoff, header.e_phnum * sizeof(Elf64_Phdr));
  reach(&end, header.e_shoff, header.e_shnum * sizeof(Elf64_Shdr));
  if (end > length) return SIZE_MAX; /* the tables cannot be read */
  for (size_t i = 0; i < header.e_phnum; i++) {
    Elf64_Phdr segment;
    memcpy(&segment, (const char *)data + header.e_phoff + i * sizeof segment, sizeof segment);
    reach(&end, segment.p_offset, segment.p_filesz);
  }
  for (size_t i = 0; i < header.e_shnum; i++) {
    Elf64_Shdr section;
    memcpy(&section, (const char *)data + header.e_shoff + i * sizeof section, sizeof section);
    if (section.sh_type != SHT_NOBITS) reach(&end, section.sh_offset, section.sh_size);
  }
  return end > SIZE_MAX ? SIZE_MAX : (size_t)end;
}
