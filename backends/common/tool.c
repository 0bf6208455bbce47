#include "backends/common/tool.h"

#include "sluice/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

sluice_status *tool_write_file(const char *path, const void *data, size_t length) {
  int file = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (file < 0) return sluice_error(SLUICE_IO, "%s: cannot be created: %s", path, strerror(errno));
  const char *at = data;
  while (length) {
    ssize_t n = write(file, at, length);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) {
      int error = errno;
      close(file);
      return sluice_error(SLUICE_IO, "%s: cannot be written: %s", path, strerror(error));
    }
    at += n;
    length -= (size_t)n;
  }
  close(file);
  return NULL;
}

sluice_status *tool_read_file(const char *path, void **out_data, size_t *out_length) {
  int file = open(path, O_RDONLY | O_CLOEXEC);
  struct stat info;
  if (file < 0 || fstat(file, &info)) {
    int error = errno;
    if (file >= 0) close(file);
    return sluice_error(SLUICE_IO, "%s: cannot be read: %s", path, strerror(error));
  }
  size_t length = (size_t)info.st_size, done = 0;
  char *data = sluice_allocate(length);
  if (!data) {
    close(file);
    return sluice_out_of_memory();
  }
  while (done < length) {
    ssize_t n = read(file, data + done, length - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      close(file);
      sluice_release(data);
      return sluice_error(SLUICE_IO, "%s: cannot be read", path);
    }
    done += (size_t)n;
  }
  close(file);
  *out_data = data;
  *out_length = length;
  return NULL;
}
