/* The bundle reader. Everything is checked in sluice_bundle_open, before any byte is used. */
#include "sluice/bundle.h"
#include "sluice/file.h"
#include "sluice/json.h"
#include "sluice/memory.h"
#include "sluice/program.h"
#include "sluice/runtime.h"
#include "sluice/signature.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

_Static_assert(sizeof(sluice_bundle_section) == 88, "the section entry is part of the file format");
_Static_assert(sizeof(sluice_bundle_header) == SLUICE_BUNDLE_PAGE, "the header fills the first page");

struct sluice_bundle {
  const uint8_t *data;
  size_t length;
  size_t start; /* in the file */
  void *owned;  /* NULL for memory of the caller */
};

static bool all_zero(const uint8_t *bytes, size_t count) {
  for (size_t i = 0; i < count; i++)
    if (bytes[i]) return false;
  return true;
}

static sluice_status *damaged(const char *name, const char *what) {
  return sluice_error(SLUICE_INVALID, "%s: damaged bundle: %s; compile or copy it again", name, what);
}

static const char *section_kind_name(uint32_t kind) {
  switch ((sluice_section_kind)kind) {
  case SLUICE_SECTION_MANIFEST:
    return "manifest";
  case SLUICE_SECTION_PLAN:
    return "plan";
  case SLUICE_SECTION_CODE:
    return "code";
  case SLUICE_SECTION_ASSEMBLY:
    return "assembly";
  case SLUICE_SECTION_TUNING:
    return "tuning";
  case SLUICE_SECTION_VERIFICATION:
    return "verification";
  case SLUICE_SECTION_SIGNATURE:
    return "signature";
  }
  return NULL;
}

/* One section: its entry, that it starts at `expected_offset`, and its bytes. */
static sluice_status *check_section(const uint8_t *data, size_t length, const char *name, uint32_t index,
                                    const sluice_bundle_section *section, uint64_t expected_offset) {
  const char *kind = section_kind_name(section->kind);
  if (!kind)
    return sluice_error(SLUICE_INVALID, "%s: damaged bundle: section %u has the unknown kind %u", name, index,
                        section->kind);
  if (section->reserved || !memchr(section->target, 0, sizeof section->target))
    return sluice_error(SLUICE_INVALID, "%s: damaged bundle: the entry of section %u (%s) is malformed", name, index,
                        kind);
  size_t target_length = strlen(section->target);
  if (!all_zero((const uint8_t *)section->target + target_length, sizeof section->target - target_length))
    return sluice_error(SLUICE_INVALID, "%s: damaged bundle: the target of section %u (%s) is not zero-padded", name,
                        index, kind);
  if (section->offset != expected_offset || section->offset > length || section->length > length - section->offset)
    return sluice_error(SLUICE_INVALID,
                        "%s: damaged bundle: section %u (%s) claims %llu bytes at %llu, but it must start at %llu and "
                        "end within the %zu bytes of the file",
                        name, index, kind, (unsigned long long)section->length, (unsigned long long)section->offset,
                        (unsigned long long)expected_offset, length);
  uint8_t digest[32];
  sluice_sha256(data + section->offset, (size_t)section->length, digest);
  if (memcmp(digest, section->digest, sizeof digest) != 0)
    return sluice_error(SLUICE_INVALID,
                        "%s: damaged bundle: the digest of section %u (%s) does not match; compile or copy it again",
                        name, index, kind);
  return NULL;
}

static bool is_code(const sluice_bundle_section *section) {
  return section->kind == SLUICE_SECTION_CODE || section->kind == SLUICE_SECTION_ASSEMBLY;
}

/* Whether each code section was compiled with the plan of its target: see sluice/bundle.h. */
static sluice_status *check_code(const uint8_t *data, const char *name, const sluice_bundle_header *header) {
  for (uint32_t i = 0; i < header->section_count; i++) {
    const sluice_bundle_section *code = &header->sections[i], *plan = NULL;
    if (!is_code(code)) continue;
    for (uint32_t j = 0; j < header->section_count; j++)
      if (header->sections[j].kind == SLUICE_SECTION_PLAN && strcmp(header->sections[j].target, code->target) == 0)
        plan = &header->sections[j];
    if (!plan || code->length < sizeof plan->digest ||
        memcmp(data + code->offset + code->length - sizeof plan->digest, plan->digest, sizeof plan->digest) != 0)
      return sluice_error(SLUICE_INVALID,
                          "%s: damaged bundle: the code of %s was compiled with another plan than the one beside it; "
                          "compile it again",
                          name, code->target);
  }
  return NULL;
}

