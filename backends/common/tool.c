#include "backends/common/tool.h"

#include "sluice/memory.h"

#include <errno.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

sluice_status *tool_file_create(tool_file *out_file, const void *data, size_t length) {
  out_file->descriptor = memfd_create("sluice", MFD_CLOEXEC);
  if (out_file->descriptor < 0)
    return sluice_error(errno == ENOMEM ? SLUICE_OUT_OF_MEMORY : SLUICE_IO, "no file in memory: %s", strerror(errno));
  snprintf(out_file->name, sizeof out_file->name, "/proc/self/fd/%d", out_file->descriptor);
  const char *at = data;
  for (size_t left = length; left;) {
    ssize_t n = write(out_file->descriptor, at, left);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0)
      return sluice_error(errno == ENOMEM || errno == ENOSPC ? SLUICE_OUT_OF_MEMORY : SLUICE_IO,
                          "a file in memory cannot be written: %s", strerror(errno));
    at += n;
    left -= (size_t)n;
  }
  return NULL;
}

void tool_file_close(tool_file *file) {
  if (file->descriptor >= 0) close(file->descriptor);
  file->descriptor = -1;
}

sluice_status *tool_file_read(const tool_file *file, void **out_data, size_t *out_length) {
  struct stat info;
  if (fstat(file->descriptor, &info)) return sluice_error(SLUICE_IO, "%s: %s", file->name, strerror(errno));
  size_t length = (size_t)info.st_size, done = 0;
  char *data = sluice_allocate(length + 1);
  if (!data) return sluice_out_of_memory();
  while (done < length) {
    ssize_t n = pread(file->descriptor, data + done, length - done, (off_t)done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) {
      sluice_release(data);
      return sluice_error(SLUICE_IO, "%s cannot be read", file->name);
    }
    done += (size_t)n;
  }
  *out_data = data;
  *out_length = length;
  return NULL;
}

/* What programs, and the loader that starts them, print when memory is short. */
static bool tells_of_memory(const char *text) {
  static const char *const signs[] = {"memory", "bad_alloc", "failed to map segment"};
  for (size_t i = 0; i < sizeof signs / sizeof *signs; i++)
    if (strstr(text, signs[i])) return true;
  return false;
}

static sluice_status *explain_failure(const char *program, int wait_status, const tool_file *errors) {
  void *text = NULL;
  size_t length = 0;
  SLUICE_TRY(tool_file_read(errors, &text, &length));
  bool killed = WIFSIGNALED(wait_status) && WTERMSIG(wait_status) == SIGKILL;
  bool too_large = WIFSIGNALED(wait_status) && WTERMSIG(wait_status) == SIGXFSZ;
  sluice_status *status;
  if (too_large || strstr(text, strerror(EFBIG)))
    status =
        sluice_error(SLUICE_IO, "%s: its output is larger than the limit on the size of files (ulimit -f)", program);
  else if (killed || tells_of_memory(text))
    status = sluice_error(SLUICE_OUT_OF_MEMORY, "out of memory in %s%s", program, killed ? ", which was killed" : "");
  else
    status = sluice_error(SLUICE_INTERNAL, "%s failed on generated code (%s %d): %.400s", program,
                          WIFSIGNALED(wait_status) ? "signal" : "exit code",
                          WIFSIGNALED(wait_status) ? WTERMSIG(wait_status) : WEXITSTATUS(wait_status), (char *)text);
  sluice_release(text);
  return status;
}

/* A descriptor that is copied onto itself is inherited. */
static int add_files(posix_spawn_file_actions_t *actions, const tool_file *files, size_t count, const tool_file *output,
                     const tool_file *errors) {
  int error = posix_spawn_file_actions_addchdir_np(actions, "/proc");
  if (!error) error = posix_spawn_file_actions_adddup2(actions, output->descriptor, STDOUT_FILENO);
  if (!error) error = posix_spawn_file_actions_adddup2(actions, errors->descriptor, STDERR_FILENO);
  for (size_t i = 0; i < count && !error; i++)
    error = posix_spawn_file_actions_adddup2(actions, files[i].descriptor, files[i].descriptor);
  return error;
}

sluice_status *tool_run(const char *program, char *const *arguments, const tool_file *files, size_t count,
                        const tool_file *output, const tool_file *errors) {
  posix_spawn_file_actions_t actions;
  posix_spawnattr_t attributes;
  if (posix_spawn_file_actions_init(&actions)) return sluice_out_of_memory();
  if (posix_spawnattr_init(&attributes)) {
    posix_spawn_file_actions_destroy(&actions);
    return sluice_out_of_memory();
  }
  sigset_t defaults; /* what sluice_program_begin ignores is not for others */
  sigemptyset(&defaults);
  sigaddset(&defaults, SIGPIPE);
  sigaddset(&defaults, SIGXFSZ);
  pid_t child = 0;
  int wait_status = 0, error = add_files(&actions, files, count, output, errors);
  if (!error) error = posix_spawnattr_setsigdefault(&attributes, &defaults);
  if (!error) error = posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF);
  if (!error) error = posix_spawn(&child, program, &actions, &attributes, arguments, environ);
  posix_spawn_file_actions_destroy(&actions);
  posix_spawnattr_destroy(&attributes);
  if (error)
    return sluice_error(error == ENOMEM || error == EAGAIN ? SLUICE_OUT_OF_MEMORY : SLUICE_NOT_FOUND,
                        "%s cannot be run: %s", program, strerror(error));
  while (waitpid(child, &wait_status, 0) < 0 && errno == EINTR) continue;
  return wait_status == 0 ? NULL : explain_failure(program, wait_status, errors);
}
