/* Sizes of the kernels in a linked shared object, from its dynamic symbol table. */
#include "backends/host/host.h"

#include <elf.h>
#include <string.h>

void host_symbol_sizes(const void *object, size_t length, const kernel_spec *specs, size_t count,
                       kernel_info *kernels) {
  Elf64_Ehdr file;
  if (length < sizeof file) return;
  memcpy(&file, object, sizeof file);
  for (unsigned i = 0; i < file.e_shnum; i++) {
    Elf64_Shdr table, strings;
    memcpy(&table, (const char *)object + file.e_shoff + i * sizeof table, sizeof table);
    if (table.sh_type != SHT_DYNSYM) continue;
    memcpy(&strings, (const char *)object + file.e_shoff + table.sh_link * sizeof strings, sizeof strings);
    for (uint64_t s = 0; s < table.sh_size / sizeof(Elf64_Sym); s++) {
      Elf64_Sym symbol;
      memcpy(&symbol, (const char *)object + table.sh_offset + s * sizeof symbol, sizeof symbol);
      const char *name = (const char *)object + strings.sh_offset + symbol.st_name;
      for (size_t k = 0; k < count; k++)
        if (strcmp(name, specs[k].symbol) == 0) kernels[k].code_bytes = symbol.st_size;
    }
  }
}
