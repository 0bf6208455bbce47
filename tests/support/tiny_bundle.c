#include "support/tiny_bundle.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char kernel_source[] =
    "#include <math.h>\n#include <stdint.h>\n"
    "#define V 16\n#define PAGE 4\n#define STRIDE sizes[5]\n"
    "static void append(void *const *a, const int32_t *sizes, int64_t first, int64_t last, void *w) {\n"
    "  const int32_t *tokens = a[0], *positions = a[1], *sequence = a[2], *table = a[3];\n"
    "  (void)w;\n"
    "  for (int64_t t = first; t < last; t++) {\n"
    "    int32_t page = table[sequence[t] * STRIDE + positions[t] / PAGE];\n"
    "    ((int32_t *)((char *)a[4] + 64 * (int64_t)page))[positions[t] % PAGE] = tokens[t];\n"
    "  }\n}\n"
    "void tiny_append(void *const *a, const int32_t *sizes, int64_t first, int64_t last, void *w) {\n"
    "  append(a, sizes, first, last, w);\n}\n"
    "/* Part 1 waits for part 0 and resets the counters; it cannot when they were not zero. */\n"
    "void tiny_join(void *const *a, const int32_t *sizes, int64_t first, int64_t last, void *w) {\n"
    "  int32_t *counters = a[10], tokens = sizes[1];\n"
    "  for (int64_t i = first; i < last; i++) {\n"
    "    if (i < tokens) {\n"
    "      append(a, sizes, i, i + 1, w);\n      counters[0]++;\n"
    "    } else if (counters[0] == tokens) {\n"
    "      append(a + 5, sizes, i - tokens, i - tokens + 1, w);\n"
    "      if (++counters[32] == tokens) counters[0] = counters[32] = 0;\n"
    "    }\n  }\n}\n"
    "void tiny_count(void *const *a, const int32_t *sizes, int64_t first, int64_t last, void *w) {\n"
    "  const int32_t (*tiles)[4] = a[0], *table = a[1];\n"
    "  float *scratch = w;\n"
    "  for (int64_t i = first; i < last; i++)\n"
    "    for (int32_t j = 0; j < tiles[i][1]; j++) {\n"
    "      for (int v = 0; v < V; v++) scratch[v] = 0;\n"
    "      for (int32_t p = 0; p <= tiles[i][3] + j; p++) {\n"
    "        int64_t page = table[tiles[i][2] * STRIDE + p / PAGE];\n"
    "        int32_t x = ((int32_t *)((char *)a[2] + 64 * page))[p % PAGE];\n"
    "        int32_t y = ((int32_t *)((char *)a[3] + 64 * page))[p % PAGE];\n"
    "        scratch[x & 15] += x == y ? 1.0f : NAN;\n"
    "      }\n"
    "      for (int v = 0; v < V; v++) ((float *)a[4])[(tiles[i][0] + j) * V + v] = scratch[v];\n"
    "    }\n}\n"
    "void tiny_logits(void *const *a, const int32_t *sizes, int64_t first, int64_t last, void *w) {\n"
    "  const float *counts = a[0], *scale = a[1];\n  const int32_t *rows = a[2];\n"
    "  (void)sizes; (void)w;\n"
    "  for (int64_t r = first; r < last; r++)\n"
    "    for (int v = 0; v < V; v++) ((float *)a[3])[r * V + v] = counts[rows[r] * V + v] * scale[v];\n}\n"
    "struct row { float temperature, top_p; int32_t top_k, position; uint64_t seed;\n"
    "  float min_p, penalties[3]; uint32_t seen_first, seen_count, reserved[4]; };\n"
    "void tiny_pick(void *const *a, const int32_t *sizes, int64_t first, int64_t last, void *w) {\n"
    "  const float *logits = a[0];\n  const struct row *sampling = a[1];\n"
    "  const int32_t (*seen)[2] = (const void *)(sampling + sizes[2]);\n"
    "  (void)w;\n"
    "  for (int64_t r = first; r < last; r++) {\n"
    "    int best = 0;\n"
    "    for (int v = 1; v < V; v++) if (logits[r * V + v] > logits[r * V + best]) best = v;\n"
    "    const struct row *s = &sampling[r];\n"
    "    uint64_t sum = s->seed; /* of all that a row brings */\n"
    "    for (uint32_t i = 0; i < s->seen_count; i++)\n"
    "      sum += seen[s->seen_first + i][0] + 5 * seen[s->seen_first + i][1] + s->penalties[0];\n"
    "    if (s->temperature > 0) best = (int)((uint64_t)(s->position + s->top_k) + sum) % V;\n"
    "    int nan = 0;\n"
    "    for (int v = 0; v < V; v++) nan |= logits[r * V + v] != logits[r * V + v];\n"
    "    ((int32_t *)a[2])[r] = nan ? -1 - best : best;\n"
    "  }\n}\n"
    "struct piece {\n  uint64_t to, base, first, panel_bytes;\n"
    "  uint32_t group_bytes, units, row_units, groups, panel, row_elements, rows, columns, unit, group, dtype;\n"
    "  float factor;\n};\n"
    "static uint32_t weight(const struct piece *p, uint64_t i) { /* the bits of the weight, as f32 */\n"
    "  uint64_t z = p->base + (i + 1) * 0x9e3779b97f4a7c15u;\n"
    "  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;\n  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;\n  z ^= z >> 31;\n"
    "  int32_t sum = (int32_t)((z & 65535) + (z >> 16 & 65535) + (z >> 32 & 65535) + (z >> 48)) - 131070;\n"
    "  union { float f; uint32_t u; } v = {(float)sum * p->factor};\n"
    "  return (v.u + 0x7fff + (v.u >> 16 & 1)) & 0xffff0000u;\n}\n"
    "void tiny_synthesize(void *const *a, const int32_t *sizes, int64_t first, int64_t last, void *w) {\n"
    "  (void)w;\n"
    "  for (int64_t i = first; i < last && i < sizes[1]; i++) {\n"
    "    const struct piece *p = (const struct piece *)a[0] + i;\n"
    "    for (uint32_t u = 0; u < p->units; u++) {\n"
    "      uint32_t t = u / p->row_units, panel = t / p->groups, group = t % p->groups;\n"
    "      uint64_t to = p->to + panel * p->panel_bytes + (uint64_t)group * p->group_bytes;\n"
    "      for (uint32_t j = 0; j < p->unit; j++) {\n"
    "        uint64_t row = panel * p->panel + u % p->row_units * (p->unit / p->group) + j / p->group;\n"
    "        uint64_t column = group * p->group + j % p->group, at = u % p->row_units * p->unit + j;\n"
    "        uint32_t bits = row < p->rows && column < p->columns\n"
    "                            ? weight(p, p->first + row * p->row_elements + column) : 0;\n"
    "        if (p->dtype == 1) ((uint32_t *)((char *)a[1] + to))[at] = bits;\n"
    "        else ((uint16_t *)((char *)a[1] + to))[at] = (uint16_t)(bits >> 16);\n"
    "      }\n    }\n  }\n}\n";

