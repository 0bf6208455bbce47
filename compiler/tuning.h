/* Tuning records (sluice/tuning.h) as configurations (backends/common/configuration.h), and back. */
#ifndef COMPILER_TUNING_H
#define COMPILER_TUNING_H

#include "backends/common/configuration.h"
#include "sluice/json.h"
#include "sluice/tuning.h"

/* Families that are tuned: choices of theirs may differ between sizes without changing what lies in memory. */
bool tuning_has(const char *family);

/* A question's shape and a variant's choices as JSON text, spelled as in records: {"k": 6144, "n": 9856}. NULL when
 * memory is short; free with sluice_release. */
char *tuning_shape_text(const kernel_question *question);
char *tuning_choices_text(const char *family, const kernel_variant *variant);

/* The record of those that GPU `tuning_gpu` chose, if any, which the record of the plan's step takes. */
typedef struct tuning_use {
  const sluice_tuning *records;
  const char *gpu;    /* whose records are used; NULL: none are */
  sluice_text *notes; /* a line for each record that was not used and each kernel without one; NULL: not wanted */
} tuning_use;

/* Which GPU's records are for `target`: the one that is called as `product` is ("h200": "NVIDIA H200"), or without a
 * product the only one there is. None is no error, but a note. */
SLUICE_MUST_USE sluice_status *tuning_choose_gpu(const sluice_tuning *records, const char *target, const char *product,
                                                 tuning_use *use);

/* Adds the records to the configuration of `target`. One that the target cannot use is a note; what was there before
 * remains in its sizes. The records must outlive the configuration. */
SLUICE_MUST_USE sluice_status *tuning_apply(const tuning_use *use, const char *target, configuration *c);

/* After the passes have asked: notes for kernels that no record is for, and what was taken instead. */
SLUICE_MUST_USE sluice_status *tuning_note_misses(const tuning_use *use, const char *target, const configuration *c);

/* The tuning section of a bundle (docs/bundle-format.md): the records that answered. */
SLUICE_MUST_USE sluice_status *tuning_write_section(const tuning_use *use, const char *target, const configuration *c,
                                                    sluice_text *out);

#endif
