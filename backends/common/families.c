#include "backends/common/families.h"

#include <string.h>

kernel_family *kernel_family_find(const char *name) {
#define ROW(family) {#family, family_##family},
  static const struct {
    const char *name;
    kernel_family *family;
  } table[] = {KERNEL_FAMILIES(ROW)};
#undef ROW
  for (size_t i = 0; i < sizeof table / sizeof *table; i++)
    if (strcmp(name, table[i].name) == 0) return table[i].family;
  return NULL;
}
