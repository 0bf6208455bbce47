/* Host memory. All allocations of sluice (compiler and runtime, but not those inside LLVM, MLIR and drivers) go through
 * these functions, so that tests can make the Nth one fail and count what is left over.
 *
 * Thread safety: all functions may be called from any thread; sluice_set_allocation_hook only while no other call runs.
 */
#ifndef SLUICE_MEMORY_H
#define SLUICE_MEMORY_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* `count` * `size` bytes, zeroed, aligned as malloc does. NULL when memory is short or the product overflows; never
 * NULL for an empty request that succeeds. */
void *sluice_allocate_array(size_t count, size_t size);

/* sluice_allocate_array(1, bytes). */
void *sluice_allocate(size_t bytes);

/* Grows or shrinks `memory` (NULL: allocates) to `count` * `size` bytes; new bytes are not zeroed. NULL when memory is
 * short or the product overflows, and `memory` is then untouched. */
void *sluice_reallocate_array(void *memory, size_t count, size_t size);

/* `bytes` bytes aligned to `alignment` (a power of two), not zeroed. Freed with sluice_release. */
void *sluice_allocate_aligned(size_t alignment, size_t bytes);

/* A copy of `text` (`length` bytes) with a terminator. */
char *sluice_copy_string(const char *text, size_t length);

/* printf into new memory; NULL when memory is short. */
char *sluice_format_string(const char *format, ...)
#if defined(__GNUC__)
    __attribute__((format(printf, 1, 2)))
#endif
    ;

void sluice_release(void *memory); /* NULL is allowed */

/* "12.3 GB" (powers of ten), for people. */
typedef struct sluice_bytes_text {
  char text[32];
} sluice_bytes_text;
sluice_bytes_text sluice_describe_bytes(uint64_t bytes);

/* For tests: `should_fail` is asked before every allocation, with `user`; non-zero makes that allocation fail. NULL
 * restores the default. */
void sluice_set_allocation_hook(int (*should_fail)(void *user, size_t bytes), void *user);

/* For tests: allocations that have not been released. */
size_t sluice_live_allocations(void);

#ifdef __cplusplus
}
#endif
#endif
