/* sluice-gcn: runs a kernel of an AMD code object on the interpreter, as docs/amdgcn-interpreter.md describes. */
#include "tests/amdgcn/gcn.h"
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_ARGUMENTS = 64, MAX_WORDS = 16, LINE_BYTES = 4096 };

typedef struct buffer {
  void *memory;
  size_t count;
  char type[8];
  size_t print; /* elements */
  char save[256];
} buffer;

typedef struct run {
  gcn_machine *machine;
  gcn_module *module;
  const gcn_kernel *kernel;
  gcn_launch_options options;
  uint8_t kernarg[4096];
  uint32_t arguments;
  buffer buffers[MAX_ARGUMENTS];
  uint32_t buffer_count;
  bool profile;
  const char *file;
  unsigned line;
} run;

static sluice_status *complain(const run *r, const char *found, const char *expected) {
  return sluice_error_at(SLUICE_INVALID, r->file, r->line, 0, NULL, 0, "found %s, expected %s", found, expected);
}

/* ---- Files ---- */

static sluice_status *read_file(const char *name, uint8_t **out, size_t *bytes) {
  *out = NULL;
  FILE *file = fopen(name, "rb");
  if (!file) return sluice_error(SLUICE_IO, "%s: %s", name, strerror(errno));
  size_t room = 1 << 16;
  *bytes = 0;
  for (;;) {
    uint8_t *grown = realloc(*out, room);
    if (!grown) break;
    *out = grown;
    size_t got = fread(*out + *bytes, 1, room - *bytes, file);
    *bytes += got;
    if (got == 0) break;
    if (*bytes == room) room *= 2;
  }
  bool failed = ferror(file) || !*out || *bytes == room;
  fclose(file);
  if (!failed) return NULL;
  free(*out);
  *out = NULL;
  return sluice_error(SLUICE_IO, "%s does not read", name);
}

static sluice_status *write_file(const char *name, const void *bytes, size_t count) {
  FILE *file = fopen(name, "wb");
  if (!file) return sluice_error(SLUICE_IO, "%s: %s", name, strerror(errno));
  size_t written = fwrite(bytes, 1, count, file);
  return fclose(file) == 0 && written == count ? NULL : sluice_error(SLUICE_IO, "%s does not write", name);
}

/* ---- Elements ---- */

static size_t type_bytes(const char *type) {
  static const struct {
    const char *name;
    size_t bytes;
  } types[] = {{"u8", 1},  {"i8", 1},  {"u16", 2}, {"i16", 2}, {"bf16", 2}, {"f16", 2},
               {"u32", 4}, {"i32", 4}, {"f32", 4}, {"u64", 8}, {"i64", 8},  {"f64", 8}};
  for (size_t k = 0; k < sizeof types / sizeof *types; k++) {
    if (strcmp(types[k].name, type) == 0) return types[k].bytes;
  }
  return 0;
}

static void put(const char *type, void *to, double value) {
  float narrow = (float)value;
  uint32_t bits;
  memcpy(&bits, &narrow, sizeof bits);
  if (strcmp(type, "f32") == 0)
    memcpy(to, &narrow, 4);
  else if (strcmp(type, "f64") == 0)
    memcpy(to, &value, 8);
  else if (strcmp(type, "f16") == 0)
    memcpy(to, &(_Float16){(_Float16)value}, 2);
  else if (strcmp(type, "bf16") == 0)
    memcpy(to, &(uint16_t){(uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16)}, 2);
  else if (type[0] == 'u')
    memcpy(to, &(uint64_t){(uint64_t)value}, type_bytes(type));
  else
    memcpy(to, &(int64_t){(int64_t)value}, type_bytes(type));
}

static double get(const char *type, const void *from) {
  uint64_t bits = 0;
  memcpy(&bits, from, type_bytes(type));
  float narrow;
  double wide;
  _Float16 half;
  if (strcmp(type, "f32") == 0) return memcpy(&narrow, from, 4), (double)narrow;
  if (strcmp(type, "f64") == 0) return memcpy(&wide, from, 8), wide;
  if (strcmp(type, "f16") == 0) return memcpy(&half, from, 2), (double)half;
  if (strcmp(type, "bf16") == 0) return memcpy(&narrow, &(uint32_t){(uint32_t)bits << 16}, 4), (double)narrow;
  if (type[0] == 'u') return (double)bits;
  unsigned shift = 64 - 8 * (unsigned)type_bytes(type);
  return (double)((int64_t)(bits << shift) >> shift);
}

/* ---- The description, line by line ---- */

