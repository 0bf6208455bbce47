/* libFuzzer: the configuration reader. Any bytes give a configuration or an error with a message, nothing else. */
#include "compiler/model_config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void ignore(void *user, const char *line) {
  (void)user;
  (void)line;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  model_config *config = NULL;
  sluice_status *status =
      model_config_parse(size ? (const char *)data : "", size, "config.json", ignore, NULL, &config);
  if (!status && config->layers * (config->layer[config->layers - 1].experts + 1) < 10000) {
    config_tensor *tensors;
    size_t count;
    status = model_config_tensors(config, &tensors, &count);
    config_tensors_free(tensors, count);
  }
  model_config_free(config);
  sluice_status_free(status);
  return 0;
}
