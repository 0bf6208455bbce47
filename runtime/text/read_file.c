#include "runtime/text/read_file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static sluice_status *read_descriptor(int file, const char *path, sluice_text *out) {
  char part[65536];
  for (;;) {
    const ssize_t count = read(file, part, sizeof part);
    if (count == 0) break;
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return sluice_error(SLUICE_IO, "%s: cannot read: %s", path, strerror(errno));
    sluice_text_append(out, part, (size_t)count);
    if (out->length > READ_FILE_MAX_BYTES)
      return sluice_error(SLUICE_INVALID, "%s: more than %zu bytes", path, READ_FILE_MAX_BYTES);
  }
  sluice_text_append(out, "", 0); /* so that an empty file is an empty string */
  return out->failed ? sluice_out_of_memory() : NULL;
}

sluice_status *read_file(const char *path, sluice_text *out) {
  if (strcmp(path, "-") == 0) return read_descriptor(STDIN_FILENO, "standard input", out);
  const int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0)
    return sluice_error(errno == ENOENT ? SLUICE_NOT_FOUND : SLUICE_IO, "%s: cannot open: %s", path, strerror(errno));
  sluice_status *status = read_descriptor(file, path, out);
  close(file);
  return status;
}
