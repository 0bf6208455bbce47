#include "sluice/file.h"

#include "sluice/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* A name that nobody has yet: a file or link that lies there already is never followed or overwritten. */
static sluice_status *open_temporary(sluice_pending_file *pending) {
  for (unsigned attempt = 0; attempt < 100; attempt++) {
    sluice_release(pending->temporary);
    pending->temporary = sluice_format_string("%s.tmp-%ld-%u", pending->path, (long)getpid(), attempt);
    if (!pending->temporary) return sluice_out_of_memory();
    pending->file = open(pending->temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (pending->file >= 0) return NULL;
    if (errno != EEXIST) break;
  }
  return sluice_error(SLUICE_IO, "%s: cannot be created: %s", pending->path, strerror(errno));
}

static void release(sluice_pending_file *pending) {
  sluice_release(pending->path);
  sluice_release(pending->temporary);
  *pending = (sluice_pending_file){.file = -1};
}

sluice_status *sluice_pending_open(sluice_pending_file *pending, const char *path) {
  *pending = (sluice_pending_file){.path = sluice_copy_string(path, strlen(path)), .file = -1};
  sluice_status *status = pending->path ? open_temporary(pending) : sluice_out_of_memory();
  if (status) release(pending);
  return status;
}

sluice_status *sluice_pending_write(sluice_pending_file *pending, const void *data, size_t bytes) {
  const char *at = data;
  while (bytes) {
    ssize_t n = write(pending->file, at, bytes);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return sluice_error(SLUICE_IO, "%s: cannot be written: %s", pending->path, strerror(errno));
    at += n;
    bytes -= (size_t)n;
  }
  return NULL;
}

sluice_status *sluice_pending_close(sluice_pending_file *pending, sluice_status *status) {
  if (!status && pending->file >= 0 && fsync(pending->file))
    status = sluice_error(SLUICE_IO, "%s: cannot be written: %s", pending->path, strerror(errno));
  if (!status && rename(pending->temporary, pending->path))
    status = sluice_error(SLUICE_IO, "%s: cannot be created: %s", pending->path, strerror(errno));
  if (status) {
    sluice_pending_discard(pending);
    return status;
  }
  close(pending->file);
  release(pending);
  return NULL;
}

void sluice_pending_discard(sluice_pending_file *pending) {
  if (pending->file >= 0) close(pending->file);
  if (pending->temporary) unlink(pending->temporary);
  release(pending);
}
