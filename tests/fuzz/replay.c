/* Replays files through a fuzz target where libFuzzer is not linked: fuzz_NAME FILE|DIRECTORY... */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t length);

static int replay_file(const char *path) {
  FILE *file = fopen(path, "rb");
  if (!file || fseek(file, 0, SEEK_END) != 0) {
    perror(path);
    if (file) fclose(file);
    return 1;
  }
  const long end = ftell(file);
  rewind(file);
  const size_t length = end > 0 ? (size_t)end : 0;
  uint8_t *data = malloc(length ? length : 1); /* exactly as long: reads past the end are seen */
  const int failed = !data || fread(data, 1, length, file) != length;
  if (failed)
    fprintf(stderr, "%s: cannot read\n", path);
  else
    LLVMFuzzerTestOneInput(data, length);
  free(data);
  fclose(file);
  return failed;
}

int main(int count, char **arguments) {
  int files = 0;
  for (int i = 1; i < count; i++) {
    DIR *directory = opendir(arguments[i]);
    if (!directory) {
      if (replay_file(arguments[i])) return 1;
      files++;
      continue;
    }
    for (struct dirent *entry; (entry = readdir(directory));) {
      char path[4096];
      if (entry->d_name[0] == '.') continue;
      snprintf(path, sizeof path, "%s/%s", arguments[i], entry->d_name);
      if (replay_file(path)) return 1;
      files++;
    }
    closedir(directory);
  }
  printf("%d inputs\n", files);
  return files == 0; /* a corpus that has moved away is a failure */
}
