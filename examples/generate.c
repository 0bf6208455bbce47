/* Generates tokens with the sluice library: cc generate.c $(pkg-config --cflags --libs sluice)
 *
 *   generate BUNDLE WEIGHTS TOKEN...      e.g.  generate nano.sluice synthetic:1 1 17 42
 */
#include <sluice/runtime.h>

#include <stdio.h>
#include <stdlib.h>

static sluice_status *generate(const char *bundle, const char *weights, const int32_t *prompt, uint32_t prompt_count,
                               int new_tokens) {
  sluice_model *model = NULL;
  sluice_checkpoint *checkpoint = NULL;
  sluice_session *session = NULL;
  sluice_status *status = sluice_model_open(bundle, NULL, &model);
  if (!status) status = sluice_checkpoint_open(weights, &checkpoint);
  if (!status) status = sluice_model_load(model, checkpoint, NULL, NULL);
  if (!status) status = sluice_session_create(model, NULL, &session);

  int32_t sequence = -1, token = 0;
  if (!status) status = sluice_sequence_add(session, &sequence);
  for (int step = 0; !status && step < new_tokens; step++) {
    sluice_chunk chunk = {
        .sequence = sequence, .tokens = step ? &token : prompt, .count = step ? 1 : prompt_count, .logit_rows = 1};
    sluice_step_result result;
    status = sluice_step(session, &chunk, 1, &result);
    if (!status) {
      token = result.sampled[0];
      printf("%d%c", token, step + 1 < new_tokens ? ' ' : '\n');
    }
  }
  sluice_session_close(session);
  sluice_checkpoint_close(checkpoint);
  sluice_model_close(model);
  return status;
}

int main(int argc, char **argv) {
  int32_t prompt[256];
  if (argc < 4 || argc > 256) {
    fprintf(stderr, "usage: %s BUNDLE WEIGHTS TOKEN...\n", argv[0]);
    return 2;
  }
  for (int i = 3; i < argc; i++) prompt[i - 3] = (int32_t)strtol(argv[i], NULL, 10);
  sluice_status *status = generate(argv[1], argv[2], prompt, (uint32_t)(argc - 3), 16);
  sluice_status_print(status);
  int code = sluice_exit_code(status);
  sluice_status_free(status);
  return code;
}
