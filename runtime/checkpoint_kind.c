#include "runtime/checkpoint_kind.h"

#include "sluice/memory.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static bool starts_with(const unsigned char *first, size_t count, const char *text) {
  return count >= strlen(text) && memcmp(first, text, strlen(text)) == 0;
}

static bool ends_with(const char *text, const char *end) {
  size_t length = strlen(text), end_length = strlen(end);
  return length >= end_length && strcmp(text + length - end_length, end) == 0;
}

/* The first character of a text that is no white space; 0 for what is no text. The 8 bytes that a safetensors file
 * starts with are a number, and text of 8 bytes would be far too large a one: the last 4 are zero. */
static char first_letter(const unsigned char *first, size_t count) {
  if (memchr(first, 0, count < 8 ? count : 8)) return 0;
  size_t at = 0;
  while (at < count && isspace(first[at])) at++;
  return at < count ? (char)first[at] : 0;
}

sluice_status *sluice_check_downloaded(const char *path, const void *first_bytes, size_t count) {
  const unsigned char *first = first_bytes;
  if (starts_with(first, count, "version https://git-lfs"))
    return sluice_error(SLUICE_INVALID,
                        "%s: a Git LFS pointer, which stands for the file but is not the file: run \"git lfs pull\" in "
                        "that folder, or download the file itself",
                        path);
  if (first_letter(first, count) == '<')
    return sluice_error(
        SLUICE_INVALID,
        "%s: a web page (HTML), which is what a failed download leaves: download the file again, logged "
        "in if the model asks for it",
        path);
  return NULL;
}

/* Whether the file begins like a sentence, as servers write into what they refuse to give. */
static bool is_prose(const unsigned char *first, size_t count) {
  enum { FEWEST = 8 };
  for (size_t i = 0; i < count; i++)
    if (!isprint(first[i]) && !isspace(first[i])) return false;
  return count >= FEWEST;
}

static int first_line(const unsigned char *first, size_t count) {
  int length = 0;
  while ((size_t)length < count && first[length] != '\n' && first[length] != '\r') length++;
  return length;
}

sluice_status *checkpoint_check_kind(const char *path, const unsigned char *first, size_t count) {
  SLUICE_TRY(sluice_check_downloaded(path, first, count));
  if (count == 0) return sluice_error(SLUICE_INVALID, "%s: an empty file, expected safetensors", path);
  static const struct {
    const char *start, *kind;
  } others[] = {
      {"GGUF", "a GGUF file"},
      {"\037\213", "a gzip file"},
      {"PK\003\004", "a zip file, as PyTorch writes them"},
      {"SLUICE", "a bundle"},
      {"\200\002", "a Python pickle, as PyTorch writes them"},
  };
  bool header = count >= 8 && memcmp(first + 4, (const char[4]){0}, 4) == 0; /* a length below 4 GiB */
  for (size_t i = 0; i < sizeof others / sizeof *others && !header; i++)
    if (starts_with(first, count, others[i].start))
      return sluice_error(SLUICE_INVALID, "%s: %s, expected weights as safetensors", path, others[i].kind);
  if (first_letter(first, count) == '{')
    return sluice_error(SLUICE_INVALID,
                        "%s: JSON, such as an index or a configuration, expected weights: give the folder that it lies "
                        "in",
                        path);
  if (is_prose(first, count))
    return sluice_error(SLUICE_INVALID,
                        "%s: text, \"%.*s\", expected safetensors: a failed download leaves such a file; download it "
                        "again, logged in if the model asks for it",
                        path, first_line(first, count), (const char *)first);
  return NULL;
}

sluice_status *checkpoint_check_text(const char *path) {
  unsigned char first[64];
  int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file < 0) return NULL; /* reading it will say why */
  ssize_t count = read(file, first, sizeof first);
  close(file);
  return count > 0 ? sluice_check_downloaded(path, first, (size_t)count) : NULL;
}

bool checkpoint_is_shard(const char *path) {
  const char *of = strstr(path, "-of-");
  for (const char *next = of; next; next = strstr(next + 1, "-of-")) of = next;
  return of && of > path && isdigit((unsigned char)of[-1]) && isdigit((unsigned char)of[4]) &&
         ends_with(path, ".safetensors");
}

/* What may lie in a folder without weights that sluice reads, the most telling first. */
static const struct {
  const char *start, *end, *advice;
} kinds[] = {
    {"adapter_model", "", "an adapter alone: merge it into its base model (merge_and_unload) and save that"},
    {"model-", ".safetensors", "shards without their index: model.safetensors.index.json is needed beside them"},
    {"", ".safetensors", "give the file itself if it holds the whole model"},
    {"", ".gguf", "GGUF, which sluice does not read: use the model's safetensors"},
    {"pytorch_model", "", "PyTorch's own format, which sluice does not read: use the model's safetensors"},
};

sluice_status *checkpoint_without_weights(const char *directory) {
  enum { KINDS = sizeof kinds / sizeof *kinds };
  size_t best = KINDS;
  char name[256] = "";
  DIR *entries = opendir(directory);
  for (struct dirent *entry; entries && (entry = readdir(entries));) {
    size_t kind = 0;
    while (kind < KINDS && (strncmp(entry->d_name, kinds[kind].start, strlen(kinds[kind].start)) != 0 ||
                            !ends_with(entry->d_name, kinds[kind].end)))
      kind++;
    /* of one kind the first name, so that the message does not depend on the folder's order */
    if (kind > best || kind == KINDS || (kind == best && strcmp(entry->d_name, name) >= 0)) continue;
    best = kind;
    snprintf(name, sizeof name, "%s", entry->d_name);
  }
  if (entries) closedir(entries);
  if (best == KINDS)
    return sluice_error(SLUICE_NOT_FOUND, "%s: neither model.safetensors.index.json nor model.safetensors is in it",
                        directory);
  return sluice_error(SLUICE_NOT_FOUND,
                      "%s: neither model.safetensors.index.json nor model.safetensors is in it, but %s: %s", directory,
                      name, kinds[best].advice);
}
