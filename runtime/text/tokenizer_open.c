/* Finds the tokenizer's file in a directory and reads it. */
#include "runtime/text/tokenizer.h"
#include "sluice/file.h"
#include "sluice/memory.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MOST_BYTES ((size_t)1 << 30) /* of a file */

static bool ends_with(const char *name, const char *end) {
  const size_t length = strlen(name), end_length = strlen(end);
  return length > end_length && strcmp(name + length - end_length, end) == 0;
}

/* The one tiktoken file of a directory; *out NULL when there is none. */
static sluice_status *find_tiktoken(const char *directory, char **out) {
  DIR *entries = opendir(directory);
  if (!entries) return sluice_error(SLUICE_IO, "%s: cannot list: %s", directory, strerror(errno));
  sluice_status *status = NULL;
  *out = NULL;
  for (const struct dirent *entry; !status && (entry = readdir(entries)) != NULL;) {
    if (!ends_with(entry->d_name, ".tiktoken") && strcmp(entry->d_name, "tiktoken.model") != 0) continue;
    if (*out)
      status = sluice_error(SLUICE_INVALID, "%s: holds two tiktoken files, %s and %s; name one of them", directory,
                            *out + strlen(directory) + 1, entry->d_name);
    else if (!(*out = sluice_format_string("%s/%s", directory, entry->d_name)))
      status = sluice_out_of_memory();
  }
  closedir(entries);
  return status;
}

/* *out: the file of a directory, or `path` itself. Owned by the caller, after errors too. */
static sluice_status *find_file(const char *path, char **out) {
  struct stat info;
  if (stat(path, &info) != 0)
    return sluice_error(errno == ENOENT ? SLUICE_NOT_FOUND : SLUICE_IO, "%s: cannot open: %s", path, strerror(errno));
  if (!S_ISDIR(info.st_mode)) {
    *out = sluice_copy_string(path, strlen(path));
    return *out ? NULL : sluice_out_of_memory();
  }
  *out = sluice_format_string("%s/tokenizer.json", path);
  if (!*out) return sluice_out_of_memory();
  if (access(*out, F_OK) == 0) return NULL;
  sluice_release(*out);
  *out = NULL;
  SLUICE_TRY(find_tiktoken(path, out));
  return *out ? NULL : sluice_error(SLUICE_NOT_FOUND, "%s: holds no tokenizer.json and no tiktoken file", path);
}

/* tokenizer_config.json beside `file`; NULL when there is none. */
static sluice_status *read_config(const char *file, sluice_json_document **out) {
  const char *slash = strrchr(file, '/');
  char *path = sluice_format_string("%.*stokenizer_config.json", slash ? (int)(slash - file) + 1 : 0, file);
  if (!path) return sluice_out_of_memory();
  sluice_status *status = access(path, F_OK) == 0 ? sluice_json_parse_file(path, out) : NULL;
  sluice_release(path);
  return status;
}

static sluice_status *read_tiktoken(const char *file, sluice_tokenizer **out) {
  sluice_json_document *config = NULL;
  void *text = NULL;
  size_t length = 0;
  sluice_status *status = read_config(file, &config);
  if (!status) status = sluice_read_file(file, MOST_BYTES, &text, &length);
  if (!status) status = sluice_tokenizer_parse_tiktoken(text, length, file, config, out);
  sluice_release(text);
  sluice_json_free(config);
  return status;
}

/* Whether the first character of a file that is no space is a brace. */
static bool begins_with_brace(const char *file) {
  char start[256] = "";
  const int descriptor = open(file, O_RDONLY | O_CLOEXEC);
  const ssize_t count = descriptor < 0 ? 0 : read(descriptor, start, sizeof start - 1);
  if (descriptor >= 0) close(descriptor);
  return count > 0 && start[strspn(start, " \t\r\n")] == '{';
}

static sluice_status *open_file(const char *file, sluice_tokenizer **out) {
  if (!begins_with_brace(file)) return read_tiktoken(file, out);
  void *text;
  size_t length;
  SLUICE_TRY(sluice_read_file(file, MOST_BYTES, &text, &length));
  return tokenizer_read_json(text, length, file, out);
}

sluice_status *sluice_tokenizer_open(const char *path, sluice_tokenizer **out_tokenizer) {
  char *file = NULL;
  sluice_status *status = find_file(path, &file);
  if (!status) status = open_file(file, out_tokenizer);
  sluice_release(file);
  return status;
}
