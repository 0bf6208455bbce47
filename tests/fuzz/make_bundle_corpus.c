/* Writes the corpus of fuzz_bundle.c: make_bundle_corpus tests/fuzz/corpus/bundle. To be run when the format changes.
 */
#include "sluice/bundle.h"
#include "support/tiny_bundle.h"

#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { AS_IT_IS, SEALED, PLAN };

static const char *directory;

/* The first byte says what the target makes of the rest. */
static void write_file(const char *name, int kind, const void *data, size_t length) {
  char path[512];
  snprintf(path, sizeof path, "%s/%s", directory, name);
  FILE *file = fopen(path, "wb");
  if (!file || fputc(kind, file) == EOF || (length && fwrite(data, 1, length, file) != length) || fclose(file) != 0) {
    fprintf(stderr, "%s cannot be written\n", path);
    exit(1);
  }
}

static char *copy_of(const void *data, size_t length) {
  char *copy = sluice_allocate_aligned(64, length);
  if (!copy) exit(1);
  memcpy(copy, data, length);
  return copy;
}

static void write_plans(void) {
  size_t length;
  char *good = tiny_plan(&length), *plan = copy_of(good, length);
  sluice_plan_header *header = (sluice_plan_header *)(void *)plan;
  write_file("plan", PLAN, good, length);
  write_file("plan_cut", PLAN, good, sizeof *header - 1);
#define CHANGED(name, change)                                                                                          \
  do {                                                                                                                 \
    memcpy(plan, good, length);                                                                                        \
    change;                                                                                                            \
    write_file(name, PLAN, plan, length);                                                                              \
  } while (0)
  CHANGED("plan_count", header->buffers.count = UINT64_MAX / 32 + 2);
  CHANGED("plan_offset", header->strings.offset = UINT64_MAX - 7);
  CHANGED("plan_unaligned", header->launches.offset += 4);
  CHANGED("plan_group", ((sluice_plan_weight *)(void *)(plan + header->weights.offset))[1].group = 3);
  CHANGED("plan_range", ((sluice_plan_range *)(void *)(plan + header->ranges.offset))[0].to = 0);
  CHANGED("plan_slice", ((sluice_plan_source *)(void *)(plan + header->sources.offset))[5].first_row = UINT32_MAX);
#undef CHANGED
  sluice_release(plan);
  sluice_release(good);
}

/* A program of a header alone, and the bundle behind it. */
static void write_program(const void *bundle, size_t length) {
  char *file = sluice_allocate_aligned(64, SLUICE_BUNDLE_PAGE + length);
  if (!file) exit(1);
  memset(file, 0, SLUICE_BUNDLE_PAGE);
  Elf64_Ehdr *header = (Elf64_Ehdr *)(void *)file;
  memcpy(header->e_ident, ELFMAG, SELFMAG);
  header->e_ident[EI_CLASS] = ELFCLASS64;
  header->e_ident[EI_DATA] = ELFDATA2LSB;
  memcpy(file + SLUICE_BUNDLE_PAGE, bundle, length);
  write_file("program", AS_IT_IS, file, SLUICE_BUNDLE_PAGE + length);
  write_file("program_alone", AS_IT_IS, file, sizeof *header);
  header->e_phoff = UINT64_MAX - 55;
  header->e_phnum = 1;
  write_file("program_tables", AS_IT_IS, file, SLUICE_BUNDLE_PAGE + length);
  sluice_release(file);
}

static void write_bundles(void) {
  static const char code[64] = "\x7f"
                               "ELF";
  size_t length;
  char *good = tiny_bundle_bytes("host:x86-64", code, sizeof code, &length), *bundle = copy_of(good, length);
  sluice_bundle_header *header = (sluice_bundle_header *)(void *)bundle;
  write_program(good, length);
  write_file("empty", AS_IT_IS, NULL, 0);
  write_file("valid", AS_IT_IS, good, length);
  write_file("header_cut", AS_IT_IS, good, 100);
  write_file("truncated", AS_IT_IS, good, SLUICE_BUNDLE_PAGE);
#define CHANGED(name, bytes, change)                                                                                   \
  do {                                                                                                                 \
    memcpy(bundle, good, length);                                                                                      \
    change;                                                                                                            \
    write_file(name, SEALED, bundle, bytes);                                                                           \
  } while (0)
  CHANGED("sections_0", SLUICE_BUNDLE_PAGE, header->section_count = 0);
  CHANGED("sections_41", SLUICE_BUNDLE_PAGE, header->section_count = 41);
  CHANGED("length_overflow", length, header->sections[1].length = UINT64_MAX - 4095);
  CHANGED("overlap", length, header->sections[1].offset = header->sections[0].offset);
  CHANGED("unaligned", length, header->sections[1].offset += 8);
#undef CHANGED
  sluice_release(bundle);
  sluice_release(good);
}

int main(int argc, char **argv) {
  if (argc != 2) return 2;
  directory = argv[1];
  write_plans();
  write_bundles();
  return 0;
}
