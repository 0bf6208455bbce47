/* Which files a command line names, and whether two of them are one: sluice/file.h. */
#include "sluice/file.h"
#include "sluice/memory.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef enum identity_kind {
  KIND_NONE,      /* nothing to compare: a device, a pipe, a standard stream, a path that leads nowhere */
  KIND_FILE,      /* device and node are the file's */
  KIND_DIRECTORY, /* the directory's */
  KIND_MISSING,   /* the directory's that it would be made in, and `name` in it */
} identity_kind;

typedef struct identity {
  identity_kind kind;
  dev_t device;
  ino_t node;
  char *target; /* owned; `name` lies in it */
  const char *name;
} identity;

static void set(identity *out, identity_kind kind, const struct stat *info) {
  out->kind = kind;
  out->device = info->st_dev;
  out->node = info->st_ino;
}

static sluice_status *identify(const char *path, identity *out) {
  int descriptor;
  struct stat info;
  if (strcmp(path, "-") == 0) return NULL;
  SLUICE_TRY(sluice_file_follow(path, &out->target, &descriptor));
  if (descriptor >= 0) return NULL;
  if (stat(out->target, &info) == 0) {
    set(out, S_ISREG(info.st_mode) ? KIND_FILE : S_ISDIR(info.st_mode) ? KIND_DIRECTORY : KIND_NONE, &info);
    return NULL;
  }
  char *slash = strrchr(out->target, '/');
  out->name = slash ? slash + 1 : out->target;
  if (slash == out->target) {
    if (stat("/", &info) == 0) set(out, KIND_MISSING, &info);
    return NULL;
  }
  if (slash) *slash = 0;
  if (stat(slash ? out->target : ".", &info) == 0) {
    set(out, KIND_MISSING, &info);
    return NULL;
  }
  if (slash) *slash = '/'; /* the directory is missing too: the text is all there is to compare */
  out->kind = KIND_MISSING;
  out->name = out->target;
  return NULL;
}

static bool same(const identity *a, const identity *b) {
  if (a->kind != b->kind || a->device != b->device || a->node != b->node) return false;
  return a->kind == KIND_FILE || (a->kind == KIND_MISSING && strcmp(a->name, b->name) == 0);
}

static bool belongs_to_checkpoint(const char *name) {
  static const char *const endings[] = {".json", ".jinja", ".safetensors"};
  size_t length = strlen(name);
  for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
    size_t end = strlen(endings[i]);
    if (length > end && strcmp(name + length - end, endings[i]) == 0) return true;
  }
  return false;
}

/* Whether `file` is one of those that the directory at `path` stands for. */
static bool holds(const char *path, const identity *file) {
  DIR *directory = opendir(path);
  if (!directory) return false;
  int descriptor = dirfd(directory);
  bool found = false;
  struct dirent *entry;
  while (descriptor >= 0 && !found && (entry = readdir(directory))) {
    struct stat info;
    found = belongs_to_checkpoint(entry->d_name) && fstatat(descriptor, entry->d_name, &info, 0) == 0 &&
            info.st_dev == file->device && info.st_ino == file->node;
  }
  closedir(directory);
  return found;
}

static sluice_status *compare(const sluice_file_use *output, const identity *id, const sluice_file_use *other,
                              const identity *other_id) {
  if (other->output && same(id, other_id))
    return sluice_error(SLUICE_USAGE, "%s %s and %s %s are one file; give each a file of its own", other->what,
                        other->path, output->what, output->path);
  if (!other->output && (same(id, other_id) ||
                         (id->kind == KIND_FILE && other_id->kind == KIND_DIRECTORY && holds(other_id->target, id))))
    return sluice_error(SLUICE_USAGE, "%s %s would overwrite %s, which is read; write to another file", output->what,
                        output->path, other->path);
  return NULL;
}

static sluice_status *compare_streams(const sluice_file_use *output, const identity *id) {
  static const char *const names[] = {"input", "output", "error"};
  for (int i = 0; i < 3; i++) {
    struct stat info;
    if (fstat(i, &info) == 0 && S_ISREG(info.st_mode) && info.st_dev == id->device && info.st_ino == id->node)
      return sluice_error(SLUICE_USAGE, "%s %s is where standard %s goes; write to another file", output->what,
                          output->path, names[i]);
  }
  return NULL;
}

sluice_status *sluice_file_uses_check(const sluice_file_use *uses, size_t count) {
  identity *ids = sluice_allocate_array(count, sizeof *ids);
  if (!ids) return sluice_out_of_memory();
  sluice_status *status = NULL;
  for (size_t i = 0; i < count && !status; i++) status = identify(uses[i].path, &ids[i]);
  for (size_t i = 0; i < count && !status; i++) {
    if (!uses[i].output || ids[i].kind == KIND_NONE) continue;
    if (ids[i].kind == KIND_FILE) status = compare_streams(&uses[i], &ids[i]);
    for (size_t j = 0; j < count && !status; j++)
      if (j < i || (j > i && !uses[j].output)) status = compare(&uses[i], &ids[i], &uses[j], &ids[j]);
  }
  for (size_t i = 0; i < count; i++) sluice_release(ids[i].target);
  sluice_release(ids);
  return status;
}
