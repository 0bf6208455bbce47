/* Tuning records: which configuration of a kernel was the fastest on a GPU, in a file of JSON objects, one a line.
 *
 *     {"gpu": "NVIDIA H200", "target": "cuda:sm_90a", ..., "kernel": "gemm", "shape": {"k": 6144, "n": 9856},
 *      "size": "tokens", "from": 1, "to": 8, ..., "configuration": {"schedule": "stream", "tile_m": 8}, ...}
 *
 * docs/tuning.md lists the members. A file is written in one order (GPU, target, kernel, shape, sizes) with one
 * spelling, so that files differ where their records do. A record's KEY is its GPU with the number of its processors,
 * target, kernel, shape and range of sizes: a set has one record of each key, the later one.
 *
 * Threads: a set belongs to one thread at a time. Ownership: a set owns its records and all their strings.
 */
#ifndef SLUICE_TUNING_H
#define SLUICE_TUNING_H

#include "sluice/json.h"
#include "sluice/status.h"

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Objects (shape, at, configuration, runner_up) are JSON text: members in the order of their names, each an integer or
 * a word. */
typedef struct sluice_tuning_record {
  char *gpu, *target, *driver;                             /* "NVIDIA H200", "cuda:sm_90a", "CUDA 12.8" */
  int64_t processors, clock_mhz, memory_mhz, memory_bytes; /* 0: unknown */
  char *date, *sluice;                                     /* "2026-12-01"; the version that timed */
  char *kernel, *shape, *size;                             /* family; what it multiplies; "tokens" */
  int64_t from, to;                                        /* the bucket: steps of such sizes */
  char *at;                                                /* the step that was timed */
  char *configuration, *runner_up;                         /* runner_up "{}": there was no other */
  double median_us, spread_us;                             /* spread: median of distances from the median */
  double floor_us, default_us, runner_up_us;               /* floor 0: unknown; runner_up 0: there was no other */
  int64_t candidates, calls;                               /* that were timed; of the winner */
  char *check, *output; /* "exact", "close": to the default's output; first 16 digits of its SHA-256 */
} sluice_tuning_record;

typedef struct sluice_tuning { /* starts zeroed */
  sluice_tuning_record *items; /* sorted by key */
  size_t count, capacity;
} sluice_tuning;

/* Adds the records of a file. A line that is no record is an error with its place. */
SLUICE_MUST_USE sluice_status *sluice_tuning_read(const char *path, sluice_tuning *tuning);
/* The same for text, which `name` names in messages. */
SLUICE_MUST_USE sluice_status *sluice_tuning_parse(const char *text, size_t length, const char *name,
                                                   sluice_tuning *tuning);
/* Adds a copy of `record`, in place of one of the same key that is not later: an earlier day, or on the same day one
 * that is slower or sorts behind it. */
SLUICE_MUST_USE sluice_status *sluice_tuning_add(sluice_tuning *tuning, const sluice_tuning_record *record);
/* The record of the key of `record`; NULL: none. */
const sluice_tuning_record *sluice_tuning_find(const sluice_tuning *tuning, const sluice_tuning_record *record);
void sluice_tuning_free(sluice_tuning *tuning);

/* Appends the whole file. */
void sluice_tuning_write(const sluice_tuning *tuning, sluice_text *out);
/* Replaces the file at `path`; it is complete or not there. */
SLUICE_MUST_USE sluice_status *sluice_tuning_save(const sluice_tuning *tuning, const char *path);

/* An object of integers and words as JSON text with its members in order: NULL when memory is short or `value` is
 * something else. Free with sluice_release. */
char *sluice_tuning_object(const sluice_json_value *value);

#ifdef __cplusplus
}
#endif
#endif
