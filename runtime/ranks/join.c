#include "runtime/ranks/join.h"

#include "runtime/ranks/tcp.h"
#include "sluice/file.h"
#include "sluice/memory.h"

#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SHORTEST_SECRET = 16, LONGEST_SECRET = 4096 };

static sluice_status *read_secret(int file, const char *path, void **out_secret, size_t *out_bytes) {
  struct stat info;
  if (fstat(file, &info) == 0 && (info.st_mode & 077) != 0)
    return sluice_error(SLUICE_INVALID, "%s: others may read this secret (mode %03o): chmod 600 it", path,
                        info.st_mode & 0777);
  SLUICE_TRY(sluice_read_open_file(file, path, 0, LONGEST_SECRET, out_secret, out_bytes));
  char *secret = *out_secret;
  if (*out_bytes && secret[*out_bytes - 1] == '\n') --*out_bytes;
  if (*out_bytes >= SHORTEST_SECRET) return NULL;
  const size_t found = *out_bytes;
  sluice_release(*out_secret);
  *out_secret = NULL;
  *out_bytes = 0;
  return sluice_error(SLUICE_INVALID, "%s: a secret of %zu bytes: at least %d are needed, from /dev/urandom say", path,
                      found, SHORTEST_SECRET);
}

sluice_status *sluice_secret_read(const char *path, void **out_secret, size_t *out_bytes) {
  int file;
  *out_secret = NULL;
  *out_bytes = 0;
  SLUICE_TRY(sluice_open_to_read(path, &file));
  sluice_status *status = read_secret(file, path, out_secret, out_bytes);
  close(file);
  return status;
}

sluice_status *sluice_group_join(const sluice_rank_place *place, const char *secret_file, double deadline,
                                 sluice_group **out_group) {
  *out_group = NULL;
  void *secret = NULL;
  size_t bytes = 0;
  if (secret_file) SLUICE_TRY(sluice_secret_read(secret_file, &secret, &bytes));
  const sluice_meeting meeting = {.host = place->host,
                                  .port = place->port,
                                  .rank = place->rank,
                                  .ranks = place->ranks,
                                  .secret = secret,
                                  .secret_bytes = bytes};
  sluice_status *status = sluice_tcp_join(&meeting, deadline, out_group);
  sluice_release(secret);
  return status;
}
