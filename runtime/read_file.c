#include "sluice/file.h"
#include "sluice/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static sluice_status *read_bytes(int file, const char *path, size_t start, char *to, size_t length) {
  for (size_t done = 0; done < length;) {
    ssize_t n = pread(file, to + done, length - done, (off_t)(start + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return sluice_error(SLUICE_IO, "%s: %s", path, strerror(errno));
    if (n == 0)
      return sluice_error(SLUICE_IO, "%s: it became shorter while it was read: %zu of %zu bytes", path, done, length);
    done += (size_t)n;
  }
  return NULL;
}

sluice_status *sluice_open_to_read(const char *path, int *out_file) {
  *out_file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe without a writer must not hang */
  if (*out_file >= 0) return NULL;
  return sluice_error(errno == ENOENT ? SLUICE_NOT_FOUND : SLUICE_IO, "%s: %s", path, strerror(errno));
}

sluice_status *sluice_read_open_file(int file, const char *path, size_t start, size_t most, void **out_data,
                                     size_t *out_length) {
  *out_data = NULL;
  *out_length = 0;
  struct stat info;
  if (fstat(file, &info)) return sluice_error(SLUICE_IO, "%s: %s", path, strerror(errno));
  if (!S_ISREG(info.st_mode)) return sluice_error(SLUICE_INVALID, "%s: not a regular file", path);
  const uint64_t length = (uint64_t)info.st_size < start ? 0 : (uint64_t)info.st_size - start;
  if (length > most)
    return sluice_error(SLUICE_INVALID, "%s: %llu bytes are more than the %zu that are accepted", path,
                        (unsigned long long)length, most);
  char *data = sluice_allocate_aligned(64, (size_t)length + 1);
  if (!data) return sluice_out_of_memory();
  sluice_status *status = read_bytes(file, path, start, data, (size_t)length);
  if (status) {
    sluice_release(data);
    return status;
  }
  data[length] = 0;
  *out_data = data;
  *out_length = (size_t)length;
  return NULL;
}

sluice_status *sluice_read_file(const char *path, size_t most, void **out_data, size_t *out_length) {
  *out_data = NULL;
  *out_length = 0;
  int file;
  SLUICE_TRY(sluice_open_to_read(path, &file));
  sluice_status *status = sluice_read_open_file(file, path, 0, most, out_data, out_length);
  close(file);
  return status;
}
