/* The names of a checkpoint's tensors. The plan knows one spelling, that of the released MiniMax-M3 files
 * (docs/synthetic.md); files have others, which docs/checkpoints.md lists: those of transformers' classes in memory and
 * of its save_pretrained, and of the text model alone. */
#ifndef SLUICE_RUNTIME_TENSOR_NAMES_H
#define SLUICE_RUNTIME_TENSOR_NAMES_H

#include "sluice/checkpoint.h"
#include "sluice/plan.h"

#define SLUICE_MAX_TENSOR_NAME 1024

/* The released name of `source` for one expert: "{expert}" replaced by its number. */
SLUICE_MUST_USE sluice_status *sluice_source_name(const sluice_plan *plan, const sluice_plan_source *source,
                                                  uint32_t expert, char out_name[SLUICE_MAX_TENSOR_NAME]);

/* Where a file has a source: the whole of a tensor, or rows of one that holds several matrices. */
typedef struct tensor_place {
  const sluice_tensor_info *info; /* NULL: nowhere */
  int64_t shape[3];               /* that the tensor must have */
  unsigned rank;
  uint64_t first; /* element of the tensor that the source starts with */
} tensor_place;

/* Finds `source` of one expert under any spelling. `experts`: how many there are, 1 for an ordinary weight. */
SLUICE_MUST_USE sluice_status *tensor_find(const sluice_checkpoint *checkpoint, const sluice_plan *plan,
                                           const sluice_plan_source *source, uint32_t expert, uint32_t experts,
                                           tensor_place *out_place);

/* The error for a source that is nowhere: what is known of why. */
SLUICE_NEW_ERROR sluice_status *tensor_missing(const sluice_checkpoint *checkpoint, const sluice_plan *plan,
                                               const sluice_plan_source *source, uint32_t expert);

/* What a tensor is that the plan does not ask for. */
typedef enum tensor_leftover {
  LEFTOVER_OTHER_MODEL, /* of the vision tower: not missed */
  LEFTOVER_SKIPPED,     /* of no influence on the text model's logits: skipped with a warning */
  LEFTOVER_QUANTISED,   /* the scales of a quantised weight */
  LEFTOVER_ADAPTER,     /* not merged */
  LEFTOVER_HEAD,        /* of a model whose head is its embedding: skipped if it is the same */
  LEFTOVER_TEXT,        /* of the text model, and unknown */
} tensor_leftover;
/* `layers` of the plan; *out_what describes LEFTOVER_SKIPPED in a few words. */
tensor_leftover tensor_classify(const sluice_tensor_info *info, uint32_t layers, const char **out_what);

#endif
