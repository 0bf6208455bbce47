/* The two numbers of a tensor that its synthetic weights depend on (docs/synthetic.md). */
#ifndef SLUICE_RUNTIME_SYNTHETIC_H
#define SLUICE_RUNTIME_SYNTHETIC_H

#include <stdint.h>

/* `base`: the name's hash and the seed. */
uint64_t sluice_synthetic_base(const char *name, uint64_t seed);
/* scale / 37837.227. */
float sluice_synthetic_factor(const char *name, int64_t last_dimension);

#endif