/* The compiler that the manifest names, ", made by sluice 0.1.0", or "". Nothing of the file is checked yet. */
typedef struct maker {
  char text[96];
} maker;

static maker made_by(const uint8_t *data, size_t length) {
  maker result = {""};
  const sluice_bundle_section *first = ((const sluice_bundle_header *)(const void *)data)->sections;
  if (first->kind != SLUICE_SECTION_MANIFEST || first->offset > length || first->length > length - first->offset)
    return result;
  sluice_json_document *manifest = NULL;
  sluice_status *status =
      sluice_json_parse((const char *)data + first->offset, (size_t)first->length, "manifest", &manifest);
  const sluice_json_value *generator = status ? NULL : sluice_json_get(sluice_json_root(manifest), "generator");
  if (generator && generator->kind == SLUICE_JSON_STRING)
    snprintf(result.text, sizeof result.text, ", made by %.64s", generator->string);
  sluice_status_free(status);
  sluice_json_free(manifest);
  return result;
}

sluice_status *sluice_bundle_plan(const sluice_bundle *bundle, uint32_t index, const char *name,
                                  sluice_plan *out_plan) {
  const sluice_bundle_section *section = &sluice_bundle_contents(bundle)->sections[index];
  const uint8_t *data = bundle->data + section->offset;
  uint32_t version = SLUICE_PLAN_VERSION;
  if (section->length >= sizeof version) memcpy(&version, data, sizeof version);
  if (version != SLUICE_PLAN_VERSION)
    return sluice_error(SLUICE_UNSUPPORTED,
                        "%s: launch plan version %u%s, this program reads version %u: compile it again with "
                        "the sluice (%s) that came with it",
                        name, version, made_by(bundle->data, bundle->length).text, SLUICE_PLAN_VERSION,
                        sluice_version());
  return sluice_annotate(sluice_plan_open(data, (size_t)section->length, out_plan), "%s", name);
}

static sluice_status *check(const uint8_t *data, size_t length, const char *name) {
  if (length < SLUICE_BUNDLE_PAGE)
    return sluice_error(SLUICE_INVALID, "%s: not a bundle: %zu bytes, a bundle has at least %u", name, length,
                        SLUICE_BUNDLE_PAGE);
  const sluice_bundle_header *header = (const sluice_bundle_header *)(const void *)data;
  if (memcmp(header->magic, SLUICE_BUNDLE_MAGIC, sizeof header->magic) != 0)
    return sluice_error(SLUICE_INVALID, "%s: not a bundle: it does not start with the magic bytes of one", name);
  if (header->version != SLUICE_BUNDLE_VERSION)
    return sluice_error(SLUICE_UNSUPPORTED,
                        "%s: bundle format version %u%s, this program reads version %u: compile it again with the "
                        "sluice (%s) that came "
                        "with it",
                        name, header->version, made_by(data, length).text, SLUICE_BUNDLE_VERSION, sluice_version());
  uint8_t digest[32];
  sluice_sha256(data, SLUICE_BUNDLE_PAGE - sizeof header->digest, digest);
  if (memcmp(digest, header->digest, sizeof digest) != 0) return damaged(name, "the digest of the header page differs");
  if (header->file_length != length)
    return sluice_error(SLUICE_INVALID,
                        "%s: damaged bundle: the file has %zu bytes, its header says %llu; compile or copy it again",
                        name, length, (unsigned long long)header->file_length);
  if (header->section_count == 0 || header->section_count > SLUICE_BUNDLE_MAX_SECTIONS)
    return damaged(name, "the section count is out of range");
  const uint8_t *unused = (const uint8_t *)&header->sections[header->section_count];
  if (!all_zero(header->reserved, sizeof header->reserved) ||
      !all_zero(unused, (size_t)(data + SLUICE_BUNDLE_PAGE - sizeof header->digest - unused)))
    return damaged(name, "reserved bytes of the header page are not zero");

  uint64_t offset = SLUICE_BUNDLE_PAGE;
  unsigned manifests = 0;
  for (uint32_t i = 0; i < header->section_count; i++) {
    const sluice_bundle_section *section = &header->sections[i];
    SLUICE_TRY(check_section(data, length, name, i, section, offset));
    manifests += section->kind == SLUICE_SECTION_MANIFEST;
    for (uint32_t j = 0; j < i; j++)
      if (header->sections[j].kind == section->kind && strcmp(header->sections[j].target, section->target) == 0)
        return damaged(name, "two sections have the same kind and target");
    uint64_t end = section->offset + section->length;
    offset = (end + SLUICE_BUNDLE_PAGE - 1) / SLUICE_BUNDLE_PAGE * SLUICE_BUNDLE_PAGE;
    if (offset > length || !all_zero(data + end, (size_t)(offset - end)))
      return damaged(name, "the padding after a section is missing or not zero");
  }
  for (uint32_t i = 0; i < header->section_count; i++) {
    const sluice_bundle_section *section = &header->sections[i];
    if (section->kind == SLUICE_SECTION_SIGNATURE && (i == 0 || i + 1 < header->section_count || section->target[0] ||
                                                      section->length != sizeof(sluice_bundle_signature)))
      return damaged(name, "its signature is not the last section or not as long as one");
  }
  if (offset != length) return damaged(name, "bytes follow the last section");
  if (manifests != 1 || header->sections[0].kind != SLUICE_SECTION_MANIFEST)
    return damaged(name, "it needs exactly one manifest, as the first section");
  return check_code(data, name, header);
}

