/* libFuzzer: the safetensors reader. An accepted file's tensors lie inside it, do not overlap, and can be found. The
 * first 8 bytes of a random input rarely are a length that fits, so the first byte chooses: 0 the file as it is;
 * otherwise the rest is a header, followed by that many times 16 bytes of data. */
#include "sluice/checkpoint.h"
#include "sluice/memory.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t length);

static void open_file(const uint8_t *bytes, size_t length) {
  sluice_safetensors *file = NULL;
  sluice_status *status = sluice_safetensors_open_memory(bytes, length, "fuzz.safetensors", &file);
  if (status) {
    if (!strstr(sluice_status_message(status), "fuzz.safetensors")) { /* else the file is the place */
      char *report = sluice_status_format(status);
      if (!report || !strstr(report, "fuzz.safetensors")) __builtin_trap();
      sluice_release(report);
    }
    sluice_status_free(status);
    return;
  }
  volatile uint8_t sum = 0;
  for (size_t i = 0; i < sluice_safetensors_count(file); i++) {
    const sluice_tensor_info *tensor = sluice_safetensors_tensor(file, i);
    const uint8_t *start = sluice_safetensors_data(file, tensor);
    if (sluice_safetensors_find(file, tensor->name) != tensor) __builtin_trap();
    if (start < bytes || tensor->bytes > length - (size_t)(start - bytes)) __builtin_trap();
    for (uint64_t b = 0; b < tensor->bytes; b++) sum = (uint8_t)(sum + start[b]);
  }
  sluice_safetensors_close(file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t length) {
  if (!length) return 0;
  const size_t rest = length - 1, tail = (size_t)data[0] * 16, total = data[0] ? 8 + rest + tail : rest;
  uint8_t *copy = sluice_allocate_aligned(64, total ? total : 1);
  if (!copy) return 0;
  if (data[0]) {
    for (int i = 0; i < 8; i++) copy[i] = (uint8_t)((uint64_t)rest >> (8 * i));
    memcpy(copy + 8, data + 1, rest);
    memset(copy + 8 + rest, 0x3f, tail);
  } else {
    memcpy(copy, data + 1, rest);
  }
  open_file(copy, total);
  sluice_release(copy);
  return 0;
}
