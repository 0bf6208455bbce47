/* Output files: sluice/file.h. */
#include "sluice/file.h"

#include "sluice/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MOST_LINKS = 40 };

static sluice_status *cannot_create(const char *path, int error) {
  return sluice_error(SLUICE_IO, "%s: cannot be created: %s", path, strerror(error));
}

/* ---- Following links ---- */

/* DIRECTORY/NAME for the directory of `path`; `name` alone where that is absolute or `path` has no directory. */
static char *beside(const char *path, const char *name) {
  const char *slash = strrchr(path, '/');
  if (!slash || name[0] == '/') return sluice_copy_string(name, strlen(name));
  return sluice_format_string("%.*s%s", (int)(slash - path + 1), path, name);
}

/* The number when `path` is an entry of /proc/self/fd, under whatever name, otherwise -1. */
static int own_descriptor(const char *path) {
  const char *slash = strrchr(path, '/');
  char directory[PATH_MAX], *end;
  if (!slash || slash == path || (size_t)(slash - path) >= sizeof directory) return -1;
  long number = strtol(slash + 1, &end, 10);
  if (end == slash + 1 || *end || number < 0 || number > INT_MAX) return -1;
  memcpy(directory, path, (size_t)(slash - path));
  directory[slash - path] = 0;
  struct stat here, ours;
  if (stat(directory, &here) || stat("/proc/self/fd", &ours)) return -1;
  return here.st_dev == ours.st_dev && here.st_ino == ours.st_ino ? (int)number : -1;
}

sluice_status *sluice_file_follow(const char *path, char **out_target, int *out_descriptor) {
  *out_descriptor = -1;
  char *at = sluice_copy_string(path, strlen(path));
  for (int links = 0; at && links < MOST_LINKS; links++) {
    char text[PATH_MAX];
    ssize_t length = readlink(at, text, sizeof text - 1);
    *out_descriptor = length < 0 ? -1 : own_descriptor(at);
    if (length < 0 || *out_descriptor >= 0) {
      *out_target = at;
      return NULL;
    }
    text[length] = 0;
    char *next = beside(at, text);
    sluice_release(at);
    at = next;
  }
  if (!at) return sluice_out_of_memory();
  sluice_release(at);
  return cannot_create(path, ELOOP);
}

/* ---- Opening ---- */

/* What `pending` names is no regular file. */
static sluice_status *open_in_place(sluice_pending_file *pending, int descriptor) {
  pending->file =
      descriptor >= 0 ? fcntl(descriptor, F_DUPFD_CLOEXEC, 3) : open(pending->target, O_WRONLY | O_NOCTTY | O_CLOEXEC);
  if (pending->file < 0) return sluice_error(SLUICE_IO, "%s: cannot be written: %s", pending->path, strerror(errno));
  sluice_release(pending->target);
  pending->target = NULL;
  return NULL;
}

/* A short name that nobody has, whatever the length of the final one. It is noted before the file exists, so that a
 * signal finds it at any time; chance makes sure that it is ours. */
static sluice_status *open_temporary(sluice_pending_file *pending, unsigned mode) {
  unsigned long long random;
  if (getrandom(&random, sizeof random, 0) != (ssize_t)sizeof random)
    return sluice_error(SLUICE_IO, "no random numbers: %s", strerror(errno));
  char name[64];
  snprintf(name, sizeof name, ".sluice-%016llx.tmp", random);
  char *path = beside(pending->target, name);
  pending->temporary = path ? sluice_temporary_note(path) : NULL;
  bool long_path = path && strlen(path) >= PATH_MAX;
  sluice_release(path);
  if (long_path) return cannot_create(pending->path, ENAMETOOLONG);
  if (!pending->temporary) return sluice_out_of_memory();
  pending->file =
      open(sluice_temporary_path(pending->temporary), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, (mode_t)mode);
  return pending->file < 0 ? cannot_create(pending->path, errno) : NULL;
}

/* The part behind the last slash must be a name that a file can have here: the temporary file's is another one. */
static bool name_too_long(const char *target) {
  const char *slash = strrchr(target, '/');
  return strlen(slash ? slash + 1 : target) > NAME_MAX;
}