typedef struct tiny_strings {
  char data[2048];
  uint32_t length;
} tiny_strings;

static uint32_t intern(tiny_strings *strings, const char *text) {
  uint32_t offset = strings->length;
  memcpy(strings->data + offset, text, strlen(text) + 1);
  strings->length += (uint32_t)strlen(text) + 1;
  return offset;
}

static sluice_plan_table place(char *data, size_t *length, const void *elements, size_t count, size_t size) {
  sluice_plan_table table = {.offset = (*length + 7) / 8 * 8, .count = count};
  memcpy(data + table.offset, elements, count * size);
  *length = table.offset + count * size;
  return table;
}

void *tiny_plan(size_t *out_length) {
  tiny_strings s = {.length = 1};
  char *data = sluice_allocate(16384);
  sluice_plan_header *header = (sluice_plan_header *)(void *)data;
  size_t length = sizeof *header;
  *header = (sluice_plan_header){.version = SLUICE_PLAN_VERSION,
                                 .dtype = SLUICE_F32,
                                 .hidden = TINY_VOCABULARY,
                                 .vocabulary = TINY_VOCABULARY,
                                 .layers = TINY_LAYERS,
                                 .page_tokens = TINY_PAGE,
                                 .query_tile = TINY_TILE,
                                 .max_context = TINY_CONTEXT,
                                 .experts = TINY_EXPERTS,
                                 .experts_per_token = 1,
                                 .weight_dtype = SLUICE_BF16,
                                 .ranks = 1};
  const sluice_plan_buffer buffers[] = {{.name = intern(&s, "counts"),
                                         .size = SLUICE_SIZE_TOKENS,
                                         .unit_offset = 64,
                                         .unit_bytes = 64,
                                         .dtype = SLUICE_F32,
                                         .width = TINY_VOCABULARY}};
  sluice_plan_region regions[SLUICE_SIZE_COUNT] = {
      [SLUICE_SIZE_ONE] = {64}, [SLUICE_SIZE_TOKENS] = {128}, [SLUICE_SIZE_TOKENS_PAGES] = {64}};
  const uint32_t values = SLUICE_ROLE_VALUES;
  const sluice_plan_source sources[] = {
      {intern(&s, TINY_SCALE), values, 1, 1, 16, 0, 1, 0, 16, 0, 0, 1},
      {intern(&s, TINY_PANELS_A), values, 2, 5, 7, 0, 5, 0, 7, 0, 0, 1},
      {intern(&s, TINY_PANELS_B), values, 2, 4, 7, 0, 4, 0, 7, 0, 0, 1},
      {intern(&s, TINY_GATE), values, 2, 6, 5, 0, 6, 0, 5, 0, 0, 1},
      {intern(&s, TINY_UP), values, 2, 6, 5, 0, 6, 0, 5, 0, 0, 1},
      {intern(&s, TINY_WIDE), values, 2, 8, 50, 1, 6, 5, 41, 0, 0, 1},     /* rows from 1, columns from 5 on */
      {intern(&s, TINY_WIDE_F32), values, 2, 9, 23, 2, 6, 0, 23, 0, 0, 1}, /* rows from 2 on */
  };
  const sluice_plan_weight weights[] = {
      {.name = intern(&s, "scale"),
       .layout = SLUICE_LAYOUT_ROWS,
       .format = SLUICE_FORMAT_F32,
       .batch = 1,
       .rows = 1,
       .columns = 16,
       .source_count = 1,
       .group = 1,
       .batch_bytes = 64,
       .bytes = 64},
      {.name = intern(&s, "stacked"), /* 9 rows: 3 panels of 4 rows of 4 column pairs */
       .layout = SLUICE_LAYOUT_PANELS,
       .format = SLUICE_FORMAT_BF16,
       .batch = 1,
       .rows = 9,
       .columns = 7,
       .panel = 4,
       .first_source = 1,
       .source_count = 2,
       .group = 2,
       .batch_bytes = 192,
       .bytes = 192},
      {.name = intern(&s, "gate_up"), /* 2 halves of 2 panels of 4 rows of 3 column pairs: 384 bytes */
       .layout = SLUICE_LAYOUT_PANEL_PAIRS,
       .format = SLUICE_FORMAT_F32,
       .batch = TINY_EXPERTS,
       .rows = 12,
       .columns = 5,
       .panel = 4,
       .first_source = 3,
       .source_count = 2,
       .group = 2,
       .batch_bytes = 384,
       .bytes = 384 * TINY_EXPERTS},
      {.name = intern(&s, "wide"), /* 2 panels of 4 rows of 6 groups of 16 bytes, the last one not full */
       .layout = SLUICE_LAYOUT_PANELS,
       .format = SLUICE_FORMAT_BF16,
       .batch = 1,
       .rows = 6,
       .columns = 41,
       .panel = 4,
       .first_source = 5,
       .source_count = 1,
       .group = 8,
       .batch_bytes = 768,
       .bytes = 768},
      {.name = intern(&s, "wide_f32"), /* the same of f32 */
       .layout = SLUICE_LAYOUT_PANELS,
       .format = SLUICE_FORMAT_F32,
       .batch = 1,
       .rows = 6,
       .columns = 23,
       .panel = 4,
       .first_source = 6,
       .source_count = 1,
       .group = 4,
       .batch_bytes = 768,
       .bytes = 768},
  };
  const sluice_plan_layer cache[TINY_LAYERS] = {{.page_bytes = 64}, {.page_bytes = 64}};
  const uint32_t attributes = intern(&s, "{}");
  const sluice_plan_kernel kernels[] = {
      {.name = intern(&s, "tiny_append"), .attributes = attributes, .argument_count = 5, .lanes = 1},
      {.name = intern(&s, "tiny_count"),
       .attributes = attributes,
       .workgroup_bytes = 64,
       .argument_count = 5,
       .lanes = 1},
      {.name = intern(&s, "tiny_logits"), .attributes = attributes, .argument_count = 4, .lanes = 1},
      {.name = intern(&s, "tiny_pick"), .attributes = attributes, .argument_count = 3, .lanes = 1},
      {.name = intern(&s, "tiny_join"), .attributes = attributes, .argument_count = 11, .lanes = 1},
      {.name = intern(&s, "tiny_synthesize"),
       .family = intern(&s, "synthesize"),
       .attributes = attributes,
       .argument_count = 2,
       .lanes = 1},
  };
  const sluice_plan_argument arguments[] = {
      {SLUICE_MEMORY_INPUT, SLUICE_INPUT_TOKENS},
      {SLUICE_MEMORY_INPUT, SLUICE_INPUT_POSITIONS},
      {SLUICE_MEMORY_INPUT, SLUICE_INPUT_SEQUENCE},
      {SLUICE_MEMORY_INPUT, SLUICE_INPUT_PAGE_TABLE},
      {SLUICE_MEMORY_CACHE, 0},
      {SLUICE_MEMORY_INPUT, SLUICE_INPUT_TOKENS},
      {SLUICE_MEMORY_INPUT, SLUICE_INPUT_POSITIONS},
      {SLUICE_MEMORY_INPUT, SLUICE_INPUT_SEQUENCE},
      {SLUICE_MEMORY_INPUT, SLUICE_INPUT_PAGE_TABLE},
      {SLUICE_MEMORY_CACHE, 1},
      {SLUICE_MEMORY_INPUT, SLUICE_INPUT_TILES},
      {SLUICE_MEMORY_INPUT, SLUICE_INPUT_PAGE_TABLE},
      {SLUICE_MEMORY_CACHE, 0},
      {SLUICE_MEMORY_CACHE, 1},
      {SLUICE_MEMORY_ARENA, 0},
      {SLUICE_MEMORY_ARENA, 0},
      {SLUICE_MEMORY_WEIGHT, 0},
      {SLUICE_MEMORY_INPUT, SLUICE_INPUT_LOGIT_ROWS},
      {SLUICE_MEMORY_OUTPUT, SLUICE_OUTPUT_LOGITS},
      {SLUICE_MEMORY_OUTPUT, SLUICE_OUTPUT_LOGITS},
      {SLUICE_MEMORY_INPUT, SLUICE_INPUT_SAMPLING},
      {SLUICE_MEMORY_OUTPUT, SLUICE_OUTPUT_SAMPLED},
  };
  const sluice_plan_extent one = {SLUICE_SIZE_ONE, 1, 1, 0}, tokens = {SLUICE_SIZE_TOKENS, 1, 1, 0},
                           tiles = {SLUICE_SIZE_TILES, 1, 1, 0}, rows = {SLUICE_SIZE_ROWS, 1, 1, 0};
  enum { FROM_ONE_TOKEN, ANY, TO_TWO_TOKENS, RANGES };
  const sluice_plan_range ranges[RANGES] = {{SLUICE_SIZE_TOKENS, 1, UINT32_MAX},
                                            [ANY] = {SLUICE_SIZE_ONE, 0, UINT32_MAX},
                                            [TO_TWO_TOKENS] = {SLUICE_SIZE_TOKENS, 1, 2}};
  const sluice_plan_launch launches[] = {
      {.kernel = 0, .first_argument = 0, .layer = 0, .label = intern(&s, "append"), .grid = {tokens, one}},
      {.kernel = 0, .first_argument = 5, .layer = 1, .grid = {tokens, one}},
      {.kernel = 1,
       .first_argument = 10,
       .layer = UINT32_MAX,
       .grid = {tiles, one},
       .first_range = FROM_ONE_TOKEN,
       .range_count = 1},
      {.kernel = 2,
       .first_argument = 15,
       .layer = UINT32_MAX,
       .grid = {rows, one},
       .first_range = TINY_LOGITS_RANGE,
       .range_count = 1},
      {.kernel = 3, .first_argument = 19, .layer = UINT32_MAX, .grid = {one, rows}},
  };
  _Static_assert(TINY_LOGITS_RANGE == ANY, "for tests that change it");
  const sluice_plan_observable observables[] = {{intern(&s, "layer.0.out"), 2, 0, TINY_VOCABULARY}};

  const sluice_plan_join joins[] = {
      {.kernel = 4, .first_launch = 0, .launch_count = 2, .first_range = TO_TWO_TOKENS, .range_count = 1}};

  header->buffers = place(data, &length, buffers, sizeof buffers / sizeof *buffers, sizeof *buffers);
  header->regions = place(data, &length, regions, SLUICE_SIZE_COUNT, sizeof *regions);
  header->weights = place(data, &length, weights, sizeof weights / sizeof *weights, sizeof *weights);
  header->sources = place(data, &length, sources, sizeof sources / sizeof *sources, sizeof *sources);
  header->cache = place(data, &length, cache, TINY_LAYERS, sizeof *cache);
  header->kernels = place(data, &length, kernels, sizeof kernels / sizeof *kernels, sizeof *kernels);
  header->launches = place(data, &length, launches, sizeof launches / sizeof *launches, sizeof *launches);
  header->arguments = place(data, &length, arguments, sizeof arguments / sizeof *arguments, sizeof *arguments);
  header->observables = place(data, &length, observables, 1, sizeof *observables);
  header->joins = place(data, &length, joins, 1, sizeof *joins);
  header->ranges = place(data, &length, ranges, RANGES, sizeof *ranges);
  header->strings = place(data, &length, s.data, s.length, 1);
  *out_length = length;
  return data;
}

