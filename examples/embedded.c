/* A model inside a C program, text in and text out:
 *
 *   sluice compile MODEL_DIR --emit=object -o m3.o          # m3.o and m3.h
 *   cc embedded.c m3.o $(pkg-config --cflags --libs sluice-text) -o embedded
 *   ./embedded MODEL_DIR "The compiler"
 */
#include "m3.h"

#include <sluice/runtime.h>
#include <sluice/tokenizer.h>

#include <stdio.h>
#include <string.h>

enum { NEW_TOKENS = 24 };

typedef struct program {
  sluice_model *model;
  sluice_checkpoint *checkpoint;
  sluice_session *session;
  sluice_tokenizer *tokenizer;
  sluice_encoder *encoder;
} program;

static sluice_status *open_all(program *p, const char *weights) {
  SLUICE_TRY(sluice_tokenizer_open(weights, &p->tokenizer));
  SLUICE_TRY(sluice_encoder_create(p->tokenizer, &p->encoder));
  SLUICE_TRY(sluice_model_open_memory(m3_bundle, sizeof m3_bundle, "m3", NULL, &p->model));
  SLUICE_TRY(sluice_checkpoint_open(weights, &p->checkpoint));
  SLUICE_TRY(sluice_model_load(p->model, p->checkpoint, NULL, NULL));
  return sluice_session_create(p->model, NULL, &p->session);
}

/* Prints each token's text as it comes. */
static sluice_status *generate(const program *p, const char *text) {
  const int32_t *ids;
  size_t count;
  int32_t sequence;
  SLUICE_TRY(sluice_encode(p->encoder, text, strlen(text), NULL, &ids, &count));
  SLUICE_TRY(sluice_sequence_add(p->session, &sequence));
  sluice_decoder decoder = {.tokenizer = p->tokenizer, .skip_special = true};
  sluice_text out = {0};
  sluice_chunk chunk = {.sequence = sequence, .tokens = ids, .count = (uint32_t)count, .logit_rows = 1};
  sluice_status *status = NULL;
  int32_t token;
  for (int i = 0; i < NEW_TOKENS; i++) {
    sluice_step_result result;
    status = sluice_step(p->session, &chunk, 1, &result);
    if (status) break;
    token = result.sampled[0];
    sluice_decode(&decoder, &token, 1, &out);
    fwrite(out.data, 1, out.length, stdout);
    out.length = 0;
    chunk = (sluice_chunk){.sequence = sequence, .tokens = &token, .count = 1, .logit_rows = 1};
  }
  sluice_decode_finish(&decoder, &out);
  printf("%s\n", out.length ? out.data : "");
  sluice_text_free(&out);
  return status;
}

int main(int argc, char **argv) {
  program p = {0};
  if (argc != 3) {
    fprintf(stderr, "usage: %s MODEL_DIR TEXT\n", argv[0]);
    return 2;
  }
  sluice_status *status = open_all(&p, argv[1]);
  if (!status) status = generate(&p, argv[2]);
  sluice_session_close(p.session);
  sluice_checkpoint_close(p.checkpoint);
  sluice_model_close(p.model);
  sluice_encoder_free(p.encoder);
  sluice_tokenizer_close(p.tokenizer);
  sluice_status_print(status);
  const int code = sluice_exit_code(status);
  sluice_status_free(status);
  return code;
}
