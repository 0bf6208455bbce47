/* The block selections of golden/m3-slice in float64, against the golden file's: which float32 got wrong, and by how
 * much. Layer 0 whole, then layer 1 as far as its choice of blocks; only the angle of the rotary embedding is float32,
 * as the model defines it. Prints each selection that differs and each that was close. Two minutes on two cores.
 *
 *   cc -O3 -march=native -fopenmp -fno-math-errno -fno-trapping-math -fno-signed-zeros -fassociative-math -I.
 *      -Iruntime/include tests/bench/m3_slice_float64.c BUILD/libsluice_runtime.a -lm -ldl -lpthread -o
 * m3_slice_float64
 *   ./m3_slice_float64 golden/m3-slice/golden.float32.safetensors
 *
 * (Not -ffast-math: it computes the rotary frequencies otherwise.) */
#include "sluice/checkpoint.h"
#include "sluice/dtype.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HIDDEN = 6144, HEADS = 64, KV_HEADS = 4, DIM = 128, ROTARY = 64, WIDTH = 12288, VOCABULARY = 8192 };
enum { BLOCK = 128, CHOSEN = 16, MOST_BLOCKS = 64, AT_ONCE = 1024, SEED = 3 };
static const double CLOSE = 1e-4; /* margins of scores below it are printed */

typedef double double8 __attribute__((vector_size(64), aligned(8)));
typedef float float8 __attribute__((vector_size(32), aligned(4)));

static void *memory(size_t count, size_t size) {
  void *result = calloc(count, size);
  if (!result) abort();
  return result;
}

static double *doubles(size_t count) {
  return memory(count, sizeof(double));
}

/* Tensor `name` of layer `layer` (negative: of none); columns 0: a vector. */
static float *tensor(int layer, const char *name, size_t rows, size_t columns) {
  char full[128];
  if (layer < 0)
    snprintf(full, sizeof full, "language_model.model.%s.weight", name);
  else
    snprintf(full, sizeof full, "language_model.model.layers.%d.%s.weight", layer, name);
  size_t last = columns ? columns : rows, lines = columns ? rows : 1;
  float *values = memory(lines * last, sizeof *values);
#pragma omp parallel for
  for (size_t line = 0; line < lines; line++) {
    uint16_t *row = memory(last, sizeof *row);
    sluice_synthetic_fill(full, SEED, (int64_t)last, line * last, last, row);
    for (size_t i = 0; i < last; i++) values[line * last + i] = sluice_f32_from_bf16(row[i]);
    free(row);
  }
  return values;
}

static double dot(const double *a, const double *b, size_t count) {
  double sum = 0;
  for (size_t i = 0; i < count; i++) sum += a[i] * b[i];
  return sum;
}

/* out[rows][n] = x[rows][k] w[n][k]^T; n a multiple of 4, k of 8. Frees w. */
static double *multiply(const double *x, size_t rows, float *w, size_t n, size_t k) {
  double *out = doubles(rows * n);
#pragma omp parallel for schedule(dynamic)
  for (size_t tile = 0; tile < rows; tile += 16)
    for (size_t column = 0; column < n; column += 4)
      for (size_t first = tile; first < tile + 16 && first < rows; first += 4) {
        double8 sums[4][4] = {0};
        for (size_t at = 0; at < k; at += 8)
          for (size_t j = 0; j < 4; j++) {
            double8 weights = __builtin_convertvector(*(const float8 *)(w + (column + j) * k + at), double8);
            for (size_t i = 0; i < 4; i++) {
              size_t row = first + i < rows ? first + i : rows - 1;
              sums[i][j] += *(const double8 *)(x + row * k + at) * weights;
            }
          }
        for (size_t i = 0; i < 4 && first + i < rows; i++)
          for (size_t j = 0; j < 4; j++) {
            double sum = 0;
            for (int lane = 0; lane < 8; lane++) sum += sums[i][j][lane];
            out[(first + i) * n + column + j] = sum;
          }
      }
  free(w);
  return out;
}

static void normalise(double *out, const double *x, const float *w, size_t width) {
  double scale = 1 / sqrt(dot(x, x, width) / (double)width + 1e-6);
  for (size_t i = 0; i < width; i++) out[i] = x[i] * scale * (1 + (double)w[i]);
}

