/* Bundles (docs/bundle-format.md), programs that hold one, and files that appear under their name only when complete.
 */
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

sluice_status *bundle_make_sections(const bundle_part *parts, size_t count, bundle_image *out_image) {
  _Static_assert(sizeof(sluice_bundle_header) == SLUICE_BUNDLE_PAGE, "the header is one page");
  *out_image = (bundle_image){0};
  sluice_bundle_header header = {.section_count = 0};
  fill_header(&header, parts, count);
  if (header.file_length > SLUICE_BUNDLE_MAX_BYTES)
    return sluice_error(SLUICE_UNSUPPORTED,
                        "the bundle would have %llu bytes, at most %zu are possible: use fewer targets",
                        (unsigned long long)header.file_length, SLUICE_BUNDLE_MAX_BYTES);
  char *data = sluice_allocate_array((size_t)header.file_length, 1);
  if (!data) return sluice_out_of_memory();
  memcpy(data, &header, sizeof header);
  for (size_t i = 0; i < count; i++) memcpy(data + header.sections[i].offset, parts[i].data, parts[i].length);
  *out_image = (bundle_image){data, (size_t)header.file_length};
  return NULL;
}

sluice_status *bundle_make(const bundle_part *parts, size_t count, bundle_image *out_image) {
  *out_image = (bundle_image){0};
  if (count > SLUICE_BUNDLE_MAX_SECTIONS)
    return sluice_error(SLUICE_INTERNAL, "%zu sections, a bundle has at most %u", count, SLUICE_BUNDLE_MAX_SECTIONS);
  bundle_part bound[SLUICE_BUNDLE_MAX_SECTIONS] = {{0}};
  void *data[SLUICE_BUNDLE_MAX_SECTIONS] = {NULL};
  sluice_status *status = NULL;
  for (size_t i = 0; i < count && !status; i++) {
    bound[i] = parts[i];
    if (is_code(&parts[i])) status = bind_code(&bound[i], parts, count, &data[i]);
  }
  if (!status) status = bundle_make_sections(bound, count, out_image);
  for (size_t i = 0; i < count; i++) sluice_release(data[i]);
  return status;
}

void bundle_image_free(bundle_image *image) {
  sluice_release(image->data);
  *image = (bundle_image){0};
}

sluice_status *program_write(const char *path, const void *program, size_t length, const bundle_image *bundle) {
  static const char zeros[SLUICE_BUNDLE_PAGE];
  sluice_pending_file pending;
  SLUICE_TRY(sluice_pending_open_executable(&pending, path));
  sluice_status *status = sluice_pending_write(&pending, program, length);
  if (!status) status = sluice_pending_write(&pending, zeros, (size_t)(page_up(length) - length));
  if (!status) status = sluice_pending_write(&pending, bundle->data, bundle->length);
  return sluice_pending_close(&pending, status);
}