static sluice_status *number(const run *r, const char *text, double *out) {
  char *end;
  *out = text ? strtod(text, &end) : 0;
  return text && *text && *end == 0 ? NULL : complain(r, text ? text : "the line's end", "a number");
}

static sluice_status *take_sizes(const run *r, char *const words[], uint32_t sizes[3]) {
  for (unsigned axis = 0; axis < 3 && words[axis]; axis++) {
    double value;
    SLUICE_TRY(number(r, words[axis], &value));
    if (!(value >= 1 && value <= 4294967295.0)) return complain(r, words[axis], "a size from 1 on");
    sizes[axis] = (uint32_t)value;
  }
  return NULL;
}

static uint64_t next_random(uint64_t *state) {
  *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
  return *state >> 32;
}

/* What a buffer holds at first: zeros, poison, iota, value X, random SEED (from -1 to 1, of integers all bits), file
 * PATH. */
static sluice_status *fill(const run *r, buffer *b, char *const words[], unsigned *used) {
  size_t size = type_bytes(b->type);
  uint8_t *to = b->memory;
  double value = 0;
  *used = 2;
  if (strcmp(words[0], "zeros") == 0) {
    memset(to, 0, b->count * size);
    *used = 1;
  } else if (strcmp(words[0], "poison") == 0) {
    *used = 1;
  } else if (strcmp(words[0], "iota") == 0) {
    for (size_t k = 0; k < b->count; k++) put(b->type, to + k * size, (double)k);
    *used = 1;
  } else if (strcmp(words[0], "value") == 0) {
    SLUICE_TRY(number(r, words[1], &value));
    for (size_t k = 0; k < b->count; k++) put(b->type, to + k * size, value);
  } else if (strcmp(words[0], "random") == 0) {
    SLUICE_TRY(number(r, words[1], &value));
    uint64_t state = (uint64_t)value + 1;
    for (size_t k = 0; k < b->count; k++) {
      uint64_t bits = next_random(&state) << 32;
      bits |= next_random(&state);
      if (strchr(b->type, 'f'))
        put(b->type, to + k * size, (double)(int64_t)bits * 0x1p-63);
      else
        memcpy(to + k * size, &bits, size);
    }
  } else if (strcmp(words[0], "file") == 0 && words[1]) {
    uint8_t *bytes;
    size_t count;
    SLUICE_TRY(read_file(words[1], &bytes, &count));
    if (count == b->count * size) memcpy(to, bytes, count);
    free(bytes);
    if (count != b->count * size)
      return sluice_error(SLUICE_INVALID, "%s has %zu bytes; the buffer has %zu", words[1], count, b->count * size);
  } else {
    return complain(r, words[0], "zeros, poison, iota, value X, random SEED or file PATH");
  }
  return NULL;
}

static sluice_status *store_argument(run *r, const void *bytes, size_t size) {
  const gcn_argument *a = gcn_kernel_argument(r->kernel, r->arguments);
  if (!a) return complain(r, "one more argument", "as many as the kernel takes");
  if (a->bytes != size) {
    return sluice_error_at(SLUICE_INVALID, r->file, r->line, 0, NULL, 0,
                           "argument %u (%s) has %u bytes; found one of %zu", r->arguments,
                           a->name[0] ? a->name : "without a name", a->bytes, size);
  }
  if (a->offset + size > sizeof r->kernarg) return complain(r, "arguments past 4096 bytes", "fewer");
  memcpy(r->kernarg + a->offset, bytes, size);
  r->arguments++;
  return NULL;
}

/* buffer COUNT TYPE CONTENT [print N] [save PATH] */
static sluice_status *take_buffer(run *r, char *const words[]) {
  buffer *b = &r->buffers[r->buffer_count];
  double count;
  unsigned used;
  SLUICE_TRY(number(r, words[1], &count));
  if (!(count >= 1 && count <= 0x1p40)) return complain(r, words[1], "a number of elements");
  if (!words[2] || !type_bytes(words[2]))
    return complain(r, words[2] ? words[2] : "the line's end", "a type: u8 to u64, i8 to i64, f16, bf16, f32 or f64");
  if (!words[3]) return complain(r, "the line's end", "what the buffer holds");
  b->count = (size_t)count;
  strcpy(b->type, words[2]);
  SLUICE_TRY(gcn_allocate(r->machine, b->count * type_bytes(b->type), &b->memory));
  r->buffer_count++;
  SLUICE_TRY(fill(r, b, words + 3, &used));
  for (char *const *w = words + 3 + used; *w; w += 2) {
    double elements;
    if (strcmp(w[0], "print") == 0) {
      SLUICE_TRY(number(r, w[1], &elements));
      b->print = elements<0 ? 0 : elements>(double) b->count ? b->count : (size_t)elements;
    } else if (strcmp(w[0], "save") == 0 && w[1] && strlen(w[1]) < sizeof b->save) {
      strcpy(b->save, w[1]);
    } else {
      return complain(r, w[0], "print N or save PATH");
    }
  }
  return store_argument(r, &b->memory, sizeof b->memory);
}

