/* Prints one kernel's assembly, for tests of shapes that no compiled model has:
 *
 *   emit_kernel TARGET FAMILY ARGUMENTS i:NAME=INTEGER f:NAME=NUMBER s:NAME=TEXT ...
 *
 * The kernel's name is FAMILY_0. Its workgroups go to stderr as "grid SIZE DIVISOR FACTOR MOST, SIZE ...": the numbers
 * of the two sluice_plan_extent.
 */
#include "backends/common/kernel.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_ATTRIBUTES = 64 };

static bool read_attribute(char *text, kernel_attribute *out) {
  char *value = strchr(text, '=');
  if (strlen(text) < 3 || text[1] != ':' || !value) return false;
  *value++ = 0;
  *out = (kernel_attribute){.name = text + 2};
  switch (text[0]) {
  case 'i':
    out->integer = strtoll(value, NULL, 10);
    return true;
  case 'f':
    out->kind = KERNEL_FLOAT;
    out->number = strtod(value, NULL);
    return true;
  case 's':
    out->kind = KERNEL_STRING;
    out->string = value;
    return true;
  default:
    return false;
  }
}

static sluice_status *emit(const char *target, const kernel_spec *spec) {
  char canonical[32];
  const backend_options options = {.form = CODE_ASSEMBLY};
  code_object code;
  SLUICE_TRY(target_canonicalise(target, canonical));
  SLUICE_TRY(backend_compile(canonical, spec, 1, &options, &code));
  fwrite(code.data, 1, code.length, stdout);
  const sluice_plan_extent *grid = code.kernels[0].grid;
  fprintf(stderr, "grid %u %u %u %u, %u %u %u %u\n", grid[0].size, grid[0].divisor, grid[0].factor, grid[0].most,
          grid[1].size, grid[1].divisor, grid[1].factor, grid[1].most);
  code_object_free(&code);
  return NULL;
}

int main(int argc, char **argv) {
  static kernel_attribute attributes[MOST_ATTRIBUTES];
  char symbol[64];
  if (argc < 4 || argc - 4 > MOST_ATTRIBUTES) {
    fprintf(stderr, "usage: emit_kernel TARGET FAMILY ARGUMENTS i:NAME=INTEGER f:NAME=NUMBER s:NAME=TEXT ...\n");
    return 2;
  }
  snprintf(symbol, sizeof symbol, "%s_0", argv[2]);
  kernel_spec spec = {.family = argv[2],
                      .symbol = symbol,
                      .attributes = attributes,
                      .argument_count = (uint32_t)strtoul(argv[3], NULL, 10)};
  for (int i = 4; i < argc; i++)
    if (!read_attribute(argv[i], &attributes[spec.attribute_count++])) {
      fprintf(stderr, "'%s' is no attribute\n", argv[i]);
      return 2;
    }
  sluice_status *status = emit(argv[1], &spec);
  if (!status) return 0;
  fprintf(stderr, "error: %s\n", sluice_status_message(status));
  sluice_status_free(status);
  return 1;
}