enum { TINY_DIGEST = 32 };

void tiny_bundle_bind(void *bundle) {
  const sluice_bundle_section *sections = ((const sluice_bundle_header *)bundle)->sections;
  const sluice_bundle_section *plan = &sections[1], *code = &sections[2];
  uint8_t *bytes = bundle;
  sluice_sha256(bytes + plan->offset, plan->length, bytes + code->offset + code->length - TINY_DIGEST);
}

void tiny_bundle_seal(void *bundle) {
  sluice_bundle_header *header = bundle;
  for (uint32_t i = 0; i < header->section_count && i < SLUICE_BUNDLE_MAX_SECTIONS; i++) {
    sluice_bundle_section *section = &header->sections[i];
    if (section->offset <= header->file_length && section->length <= header->file_length - section->offset)
      sluice_sha256((char *)bundle + section->offset, section->length, section->digest);
  }
  sluice_sha256(bundle, SLUICE_BUNDLE_PAGE - sizeof header->digest, header->digest);
}

void *tiny_bundle_bytes(const char *target, const void *code, size_t code_length, size_t *out_length) {
  static const char manifest[] =
      "{\"generator\": \"sluice 0.0.9\", \"model\": {\"hidden\": 16}, \"stop_ids\": [15], \"dtype\": \"float32\"}";
  size_t plan_length;
  void *plan = tiny_plan(&plan_length);
  const struct {
    uint32_t kind;
    const char *target;
    const void *data;
    size_t length;
  } parts[] = {{SLUICE_SECTION_MANIFEST, "", manifest, sizeof manifest - 1},
               {SLUICE_SECTION_PLAN, target, plan, plan_length},
               {SLUICE_SECTION_CODE, target, code, code_length + TINY_DIGEST}};
  size_t length = SLUICE_BUNDLE_PAGE;
  for (int i = 0; i < 3; i++)
    length += (parts[i].length + SLUICE_BUNDLE_PAGE - 1) / SLUICE_BUNDLE_PAGE * SLUICE_BUNDLE_PAGE;
  char *data = sluice_allocate_aligned(SLUICE_BUNDLE_PAGE, length);
  memset(data, 0, length);
  sluice_bundle_header *header = (sluice_bundle_header *)(void *)data;
  memcpy(header->magic, SLUICE_BUNDLE_MAGIC, 8);
  header->version = SLUICE_BUNDLE_VERSION;
  header->section_count = 3;
  header->file_length = length;
  uint64_t offset = SLUICE_BUNDLE_PAGE;
  for (int i = 0; i < 3; i++) {
    sluice_bundle_section *section = &header->sections[i];
    section->kind = parts[i].kind;
    section->offset = offset;
    section->length = parts[i].length;
    snprintf(section->target, sizeof section->target, "%s", parts[i].target);
    memcpy(data + offset, parts[i].data, i == 2 ? code_length : parts[i].length);
    offset += (parts[i].length + SLUICE_BUNDLE_PAGE - 1) / SLUICE_BUNDLE_PAGE * SLUICE_BUNDLE_PAGE;
  }
  tiny_bundle_bind(data);
  tiny_bundle_seal(data);
  sluice_release(plan);
  *out_length = length;
  return data;
}

