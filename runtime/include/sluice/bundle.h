/* Bundles: one file with a manifest, and for every target a launch plan and a code object. docs/bundle-format.md
 * specifies the bytes well enough to write another reader.
 *
 * Code trusts its plan: strides, sizes of memory and grids come from there. So a code or assembly section ends with the
 * digest of the plan that it was compiled with, and only with that one does a bundle open.
 *
 * Layout: a 4096-byte header page (sluice_bundle_header and the section table), then the sections, each starting on a
 * multiple of 4096 bytes and padded with zeros. Every byte of the file is covered by a SHA-256 digest: each section's
 * by its entry (padding must be zero), the header page by the digest at its end. Little-endian.
 */
#ifndef SLUICE_BUNDLE_H
#define SLUICE_BUNDLE_H

#include "sluice/plan.h"
#include "sluice/status.h"

#define SLUICE_BUNDLE_MAGIC "SLUICE\x1a\n"
#define SLUICE_BUNDLE_VERSION 2u
#define SLUICE_BUNDLE_PAGE 4096u
#define SLUICE_BUNDLE_MAX_SECTIONS 40u
#define SLUICE_BUNDLE_MAX_BYTES ((size_t)1 << 30)

typedef enum sluice_section_kind {
  SLUICE_SECTION_MANIFEST = 1,     /* JSON, see docs/bundle-format.md; exactly one, first */
  SLUICE_SECTION_PLAN = 2,         /* sluice_plan_header ...; one for each target */
  SLUICE_SECTION_CODE = 3,         /* code object of a target: ELF shared object (host), cubin, hsaco */
  SLUICE_SECTION_ASSEMBLY = 4,     /* PTX */
  SLUICE_SECTION_TUNING = 5,       /* JSON: tile choices and where they come from */
  SLUICE_SECTION_VERIFICATION = 6, /* JSON: what was verified, how, when */
  SLUICE_SECTION_SIGNATURE = 7,    /* sluice_bundle_signature (sluice/signature.h); at most one, last */
} sluice_section_kind;

typedef struct sluice_bundle_section {
  uint32_t kind;      /* sluice_section_kind */
  uint32_t reserved;  /* 0 */
  uint64_t offset;    /* multiple of SLUICE_BUNDLE_PAGE */
  uint64_t length;    /* bytes without padding; of code and assembly with the plan's digest at their end */
  uint8_t digest[32]; /* SHA-256 of those bytes */
  char target[32];    /* e.g. "host:x86-64-v4", "cuda:sm_90a", zero-padded; empty for sections of all targets */
} sluice_bundle_section;

typedef struct sluice_bundle_header {
  char magic[8];
  uint32_t version;
  uint32_t section_count;
  uint64_t file_length;
  uint8_t reserved[8];                                        /* 0 */
  sluice_bundle_section sections[SLUICE_BUNDLE_MAX_SECTIONS]; /* unused ones zero */
  uint8_t padding[512];                                       /* 0 */
  uint8_t digest[32];                                         /* SHA-256 of the 4064 bytes before it */
} sluice_bundle_header;

typedef struct sluice_bundle sluice_bundle;

/* Reads `path` into memory and checks header, section table and all digests; nothing is trusted before that. The file
 * may be a program that holds its bundle (docs/bundle-format.md, "Programs"). */
SLUICE_MUST_USE sluice_status *sluice_bundle_open(const char *path, sluice_bundle **out_bundle);
/* The same on memory (64-byte aligned, must outlive the bundle). `name` is used in messages. */
SLUICE_MUST_USE sluice_status *sluice_bundle_open_memory(const void *data, size_t length, const char *name,
                                                         sluice_bundle **out_bundle);
void sluice_bundle_close(sluice_bundle *bundle);
/* Where the bundle begins in its file: 0, or behind the program that holds it. */
size_t sluice_bundle_start(const sluice_bundle *bundle);

const sluice_bundle_header *sluice_bundle_contents(const sluice_bundle *bundle);
/* The bytes of section `index`. */
const void *sluice_bundle_data(const sluice_bundle *bundle, uint32_t index);
/* The length of a code or assembly section without the digest at its end. */
size_t sluice_bundle_code_length(const sluice_bundle *bundle, uint32_t index);
/* The first section of `kind` for `target` (NULL: any); -1 when there is none. */
int sluice_bundle_find(const sluice_bundle *bundle, sluice_section_kind kind, const char *target);

/* Opens the launch plan in section `index` (sluice_plan_open). One of another version is an error that says which
 * compiler made the bundle. `name` is used in messages; the plan lives as long as the bundle. */
SLUICE_MUST_USE sluice_status *sluice_bundle_plan(const sluice_bundle *bundle, uint32_t index, const char *name,
                                                  sluice_plan *out_plan);

/* SHA-256 (FIPS 180-4) of `length` bytes. */
void sluice_sha256(const void *data, size_t length, uint8_t out_digest[32]);

#endif
