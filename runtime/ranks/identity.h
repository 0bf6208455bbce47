/* What all ranks of a group must have in common: compared once, before the first step, and named where it differs. */
#ifndef SLUICE_RUNTIME_RANKS_IDENTITY_H
#define SLUICE_RUNTIME_RANKS_IDENTITY_H

#include "runtime/collectives.h"
#include "sluice/checkpoint.h"

enum { SLUICE_IDENTITY_ITEMS = 8 };

typedef struct sluice_identity_item {
  char what[24];  /* "bundle" */
  char value[72]; /* a digest in hexadecimal, or a short text */
} sluice_identity_item;

typedef struct sluice_identity {
  sluice_identity_item items[SLUICE_IDENTITY_ITEMS]; /* unused ones are zero */
} sluice_identity;

/* Sets the next unused item. */
void sluice_identity_add(sluice_identity *identity, const char *what, const char *value);
void sluice_identity_add_digest(sluice_identity *identity, const char *what, const uint8_t digest[32]);

/* Of a checkpoint: the names, types and shapes of its tensors, and its config.json; of synthetic:SEED that text. The
 * weights themselves are not read. */
SLUICE_MUST_USE sluice_status *sluice_identity_add_checkpoint(sluice_identity *identity,
                                                              const sluice_checkpoint *checkpoint);

/* Compares with all other ranks', each of which calls this. The same error on all: what differs, and on which ranks. */
SLUICE_MUST_USE sluice_status *sluice_identity_agree(sluice_group *group, const sluice_identity *identity);

#endif
