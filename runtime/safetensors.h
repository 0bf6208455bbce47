/* The header of a safetensors file, shared by the reader of whole files and the checkpoint. */
#ifndef RUNTIME_SAFETENSORS_H
#define RUNTIME_SAFETENSORS_H

#include "sluice/checkpoint.h"
#include "sluice/json.h"

#define SAFETENSORS_MAX_HEADER 100000000u

typedef struct safetensors_entry {
  sluice_tensor_info info;
  uint64_t offset; /* of the data, from the start of the file */
} safetensors_entry;

/* Sorted by name; strings live in `document`. */
typedef struct safetensors_header {
  sluice_json_document *document;
  safetensors_entry *entries;
  size_t count;
} safetensors_header;

/* Checks the `header_length` bytes of JSON after the length word of a file of `file_length` bytes; see
 * sluice/checkpoint.h for what is refused. `file` (must outlive the header) names it in messages. */
SLUICE_MUST_USE sluice_status *safetensors_header_parse(const char *json, uint64_t header_length, uint64_t file_length,
                                                        const char *file, safetensors_header *out_header);
/* The length of the header from the first 8 bytes of the file, checked. */
SLUICE_MUST_USE sluice_status *safetensors_header_length(const unsigned char first[8], uint64_t file_length,
                                                         const char *file, uint64_t *out_length);
void safetensors_header_free(safetensors_header *header);
const safetensors_entry *safetensors_header_find(const safetensors_header *header, const char *name);

#endif