static sluice_status *begin(sluice_pending_file *pending) {
  int descriptor;
  if (!pending->path) return sluice_out_of_memory();
  SLUICE_TRY(sluice_file_follow(pending->path, &pending->target, &descriptor));
  if (descriptor >= 0) return open_in_place(pending, descriptor);
  struct stat info;
  if (stat(pending->target, &info)) {
    if (errno != ENOENT) return cannot_create(pending->path, errno);
    if (name_too_long(pending->target)) return cannot_create(pending->path, ENAMETOOLONG);
    return open_temporary(pending, 0666);
  }
  if (S_ISDIR(info.st_mode)) return cannot_create(pending->path, EISDIR);
  if (!S_ISREG(info.st_mode)) return open_in_place(pending, -1);
  if (faccessat(AT_FDCWD, pending->target, W_OK, AT_EACCESS)) return cannot_create(pending->path, errno);
  SLUICE_TRY(open_temporary(pending, info.st_mode & 0777));
  (void)fchmod(pending->file, info.st_mode & 0777); /* what the umask took away */
  return NULL;
}

sluice_status *sluice_pending_open(sluice_pending_file *pending, const char *path) {
  *pending = (sluice_pending_file){.path = sluice_copy_string(path, strlen(path)), .file = -1};
  sluice_status *status = begin(pending);
  if (status) sluice_pending_discard(pending);
  return status;
}

sluice_status *sluice_pending_open_executable(sluice_pending_file *pending, const char *path) {
  SLUICE_TRY(sluice_pending_open(pending, path));
  struct stat info;
  sluice_status *status = NULL;
  if (pending->temporary && fstat(pending->file, &info) == 0 &&
      fchmod(pending->file, (info.st_mode | (info.st_mode & 0444) >> 2) & 0777))
    status = cannot_create(path, errno);
  if (status) sluice_pending_discard(pending);
  return status;
}

sluice_status *sluice_pending_create(sluice_pending_file *pending, const char *path, unsigned mode) {
  *pending = (sluice_pending_file){.file = -1, .fresh = true};
  struct stat info;
  if (lstat(path, &info) == 0) return cannot_create(path, EEXIST);
  pending->path = sluice_copy_string(path, strlen(path));
  pending->target = sluice_copy_string(path, strlen(path));
  sluice_status *status = pending->path && pending->target ? open_temporary(pending, mode) : sluice_out_of_memory();
  if (!status && fchmod(pending->file, (mode_t)mode)) status = cannot_create(path, errno);
  if (status) sluice_pending_discard(pending);
  return status;
}

/* ---- Writing and closing ---- */

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

sluice_status *sluice_pending_settle(sluice_pending_file *pending) {
  if (pending->file < 0) return NULL;
  int error = pending->temporary && fsync(pending->file) ? errno : 0;
  if (close(pending->file) && errno != EINTR && !error) error = errno; /* full or far away disks say so here */
  pending->file = -1;
  return error ? sluice_error(SLUICE_IO, "%s: cannot be written: %s", pending->path, strerror(error)) : NULL;
}

/* Gives the file its name. */
static sluice_status *publish(sluice_pending_file *pending) {
  if (!pending->temporary) return NULL;
  const char *from = sluice_temporary_path(pending->temporary);
  bool failed = renameat2(AT_FDCWD, from, AT_FDCWD, pending->target, pending->fresh ? RENAME_NOREPLACE : 0) != 0;
  /* file systems without RENAME_NOREPLACE: a second link is refused where the name exists */
  if (failed && pending->fresh && errno == EINVAL) failed = link(from, pending->target) || unlink(from);
  return failed ? cannot_create(pending->path, errno) : NULL;
}

static void release(sluice_pending_file *pending) {
  sluice_temporary_forget(pending->temporary);
  sluice_release(pending->path);
  sluice_release(pending->target);
  *pending = (sluice_pending_file){.file = -1};
}

sluice_status *sluice_pending_close(sluice_pending_file *pending, sluice_status *status) {
  if (!status) status = sluice_pending_settle(pending);
  if (!status) status = publish(pending);
  if (status)
    sluice_pending_discard(pending);
  else
    release(pending);
  return status;
}

void sluice_pending_discard(sluice_pending_file *pending) {
  if (!pending->path) return;
  if (pending->file >= 0) close(pending->file);
  if (pending->temporary) unlink(sluice_temporary_path(pending->temporary));
  release(pending);
}
