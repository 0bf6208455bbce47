#include "sluice/memory.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int (*allocation_hook)(void *user, size_t bytes);
static void *allocation_hook_user;
static size_t live_allocations;

static int refused(size_t bytes) {
  return allocation_hook && allocation_hook(allocation_hook_user, bytes);
}

static void *counted(void *memory) {
  if (memory) __atomic_fetch_add(&live_allocations, 1, __ATOMIC_RELAXED);
  return memory;
}

void *sluice_allocate_array(size_t count, size_t size) {
  size_t bytes;
  if (__builtin_mul_overflow(count, size, &bytes) || refused(bytes)) return NULL;
  return counted(calloc(1, bytes ? bytes : 1));
}

void *sluice_allocate(size_t bytes) {
  return sluice_allocate_array(1, bytes);
}

void *sluice_reallocate_array(void *memory, size_t count, size_t size) {
  size_t bytes;
  if (__builtin_mul_overflow(count, size, &bytes) || refused(bytes)) return NULL;
  void *grown = realloc(memory, bytes ? bytes : 1);
  return memory ? grown : counted(grown);
}

void *sluice_allocate_aligned(size_t alignment, size_t bytes) {
  if (refused(bytes)) return NULL;
  if (alignment < sizeof(void *)) alignment = sizeof(void *);
  if (bytes > SIZE_MAX - alignment) return NULL;
  size_t rounded = (bytes + alignment - 1) / alignment * alignment;
  return counted(aligned_alloc(alignment, rounded ? rounded : alignment));
}

char *sluice_copy_string(const char *text, size_t length) {
  if (length == SIZE_MAX) return NULL;
  char *copy = sluice_allocate_array(length + 1, 1);
  if (copy) memcpy(copy, text, length);
  return copy;
}

char *sluice_format_string(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  int length = vsnprintf(NULL, 0, format, arguments);
  va_end(arguments);
  char *text = length < 0 ? NULL : sluice_allocate_array((size_t)length + 1, 1);
  if (!text) return NULL;
  va_start(arguments, format);
  vsnprintf(text, (size_t)length + 1, format, arguments);
  va_end(arguments);
  return text;
}

void sluice_release(void *memory) {
  if (!memory) return;
  __atomic_fetch_sub(&live_allocations, 1, __ATOMIC_RELAXED);
  free(memory);
}

void sluice_set_allocation_hook(int (*should_fail)(void *user, size_t bytes), void *user) {
  allocation_hook = should_fail;
  allocation_hook_user = user;
}

size_t sluice_live_allocations(void) {
  return __atomic_load_n(&live_allocations, __ATOMIC_RELAXED);
}
