#include "compiler/products.h"

#include <string.h>

/* SXM and OAM boards; the makers' data sheets. Links:
 * - NVLink through a switch: NCCL's all_gather between two H200, from calls of 12 KB and of 96 MB (docs/cluster.md).
 * The data sheet has 450 GB/s a direction.
 * - A mesh of XGMI: 64 GB/s a link and direction (MI355X 76.8), of which three quarters are usable ("Understanding RCCL
 *   Bandwidth and xGMI Performance on AMD Instinct MI300X", AMD 2025). An all-reduce of 24 KB among eight MI355X takes
 *   6.3 us in vLLM (its pull request 39080); nothing as exact is published for MI300X and MI325X. */
#define NVLINK {11.6, 247, false, "NCCL between two H200, measured"}
#define XGMI(gigabytes_second, where)                                                                                  \
  {6.3, gigabytes_second, true, "3/4 of the data sheet's rate, latency published of eight MI355X" where}
static const product products[] = {{"h100", "cuda:sm_90a", 80, 3350, 989, NVLINK},
                                   {"h200", "cuda:sm_90a", 141, 4800, 989, NVLINK},
                                   {"mi300x", "hip:gfx942", 192, 5300, 1307, XGMI(48, ", taken over")},
                                   {"mi325x", "hip:gfx942", 256, 6000, 1307, XGMI(48, ", taken over")},
                                   {"mi355x", "hip:gfx950", 288, 8000, 2500, XGMI(57.6, "")}};

const char product_names[] = "h100, h200, mi300x, mi325x, mi355x";

const product *product_find(const char *name) {
  for (size_t i = 0; i < sizeof products / sizeof *products; i++)
    if (strcmp(products[i].name, name) == 0) return &products[i];
  return NULL;
}
