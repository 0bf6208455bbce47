/* Writing files that appear under their name only when complete, and bundles (docs/bundle-format.md). */
#include "compiler/compile.h"
#include "sluice/bundle.h"
#include "sluice/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static sluice_status *write_all(int file, const char *path, const void *data, size_t length) {
  const char *at = data;
  while (length) {
    ssize_t n = write(file, at, length);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return sluice_error(SLUICE_IO, "%s: cannot be written: %s", path, strerror(errno));
    at += n;
    length -= (size_t)n;
  }
  return NULL;
}

/* A temporary file beside its final name. */
typedef struct pending_file {
  const char *path;
  char *temporary;
  int file;
} pending_file;

static sluice_status *pending_open(pending_file *pending, const char *path) {
  *pending = (pending_file){.path = path, .file = -1};
  pending->temporary = sluice_format_string("%s.tmp-%ld", path, (long)getpid());
  if (!pending->temporary) return sluice_out_of_memory();
  pending->file = open(pending->temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (pending->file >= 0) return NULL;
  sluice_status *status = sluice_error(SLUICE_IO, "%s: cannot be created: %s", path, strerror(errno));
  sluice_release(pending->temporary);
  return status;
}

/* Renames the file when `status` is NULL, removes it otherwise. Returns the error, if any. */
static sluice_status *pending_close(pending_file *pending, sluice_status *status) {
  if (!status && fsync(pending->file))
    status = sluice_error(SLUICE_IO, "%s: cannot be written: %s", pending->path, strerror(errno));
  close(pending->file);
  if (!status && rename(pending->temporary, pending->path))
    status = sluice_error(SLUICE_IO, "%s: cannot be created: %s", pending->path, strerror(errno));
  if (status) unlink(pending->temporary);
  sluice_release(pending->temporary);
  return status;
}

sluice_status *file_write_atomic(const char *path, const void *data, size_t length) {
  if (strcmp(path, "-") == 0) {
    if (fwrite(data, 1, length, stdout) == length && fflush(stdout) == 0) return NULL;
    return sluice_error(SLUICE_IO, "standard output cannot be written: %s", strerror(errno));
  }
  pending_file pending;
  SLUICE_TRY(pending_open(&pending, path));
  return pending_close(&pending, write_all(pending.file, path, data, length));
}

static uint64_t page_up(uint64_t bytes) {
  return (bytes + SLUICE_BUNDLE_PAGE - 1) / SLUICE_BUNDLE_PAGE * SLUICE_BUNDLE_PAGE;
}

static sluice_status *write_parts(int file, const char *path, const sluice_bundle_header *header,
                                  const bundle_part *parts, size_t count) {
  static const char zeros[SLUICE_BUNDLE_PAGE];
  SLUICE_TRY(write_all(file, path, header, sizeof *header));
  for (size_t i = 0; i < count; i++) {
    SLUICE_TRY(write_all(file, path, parts[i].data, parts[i].length));
    SLUICE_TRY(write_all(file, path, zeros, (size_t)(page_up(parts[i].length) - parts[i].length)));
  }
  return NULL;
}

sluice_status *bundle_write(const char *path, const bundle_part *parts, size_t count) {
  _Static_assert(sizeof(sluice_bundle_header) == SLUICE_BUNDLE_PAGE, "the header is one page");
  if (count > SLUICE_BUNDLE_MAX_SECTIONS)
    return sluice_error(SLUICE_INTERNAL, "%zu sections, a bundle has at most %u", count, SLUICE_BUNDLE_MAX_SECTIONS);
  sluice_bundle_header *header = sluice_allocate(sizeof *header);
  if (!header) return sluice_out_of_memory();
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
  pending_file pending;
  sluice_status *status = pending_open(&pending, path);
  if (!status) status = pending_close(&pending, write_parts(pending.file, path, header, parts, count));
  sluice_release(header);
  return status;
}
