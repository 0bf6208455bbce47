#include "compiler/products.h"

#include <string.h>

/* SXM and OAM boards; the makers' data sheets. */
static const product products[] = {
    {"h100", "cuda:sm_90a", 3350, 989},   {"h200", "cuda:sm_90a", 4800, 989},   {"mi300x", "hip:gfx942", 5300, 1307},
    {"mi325x", "hip:gfx942", 6000, 1307}, {"mi355x", "hip:gfx950", 8000, 2500},
};

const char product_names[] = "h100, h200, mi300x, mi325x, mi355x";

const product *product_find(const char *name) {
  for (size_t i = 0; i < sizeof products / sizeof *products; i++)
    if (strcmp(products[i].name, name) == 0) return &products[i];
  return NULL;
}
