/* Writing files that appear under their name only when complete, and bundles (docs/bundle-format.md). */
#include "compiler/compile.h"
#include "sluice/bundle.h"
#include "sluice/file.h"
#include "sluice/memory.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

sluice_status *file_write_atomic(const char *path, const void *data, size_t length) {
  if (strcmp(path, "-") == 0) {
    if (fwrite(data, 1, length, stdout) == length && fflush(stdout) == 0) return NULL;
    return sluice_error(SLUICE_IO, "standard output cannot be written: %s", strerror(errno));
  }
  sluice_pending_file pending;
  SLUICE_TRY(sluice_pending_open(&pending, path));
  return sluice_pending_close(&pending, sluice_pending_write(&pending, data, length));
}

static uint64_t page_up(uint64_t bytes) {
  return (bytes + SLUICE_BUNDLE_PAGE - 1) / SLUICE_BUNDLE_PAGE * SLUICE_BUNDLE_PAGE;
}

static sluice_status *write_parts(sluice_pending_file *pending, const sluice_bundle_header *header,
                                  const bundle_part *parts, size_t count) {
  static const char zeros[SLUICE_BUNDLE_PAGE];
  SLUICE_TRY(sluice_pending_write(pending, header, sizeof *header));
  for (size_t i = 0; i < count; i++) {
    SLUICE_TRY(sluice_pending_write(pending, parts[i].data, parts[i].length));
    SLUICE_TRY(sluice_pending_write(pending, zeros, (size_t)(page_up(parts[i].length) - parts[i].length)));
  }
  return NULL;
}

static bool is_code(const bundle_part *part) {
  return part->kind == SLUICE_SECTION_CODE || part->kind == SLUICE_SECTION_ASSEMBLY;
}

/* Puts the digest of the plan of its target at the end of a code part (sluice/bundle.h); `*out_data` holds both. */
static sluice_status *bind_code(bundle_part *part, const bundle_part *parts, size_t count, void **out_data) {
  const bundle_part *plan = NULL;
  for (size_t i = 0; i < count; i++)
    if (parts[i].kind == SLUICE_SECTION_PLAN && strcmp(parts[i].target, part->target) == 0) plan = &parts[i];
  if (!plan) return sluice_error(SLUICE_INTERNAL, "there is code for %s, but no plan", part->target);
  uint8_t digest[32];
  sluice_sha256(plan->data, plan->length, digest);
  char *data = sluice_allocate_array(part->length + sizeof digest, 1);
  if (!data) return sluice_out_of_memory();
  memcpy(data, part->data, part->length);
  memcpy(data + part->length, digest, sizeof digest);
  part->data = *out_data = data;
  part->length += sizeof digest;
  return NULL;
}

static void fill_header(sluice_bundle_header *header, const bundle_part *parts, size_t count) {
  memcpy(header->magic, SLUICE_BUNDLE_MAGIC, sizeof header->magic);
  header->version = SLUICE_BUNDLE_VERSION;
  header->section_count = (uint32_t)count;
  uint64_t at = SLUICE_BUNDLE_PAGE;
  for (size_t i = 0; i < count; i++) {
    sluice_bundle_section *section = &header->sections[i];
    section->kind = parts[i].kind;
    section->offset = at;
    section->length = parts[i].length;
    sluice_sha256(parts[i].data, parts[i].length, section->digest);
    memcpy(section->target, parts[i].target, strnlen(parts[i].target, sizeof section->target - 1));
    at += page_up(parts[i].length);
  }
  header->file_length = at;
  sluice_sha256(header, offsetof(sluice_bundle_header, digest), header->digest);
}

sluice_status *bundle_write_sections(const char *path, const bundle_part *parts, size_t count) {
  _Static_assert(sizeof(sluice_bundle_header) == SLUICE_BUNDLE_PAGE, "the header is one page");
  sluice_bundle_header *header = sluice_allocate(sizeof *header);
  if (!header) return sluice_out_of_memory();
  fill_header(header, parts, count);
  sluice_pending_file pending;
  sluice_status *status = NULL;
  if (header->file_length > SLUICE_BUNDLE_MAX_BYTES)
    status = sluice_error(SLUICE_UNSUPPORTED,
                          "the bundle would have %llu bytes, at most %zu are possible: use fewer targets",
                          (unsigned long long)header->file_length, SLUICE_BUNDLE_MAX_BYTES);
  if (!status) status = sluice_pending_open(&pending, path);
  if (!status) status = sluice_pending_close(&pending, write_parts(&pending, header, parts, count));
  sluice_release(header);
  return status;
}

sluice_status *bundle_write(const char *path, const bundle_part *parts, size_t count) {
  if (count > SLUICE_BUNDLE_MAX_SECTIONS)
    return sluice_error(SLUICE_INTERNAL, "%zu sections, a bundle has at most %u", count, SLUICE_BUNDLE_MAX_SECTIONS);
  bundle_part bound[SLUICE_BUNDLE_MAX_SECTIONS] = {{0}};
  void *data[SLUICE_BUNDLE_MAX_SECTIONS] = {NULL};
  sluice_status *status = NULL;
  for (size_t i = 0; i < count && !status; i++) {
    bound[i] = parts[i];
    if (is_code(&parts[i])) status = bind_code(&bound[i], parts, count, &data[i]);
  }
  if (!status) status = bundle_write_sections(path, bound, count);
  for (size_t i = 0; i < count; i++) sluice_release(data[i]);
  return status;
}