static sluice_status *take_line(run *r, char *const words[]) {
  double value;
  if (strcmp(words[0], "kernel") == 0 && words[1]) {
    r->kernel = gcn_kernel_find(r->module, words[1]);
    return r->kernel ? NULL : complain(r, words[1], "a kernel of the file; without a description they are listed");
  }
  if (strcmp(words[0], "grid") == 0) return take_sizes(r, words + 1, r->options.grid);
  if (strcmp(words[0], "workgroup") == 0) return take_sizes(r, words + 1, r->options.workgroup);
  if (strcmp(words[0], "lds") == 0) {
    SLUICE_TRY(number(r, words[1], &value));
    r->options.dynamic_lds = (uint32_t)value;
    return NULL;
  }
  if (!r->kernel) return complain(r, words[0], "kernel NAME first");
  if (strcmp(words[0], "buffer") == 0) {
    return r->buffer_count == MAX_ARGUMENTS ? complain(r, "more than 64 buffers", "fewer") : take_buffer(r, words);
  }
  if (!type_bytes(words[0]))
    return complain(r, words[0], "kernel, grid, workgroup, lds, buffer, or a type and a value");
  uint8_t bytes[8];
  SLUICE_TRY(number(r, words[1], &value));
  put(words[0], bytes, value);
  return store_argument(r, bytes, type_bytes(words[0]));
}

static sluice_status *read_description(run *r, const char *name) {
  FILE *file = strcmp(name, "-") == 0 ? stdin : fopen(name, "r");
  if (!file) return sluice_error(SLUICE_IO, "%s: %s", name, strerror(errno));
  char line[LINE_BYTES];
  sluice_status *status = NULL;
  r->file = name;
  while (!status && fgets(line, sizeof line, file)) {
    char *words[MAX_WORDS + 1] = {0}, *rest = line;
    unsigned count = 0;
    r->line++;
    line[strcspn(line, "#\n")] = 0;
    for (char *w; count < MAX_WORDS && (w = strtok_r(rest, " \t", &rest)) != NULL;) words[count++] = w;
    if (count) status = take_line(r, words);
  }
  if (file != stdin) fclose(file);
  if (!status && !r->kernel) status = sluice_error(SLUICE_INVALID, "%s names no kernel", name);
  if (!status && gcn_kernel_argument(r->kernel, r->arguments)) {
    status = sluice_error(SLUICE_INVALID, "%s has %u arguments; the kernel takes %u", name, r->arguments,
                          gcn_kernel_describe(r->kernel)->arguments);
  }
  return status;
}

/* ---- Output ---- */

static void list_kernels(const gcn_module *module) {
  for (uint32_t k = 0; k < gcn_kernel_count(module); k++) {
    const gcn_kernel *kernel = gcn_kernel_at(module, k);
    const gcn_kernel_info *i = gcn_kernel_describe(kernel);
    printf("%s: workgroups of %u lanes at most, %u bytes of LDS, %u VGPRs (%u of them AGPRs), %u SGPRs, %u bytes of "
           "scratch, %u + %u spills\n",
           i->name, i->max_workgroup_lanes, i->lds_bytes, i->vgprs, i->agprs, i->sgprs, i->scratch_bytes,
           i->vgpr_spills, i->sgpr_spills);
    for (uint32_t n = 0; n < i->arguments; n++) {
      const gcn_argument *a = gcn_kernel_argument(kernel, n);
      printf("  %3u: %u bytes%s %s\n", a->offset, a->bytes, a->is_pointer ? ", pointer" : "", a->name);
    }
  }
}