/* Where the bundle begins in a file of `length` bytes, whose first `program` are a program. */
static sluice_status *find_start(uint64_t program, uint64_t length, const char *name, size_t *out_start) {
  *out_start = 0;
  if (!program) return NULL;
  if (program < length)
    *out_start = (size_t)((program + SLUICE_BUNDLE_PAGE - 1) / SLUICE_BUNDLE_PAGE * SLUICE_BUNDLE_PAGE);
  if (*out_start && *out_start < length) return NULL;
  return sluice_error(SLUICE_INVALID,
                      "%s: no bundle in this program: none was put into it, or it was cut short or stripped; write it "
                      "with sluice compile --emit=program, or copy it again",
                      name);
}

static sluice_status *open_at(size_t start, const void *data, size_t length, const char *name,
                              sluice_bundle **out_bundle) {
  SLUICE_TRY(check(data, length, name));
  sluice_bundle *bundle = sluice_allocate(sizeof *bundle);
  if (!bundle) return sluice_out_of_memory();
  bundle->data = data;
  bundle->length = length;
  bundle->start = start;
  *out_bundle = bundle;
  return NULL;
}

sluice_status *sluice_bundle_open_memory(const void *data, size_t length, const char *name,
                                         sluice_bundle **out_bundle) {
  *out_bundle = NULL;
  size_t start;
  SLUICE_TRY(find_start(sluice_program_length(data, length), length, name, &start));
  return open_at(start, (const char *)data + start, length - start, name, out_bundle);
}

/* The file's part behind a program, or all of it. */
static sluice_status *read_bundle(int file, const char *path, size_t *out_start, void **out_data, size_t *out_length) {
  struct stat info;
  uint64_t program = 0, length = 0;
  if (fstat(file, &info) == 0 && S_ISREG(info.st_mode)) {
    length = (uint64_t)info.st_size;
    program = sluice_program_length_in_file(file, length);
  }
  SLUICE_TRY(find_start(program, length, path, out_start));
  return sluice_read_open_file(file, path, *out_start, SLUICE_BUNDLE_MAX_BYTES, out_data, out_length);
}

sluice_status *sluice_bundle_open(const char *path, sluice_bundle **out_bundle) {
  *out_bundle = NULL;
  void *data = NULL;
  size_t start, length;
  int file;
  SLUICE_TRY(sluice_open_to_read(path, &file));
  sluice_status *status = read_bundle(file, path, &start, &data, &length);
  close(file);
  if (!status) status = open_at(start, data, length, path, out_bundle);
  if (status)
    sluice_release(data);
  else
    (*out_bundle)->owned = data;
  return status;
}

void sluice_bundle_close(sluice_bundle *bundle) {
  if (!bundle) return;
  sluice_release(bundle->owned);
  sluice_release(bundle);
}

size_t sluice_bundle_start(const sluice_bundle *bundle) {
  return bundle->start;
}

const sluice_bundle_header *sluice_bundle_contents(const sluice_bundle *bundle) {
  return (const sluice_bundle_header *)(const void *)bundle->data;
}

const void *sluice_bundle_data(const sluice_bundle *bundle, uint32_t index) {
  return bundle->data + sluice_bundle_contents(bundle)->sections[index].offset;
}

size_t sluice_bundle_code_length(const sluice_bundle *bundle, uint32_t index) {
  const sluice_bundle_section *section = &sluice_bundle_contents(bundle)->sections[index];
  return (size_t)section->length - sizeof section->digest;
}

int sluice_bundle_find(const sluice_bundle *bundle, sluice_section_kind kind, const char *target) {
  const sluice_bundle_header *header = sluice_bundle_contents(bundle);
  for (uint32_t i = 0; i < header->section_count; i++)
    if (header->sections[i].kind == (uint32_t)kind && (!target || strcmp(header->sections[i].target, target) == 0))
      return (int)i;
  return -1;
}