/* All rows of h, with a norm's tensor. */
static double *normalised(const double *h, size_t rows, float *w) {
  double *x = doubles(rows * HIDDEN);
  for (size_t i = 0; i < rows; i++) normalise(x + i * HIDDEN, h + i * HIDDEN, w, HIDDEN);
  free(w);
  return x;
}

/* Norm and rotary embedding of x[positions][heads][DIM]. Frees w. */
static void rotate(double *x, size_t positions, size_t heads, float *w) {
#pragma omp parallel for
  for (size_t row = 0; row < positions * heads; row++) {
    double *head = x + row * DIM;
    normalise(head, head, w, DIM);
    for (int i = 0; i < ROTARY / 2; i++) {
      float angle = (float)(row / heads) * (1.0f / powf(5e6f, (float)(2 * i) / (float)ROTARY));
      double c = cos((double)angle), s = sin((double)angle), a = head[i], b = head[i + ROTARY / 2];
      head[i] = a * c - b * s;
      head[i + ROTARY / 2] = b * c + a * s;
    }
  }
  free(w);
}

static void add_to(double *h, double *x, size_t count) {
  for (size_t i = 0; i < count; i++) h[i] += x[i];
  free(x);
}

static void attend(double *h, size_t positions) {
  double *x = normalised(h, positions, tensor(0, "input_layernorm", HIDDEN, 0));
  double *q = multiply(x, positions, tensor(0, "self_attn.q_proj", HEADS * DIM, HIDDEN), HEADS * DIM, HIDDEN);
  double *k = multiply(x, positions, tensor(0, "self_attn.k_proj", KV_HEADS * DIM, HIDDEN), KV_HEADS * DIM, HIDDEN);
  double *v = multiply(x, positions, tensor(0, "self_attn.v_proj", KV_HEADS * DIM, HIDDEN), KV_HEADS * DIM, HIDDEN);
  rotate(q, positions, HEADS, tensor(0, "self_attn.q_norm", DIM, 0));
  rotate(k, positions, KV_HEADS, tensor(0, "self_attn.k_norm", DIM, 0));
  double *out = doubles(positions * HEADS * DIM);
#pragma omp parallel for schedule(dynamic, 16)
  for (size_t row = 0; row < positions * HEADS; row++) {
    size_t last = row / HEADS, kv_head = row % HEADS / (HEADS / KV_HEADS);
    double *weights = doubles(last + 1), largest = -INFINITY, total = 0;
    for (size_t j = 0; j <= last; j++) {
      weights[j] = dot(q + row * DIM, k + (j * KV_HEADS + kv_head) * DIM, DIM) / sqrt(DIM);
      largest = fmax(largest, weights[j]);
    }
    for (size_t j = 0; j <= last; j++) {
      double weight = exp(weights[j] - largest);
      total += weight;
      for (size_t i = 0; i < DIM; i++) out[row * DIM + i] += weight * v[(j * KV_HEADS + kv_head) * DIM + i];
    }
    for (size_t i = 0; i < DIM; i++) out[row * DIM + i] /= total;
    free(weights);
  }
  add_to(h, multiply(out, positions, tensor(0, "self_attn.o_proj", HIDDEN, HEADS * DIM), HIDDEN, HEADS * DIM),
         positions * HIDDEN);
  free(x), free(q), free(k), free(v), free(out);
}

static void feed_forward(double *h, size_t positions) {
  double *x = normalised(h, positions, tensor(0, "post_attention_layernorm", HIDDEN, 0));
  for (size_t first = 0; first < positions; first += AT_ONCE) {
    size_t rows = positions - first < AT_ONCE ? positions - first : AT_ONCE;
    double *gate = multiply(x + first * HIDDEN, rows, tensor(0, "mlp.gate_proj", WIDTH, HIDDEN), WIDTH, HIDDEN);
    double *up = multiply(x + first * HIDDEN, rows, tensor(0, "mlp.up_proj", WIDTH, HIDDEN), WIDTH, HIDDEN);
    for (size_t i = 0; i < rows * WIDTH; i++) {
      double g = fmin(gate[i], 7), u = fmax(fmin(up[i], 7), -7);
      gate[i] = (u + 1) * g / (1 + exp(-1.702 * g));
    }
    add_to(h + first * HIDDEN, multiply(gate, rows, tensor(0, "mlp.down_proj", HIDDEN, WIDTH), HIDDEN, WIDTH),
           rows * HIDDEN);
    free(gate), free(up);
  }
  free(x);
}

