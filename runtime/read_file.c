#include "sluice/file.h"
#include "sluice/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static sluice_status *read_bytes(int file, const char *path, char *to, size_t length) {
  for (size_t done = 0; done < length;) {
    ssize_t n = pread(file, to + done, length - done, (off_t)done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return sluice_error(SLUICE_IO, "%s: %s", path, strerror(errno));
    if (n == 0)
      return sluice_error(SLUICE_IO, "%s: it became shorter while it was read: %zu of %zu bytes", path, done, length);
    done += (size_t)n;
  }
  return NULL;
}

sluice_status *sluice_read_file(const char *path, size_t most, void **out_data, size_t *out_length) {
  *out_data = NULL;
  *out_length = 0;
  int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe without a writer must not hang */
  if (file < 0) return sluice_error(errno == ENOENT ? SLUICE_NOT_FOUND : SLUICE_IO, "%s: %s", path, strerror(errno));
  struct stat info;
  sluice_status *status = NULL;
  char *data = NULL;
  if (fstat(file, &info))
    status = sluice_error(SLUICE_IO, "%s: %s", path, strerror(errno));
  else if (!S_ISREG(info.st_mode))
    status = sluice_error(SLUICE_INVALID, "%s: not a regular file", path);
  else if ((uint64_t)info.st_size > most)
    status = sluice_error(SLUICE_INVALID, "%s: %lld bytes are more than the %zu that are accepted", path,
                          (long long)info.st_size, most);
  size_t length = status ? 0 : (size_t)info.st_size;
  if (!status) {
    data = sluice_allocate_aligned(64, length + 1);
    status = data ? read_bytes(file, path, data, length) : sluice_out_of_memory();
  }
  close(file);
  if (status) {
    sluice_release(data);
    return status;
  }
  data[length] = 0;
  *out_data = data;
  *out_length = length;
  return NULL;
}