static int write_file(const char *path, const void *data, size_t length) {
  FILE *file = fopen(path, "wb");
  if (!file) return 1;
  int failed = fwrite(data, 1, length, file) != length;
  return fclose(file) != 0 || failed;
}

static char *read_file(const char *path, size_t *out_length) {
  FILE *file = fopen(path, "rb");
  if (!file) return NULL;
  fseek(file, 0, SEEK_END);
  long length = ftell(file);
  rewind(file);
  char *data = length > 0 ? sluice_allocate((size_t)length) : NULL;
  *out_length = data ? fread(data, 1, (size_t)length, file) : 0;
  fclose(file);
  return data;
}

int tiny_bundle_write(const char *path) {
  return tiny_bundle_write_for(path, "host:x86-64");
}

int tiny_bundle_write_for(const char *path, const char *target) {
  char source[512], library[512], command[2048];
  snprintf(source, sizeof source, "%s.kernels.c", path);
  snprintf(library, sizeof library, "%s.kernels.so", path);
  if (write_file(source, kernel_source, sizeof kernel_source - 1)) return 1;
  /* As the host backend links: nothing but code and a table of functions. */
  snprintf(command, sizeof command,
           "cc -O1 -shared -fPIC -nostdlib -fcf-protection=none -fno-asynchronous-unwind-tables -Wl,--build-id=none "
           "-Wl,--hash-style=gnu -o '%s' '%s'",
           library, source);
  if (system(command) != 0) return 1;
  size_t code_length = 0, length = 0;
  char *code = read_file(library, &code_length);
  unlink(source);
  unlink(library);
  if (!code) return 1;
  void *bundle = tiny_bundle_bytes(target, code, code_length, &length);
  int failed = write_file(path, bundle, length);
  sluice_release(bundle);
  sluice_release(code);
  return failed;
}

