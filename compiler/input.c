#include "compiler/input.h"

#include "sluice/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

static sluice_status *read_all(int file, const char *path, size_t limit, char **data, size_t *length) {
  size_t capacity = 0;
  for (;;) {
    if (*length == capacity) {
      capacity = capacity ? 2 * capacity : 65536;
      char *larger = sluice_reallocate_array(*data, capacity, 1);
      if (!larger) return sluice_out_of_memory();
      *data = larger;
    }
    ssize_t got = read(file, *data + *length, capacity - *length);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return sluice_error(SLUICE_IO, "cannot read %s: %s", path, strerror(errno));
    if (got == 0) return NULL;
    *length += (size_t)got;
    if (*length > limit)
      return sluice_error(SLUICE_INVALID, "%s is too large, expected at most %zu bytes", path, limit);
  }
}

sluice_status *input_read(const char *path, size_t limit, char **out_data, size_t *out_length) {
  bool standard = strcmp(path, "-") == 0;
  int file = standard ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0)
    return sluice_error(errno == ENOENT ? SLUICE_NOT_FOUND : SLUICE_IO, "cannot open %s: %s", path, strerror(errno));
  char *data = NULL;
  size_t length = 0;
  sluice_status *status = read_all(file, path, limit, &data, &length);
  if (!standard) close(file);
  if (status) {
    sluice_release(data);
    return status;
  }
  *out_data = data;
  *out_length = length;
  return NULL;
}
