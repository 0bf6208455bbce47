/* Machines by the names they are sold under, and what their data sheets say of them: for floors in `sluice explain`. A
 * target stands for all machines that run its code ("h100" and "h200" are both cuda:sm_90a), so the names that were
 * asked for at compile time are kept in the manifest. */
#ifndef COMPILER_PRODUCTS_H
#define COMPILER_PRODUCTS_H

#include "compiler/links.h"

typedef struct product {
  const char *name;        /* "h100" */
  const char *target;      /* canonical: the code that it runs */
  double gigabytes;        /* of memory, 1e9 bytes */
  double gigabytes_second; /* of its memory */
  double bf16_teraflops;   /* of its matrix units, bf16 with f32 sums, without sparsity */
  links links;             /* to others of its kind in a node */
} product;

/* NULL for an unknown name. */
const product *product_find(const char *name);

/* All names, separated by commas: for messages. */
extern const char product_names[];

#endif