/* ---- its checkpoint ---- */

enum { TENSORS = 5 + 2 * TINY_EXPERTS };

int tiny_checkpoint_write(const char *path, uint64_t seed, const char *skip, const char *reshape, const char *extra) {
  sluice_tensor_info tensors[TENSORS + 1] = {
      {.name = TINY_SCALE, .rank = 1, .shape = {16}},       {.name = TINY_PANELS_A, .rank = 2, .shape = {5, 7}},
      {.name = TINY_PANELS_B, .rank = 2, .shape = {4, 7}},  {.name = TINY_WIDE, .rank = 2, .shape = {8, 50}},
      {.name = TINY_WIDE_F32, .rank = 2, .shape = {9, 23}},
  };
  char names[2 * TINY_EXPERTS][64];
  size_t count = 5;
  for (unsigned e = 0; e < TINY_EXPERTS; e++) {
    snprintf(names[2 * e], 64, "language_model.experts.%u.gate.weight", e);
    snprintf(names[2 * e + 1], 64, "language_model.experts.%u.up.weight", e);
    tensors[count++] = (sluice_tensor_info){.name = names[2 * e], .rank = 2, .shape = {6, 5}};
    tensors[count++] = (sluice_tensor_info){.name = names[2 * e + 1], .rank = 2, .shape = {6, 5}};
  }
  size_t kept = 0;
  for (size_t i = 0; i < count; i++)
    if (!skip || strcmp(tensors[i].name, skip) != 0) tensors[kept++] = tensors[i];
  if (extra) tensors[kept++] = (sluice_tensor_info){.name = extra, .rank = 1, .shape = {3}};
  uint16_t data[TENSORS + 1][8 * 50];
  for (size_t i = 0; i < kept; i++) {
    uint64_t elements = (uint64_t)(tensors[i].shape[0] * (tensors[i].rank == 2 ? tensors[i].shape[1] : 1));
    tensors[i].dtype = SLUICE_BF16;
    tensors[i].bytes = 2 * elements;
    sluice_synthetic_fill(tensors[i].name, seed, tensors[i].shape[tensors[i].rank - 1], 0, elements, data[i]);
    if (reshape && strcmp(tensors[i].name, reshape) == 0) {
      int64_t first = tensors[i].shape[0];
      tensors[i].shape[0] = tensors[i].shape[1];
      tensors[i].shape[1] = first;
    }
  }
  sluice_safetensors_writer *writer = NULL;
  sluice_status *status = sluice_safetensors_create(path, tensors, kept, NULL, 0, &writer);
  for (size_t i = 0; i < kept && !status; i++)
    status = sluice_safetensors_append(writer, data[i], (size_t)tensors[i].bytes);
  if (!status)
    status = sluice_safetensors_finish(writer);
  else if (writer)
    sluice_safetensors_abandon(writer);
  sluice_status_print(status);
  int failed = status != NULL;
  sluice_status_free(status);
  return failed;
}
