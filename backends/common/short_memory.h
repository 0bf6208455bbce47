/* LLVM and MLIR have no way to report that memory is short: they abort. This is how the process learns of it first. */
#ifndef BACKENDS_COMMON_SHORT_MEMORY_H
#define BACKENDS_COMMON_SHORT_MEMORY_H

/* `react` is called, in the thread at hand, when memory that LLVM, MLIR or C++ asks for is not there. It must end the
 * process, without memory of its own. A later call replaces it. */
void short_memory_react(void (*react)(void));

/* A reaction: the line of sluice_out_of_memory on standard error, no temporary files, exit code 1. */
void short_memory_exit(void);

#endif