static void print_counts(const gcn_counts *c) {
  const struct {
    const char *name;
    uint64_t value;
  } rows[] = {{"workgroups", c->workgroups},
              {"waves", c->waves},
              {"instructions", c->instructions},
              {"vector", c->vector},
              {"scalar", c->scalar},
              {"branches", c->branches},
              {"waits", c->waits},
              {"nops", c->nops},
              {"barriers", c->barriers},
              {"scalar loads", c->scalar_loads},
              {"matrix", c->matrix},
              {"matrix cycles", c->matrix_cycles},
              {"vector memory", c->vector_memory},
              {"global bytes loaded", c->global_loaded},
              {"global bytes stored", c->global_stored},
              {"global atomics", c->global_atomics},
              {"bytes direct to LDS", c->direct_to_lds},
              {"128-byte lines", c->global_lines},
              {"scratch bytes loaded", c->scratch_loaded},
              {"scratch bytes stored", c->scratch_stored},
              {"LDS", c->lds},
              {"LDS bytes loaded", c->lds_loaded},
              {"LDS bytes stored", c->lds_stored},
              {"LDS cycles", c->lds_cycles},
              {"LDS conflict cycles", c->lds_conflicts}};
  for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) printf("%-22s %" PRIu64 "\n", rows[k].name, rows[k].value);
}

static void print_profile(const gcn_profile *p) {
  printf("%8s %12s %10s %10s %12s %10s  instruction\n", "offset", "executed", "LDS", "conflicts", "bytes", "lines");
  for (size_t k = 0; k < p->count; k++) {
    const gcn_profile_entry *e = &p->entries[k];
    printf("%8" PRIx64 " %12" PRIu64 " %10" PRIu64 " %10" PRIu64 " %12" PRIu64 " %10" PRIu64 "  %s\n", e->offset,
           e->executions, e->lds_cycles, e->lds_conflicts, e->global_bytes, e->global_lines, e->text);
  }
}

static sluice_status *finish_buffers(const run *r) {
  for (uint32_t k = 0; k < r->buffer_count; k++) {
    const buffer *b = &r->buffers[k];
    size_t size = type_bytes(b->type);
    if (b->print) printf("buffer %u:", k);
    for (size_t n = 0; n < b->print; n++) printf(" %.9g", get(b->type, (const uint8_t *)b->memory + n * size));
    if (b->print) printf("\n");
    if (b->save[0]) SLUICE_TRY(write_file(b->save, b->memory, b->count * size));
  }
  return NULL;
}

static sluice_status *launch(run *r, const char *description) {
  gcn_counts counts = {0};
  gcn_profile profile = {0};
  SLUICE_TRY(read_description(r, description));
  r->options.kernarg = r->kernarg;
  r->options.kernarg_bytes = gcn_kernel_describe(r->kernel)->explicit_bytes;
  r->options.counts = &counts;
  r->options.profile = r->profile ? &profile : NULL;
  SLUICE_TRY(gcn_launch(r->kernel, &r->options));
  print_counts(&counts);
  if (r->profile) print_profile(&profile);
  gcn_profile_free(&profile);
  return finish_buffers(r);
}

static sluice_status *usage(void) {
  return sluice_error(SLUICE_USAGE, "usage: sluice-gcn FILE.hsaco [DESCRIPTION] [--seed=N] [--unchecked] [--profile]");
}

static sluice_status *start(run *r, int count, char **arguments) {
  const char *names[2] = {NULL, NULL};
  unsigned given = 0;
  for (int k = 1; k < count; k++) {
    if (strncmp(arguments[k], "--seed=", 7) == 0) {
      char *end;
      r->options.seed = strtoull(arguments[k] + 7, &end, 10);
      if (*end || !arguments[k][7]) return usage();
    } else if (strcmp(arguments[k], "--unchecked") == 0) {
      r->options.unchecked = true;
    } else if (strcmp(arguments[k], "--profile") == 0) {
      r->profile = true;
    } else if (given == 2 || (arguments[k][0] == '-' && arguments[k][1])) {
      return usage();
    } else {
      names[given++] = arguments[k];
    }
  }
  if (!given) return usage();
  uint8_t *file;
  size_t bytes;
  gcn_target target;
  SLUICE_TRY(read_file(names[0], &file, &bytes));
  sluice_status *status = gcn_code_object_target(file, bytes, &target);
  if (!status) status = gcn_machine_create(target, &r->machine);
  if (!status) status = gcn_module_load(r->machine, file, bytes, &r->module);
  free(file);
  if (status) return sluice_annotate(status, "%s", names[0]);
  if (names[1]) return launch(r, names[1]);
  list_kernels(r->module);
  return NULL;
}

int main(int count, char **arguments) {
  static run r;
  sluice_status *status = start(&r, count, arguments);
  gcn_machine_free(r.machine);
  sluice_status_print(status);
  int code = sluice_exit_code(status);
  sluice_status_free(status);
  return code;
}
