#include "backends/host/host.h"

#include "sluice/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static sluice_status *write_file(const char *path, const void *data, size_t length) {
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

static sluice_status *read_file(const char *path, void **out_data, size_t *out_length) {
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

/* Runs ld.lld on the objects in `directory`. */
static sluice_status *run_linker(const char *directory, size_t count) {
  static const char linker[] = SLUICE_LLVM_PREFIX "/bin/ld.lld";
  char (*names)[96] = sluice_allocate_array(count + 1, sizeof *names);
  char **arguments = sluice_allocate_array(count + 12, sizeof *arguments);
  if (!names || !arguments) {
    sluice_release(names);
    sluice_release(arguments);
    return sluice_out_of_memory();
  }
  size_t n = 0;
  static char program[] = "ld.lld", shared[] = "-shared", undefined[] = "--no-undefined", id[] = "--build-id=none",
              threads[] = "--threads=1", strip[] = "--strip-debug", hash[] = "--hash-style=gnu", output[] = "-o",
              soname[] = "-soname=kernels";
  char *fixed[] = {program, shared, undefined, id, threads, strip, hash, soname, output};
  for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++) arguments[n++] = fixed[i];
  for (size_t i = 0; i <= count; i++) {
    if (i == 0)
      snprintf(names[i], sizeof names[i], "%s/linked", directory);
    else
      snprintf(names[i], sizeof names[i], "%s/%zu.o", directory, i - 1);
    arguments[n++] = names[i];
  }
  pid_t child = 0;
  int wait_status = 0;
  int error = posix_spawn(&child, linker, NULL, NULL, arguments, environ);
  sluice_status *status = NULL;
  if (error)
    status = sluice_error(SLUICE_NOT_FOUND, "%s cannot be run: %s; install lld-22", linker, strerror(error));
  else {
    while (waitpid(child, &wait_status, 0) < 0 && errno == EINTR) continue;
    if (!WIFEXITED(wait_status) || WEXITSTATUS(wait_status) != 0)
      status = sluice_error(SLUICE_INTERNAL, "%s failed on generated code; see its message above", linker);
  }
  sluice_release(names);
  sluice_release(arguments);
  return status;
}

sluice_status *host_link(void *const *objects, const size_t *lengths, size_t count, void **out_data,
                         size_t *out_length) {
  char directory[] = "/tmp/sluice-link-XXXXXX", path[96];
  if (!mkdtemp(directory)) return sluice_error(SLUICE_IO, "no temporary directory in /tmp: %s", strerror(errno));
  sluice_status *status = NULL;
  size_t written = 0;
  for (; written < count && !status; written++) {
    snprintf(path, sizeof path, "%s/%zu.o", directory, written);
    status = write_file(path, objects[written], lengths[written]);
  }
  if (!status) status = run_linker(directory, count);
  snprintf(path, sizeof path, "%s/linked", directory);
  if (!status) status = read_file(path, out_data, out_length);
  unlink(path);
  for (size_t i = 0; i < written; i++) {
    snprintf(path, sizeof path, "%s/%zu.o", directory, i);
    unlink(path);
  }
  rmdir(directory);
  return status;
}