/* Block ids, best first: the own block, then higher score, then lower id. */
static void rank(const double *scores, int count, int *ids) {
  for (int i = 0; i < count; i++) {
    int at = i;
    for (; at > 0 && scores[ids[at - 1]] < scores[i]; at--) ids[at] = ids[at - 1];
    ids[at] = i;
  }
}

static bool lists(const int32_t *ids, int32_t id) {
  for (int i = 0; i < CHOSEN; i++)
    if (ids[i] == id) return true;
  return false;
}

int main(int argc, char **argv) {
  sluice_safetensors *golden = NULL;
  sluice_status *status = argc == 2 ? sluice_safetensors_open(argv[1], &golden) : sluice_error(SLUICE_USAGE, "a file");
  if (status) {
    sluice_status_print(status);
    return 1;
  }
  const sluice_tensor_info *ids_info = sluice_safetensors_find(golden, "input_ids");
  const sluice_tensor_info *blocks_info = sluice_safetensors_find(golden, "prefill.layer.1.blocks");
  if (!ids_info || !blocks_info) return 1;
  const int32_t *ids = sluice_safetensors_data(golden, ids_info);
  const int32_t *blocks = sluice_safetensors_data(golden, blocks_info); /* [heads][positions][CHOSEN] */
  size_t positions = (size_t)ids_info->shape[0];
  if (positions > (size_t)MOST_BLOCKS * BLOCK) return 1;

  double *h = doubles(positions * HIDDEN);
  float *embed = tensor(-1, "embed_tokens", VOCABULARY, HIDDEN);
  for (size_t i = 0; i < positions * HIDDEN; i++) h[i] = embed[(size_t)ids[i / HIDDEN] * HIDDEN + i % HIDDEN];
  free(embed);
  attend(h, positions);
  feed_forward(h, positions);

  double *x = normalised(h, positions, tensor(1, "input_layernorm", HIDDEN, 0));
  double *q =
      multiply(x, positions, tensor(1, "self_attn.index_q_proj", KV_HEADS * DIM, HIDDEN), KV_HEADS * DIM, HIDDEN);
  double *k = multiply(x, positions, tensor(1, "self_attn.index_k_proj", DIM, HIDDEN), DIM, HIDDEN);
  rotate(q, positions, KV_HEADS, tensor(1, "self_attn.index_q_norm", DIM, 0));
  rotate(k, positions, 1, tensor(1, "self_attn.index_k_norm", DIM, 0));
  size_t different = 0;
  for (size_t position = 0; position < positions; position++)
    for (size_t head = 0; head < KV_HEADS; head++) {
      double scores[MOST_BLOCKS];
      int count = (int)(position / BLOCK) + 1, order[MOST_BLOCKS];
      for (int b = 0; b < count; b++) {
        scores[b] = -INFINITY;
        for (size_t j = (size_t)b * BLOCK; j < (size_t)(b + 1) * BLOCK && j <= position; j++)
          scores[b] = fmax(scores[b], dot(q + (position * KV_HEADS + head) * DIM, k + j * DIM, DIM));
      }
      scores[count - 1] = INFINITY;
      rank(scores, count, order);
      const int32_t *theirs = blocks + (head * positions + position) * CHOSEN;
      bool equal = true;
      for (int i = 0; i < CHOSEN && i < count; i++) equal = equal && lists(theirs, order[i]);
      different += !equal;
      if (count <= CHOSEN) continue;
      int in = order[CHOSEN - 1], out = order[CHOSEN];
      if (!equal || scores[in] - scores[out] < CLOSE)
        printf("position %zu, head %zu: block %d scores %.9f, block %d %.9f%s\n", position, head, in, scores[in], out,
               scores[out], equal ? "" : "; the golden file differs");
    }
  printf("%zu of %zu selections differ\n", different, positions * KV_HEADS);
  sluice_safetensors_close(golden);
  return 0;
}
